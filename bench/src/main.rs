//! `cargo xtask bench`: measures the release build of the program, in a network namespace of its own.
//!
//! Nothing here fails because a figure is bad: figures are printed beside the aim and beside what others reach.

mod aims;
mod cluster;
mod etcd;
mod load;
mod parts;
mod processes;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use linux::namespace::{Kind, loopback_up, unshare};

use crate::cluster::Machine;
use crate::report::Report;

/// Why a measurement could not be made.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures a `kobune` program.
#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Measure only these parts.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Fewer repetitions and smaller numbers: minutes instead of a quarter of an hour.
    #[arg(long)]
    quick: bool,
    /// Where the JSON goes.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// `json` prints the JSON instead of the table.
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
    /// Leave clusters' directories behind under this one, to look at them.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Cold start.
    Start,
    /// Memory, and CPU and bytes written when idle, with nothing and with 20 pods.
    Idle,
    /// The same with 10,000 and 30,000 stored pods.
    Stored,
    /// Creates and gets, beside etcd's puts.
    Api,
    /// Lists of 5,000 pods.
    List,
    /// Watch fan-out.
    Watch,
    /// Starts of pods, and scaling.
    Pods,
    /// Questions to the cluster DNS.
    Dns,
    /// 10,000 Services in the packet filter.
    Services,
    /// Pods on two nodes, by each backend, beside a plain link.
    Overlay,
    /// Scheduling onto thousands of fake nodes.
    Scheduling,
}

const ALL: [Part; 11] = [
    Part::Start,
    Part::Idle,
    Part::Pods,
    Part::Api,
    Part::List,
    Part::Watch,
    Part::Dns,
    Part::Services,
    Part::Overlay,
    Part::Scheduling,
    Part::Stored,
];

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    pub quick: bool,
}

impl Extent {
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Before any thread exists, so that all of them, and everything that is started, live there.
    unshare(&[Kind::Network])?;
    loopback_up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let machine = Machine::new(&arguments.program, arguments.keep.clone())?;
    let mut report = Report::new();
    let parts = if arguments.only.is_empty() { ALL.to_vec() } else { arguments.only.clone() };
    let extent = Extent { quick: arguments.quick };
    for part in parts {
        eprintln!("bench: {part:?}");
        runtime.block_on(parts::measure(part, &machine, extent, &mut report))?;
    }
    report.write_json(&arguments.json)?;
    if arguments.output == "json" {
        println!("{}", report.json());
    } else {
        println!("{}", report.table());
    }
    Ok(())
}
