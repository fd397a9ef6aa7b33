//! Questions to the cluster DNS of the node, as pods ask them: with `ndots:5` most are about names that do not exist.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::cluster::Machine;
use crate::report::Report;
use crate::{Extent, Failure, load, processes};

/// The first address of the first node's range, where the Service of the DNS leads.
const SERVER: (&str, u16) = ("10.42.0.1", 53);
/// How many ask at once, a question at a time each.
const CLIENTS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
const AIM: f64 = 20_000.0;
const TURNS: usize = 5;
/// One in three exists.
const NAMES: [&str; 3] = [
    "kubernetes.default.svc.cluster.local.default.svc.cluster.local",
    "kubernetes.default.svc.cluster.local.svc.cluster.local",
    "kubernetes.default.svc.cluster.local",
];

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let total = extent.pick(100_000, 20_000) / TURNS;
    let (mut best, mut cpu_us) = (0.0_f64, f64::INFINITY);
    for _ in 0..TURNS {
        let mut sockets = Vec::new();
        for _ in 0..CLIENTS {
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            socket.connect(SERVER).await?;
            sockets.push(socket);
        }
        let before = processes::cpu_seconds(cluster.pid())?;
        let rate =
            load::drive(
                sockets,
                total,
                |socket: Arc<UdpSocket>, index| async move { ask(&socket, index).await },
            )
            .await?;
        let cpu = processes::cpu_seconds(cluster.pid())? - before;
        best = best.max(rate);
        cpu_us = cpu_us.min(cpu * 1e6 / total as f64);
    }
    let note = format!("{CLIENTS} clients over UDP, {cpu_us:.0} µs of CPU each; best of {TURNS}");
    report.add_rate("DNS questions", best, Some(AIM), note);
    Ok(())
}

/// Asks for an address. A question that is not answered is asked again until patience ends.
async fn ask(socket: &UdpSocket, index: usize) -> Result<(), Failure> {
    let id = u16::try_from(index & 0xffff).unwrap_or(0);
    let (question, mut answer) = (question(id, NAMES[index % NAMES.len()]), [0; 512]);
    let asking = async {
        loop {
            socket.send(&question).await?;
            let received = tokio::time::timeout(PATIENCE / 10, socket.recv(&mut answer)).await;
            if let Ok(length) = received
                && answers(&answer[..length?], id, index % NAMES.len() == 2)
            {
                return Ok::<(), Failure>(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await?
}

/// RFC 1035: a header and one question for an A record.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// Whether this is the answer: an address, or that there is no such name.
fn answers(message: &[u8], id: u16, exists: bool) -> bool {
    let expected = if exists { (0, 1) } else { (3, 0) };
    message.len() >= 12
        && message[..2] == id.to_be_bytes()
        && (message[3] & 15, u16::from_be_bytes([message[6], message[7]])) == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers() {
        let asked = question(7, "a.bc");
        assert_eq!(asked[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        let mut answer = asked.clone();
        (answer[2], answer[3], answer[7]) = (0x85, 0x80, 1);
        assert!(answers(&answer, 7, true));
        assert!(!answers(&answer, 8, true) && !answers(&answer, 7, false) && !answers(&[], 0, true));
    }
}
