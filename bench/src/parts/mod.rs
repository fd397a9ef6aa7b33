//! What is measured, part by part.

mod api;
mod dns;
mod idle;
mod list;
mod overlay;
mod pods;
mod scheduling;
mod services;
mod start;
mod stored;
mod watch;

use crate::cluster::Machine;
use crate::report::Report;
use crate::{Extent, Failure, Part};

/// Measures one part and adds its rows.
pub async fn measure(
    part: Part,
    machine: &Machine,
    extent: Extent,
    report: &mut Report,
) -> Result<(), Failure> {
    match part {
        Part::Start => start::measure(machine, extent, report).await,
        Part::Idle => idle::measure(machine, extent, report).await,
        Part::Stored => stored::measure(machine, extent, report).await,
        Part::Api => api::measure(machine, extent, report).await,
        Part::List => list::measure(machine, extent, report).await,
        Part::Watch => watch::measure(machine, extent, report).await,
        Part::Pods => pods::measure(machine, extent, report).await,
        Part::Dns => dns::measure(machine, extent, report).await,
        Part::Services => services::measure(machine, extent, report).await,
        Part::Overlay => overlay::measure(machine, extent, report).await,
        Part::Scheduling => scheduling::measure(machine, extent, report).await,
    }
}
