//! The client as a program of its own.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "kubectl")]
struct Line {
    #[command(flatten)]
    kubectl: cli::Kubectl,
}

fn main() -> ExitCode {
    Line::parse().kubectl.main()
}
