//! YAML as `kubectl` and go-yaml v2 read and write it: YAML 1.1 booleans and octal numbers, several documents, merge keys.

mod read;
mod write;

pub use read::{YamlError, duplicate_keys, to_values, to_values_strict};
pub use write::from_value;
