//! Chores of this repository.

mod bench;
mod conformance;
mod facts;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

/// Why a chore failed.
pub type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask CHORE

  test [--only unit|clients]   install what the tests need and run them all
  lint                         formatting, clippy and the rules of ARCHITECTURE.md
  conformance [--check]        write docs/conformance.md (or see that it is up to date)
  bench [--only PART] [--quick] [--output json]   measure the release build
  facts API-FACTS.json         write the schema that the program carries
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test::all(),
        ["test", "--only", "unit"] => test::unit(),
        ["test", "--only", "clients"] => test::clients(),
        ["lint"] => tidy::lint(),
        ["conformance"] => conformance::write(),
        ["conformance", "--check"] => conformance::check(),
        ["bench", options @ ..] => bench::measure(options),
        ["facts", path] => facts::write(path.as_ref()),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
