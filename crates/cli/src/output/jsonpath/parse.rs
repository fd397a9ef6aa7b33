//! Reading templates.

use serde_json::Value;

use super::{Filter, Operand, Part, Path, Step};

/// Reads a whole template.
pub fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut open: Vec<(Path, Vec<Part>)> = Vec::new();
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        let after = &rest[start + 1..];
        let end = closing(after, '}').ok_or_else(|| format!("unclosed action in {text:?}"))?;
        let action = after[..end].trim();
        rest = &after[end + 1..];
        if let Some(of) = action.strip_prefix("range ") {
            open.push((path(of.trim())?, std::mem::take(&mut parts)));
        } else if action == "end" {
            let (of, outer) = open.pop().ok_or("not in range, nothing to end")?;
            let body = std::mem::replace(&mut parts, outer);
            parts.push(Part::Range(of, body));
        } else if action.starts_with(['"', '\'']) {
            parts.push(Part::Text(unquote(action)?));
        } else {
            parts.push(Part::Values(path(action)?));
        }
    }
    if !open.is_empty() {
        return Err("unclosed {range}".to_owned());
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Where a bracket closes, quotes and inner brackets passed over.
fn closing(text: &str, close: char) -> Option<usize> {
    let (mut quote, mut depth, mut escaped) = (None, 0, false);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(mark), character) if mark == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, character) if character == close && depth == 0 => return Some(at),
            (None, '[' | '(' | '{') => depth += 1,
            (None, ']' | ')' | '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Result<String, String> {
    let mark = text.chars().next().unwrap_or('"');
    let inner = text.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    let inner = inner.ok_or_else(|| format!("unterminated quoted string in {text:?}"))?;
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    Ok(out)
}

/// Reads `.a.b[0]`, `$..c`, `@.d`, `['e']`.
pub fn path(text: &str) -> Result<Path, String> {
    let from_root = text.starts_with('$');
    let mut rest = text.trim_start_matches(['$', '@']);
    let mut steps = Vec::new();
    while let Some(character) = rest.chars().next() {
        if character == '[' {
            let end = closing(&rest[1..], ']').ok_or_else(|| format!("unterminated array in {text:?}"))?;
            steps.push(bracket(rest[1..=end].trim())?);
            rest = &rest[end + 2..];
            continue;
        }
        if character == '.' {
            rest = &rest[1..];
            if rest.starts_with('.') {
                steps.push(Step::Descend);
                continue;
            }
            if rest.is_empty() || rest.starts_with('[') {
                continue;
            }
        } else if !steps.is_empty() || character.is_whitespace() {
            return Err(format!("unexpected {character:?} in {text:?}"));
        }
        let (name, after) = field(rest);
        steps.push(if name == "*" { Step::All } else { Step::Field(name) });
        rest = after;
    }
    Ok(Path { from_root, steps })
}

/// A name up to the next unescaped dot or bracket.
fn field(text: &str) -> (String, &str) {
    let (mut name, mut escaped) = (String::new(), false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {
                name.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (name, &text[at..]),
            _ if character.is_whitespace() => return (name, &text[at..]),
            _ => name.push(character),
        }
    }
    (name, "")
}

fn bracket(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(inner) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(inner).map(Step::Filter);
    }
    if text.starts_with(['"', '\'']) {
        return quoted(text);
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("invalid array index {text}"));
    let optional = |text: Option<&str>| match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => number(text).map(Some),
    };
    if text.contains(':') {
        let mut bounds = text.split(':');
        let (from, to) = (optional(bounds.next())?, optional(bounds.next())?);
        return Ok(Step::Slice { from, to, step: optional(bounds.next())?.unwrap_or(1) });
    }
    text.split(',').map(number).collect::<Result<_, _>>().map(Step::Indices)
}

/// `'a'`, or a union of names; the names of a union may be paths.
fn quoted(text: &str) -> Result<Step, String> {
    let names: Vec<String> = text.split(',').map(|name| unquote(name.trim())).collect::<Result<_, _>>()?;
    match <[String; 1]>::try_from(names) {
        Ok([name]) => Ok(Step::Field(name)),
        Err(names) => names.iter().map(|name| path(name)).collect::<Result<_, _>>().map(Step::Union),
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    for operator in ["==", "!=", "<=", ">=", "<", ">"] {
        if let Some((left, right)) = split_outside(text, operator) {
            let right = Some(operand(right.trim())?);
            return Ok(Filter { left: operand(left.trim())?, operator: operator.to_owned(), right });
        }
    }
    Ok(Filter { left: operand(text.trim())?, operator: String::new(), right: None })
}

/// Splits at an operator that stands in no quotes.
fn split_outside<'a>(text: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(mark), character) if mark == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, _) if text[at..].starts_with(operator) => {
                return Some((&text[..at], &text[at + operator.len()..]));
            }
            _ => {}
        }
    }
    None
}

fn operand(text: &str) -> Result<Operand, String> {
    if text.starts_with(['@', '$', '.']) {
        return path(text).map(Operand::Path);
    }
    if text.starts_with(['"', '\'']) {
        return unquote(text).map(|text| Operand::Literal(Value::from(text)));
    }
    let literal =
        serde_json::from_str(text).map_err(|_| format!("unrecognized operand {text:?} in a filter"))?;
    Ok(Operand::Literal(literal))
}
