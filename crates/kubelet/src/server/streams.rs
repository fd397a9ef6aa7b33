//! exec, attach and port-forward: the one place that knows the streaming protocols.

use std::sync::Arc;

use containers::{ContainerId, RuntimeError, StreamRequest, Streams};
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use streaming::{Accepted, Connect, Io, Process, Purpose, Wanted};

use super::files::parameters;
use super::{Answer, Body, Failure, Server, full};
use crate::pods::executor::chain;

/// What a path asks for.
enum Asked {
    Exec { container: String, command: Vec<String> },
    Attach { container: String },
    PortForward { ports: Vec<u16> },
}

impl Server {
    /// Answers the upgrade; what follows goes on beside the connection's other work.
    pub(super) async fn stream(&self, mut request: Request<Incoming>) -> Answer {
        let path = request.uri().path().trim_matches('/').to_owned();
        let given = parameters(request.uri().query().unwrap_or_default());
        let parts: Vec<&str> = path.split('/').collect();
        let (pod, asked) = self.asked(&parts, &given)?;
        match asked {
            Asked::PortForward { ports } => {
                let connect = self.connector(&pod).await?;
                let accepted = accept(&mut request, Purpose::PortForward);
                Ok(self.upgraded(accepted, |accepted| port_forward(accepted, ports, connect)))
            }
            Asked::Exec { container, command } => {
                let (id, wanted) = self.target(&pod, &container, &given).await?;
                let accepted = accept(&mut request, Purpose::RemoteCommand);
                let shared = self.shared.clone();
                let start = move |size| async move {
                    let stream = stream_request(command, wanted, size);
                    process(shared.runtime.exec(&id, &stream).await, "error executing command in container")
                };
                Ok(self.upgraded(accepted, move |accepted| remote_command(accepted, wanted, start)))
            }
            Asked::Attach { container } => {
                let (id, wanted) = self.target(&pod, &container, &given).await?;
                let accepted = accept(&mut request, Purpose::RemoteCommand);
                let shared = self.shared.clone();
                let start = move |size: Option<(u16, u16)>| async move {
                    let stream = stream_request(Vec::new(), wanted, None);
                    let attached = shared.runtime.attach(&id, &stream).await;
                    if let (Ok(streams), Some(size)) = (&attached, size)
                        && streams.resize.send(size).await.is_err()
                    {
                        tracing::debug!("the container has no terminal to be resized");
                    }
                    process(attached, "error attaching to container")
                };
                Ok(self.upgraded(accepted, move |accepted| remote_command(accepted, wanted, start)))
            }
        }
    }

    /// An answer as WebSocket messages.
    pub(super) fn as_messages(
        &self,
        mut request: Request<Incoming>,
        answer: Response<Body>,
    ) -> Response<Body> {
        let accepted = accept(&mut request, Purpose::Output);
        self.upgraded(accepted, |accepted| async move {
            let done = match accepted.connection().await {
                Ok(connection) => connection.output(answer.into_body().into_data_stream()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!(error = chain(&error), "a log over WebSocket ended early");
            }
        })
    }

    /// Paths are `exec/NAMESPACE/POD/CONTAINER`, with the pod's uid before the container if the caller knows it.
    fn asked(&self, parts: &[&str], given: &[(String, String)]) -> Result<(Arc<Pod>, Asked), Failure> {
        let all = |name: &str| {
            given.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
        };
        let (namespace, name, asked) = match parts {
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                let command: Vec<String> = all("command");
                if command.is_empty() {
                    return Err(Failure::bad("you must specify at least one command"));
                }
                (namespace, pod, Asked::Exec { container: (*container).to_owned(), command })
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                (namespace, pod, Asked::Attach { container: (*container).to_owned() })
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                let ports: Vec<String> = all("port");
                let ports =
                    ports.iter().flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok());
                (namespace, pod, Asked::PortForward { ports: ports.collect() })
            }
            _ => return Err(Failure::new(http::StatusCode::NOT_FOUND, "404 page not found")),
        };
        Ok((self.find_pod(namespace, name)?, asked))
    }

    async fn target(
        &self,
        pod: &Pod,
        container: &str,
        given: &[(String, String)],
    ) -> Result<(ContainerId, Wanted), Failure> {
        let flag = |name: &str| {
            given
                .iter()
                .any(|(known, value)| known == name && matches!(value.as_str(), "1" | "true" | "True"))
        };
        let wanted = Wanted {
            stdin: flag("input") || flag("stdin"),
            stdout: flag("output") || flag("stdout"),
            stderr: flag("error") || flag("stderr"),
            tty: flag("tty"),
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Failure::bad("you must specify at least 1 of stdin, stdout, stderr"));
        }
        let status = self.running_container(pod, container).await?;
        Ok((status.id, wanted))
    }

    async fn connector(&self, pod: &Pod) -> Result<Connect, Failure> {
        let sandbox = self.sandbox(pod).await?.id;
        let shared = self.shared.clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Ok(Arc::new(move |port| {
            let (shared, sandbox, uid) = (shared.clone(), sandbox.clone(), uid.clone());
            async move {
                let connected = shared.runtime.port_forward(&sandbox, port).await;
                let stream = connected.map_err(|error| {
                    format!("error forwarding port {port} to pod {}, uid {uid}: {}", sandbox.0, chain(&error))
                })?;
                Ok(Box::new(stream) as Io)
            }
            .boxed()
        }))
    }

    /// The answer to an upgrade, with the work that follows it.
    fn upgraded<F>(
        &self,
        accepted: Result<(Accepted, Response<()>), Box<Response<Body>>>,
        work: impl FnOnce(Accepted) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match accepted {
            Ok((accepted, response)) => {
                let (work, shutdown) = (work(accepted), self.shutdown.clone());
                self.tasks.spawn(async move { shutdown.run_until_cancelled(work).await });
                response.map(|()| full(""))
            }
            Err(refused) => *refused,
        }
    }
}

fn accept(
    request: &mut Request<Incoming>,
    purpose: Purpose,
) -> Result<(Accepted, Response<()>), Box<Response<Body>>> {
    streaming::accept(request, purpose)
        .map_err(|refusal| Box::new(refusal.response().map(|text| full(text).boxed())))
}

fn stream_request(command: Vec<String>, wanted: Wanted, size: Option<(u16, u16)>) -> StreamRequest {
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    StreamRequest { command, stdin, stdout, stderr: stderr && !tty, tty, size }
}

/// `doing` introduces what the client is told of a failure.
fn process(started: Result<Streams, RuntimeError>, doing: &'static str) -> Result<Process, String> {
    let streams = started.map_err(|error| format!("{doing}: {}", chain(&error)))?;
    let exit = streams.exit;
    Ok(Process {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        resize: Some(streams.resize),
        exit: Box::pin(async move { exit.await.map_err(|_| format!("{doing}: its end was not seen")) }),
    })
}

async fn remote_command<F>(accepted: Accepted, wanted: Wanted, start: impl FnOnce(Option<(u16, u16)>) -> F)
where
    F: Future<Output = Result<Process, String>> + Send,
{
    let done = match accepted.connection().await {
        Ok(connection) => connection.remote_command(wanted, start).await,
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        tracing::debug!(error = chain(&error), "a stream into a container ended early");
    }
}

async fn port_forward(accepted: Accepted, ports: Vec<u16>, connect: Connect) {
    let done = match accepted.connection().await {
        Ok(connection) => connection.port_forward(&ports, connect).await,
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        tracing::debug!(error = chain(&error), "a port-forward ended early");
    }
}
