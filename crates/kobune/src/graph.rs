//! Named services with dependencies: each starts when those it stands on are ready; all stop in reverse.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use env::Shutdown;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long one service may take to stop before it is abandoned.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

type Run =
    Box<dyn FnOnce(Ready, Shutdown) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// Tells that a service does its work now.
pub struct Ready(watch::Sender<bool>);

impl Ready {
    pub fn set(&self) {
        self.0.send_replace(true);
    }
}

struct Service {
    name: &'static str,
    after: &'static [&'static str],
    on: Handle,
    run: Run,
}

/// Services that are not yet started.
#[derive(Default)]
pub struct Graph {
    services: Vec<Service>,
}

/// Services that run.
pub struct Running {
    /// In the order in which they were added.
    tasks: Vec<(&'static str, Shutdown, JoinHandle<()>)>,
    ready: BTreeMap<&'static str, watch::Receiver<bool>>,
    ended: JoinSet<(&'static str, Result<(), String>)>,
}

impl Graph {
    /// Adds a service that starts on a runtime once all of `after` (added before) are ready.
    pub fn add<F>(
        &mut self,
        name: &'static str,
        after: &'static [&'static str],
        on: &Handle,
        run: impl FnOnce(Ready, Shutdown) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let run: Run = Box::new(move |ready, shutdown| Box::pin(run(ready, shutdown)));
        self.services.push(Service { name, after, on: on.clone(), run });
    }

    /// Starts everything.
    pub fn start(self) -> Running {
        let mut running = Running { tasks: Vec::new(), ready: BTreeMap::new(), ended: JoinSet::new() };
        for service in self.services {
            running.start(service);
        }
        running
    }
}

impl Running {
    fn start(&mut self, service: Service) {
        let (sender, receiver) = watch::channel(false);
        let shutdown = Shutdown::new();
        let before: Vec<_> = service.after.iter().filter_map(|name| self.ready.get(name).cloned()).collect();
        let (name, run, stop) = (service.name, service.run, shutdown.clone());
        let (report, reported) = tokio::sync::oneshot::channel();
        let task = service.on.spawn(async move {
            let started = stop.run_until_cancelled(all_ready(before)).await;
            let result = match started {
                Some(()) => run(Ready(sender), stop).await,
                None => Ok(()),
            };
            // Nobody waits for the report of a service that is being stopped.
            let _unheard = report.send(result);
        });
        self.ended.spawn(async move {
            let panicked = Err("it panicked; the log says where".to_owned());
            (name, reported.await.unwrap_or(panicked))
        });
        self.ready.insert(name, receiver);
        self.tasks.push((name, shutdown, task));
    }

    /// Waits until a service is ready; never returns if it fails before.
    pub fn ready(&self, name: &str) -> impl Future<Output = ()> + Send + use<> {
        let ready = self.ready.get(name).cloned();
        async move {
            match ready {
                Some(ready) => all_ready(vec![ready]).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until a service ends by itself: that is a failure of the whole.
    pub async fn failed(&mut self) -> String {
        loop {
            match self.ended.join_next().await {
                Some(Ok((name, Err(cause)))) => return format!("{name}: {cause}"),
                Some(Ok((name, Ok(())))) => return format!("{name} ended unexpectedly"),
                Some(Err(error)) => return error.to_string(),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops everything, the last first.
    pub async fn stop(mut self) {
        while let Some((name, shutdown, task)) = self.tasks.pop() {
            shutdown.cancel();
            if tokio::time::timeout(STOP_DEADLINE, task).await.is_err() {
                tracing::warn!(service = name, "did not stop in time");
            }
        }
    }
}

async fn all_ready(services: Vec<watch::Receiver<bool>>) {
    for mut ready in services {
        if ready.wait_for(|ready| *ready).await.is_err() {
            // The service is gone without having been ready; the graph is on its way down.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn services_start_in_order_and_stop_in_reverse() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut graph = Graph::default();
        for (name, after) in [("a", &[] as &[_]), ("b", &["a"]), ("c", &["a", "b"])] {
            let log = log.clone();
            graph.add(name, after, &Handle::current(), move |ready, shutdown| async move {
                log.lock().unwrap().push(format!("+{name}"));
                ready.set();
                shutdown.cancelled().await;
                log.lock().unwrap().push(format!("-{name}"));
                Ok(())
            });
        }
        let running = graph.start();
        running.ready("c").await;
        running.stop().await;
        assert_eq!(*log.lock().unwrap(), ["+a", "+b", "+c", "-c", "-b", "-a"]);
    }

    #[tokio::test]
    async fn a_failure_names_the_service() {
        let mut graph = Graph::default();
        graph.add("works", &[], &Handle::current(), |ready, shutdown| async move {
            ready.set();
            shutdown.cancelled().await;
            Ok(())
        });
        graph.add("breaks", &["works"], &Handle::current(), |_, _| async { Err("no luck".to_owned()) });
        graph.add("never", &["breaks"], &Handle::current(), |_, _| async { panic!("must not start") });
        let mut running = graph.start();
        assert_eq!(running.failed().await, "breaks: no luck");
        running.stop().await;
    }
}
