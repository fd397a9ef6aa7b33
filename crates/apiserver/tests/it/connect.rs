//! Connections to a kubelet: logs come as they are written, upgrades carry bytes both ways.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::pki::{Authority, CurrentIdentity, Profile, client_config, server_config};
use bytes::Bytes;
use client::Patch;
use futures::{SinkExt, StreamExt, channel::mpsc};
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use testkit::{AllowAll, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Lines = mpsc::Receiver<Result<Frame<Bytes>, Infallible>>;

/// A kubelet that streams `lines` as its log, and echoes what is written to an upgraded connection.
async fn kubelet(listener: TcpListener, tls: TlsAcceptor, mut lines: Option<Lines>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tls.accept(stream).await.unwrap();
        let lines = Mutex::new(lines.take());
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let path = request.uri().to_string();
            let body: Lines = lines.lock().unwrap().take().unwrap_or_else(|| mpsc::channel(1).1);
            let mut response = Response::new(StreamBody::new(body));
            if request.headers().contains_key(header::UPGRADE) {
                *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
                response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                    tokio::io::copy(&mut from, &mut to).await
                });
            } else if !path.starts_with("/containerLogs/default/web/c?follow=true") {
                *response.status_mut() = http::StatusCode::NOT_FOUND;
            }
            async move { Ok::<_, Infallible>(response) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection.with_upgrades());
    }
}

/// A server with one node, whose kubelet this is, and a pod on it.
async fn start(lines: Lines) -> TestServer {
    let env = env::Env::system();
    let authority = Authority::ephemeral("test", &env).unwrap();
    let authorities = [authority.certificate().clone()];
    let client = authority.issue(&Profile::kubelet_client(), &env).unwrap();
    let client = CurrentIdentity::new(&client).unwrap();
    let serving = Profile::kubelet_serving("n1", &["127.0.0.1".parse().unwrap()]);
    let serving = CurrentIdentity::new(&authority.issue(&serving, &env).unwrap()).unwrap();
    let mut tls = (*server_config(serving, &authorities).unwrap()).clone();
    tls.alpn_protocols.clear();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(kubelet(listener, TlsAcceptor::from(Arc::new(tls)), Some(lines)));
    let trusted = Arc::new(client_config(&authorities, Some(client)).unwrap());
    let test = TestServer::with_config(Arc::new(AllowAll), |config| config.kubelet_tls = Some(trusted)).await;
    let nodes = test.client().cluster::<Node>();
    nodes.create(&json!({"metadata": {"name": "n1"}})).await.unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    nodes.patch_status("n1", Patch::Merge(status)).await.unwrap();
    let pods = test.client().namespaced::<Pod>("default");
    let container = |name: &str| json!({"name": name, "image": "i"});
    let pod = |name: &str, containers| json!({"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": containers}});
    pods.create(&pod("web", vec![container("c")])).await.unwrap();
    pods.create(&pod("two", vec![container("a"), container("b")])).await.unwrap();
    test
}

#[tokio::test]
async fn a_followed_log_comes_line_by_line() {
    let (mut lines, log) = mpsc::channel(1);
    let test = start(log).await;
    let https = test.https().await;
    let path = "/api/v1/namespaces/default/pods/web/log?follow=true";
    let answer = https.admin().send(Method::GET, path, &[], Bytes::new()).await.unwrap();
    let mut body = answer.into_body().into_data_stream();
    // Far more than any buffer, each seen before the next is written.
    for index in 0..300 {
        let line = Bytes::from(format!("line {index}\n").repeat(100));
        lines.send(Ok(Frame::data(line.clone()))).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < line.len() {
            let chunk = tokio::time::timeout(Duration::from_secs(10), body.next())
                .await
                .expect("the line comes through");
            seen.extend_from_slice(&chunk.unwrap().unwrap());
        }
        assert_eq!(seen, line);
    }
    drop(lines);
    while let Some(rest) = body.next().await {
        assert!(rest.unwrap().is_empty(), "the end is clean");
    }
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let test = start(mpsc::channel(1).1).await;
    let https = test.https().await;
    let path = "/api/v1/namespaces/default/pods/web/exec?command=cat&stdin=true&stdout=true";
    let (mut stream, _) = https.admin().upgrade(path, &["v5.channel.k8s.io"]).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn what_cannot_be_connected_says_why() {
    let test = start(mpsc::channel(1).1).await;
    let https = test.https().await;
    let admin = https.admin();
    let refused = async |path: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{path}");
        admin.fetch(Method::GET, &path, &[], Bytes::new()).await.unwrap_err()
    };
    let ambiguous = refused("two/log").await;
    assert_eq!(ambiguous.code, 400);
    assert_eq!(ambiguous.message, "a container name must be specified for pod two, choose one of: [a b]");
    assert_eq!(refused("web/log?container=x").await.message, "container x is not valid for pod web");
    assert_eq!(refused("none/log").await.code, 404);
    assert_eq!(refused("web/log?tailLines=-1").await.code, 422);
    assert_eq!(refused("web/log").await.code, 404, "the kubelet's own answer becomes a status");
}
