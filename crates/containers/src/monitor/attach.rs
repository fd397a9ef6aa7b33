//! Clients attached to a container's main process.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::clients::{answer, failed};
use super::output::Sink;
use super::pod::Pod;
use crate::protocol::Reply;

impl Pod {
    /// Adds the client's pipes to the container's streams and hands out the writing end of its stdin, or its
    /// terminal. Data for stdin then goes straight to the container.
    pub fn attach(&mut self, client: &UnixStream, id: &str, wanted: [bool; 3], fds: Vec<OwnedFd>) {
        let Some(container) = self.containers.get_mut(id) else {
            return answer(client, &Reply::NotRunning, &[]);
        };
        let [stdin, stdout, stderr] = wanted;
        let mut fds = fds.into_iter();
        for (at, asked) in [stdout, stderr].into_iter().enumerate() {
            let Some(fd) = asked.then(|| fds.next()).flatten() else { continue };
            match Sink::new(fd) {
                // A terminal has one stream, and a stream that has ended takes nobody.
                Ok(sink) => {
                    if let Some(output) = container.outputs.get_mut(&at) {
                        output.attach(sink);
                    }
                }
                Err(error) => return answer(client, &failed(format!("attach: {error}")), &[]),
            }
        }
        let handed = match (&container.terminal, &container.stdin) {
            (Some(terminal), _) => Some(terminal.as_fd()),
            (None, Some(writer)) if stdin => Some(writer.as_fd()),
            _ => None,
        };
        let handed: Vec<_> = handed.into_iter().collect();
        answer(client, &Reply::Ok, &handed);
        if stdin && container.spec.stdin_once && container.terminal.is_none() {
            // The container sees the end of its input when this client closes the end it now has.
            container.stdin = None;
        }
    }
}
