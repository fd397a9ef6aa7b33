//! What label keys and values may be (`k8s.io/apimachinery/pkg/util/validation`).

const NAME_MAX: usize = 63;
const PREFIX_MAX: usize = 253;

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const PREFIX_RULE: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// A qualified name: `app`, `example.com/app`. Keys of labels and annotations, finalizers, conditions.
pub fn validate_label_key(key: &str) -> Result<(), String> {
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            validate_prefix(prefix)?;
            name
        }
        _ => {
            return Err(format!(
                "a qualified name {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
    };
    match name.len() {
        0 => Err("name part must be non-empty".to_owned()),
        length if length > NAME_MAX => Err(format!("name part must be no more than {NAME_MAX} bytes")),
        _ if !is_name(name) => Err(format!("name part {NAME_RULE}")),
        _ => Ok(()),
    }
}

fn validate_prefix(prefix: &str) -> Result<(), String> {
    match prefix.len() {
        0 => Err("prefix part must be non-empty".to_owned()),
        length if length > PREFIX_MAX => Err(format!("prefix part must be no more than {PREFIX_MAX} bytes")),
        _ if !prefix.split('.').all(is_lower_label) => Err(PREFIX_RULE.to_owned()),
        _ => Ok(()),
    }
}

/// The value of a label.
pub fn validate_label_value(value: &str) -> Result<(), String> {
    if value.len() > NAME_MAX {
        return Err(format!("must be no more than {NAME_MAX} bytes"));
    }
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(VALUE_RULE.to_owned()) }
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_lower_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}
