//! Rows of figures: a table for people, JSON for programs.

use std::path::Path;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{Failure, aims};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// What others reach.
    pub peer: String,
    pub note: String,
}

/// All figures of a run with the machine they were taken on.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    time: String,
    rows: Vec<Row>,
}

impl Report {
    pub fn new() -> Self {
        Self { machine: machine(), time: env::Env::system().now().to_string(), rows: Vec::new() }
    }

    /// Adds a figure of which less is better.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, note: impl Into<String>) {
        let known = aims::of(name);
        let aim = known.and_then(|aim| aim.aim);
        let peer = known.map(|aim| aim.peer.to_owned()).unwrap_or_default();
        self.push(Row {
            name: name.to_owned(),
            value,
            unit,
            aim,
            met: aim.map(|aim| value <= aim),
            peer,
            note: note.into(),
        });
    }

    /// Adds a rate per second, which must be at least `aim`.
    pub fn add_rate(&mut self, name: &str, value: f64, aim: Option<f64>, note: impl Into<String>) {
        let peer = aims::of(name).map(|aim| aim.peer.to_owned()).unwrap_or_default();
        let met = aim.map(|aim| value >= aim);
        self.push(Row { name: name.to_owned(), value, unit: "/s", aim, met, peer, note: note.into() });
    }

    fn push(&mut self, row: Row) {
        eprintln!("  {}: {} {}", row.name, shown(row.value, row.unit), row.note);
        self.rows.push(row);
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("rows have only strings and finite numbers")
    }

    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, self.json() + "\n")?;
        Ok(())
    }

    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["", "measured", "aim", "", "peer", "note"]);
        for row in &self.rows {
            let met = match row.met {
                None => "",
                Some(true) => "met",
                Some(false) => "missed",
            };
            table.add_row([
                row.name.clone(),
                shown(row.value, row.unit),
                row.aim.map(|aim| shown(aim, row.unit)).unwrap_or_default(),
                met.to_owned(),
                row.peer.clone(),
                row.note.clone(),
            ]);
        }
        format!("{}\n\n{table}", self.machine)
    }
}

fn shown(value: f64, unit: &str) -> String {
    let number = match value {
        large if large >= 1000.0 => thousands(large),
        middle if middle >= 100.0 => format!("{middle:.0}"),
        small if small >= 10.0 => format!("{small:.1}"),
        tiny => format!("{tiny:.2}"),
    };
    format!("{number} {unit}")
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kilobytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} × {}, {} GB, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        kilobytes.unwrap_or(0) / 1_000_000,
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_with_three_digits_or_more() {
        let cases = [(0.314, "0.31 ms"), (31.41, "31.4 ms"), (314.1, "314 ms"), (31_415.9, "31,416 ms")];
        for (value, expected) in cases {
            assert_eq!(shown(value, "ms"), expected);
        }
    }

    #[test]
    fn an_aim_is_met_from_below_and_by_rates_from_above() {
        let mut report = Report::new();
        report.add("memory, idle", 39.0, "MB", "");
        report.add("memory, idle", 41.0, "MB", "");
        report.add_rate("x", 10.0, Some(11.0), "");
        let met: Vec<_> = report.rows.iter().map(|row| row.met).collect();
        assert_eq!(met, [Some(true), Some(false), Some(false)]);
    }
}
