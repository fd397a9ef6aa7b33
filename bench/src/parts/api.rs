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
use crate::{Extent, Failure};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Bytes of data in a config map; with its metadata about 800 are stored.
const DATA: usize = 400;
/// As many bytes as a stored config map has.
const VALUE: usize = 800;

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    for (clients, total) in [(1, 1000), (8, 5000), (32, 10_000)] {
        let total = extent.pick(total, total / 5);
        let puts = puts(machine, clients, total).await?;
        let creates = creates(&cluster, clients, total).await?;
        let name = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let note = format!("HTTPS, durable; etcd: puts without TLS, {puts:.0} /s");
        report.add_rate(&format!("creates, {name}"), creates, Some(puts), note);
    }
    for (clients, total) in [(1, 2000), (8, 10_000), (32, 10_000)] {
        let name = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let rate = gets(&cluster, clients, extent.pick(total, total / 5)).await?;
        report.add_rate(&format!("gets, {name}"), rate, None, "HTTPS");
    }
    Ok(())
}

async fn creates(cluster: &Cluster, clients: usize, total: usize) -> Result<f64, Failure> {
    let work = move |http: Arc<Http>, index: usize| async move {
        create(&http, PATH, config_map(&format!("m-{clients}-{index}"))).await
    };
    load::drive(cluster.https(clients)?, total, work).await
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
        let path = format!("{PATH}/m-1-{}", index % 100);
        http.fetch(Method::GET, &path, &[], Bytes::new()).await.map_err(|status| status.to_string())?;
        Ok(())
    };
    load::drive(cluster.https(clients)?, total, work).await
}

async fn puts(machine: &Machine, clients: usize, total: usize) -> Result<f64, Failure> {
    let etcd = Etcd::start(machine).await?;
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(etcd.client().await?);
    }
    let work = move |client: Arc<EtcdClient>, index: usize| async move {
        let key = format!("/registry/configmaps/default/m-{clients}-{index}");
        client.put(key.as_bytes(), &[b'x'; VALUE]).await
    };
    load::drive(connected, total, work).await
}
