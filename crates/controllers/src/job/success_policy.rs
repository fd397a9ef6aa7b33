//! `successPolicy`: when an indexed job has succeeded before all its indexes have (KEP-3998).

use k8s_openapi::api::batch::v1::SuccessPolicy;

use super::Indexes;

/// The message of the first rule that is met.
pub fn judge(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let met = |rule: &&k8s_openapi::api::batch::v1::SuccessPolicyRule| match &rule.succeeded_indexes {
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let reached = wanted.iter().filter(|index| succeeded.contains(*index)).count();
            let reached = i32::try_from(reached).unwrap_or(i32::MAX);
            reached >= rule.succeeded_count.unwrap_or(wanted.len())
        }
    };
    let (at, _) = rules.iter().enumerate().find(|(_, rule)| met(rule))?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules() {
        for (rule, succeeded, met) in [
            (json!({"succeededCount": 2}), "0", false),
            (json!({"succeededCount": 2}), "0,3", true),
            (json!({"succeededIndexes": "1-2"}), "1", false),
            (json!({"succeededIndexes": "1-2"}), "1,2", true),
            (json!({"succeededIndexes": "1-3", "succeededCount": 1}), "0,2", true),
            (json!({"succeededIndexes": "1-3", "succeededCount": 2}), "0,2", false),
        ] {
            let policy = serde_json::from_value(json!({"rules": [{"succeededIndexes": "4"}, rule]})).unwrap();
            let message = judge(Some(&policy), 5, &Indexes::parse(succeeded, 5));
            assert_eq!(message, met.then(|| "Matched rules at index 1".to_owned()), "{rule} {succeeded}");
        }
        assert_eq!(judge(None, 5, &Indexes::parse("0-4", 5)), None);
    }
}
