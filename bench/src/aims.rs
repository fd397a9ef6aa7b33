//! What is aimed at, and what others reach on this kind of machine (two cores, Debian 12).

/// A figure's aim and its peers.
pub struct Aim {
    /// The name of the row.
    pub row: &'static str,
    /// At most this much (or at least, where more is better).
    pub aim: Option<f64>,
    /// Upstream 1.36 with etcd and containerd, unless it names another.
    pub peer: &'static str,
}

const fn aim(row: &'static str, aim: f64, peer: &'static str) -> Aim {
    Aim { row, aim: Some(aim), peer }
}

const fn peer(row: &'static str, peer: &'static str) -> Aim {
    Aim { row, aim: None, peer }
}

/// By the name of the row.
pub const AIMS: &[Aim] = &[
    aim("cold start to /readyz", 150.0, "2.9 s; k3s 7.3 s"),
    aim("cold start to node Ready", 500.0, "3.8 s"),
    aim("cold start to first pod Running", 1000.0, "8.9 s"),
    aim("memory, idle", 40.0, "712 MB; k3s 445 MB"),
    peer("memory, 20 pods", "712 MB + 17 MB a pod"),
    aim("memory, 10,000 stored pods", 150.0, "899 MB; k3s 824 MB"),
    aim("memory, 30,000 stored pods", 350.0, "1,729 MB; k3s 1,283 MB"),
    aim("CPU, idle", 0.5, ""),
    aim("CPU, 20 pods", 0.5, ""),
    aim("CPU, 10,000 stored pods", 0.5, ""),
    aim("CPU, 30,000 stored pods", 0.5, ""),
    peer("creates, 1 client", "445 /s; k3s 281 /s"),
    peer("creates, 8 clients", "1,100 /s; k3s 340 /s"),
    peer("creates, 32 clients", "1,600 /s with 64; k3s 389 /s"),
    peer("gets, 1 client", "810 /s"),
    peer("gets, 8 clients", "2,000 /s; k3s 438 /s"),
    aim("list of 5,000 pods", 30.0, "327 ms; k3s 1,010 ms"),
    peer("watch, 100 watchers, p50", "8 ms; k3s 10 ms"),
    aim("watch, 100 watchers, p99", 5.0, "28 ms; k3s 65 ms"),
    aim("pod start, p50", 80.0, "259 ms"),
    peer("pod start, p99", "348 ms"),
    peer("pods scheduled, 5,000 nodes", "680 /s, upstream's gate"),
    aim("10,000 Services applied", 1000.0, ""),
    aim("replicas 2 to 20", 1.5, "3.9 s (0 to 20)"),
];

/// The aim of a row, if it has one.
pub fn of(row: &str) -> Option<&'static Aim> {
    AIMS.iter().find(|aim| aim.row == row)
}
