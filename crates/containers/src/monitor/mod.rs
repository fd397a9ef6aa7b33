//! The monitor: one small process per pod that is the parent of the pod's processes.
//!
//! It is this executable started again under another name, with one thread, and sleeps in one `poll` until something
//! happens. It never touches the API, images or addresses; it does what it is asked through its socket, copies the
//! containers' output into their logs, and writes down how they end.

mod attach;
mod child;
mod clients;
mod exec;
mod log;
mod output;
mod pod;
mod rootfs;
mod start;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::record;
use crate::spec::SandboxSpec;

/// The name (`argv[0]`) under which the executable is a monitor.
pub(crate) const NAME: &str = "kobune-monitor";
/// What a monitor prints when it is ready.
pub(crate) const READY: &str = "ready";

/// Whether this process was started as a helper. Ask first thing in `main`, before any thread is started.
pub fn is_helper() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// The life of a helper process; call it when [`is_helper`] says so.
pub fn helper_main() -> ! {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).unwrap_or_default();
    let code = match run(&directory) {
        Ok(()) => 0,
        Err(message) => {
            say(&message);
            1
        }
    };
    std::process::exit(code)
}

fn run(directory: &std::path::Path) -> Result<(), String> {
    let spec: SandboxSpec = record::read(directory, record::MONITOR)
        .map_err(|error| format!("read the monitor's configuration: {error}"))?
        .ok_or_else(|| format!("{} has no {}", directory.display(), record::MONITOR))?;
    let mut pod = pod::Pod::set_up(spec).map_err(|error| error.text())?;
    say(READY);
    // Whoever started the monitor has heard what there is to hear; its pipe is let go of.
    forget_standard_output().map_err(|error| error.text())?;
    pod.serve().map_err(|error| error.text())
}

/// The log of complaints stays.
fn forget_standard_output() -> linux::Result<()> {
    let null = linux::terminal::null()?;
    linux::process::set_standard_streams(null.as_fd(), null.as_fd(), std::io::stderr().as_fd())
}

/// For a process that has nothing to say, ever.
fn forget_standard_streams() -> linux::Result<()> {
    let null = linux::terminal::null()?;
    linux::process::set_standard_streams(null.as_fd(), null.as_fd(), null.as_fd())
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Nobody may be listening any more; there is nobody else to tell.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}
