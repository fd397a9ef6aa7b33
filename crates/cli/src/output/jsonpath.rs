//! kubectl's JSONPath templates: text with `{.path}`, `{range .items[*]}…{end}`, `{"\n"}`, filters, slices, unions and
//! `..name`. Not supported: arithmetic, and functions.

mod parse;

use serde_json::Value;

/// A template.
#[derive(Debug)]
pub struct JsonPath(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Values(Path),
    Range(Path, Vec<Part>),
}

#[derive(Debug)]
struct Path {
    /// Begins at the whole document (`$`) even within a range.
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Union(Vec<Path>),
    All,
    Descend,
    Indices(Vec<i64>),
    Slice { from: Option<i64>, to: Option<i64>, step: i64 },
    Filter(Filter),
}

#[derive(Debug)]
struct Filter {
    left: Operand,
    /// The comparison; empty when the left side need only exist.
    operator: String,
    right: Option<Operand>,
}

#[derive(Debug)]
enum Operand {
    Path(Path),
    Literal(Value),
}

impl JsonPath {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("template format specified but no template given".to_owned());
        }
        parse::template(text).map(Self)
    }

    /// Reads a template, or a path without braces and perhaps without the first dot, as `--sort-by` takes them.
    pub fn relaxed(text: &str) -> Result<Self, String> {
        let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let dot = if inner.starts_with(['.', '[', '$']) { "" } else { "." };
        Self::parse(&format!("{{{dot}{inner}}}"))
    }

    /// Fills in the template. What is not there is left out.
    pub fn render(&self, root: &Value) -> String {
        let mut out = String::new();
        render(&self.0, root, root, &mut out);
        out
    }

    /// The values of the first path.
    pub fn values<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.0
            .iter()
            .find_map(|part| match part {
                Part::Values(path) => Some(path.values(root, root)),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// The values in one cell, joined by commas.
    pub fn cell(&self, root: &Value) -> String {
        let texts: Vec<_> = self.values(root).into_iter().map(text).collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
    }
}

fn render(parts: &[Part], root: &Value, current: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Values(path) => {
                let texts: Vec<_> = path.values(root, current).into_iter().map(text).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range(path, body) => {
                for value in path.values(root, current) {
                    render(body, root, value, out);
                }
            }
        }
    }
}

/// Strings stand for themselves, everything else is JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Path {
    fn values<'a>(&self, root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
        let mut values = vec![if self.from_root { root } else { current }];
        for step in &self.steps {
            values = values.into_iter().flat_map(|value| step.of(root, value)).collect();
        }
        values
    }
}

impl Step {
    fn of<'a>(&self, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Union(paths) => paths.iter().flat_map(|path| path.values(root, value)).collect(),
            Self::All => children(value),
            Self::Descend => {
                let mut all = Vec::new();
                descend(value, &mut all);
                all
            }
            Self::Indices(indices) => {
                let Some(items) = value.as_array() else { return Vec::new() };
                indices.iter().filter_map(|at| items.get(index(*at, items.len())?)).collect()
            }
            Self::Slice { from, to, step } => slice(value, *from, *to, *step),
            Self::Filter(filter) => {
                children(value).into_iter().filter(|child| filter.holds(root, child)).collect()
            }
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(value);
    for child in children(value) {
        descend(child, all);
    }
}

fn index(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { at + length } else { at }).ok()
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let Some(items) = value.as_array() else { return Vec::new() };
    let bound = |at: i64| index(at, items.len()).unwrap_or(0).min(items.len());
    let (from, to) = (bound(from.unwrap_or(0)), to.map_or(items.len(), bound));
    let step = usize::try_from(step).unwrap_or(1).max(1);
    items.get(from..to).into_iter().flatten().step_by(step).collect()
}

impl Filter {
    fn holds(&self, root: &Value, value: &Value) -> bool {
        let left = self.left.of(root, value);
        let Some(right) = &self.right else { return left.is_some() };
        let (Some(left), Some(right)) = (left, right.of(root, value)) else { return false };
        let order = match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => Some(text(left).cmp(&text(right))),
        };
        let Some(order) = order else { return false };
        match self.operator.as_str() {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        }
    }
}

impl Operand {
    fn of<'a>(&'a self, root: &'a Value, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Path(path) => path.values(root, value).first().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::JsonPath;

    fn check(template: &str, expected: Expect) {
        let document = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "spec": {"n": 1, "on": true},
             "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "No"}]}},
            {"metadata": {"name": "b"}, "spec": {"n": 2, "list": ["p", "q", "r"]}},
        ]});
        let rendered = JsonPath::parse(template).map(|path| path.render(&document));
        expected.assert_eq(&rendered.unwrap_or_else(|error| format!("error: {error}")));
    }

    #[test]
    fn templates() {
        check("{.items[*].metadata.name}", expect!["a b"]);
        check("{$.kind}: {['items'][0]['metadata'].name}", expect!["List: a"]);
        check(r#"{range .items[*]}{.metadata.name}{"\t"}{.spec.n}{"\n"}{end}"#, expect!["a\t1\nb\t2\n"]);
        check(r#"{.items[?(@.metadata.name=="b")].spec.n}"#, expect!["2"]);
        check("{.items[?(@.spec.n>1)].metadata.name}", expect!["b"]);
        check("{.items[?(@.spec.list)].metadata.name}", expect!["b"]);
        check("{.items[?(@.spec.on==true)].metadata.name}", expect!["a"]);
        check("{.items[0].status.conditions[?(@.type=='Ready')].status}", expect!["True"]);
        check(r"{.items[0].metadata.labels.app\.kubernetes\.io/name}", expect!["x"]);
        check("{.items[-1].metadata.name}", expect!["b"]);
        check("{.items[1].spec.list[0:2]}", expect!["p q"]);
        check("{.items[1].spec.list[0,2]}", expect!["p r"]);
        check("{..name}", expect!["a b"]);
        check("{.items[0].spec}", expect![[r#"{"n":1,"on":true}"#]]);
        check("{.items[0]['metadata.name','spec.n']}", expect!["a 1"]);
        check("{.nothing}x", expect!["x"]);
        check("{range .items[*]}{.metadata.name}", expect!["error: unclosed {range}"]);
        check("{.items[}", expect![[r#"error: unclosed action in "{.items[}""#]]);
    }

    #[test]
    fn paths_without_braces() {
        let path =
            JsonPath::relaxed("metadata.name").map(|path| path.cell(&json!({"metadata": {"name": "n"}})));
        assert_eq!(path.as_deref(), Ok("n"));
    }
}
