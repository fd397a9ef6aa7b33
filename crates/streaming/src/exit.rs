//! What is said in JSON on the error and resize channels.

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest resize message that is not complete yet.
const RESIZE_MAX: usize = 4 << 10;

/// The status of a process that ran to its end.
pub fn exited(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status of a process that could not be started or watched.
pub fn failed(text: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {text}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    })
}

/// The size of the client's terminal.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// One resize message: columns and rows.
pub fn resize(columns: u16, rows: u16) -> Vec<u8> {
    json!({"Width": columns, "Height": rows}).to_string().into_bytes()
}

/// Reads the sizes from a stream of JSON values that may be cut anywhere.
#[derive(Default)]
pub struct Sizes {
    rest: Vec<u8>,
}

impl Sizes {
    /// Takes more of the stream and gives the last size that is complete. What is no size is skipped.
    pub fn push(&mut self, bytes: &[u8]) -> Option<(u16, u16)> {
        self.rest.extend_from_slice(&bytes[..bytes.len().min(RESIZE_MAX)]);
        let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Size>();
        let (mut last, mut broken) = (None, false);
        for value in values.by_ref() {
            match value {
                Ok(size) => last = Some((size.width, size.height)),
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
        }
        let read = values.byte_offset();
        if broken || self.rest.len() - read > RESIZE_MAX {
            self.rest.clear();
        } else {
            self.rest.drain(..read);
        }
        last
    }
}
