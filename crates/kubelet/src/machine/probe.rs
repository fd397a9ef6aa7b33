//! Probe results and thresholds. Making the probes is the driver's business.

use k8s_openapi::api::core::v1::Probe;

/// Which of a container's three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As it begins an event's message.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(String),
    /// The probe itself went wrong; this counts neither way.
    Error(String),
}

/// The judged state of one probe: it changes only after enough equal outcomes in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeRecord {
    /// The judged result; `None` until the first verdict.
    pub healthy: Option<bool>,
    last: Option<bool>,
    run: i32,
}

impl ProbeRecord {
    /// A record that already stands, e.g. of a container that was adopted.
    pub fn settled(healthy: bool) -> Self {
        Self { healthy: Some(healthy), last: Some(healthy), run: 1 }
    }

    /// Counts an outcome; returns true when the verdict was confirmed or changed by it.
    pub fn count(&mut self, success: bool, probe: &Probe) -> bool {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        if self.run < threshold {
            return false;
        }
        self.healthy = Some(success);
        true
    }
}
