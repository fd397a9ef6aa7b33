//! The query string. Known options are checked, unknown ones are ignored, as upstream does.

use client::{ListOptions, WatchOptions, WriteOptions};
use machinery::Status;
use percent_encoding::percent_decode_str;

/// The options of every verb, parsed once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pairs: Vec<(String, String)>,
    pub watch: bool,
    pub pretty: bool,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: u64,
    pub dry_run: bool,
    pub force: bool,
    pub limit: u64,
}

impl Query {
    /// Parses a raw query string.
    pub fn parse(raw: &str) -> Result<Self, Status> {
        let mut query = Self { pairs: pairs(raw), ..Self::default() };
        query.watch = query.flag("watch")?.unwrap_or(false);
        query.pretty = query.flag("pretty").unwrap_or(None).unwrap_or(false);
        query.bookmarks = query.flag("allowWatchBookmarks")?.unwrap_or(false);
        query.send_initial_events = query.flag("sendInitialEvents")?;
        query.timeout_seconds = query.number("timeoutSeconds")?;
        query.limit = query.number("limit")?;
        query.force = query.flag("force")?.unwrap_or(false);
        query.dry_run = dry_run(&query)?;
        Ok(query)
    }

    /// The first value of an option; empty when absent.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Every value of an option.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the option occurs.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// A Boolean in Go's spellings; an option without a value is true.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Status> {
        match self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(value) => Err(Status::bad_request(format!(
                "strconv.ParseBool: parsing {value:?}: invalid syntax (option {name})"
            ))),
        }
    }

    fn number(&self, name: &str) -> Result<u64, Status> {
        match self.get(name) {
            "" => Ok(0),
            text => text.parse().map_err(|_not_a_number| {
                Status::bad_request(format!(
                    "strconv.ParseUint: parsing {text:?}: invalid syntax (option {name})"
                ))
            }),
        }
    }

    /// The options of get and list.
    pub fn list_options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            resource_version_match: self.get("resourceVersionMatch").to_owned(),
            limit: self.limit,
            continue_token: self.get("continue").to_owned(),
        }
    }

    /// The options of watch.
    pub fn watch_options(&self) -> Result<WatchOptions, Status> {
        let version_match = self.get("resourceVersionMatch");
        match self.send_initial_events {
            Some(_) if version_match != "NotOlderThan" => {
                return Err(invalid_list_options(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            None if !version_match.is_empty() => {
                return Err(invalid_list_options(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            Some(_) | None => {}
        }
        Ok(WatchOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            bookmarks: self.bookmarks,
            send_initial_events: self.send_initial_events.unwrap_or(false),
            timeout_seconds: self.timeout_seconds,
        })
    }

    /// The options of writes. `user_agent` names the field manager when the caller does not.
    pub fn write_options(&self, user_agent: &str) -> Result<WriteOptions, Status> {
        let field_validation = self.get("fieldValidation");
        if !matches!(field_validation, "" | "Ignore" | "Warn" | "Strict") {
            return Err(Status::failure(
                422,
                "Invalid",
                format!(
                    "fieldValidation: Unsupported value: {field_validation:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                ),
            ));
        }
        let manager = match self.get("fieldManager") {
            "" => manager_from_user_agent(user_agent),
            manager if manager.len() > 128 => {
                return Err(Status::failure(
                    422,
                    "Invalid",
                    "fieldManager: Too long: may not be more than 128 bytes",
                ));
            }
            manager => manager.to_owned(),
        };
        Ok(WriteOptions {
            dry_run: self.dry_run,
            field_manager: manager,
            field_validation: field_validation.to_owned(),
            force: self.force,
        })
    }

    /// The pairs except those named, as a query string; for requests that are passed on.
    pub fn without(&self, names: &[&str]) -> String {
        let kept = self.pairs.iter().filter(|(key, _)| !names.contains(&key.as_str()));
        kept.map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect::<Vec<_>>().join("&")
    }
}

/// Percent-encodes a value for a query string.
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// 422 of `meta.k8s.io ListOptions`.
fn invalid_list_options(detail: &str) -> Status {
    Status::failure(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {detail}"))
}

/// What stands before the first slash of the user agent.
fn manager_from_user_agent(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default().trim();
    let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

fn dry_run(query: &Query) -> Result<bool, Status> {
    let mut dry = false;
    for value in query.all("dryRun") {
        match value {
            "All" => dry = true,
            "" => {}
            other => {
                return Err(Status::failure(
                    422,
                    "Invalid",
                    format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""),
                ));
            }
        }
    }
    Ok(dry)
}

fn pairs(raw: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    raw.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let query =
            Query::parse("labelSelector=a%3Db&limit=5&watch&dryRun=All&command=ls&command=-l").unwrap();
        assert_eq!(query.list_options().label_selector, "a=b");
        assert_eq!((query.limit, query.watch, query.dry_run), (5, true, true));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert_eq!(query.without(&["limit", "labelSelector", "watch", "dryRun"]), "command=ls&command=%2Dl");
    }

    #[test]
    fn bad_options_are_refused() {
        for raw in ["limit=x", "watch=maybe", "dryRun=Some", "timeoutSeconds=-1"] {
            assert!(Query::parse(raw).is_err(), "{raw}");
        }
        assert!(Query::parse("fieldValidation=Loose").unwrap().write_options("").is_err());
        assert!(Query::parse("sendInitialEvents=true").unwrap().watch_options().is_err());
    }

    #[test]
    fn the_manager_is_the_agent() {
        let manager = |agent| Query::default().write_options(agent).unwrap().field_manager;
        assert_eq!(manager("kubectl/v1.36.0 (linux/amd64)"), "kubectl");
        assert_eq!(manager(""), "unknown");
    }
}
