//! `kobune doctor`: what this machine lacks, and what to do about it.

use std::path::Path;

use clap::Args;
use linux::probe::Probe;

use crate::cli::{Common, Failure};
use crate::config::Settings;

/// Check whether this machine can run a node, and say how to mend what is missing.
#[derive(Args)]
#[command(after_help = "Examples:\n  kobune doctor\n  kobune doctor --data-dir /srv/kobune --output json")]
pub struct Doctor {
    #[command(flatten)]
    common: Common,
    /// `json` for scripts.
    #[arg(long, short, value_parser = ["json"])]
    output: Option<String>,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::load(&self.common)?;
        let probes = probes(&settings.data_dir)?;
        if self.output.is_some() {
            println!(
                "{}",
                serde_json::to_string_pretty(&probes.iter().map(json).collect::<Vec<_>>())
                    .unwrap_or_default()
            );
        } else {
            probes.iter().for_each(print);
        }
        match probes.iter().filter(|probe| probe.required && probe.outcome.is_err()).count() {
            0 => Ok(()),
            count => Err(Failure::new(format!("{count} required features are missing"))),
        }
    }
}

/// Tries everything in the data directory, which is there afterwards only if it was before.
fn probes(data_dir: &Path) -> Result<Vec<Probe>, Failure> {
    let shown = data_dir.display();
    let missing: Vec<&Path> = data_dir.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::create_dir_all(data_dir).map_err(|error| {
        Failure::new(format!("cannot make {shown}: {error}; choose another with --data-dir"))
    })?;
    let probes = linux::probe::all(data_dir);
    for made in missing {
        std::fs::remove_dir(made)
            .map_err(|error| Failure::new(format!("cannot remove {}: {error}", made.display())))?;
    }
    Ok(probes)
}

fn json(probe: &Probe) -> serde_json::Value {
    let (ok, detail) = match &probe.outcome {
        Ok(found) => (true, found),
        Err(cause) => (false, cause),
    };
    serde_json::json!({
        "name": probe.name, "ok": ok, "required": probe.required, "detail": detail, "remedy": probe.remedy,
    })
}

fn print(probe: &Probe) {
    match &probe.outcome {
        Ok(found) => println!("ok       {:<24} {found}", probe.name),
        Err(cause) => {
            let mark = if probe.required { "MISSING" } else { "warning" };
            println!("{mark:<8} {:<24} {cause}", probe.name);
            println!("         -> {}", probe.remedy);
        }
    }
}
