//! Durable creates beside etcd's puts, and gets.

use std::sync::Arc;

use bytes::Bytes;
use client::Http;
use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, Machine};
use crate::etcd::{Etcd, EtcdClient};
use crate::load;
use crate::parts::stored::create;
use crate::report::Report;
use crate::{Extent, Failure, processes};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Bytes of data in a config map; with its metadata about 800 are stored.
const DATA: usize = 400;
/// As many bytes as a stored config map has.
const VALUE: usize = 800;

/// How often ours and etcd's turn comes. The best turn of each counts: what a busy machine takes away differs from turn
/// to turn, and neither is to be measured in the other's bad luck.
const TURNS: usize = 5;

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let etcd = Etcd::start(machine).await?;
    for (clients, total) in [(1, 2000), (8, 10_000), (32, 20_000)] {
        let total = extent.pick(total, total / 5) / TURNS;
        let (mut ours, mut theirs) = (Best::of(cluster.pid()), Best::of(etcd.pid()));
        for turn in 0..TURNS {
            theirs.take(total, puts(&etcd, clients, turn, total)).await?;
            ours.take(total, creates(&cluster, clients, turn, total)).await?;
        }
        let note = format!(
            "HTTPS, durable, {:.0} µs of CPU each; etcd: puts without TLS, {:.0} /s, {:.0} µs; best of {TURNS}",
            ours.cpu_us, theirs.rate, theirs.cpu_us
        );
        report.add_rate(&format!("creates, {}", name(clients)), ours.rate, Some(theirs.rate), note);
    }
    for (clients, total) in [(1, 2000), (8, 10_000), (32, 10_000)] {
        let total = extent.pick(total, total / 5) / TURNS;
        let mut ours = Best::of(cluster.pid());
        for _ in 0..TURNS {
            ours.take(total, gets(&cluster, clients, total)).await?;
        }
        let note = format!("HTTPS, {:.0} µs of CPU each; best of {TURNS}", ours.cpu_us);
        report.add_rate(&format!("gets, {}", name(clients)), ours.rate, None, note);
    }
    Ok(())
}

fn name(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// The best rate of some turns and the least CPU time that a request took the server.
struct Best {
    server: u32,
    rate: f64,
    cpu_us: f64,
}

impl Best {
    fn of(server: u32) -> Self {
        Self { server, rate: 0.0, cpu_us: f64::INFINITY }
    }

    async fn take(
        &mut self,
        total: usize,
        turn: impl Future<Output = Result<f64, Failure>>,
    ) -> Result<(), Failure> {
        let before = processes::cpu_seconds(self.server)?;
        self.rate = turn.await?.max(self.rate);
        let taken = processes::cpu_seconds(self.server)? - before;
        self.cpu_us = self.cpu_us.min(taken * 1e6 / total as f64);
        Ok(())
    }
}

async fn creates(cluster: &Cluster, clients: usize, turn: usize, total: usize) -> Result<f64, Failure> {
    let work = move |http: Arc<Http>, index: usize| async move {
        create(&http, PATH, config_map(&format!("m-{clients}-{turn}-{index}"))).await
    };
    load::drive(cluster.connected(clients).await?, total, work).await
}

fn config_map(name: &str) -> Bytes {
    let data = "x".repeat(DATA);
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"key": data},
    });
    Bytes::from(body.to_string())
}

async fn gets(cluster: &Cluster, clients: usize, total: usize) -> Result<f64, Failure> {
    let work = move |http: Arc<Http>, index: usize| async move {
        let path = format!("{PATH}/m-1-0-{}", index % 50);
        http.fetch(Method::GET, &path, &[], Bytes::new()).await.map_err(|status| status.to_string())?;
        Ok(())
    };
    load::drive(cluster.connected(clients).await?, total, work).await
}

async fn puts(etcd: &Etcd, clients: usize, turn: usize, total: usize) -> Result<f64, Failure> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(etcd.client().await?);
    }
    let work = move |client: Arc<EtcdClient>, index: usize| async move {
        let key = format!("/registry/configmaps/default/m-{clients}-{turn}-{index}");
        client.put(key.as_bytes(), &[b'x'; VALUE]).await
    };
    load::drive(connected, total, work).await
}
