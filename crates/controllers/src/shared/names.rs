//! Short names made from contents.

use serde_json::Value;

/// The alphabet of generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over a value; the same value gives the same name on every run, until `collisions` asks for another.
pub fn hash(value: &Value, collisions: i32) -> String {
    let text = format!("{value}/{collisions}");
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(ALPHABET[(state % ALPHABET.len() as u64) as usize]));
        state /= ALPHABET.len() as u64;
    }
    name
}
