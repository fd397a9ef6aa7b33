use std::collections::BTreeMap;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn label_selectors_select() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("size", "5"), ("empty", "")]);
    for (text, wanted) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("missing!=x", true),
        ("app in (web, db)", true),
        ("app notin (web)", false),
        ("missing notin (web)", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("size>4", true),
        ("size<5", false),
        ("app>1", false),
        ("empty=", true),
        ("app=", false),
        ("empty in (,x)", true),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), wanted, "{text}");
    }
}

#[test]
fn broken_label_selectors_say_what_is_wrong() {
    for (text, wanted) in [
        ("a,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in x", "found 'x', expected: '('"),
        ("a in (x", "found '', expected: ',' or ')'"),
        ("a>b", "values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"),
        ("=b", "found '=', expected: identifier"),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), wanted, "{text}");
    }
    assert!(LabelSelector::parse("-a=b").is_err());
    assert!(LabelSelector::parse("a=-b").is_err());
}

#[test]
fn selectors_print_what_they_read() {
    for text in ["a=b", "a!=b", "a in (x,y),b notin (z)", "a,!b", "a>1,b<2"] {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), text);
    }
    for text in ["metadata.name=a", "a!=b,c=d", r"a=b\,c\=d\\e"] {
        assert_eq!(FieldSelector::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn field_selectors_select() {
    let value_of = |field: &str| if field == "spec.nodeName" { "n1" } else { "" };
    for (text, wanted) in [
        ("spec.nodeName=n1", true),
        ("spec.nodeName==n1", true),
        ("spec.nodeName!=n1", false),
        ("other=", true),
        ("spec.nodeName=n1,other!=x", true),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(value_of), wanted, "{text}");
    }
    assert!(FieldSelector::parse("a").is_err());
    assert!(FieldSelector::parse(r"a=\x").is_err());
}

#[test]
fn the_structured_form_means_the_same() {
    let value = serde_json::json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "x", "operator": "DoesNotExist"}],
    });
    let selector = LabelSelector::from_value(&value).unwrap();
    assert_eq!(selector.to_string(), "app=web,tier notin (db),!x");
    assert!(selector.matches(&labels(&[("app", "web")])));
    assert!(!selector.matches(&labels(&[("app", "web"), ("x", "")])));
    let bad = serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
    assert_eq!(
        LabelSelector::from_value(&bad).unwrap_err().to_string(),
        "\"Like\" is not a valid label selector operator"
    );
}
