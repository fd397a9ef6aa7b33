//! `label` and `annotate`.

use serde_json::{Map, Value, json};

use crate::api::with_query;
use crate::arguments::{DryRun, Files, Selector, Writing};
use crate::output::{Format, Printing};
use crate::selection::{self, Item};
use crate::session::{Session, media};
use crate::{Error, error};

/// Changes labels or annotations.
#[derive(clap::Args)]
pub struct Label {
    /// TYPE NAME… KEY=VALUE… KEY-…
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    #[arg(long)]
    all: bool,
    /// Change values that are set already.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    overwrite: bool,
    /// Print what is set.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    printing: Printing,
}

/// Which of the two.
#[derive(Clone, Copy)]
pub struct Words {
    field: &'static str,
    noun: &'static str,
    done: &'static str,
    undone: &'static str,
    nothing: &'static str,
    manager: &'static str,
}

pub const LABELS: Words = Words {
    field: "labels",
    noun: "label",
    done: "labeled",
    undone: "unlabeled",
    nothing: "not labeled",
    manager: "kubectl-label",
};

pub const ANNOTATIONS: Words = Words {
    field: "annotations",
    noun: "annotation",
    done: "annotated",
    undone: "annotated",
    nothing: "annotated",
    manager: "kubectl-annotate",
};

/// What is to be set and removed.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// Parts the arguments that name resources from those that say what to change.
fn split(arguments: &[String], words: Words) -> Result<(Vec<String>, Changes), Error> {
    let (mut resources, mut changes) = (Vec::new(), Changes::default());
    for argument in arguments {
        if let Some((key, value)) = argument.split_once('=') {
            changes.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = argument.strip_suffix('-') {
            changes.remove.push(key.to_owned());
        } else if changes == Changes::default() {
            resources.push(argument.clone());
        } else {
            return Err(Error::usage(format!(
                "all resources must be specified before {} changes: {argument}",
                words.noun
            )));
        }
    }
    if let Some((key, _)) = changes.set.iter().find(|(key, _)| changes.remove.contains(key)) {
        return Err(Error::usage(format!(
            "can not both modify and remove {} in the same command: {key}",
            words.noun
        )));
    }
    Ok((resources, changes))
}

impl Label {
    pub async fn run(self, session: &Session, words: Words) -> Result<(), Error> {
        let (resources, changes) = split(&self.arguments, words)?;
        if changes == Changes::default() && !self.list {
            return Err(Error::usage(format!("at least one {} update is required", words.noun)));
        }
        let (items, mut errors) =
            selection::present(session, &resources, &self.files, &self.selector, self.all).await?;
        for item in items {
            errors.extend(self.one(session, words, &item, &changes).await.err());
        }
        error::all(errors)
    }

    async fn one(
        &self,
        session: &Session,
        words: Words,
        item: &Item,
        changes: &Changes,
    ) -> Result<(), Error> {
        let present = item.object["metadata"][words.field].as_object().cloned().unwrap_or_default();
        if self.list && *changes == Changes::default() {
            let lines =
                present.iter().map(|(key, value)| format!("{key}={}\n", value.as_str().unwrap_or_default()));
            return session.out.text(&lines.collect::<String>());
        }
        let patch = self.patch(words, &present, changes)?;
        for key in changes.remove.iter().filter(|key| !present.contains_key(*key)) {
            session.out.line(format!("{} {key:?} not found.", words.noun))?;
        }
        let removed_only = changes.set.is_empty() && !patch.is_empty();
        let verb = match patch.is_empty() {
            true => words.nothing,
            false if removed_only => words.undone,
            false => words.done,
        };
        let body = json!({"metadata": {(words.field): patch}});
        let changed = match self.writing.dry_run {
            DryRun::Client => machinery::patch::merge_patch(&item.object, &body),
            _ if patch.is_empty() => item.object.clone(),
            _ => {
                let path = with_query(&item.path(""), &self.writing.parameters(words.manager));
                session.patch(&path, media::MERGE, &body).await?
            }
        };
        let message = format!("{} {verb}{}", item.label(), self.writing.dry_run.suffix());
        match self.printing.format()? {
            Format::Human | Format::Wide => session.out.line(message),
            _ => self.printing.object(session, changed, &message),
        }
    }

    /// The fields that change; `null` removes one.
    fn patch(
        &self,
        words: Words,
        present: &Map<String, Value>,
        changes: &Changes,
    ) -> Result<Map<String, Value>, Error> {
        let mut patch = Map::new();
        for (key, value) in &changes.set {
            match present.get(key).and_then(Value::as_str) {
                Some(old) if old == value => {}
                Some(old) if !self.overwrite && words.field == LABELS.field => {
                    return Err(Error::usage(format!(
                        "'{key}' already has a value ({old}), and --overwrite is false"
                    )));
                }
                Some(_) if !self.overwrite => {
                    return Err(Error::usage(format!(
                        "--overwrite is false but found the following declared annotation(s): '{key}' already has a value"
                    )));
                }
                _ => {
                    patch.insert(key.clone(), Value::from(value.as_str()));
                }
            }
        }
        let gone = changes.remove.iter().filter(|key| present.contains_key(*key));
        patch.extend(gone.map(|key| (key.clone(), Value::Null)));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{LABELS, split};

    fn check(arguments: &[&str], expected: Expect) {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let split = split(&arguments, LABELS).map_err(|error| error.to_string());
        expected.assert_eq(&format!("{split:?}"));
    }

    #[test]
    fn resources_come_before_changes() {
        check(
            &["pod", "web", "a=b", "c-"],
            expect![[r#"Ok((["pod", "web"], Changes { set: [("a", "b")], remove: ["c"] }))"#]],
        );
        check(
            &["pod", "a=b", "web"],
            expect![[r#"Err("error: all resources must be specified before label changes: web")"#]],
        );
        check(
            &["pod", "a=b", "a-"],
            expect![[r#"Err("error: can not both modify and remove label in the same command: a")"#]],
        );
    }
}
