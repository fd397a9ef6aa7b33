//! The grammar of the query forms.

use super::{Operator, Requirement, SelectorError, validate_label_key, validate_label_value};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `=`, `==`, `!=`, `>`, `<`, `!`, `(`, `)`, `,`
    Sign(&'static str),
    End,
}

struct Lexer<'a> {
    rest: &'a str,
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", ">", "<", "(", ")", ","];

impl Lexer<'_> {
    fn next(&mut self) -> Token {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Token::End;
        }
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) {
            self.rest = &self.rest[sign.len()..];
            return Token::Sign(sign);
        }
        let ends = |c: char| c.is_whitespace() || "=!><(),".contains(c);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word.to_owned())
    }

    fn peek(&mut self) -> Token {
        let before = self.rest;
        let token = self.next();
        self.rest = before;
        token
    }
}

fn found(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => String::new(),
    }
}

fn expected(token: &Token, what: &str) -> SelectorError {
    SelectorError(format!("found '{}', expected: {what}", found(token)))
}

pub fn labels(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    if lexer.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(requirement(&mut lexer)?);
        match lexer.next() {
            Token::End => break,
            Token::Sign(",") => match lexer.peek() {
                Token::Word(_) | Token::Sign("!") => {}
                other => return Err(expected(&other, "identifier after ','")),
            },
            other => return Err(expected(&other, "',' or 'end of string'")),
        }
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(requirements)
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, SelectorError> {
    let negated = lexer.peek() == Token::Sign("!");
    if negated {
        lexer.next();
    }
    let key = match lexer.next() {
        Token::Word(word) => word,
        other => return Err(expected(&other, "identifier")),
    };
    validate_label_key(&key)
        .map_err(|cause| SelectorError(format!("key: Invalid value: {key:?}: {cause}")))?;
    if negated {
        return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
    }
    let Some(operator) = operator(lexer)? else {
        return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
    };
    let values = match operator {
        Operator::In | Operator::NotIn => set(lexer)?,
        _ => vec![single(lexer)?],
    };
    check_values(&key, operator, &values)?;
    Ok(Requirement { key, operator, values })
}

/// The operator; `None` when the key stands alone.
fn operator(lexer: &mut Lexer<'_>) -> Result<Option<Operator>, SelectorError> {
    if matches!(lexer.peek(), Token::End | Token::Sign(",")) {
        return Ok(None);
    }
    let token = lexer.next();
    let operator = match &token {
        Token::Sign("=" | "==") => Operator::Equals,
        Token::Sign("!=") => Operator::NotEquals,
        Token::Sign(">") => Operator::GreaterThan,
        Token::Sign("<") => Operator::LessThan,
        Token::Word(word) if word == "in" => Operator::In,
        Token::Word(word) if word == "notin" => Operator::NotIn,
        other => return Err(expected(other, "in, notin, =, ==, !=, gt, lt")),
    };
    Ok(Some(operator))
}

fn single(lexer: &mut Lexer<'_>) -> Result<String, SelectorError> {
    match lexer.peek() {
        // `a=` asks for the empty value.
        Token::End | Token::Sign(",") => Ok(String::new()),
        Token::Word(word) => {
            lexer.next();
            Ok(word)
        }
        other => Err(expected(&other, "identifier")),
    }
}

fn set(lexer: &mut Lexer<'_>) -> Result<Vec<String>, SelectorError> {
    match lexer.next() {
        Token::Sign("(") => {}
        other => return Err(expected(&other, "'('")),
    }
    let mut values = Vec::new();
    let mut value = String::new();
    loop {
        match lexer.next() {
            Token::Word(word) if value.is_empty() => value = word,
            Token::Sign(",") => values.push(std::mem::take(&mut value)),
            Token::Sign(")") => {
                values.push(value);
                return Ok(values);
            }
            other => return Err(expected(&other, "',' or ')'")),
        }
    }
}

fn check_values(key: &str, operator: Operator, values: &[String]) -> Result<(), SelectorError> {
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) && values[0].parse::<i64>().is_err() {
        let value = &values[0];
        let text = format!(
            "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        );
        return Err(SelectorError(text));
    }
    for (index, value) in values.iter().enumerate() {
        validate_label_value(value).map_err(|cause| {
            SelectorError(format!("values[{index}][{key}]: Invalid value: {value:?}: {cause}"))
        })?;
    }
    Ok(())
}

/// `(field, equals, value)` for each term.
pub fn fields(text: &str) -> Result<Vec<(String, bool, String)>, SelectorError> {
    let terms = split_terms(text);
    terms.iter().filter(|term| !term.is_empty()).map(|term| field_term(term)).collect()
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn field_term(term: &str) -> Result<(String, bool, String), SelectorError> {
    let at = term.find(['=', '!']);
    let (field, rest) = at.map(|at| term.split_at(at)).ok_or_else(|| invalid_term(term))?;
    let (equals, value) = match rest {
        rest if rest.starts_with("!=") => (false, &rest[2..]),
        rest if rest.starts_with("==") => (true, &rest[2..]),
        rest if rest.starts_with('=') => (true, &rest[1..]),
        _ => return Err(invalid_term(term)),
    };
    Ok((field.to_owned(), equals, unescape(value)?))
}

fn invalid_term(term: &str) -> SelectorError {
    SelectorError(format!("can't understand '{term}'"))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{shown}"
                    )));
                }
            },
            '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in {value}: ="
                )));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}

pub fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
