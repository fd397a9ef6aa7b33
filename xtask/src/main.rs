//! Chores of this repository: `cargo run -p xtask -- facts API-FACTS.json`.

mod facts;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["facts", path] => facts::write(path.as_ref()),
        _ => Err("usage: xtask facts API-FACTS.json".into()),
    }
}
