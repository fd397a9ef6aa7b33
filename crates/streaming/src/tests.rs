//! The client against the server, over pipes in memory; and peers that break the rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::{Expect, expect};
use futures::{FutureExt, SinkExt, StreamExt};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::{self, Terminal};
use crate::spdy::{self, Event, Headers};
use crate::{
    Connect, Connection, Encoding, Io, Process, Protocol, Purpose, StreamError, Wanted, accept, websocket,
};

const V5: Protocol = Protocol::WebSocket { encoding: Encoding::Binary, version: 5 };

/// A command that copies its input to its output, writes `warning` on stderr, and exits with `code`.
fn echo(code: i32) -> Process {
    let (stdin, mut input) = duplex(1024);
    let (mut output, stdout) = duplex(1024);
    let (mut errors, stderr) = duplex(1024);
    let exit = async move {
        errors.write_all(b"warning").await.unwrap();
        drop(errors);
        tokio::io::copy(&mut input, &mut output).await.unwrap();
        drop(output);
        Ok(code)
    };
    let exit = tokio::spawn(exit).map(|joined| joined.unwrap());
    Process {
        stdin: Some(Box::pin(stdin)),
        stdout: Some(Box::pin(stdout)),
        stderr: Some(Box::pin(stderr)),
        resize: None,
        exit: Box::pin(exit),
    }
}

const EVERYTHING: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

fn serve(
    io: impl crate::Duplex + 'static,
    protocol: Protocol,
    code: i32,
) -> tokio::task::JoinHandle<Result<(), StreamError>> {
    let connection = Connection::new(io, protocol);
    tokio::spawn(connection.remote_command(EVERYTHING, move |_| async move { Ok(echo(code)) }))
}

#[tokio::test]
async fn websocket_carries_all_streams_and_the_exit_code() {
    let (ours, theirs) = duplex(512);
    let server = serve(theirs, V5, 3);
    let (stdout, mut out) = duplex(1 << 20);
    let (stderr, mut err) = duplex(1 << 10);
    let input = vec![b'x'; 100_000];
    let terminal = Terminal {
        stdin: Some(Box::pin(std::io::Cursor::new(input.clone()))),
        stdout: Some(Box::pin(stdout)),
        stderr: Some(Box::pin(stderr)),
        resize: None,
    };
    let status = client::remote_command(ours, terminal).await.unwrap();
    assert_eq!(client::exit_code(&status), Some(3));
    assert_eq!(status.message, "command terminated with non-zero exit code: exit status 3");
    let (mut seen, mut warning) = (Vec::new(), String::new());
    out.read_to_end(&mut seen).await.unwrap();
    err.read_to_string(&mut warning).await.unwrap();
    assert!(seen == input);
    assert_eq!(warning, "warning");
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_command_that_does_not_start_is_told() {
    let (ours, theirs) = duplex(512);
    let connection = Connection::new(theirs, V5);
    let server =
        tokio::spawn(connection.remote_command(EVERYTHING, |_| async { Err("no such file".to_owned()) }));
    let status = client::remote_command(ours, Terminal::default()).await.unwrap();
    expect!["Internal error occurred: no such file"].assert_eq(&status.message);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn resizes_arrive() {
    let (ours, theirs) = duplex(512);
    let (resize, mut sizes) = mpsc::channel(4);
    let process = Process {
        stdin: None,
        stdout: None,
        stderr: None,
        resize: Some(resize),
        exit: Box::pin(async move {
            assert_eq!(sizes.recv().await, Some((100, 50)));
            Ok(0)
        }),
    };
    let wanted = Wanted { tty: true, stdout: true, ..Wanted::default() };
    let server = tokio::spawn(Connection::new(theirs, V5).remote_command(wanted, |size| async move {
        assert_eq!(size, Some((80, 24)), "it is known before the start");
        Ok(process)
    }));
    let (send, receive) = mpsc::channel(4);
    send.send((80, 24)).await.unwrap();
    send.send((100, 50)).await.unwrap();
    let terminal = Terminal { resize: Some(receive), ..Terminal::default() };
    let status = client::remote_command(ours, terminal).await.unwrap();
    assert_eq!(client::exit_code(&status), Some(0));
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn old_websocket_clients_are_understood() {
    let (ours, theirs) = duplex(4096);
    let _server = serve(theirs, Protocol::WebSocket { encoding: Encoding::Base64, version: 4 }, 0);
    let mut socket = websocket::over(Box::new(ours), Role::Client).await;
    socket.send(Message::text("0aGVsbG8=")).await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&"1aGVsbG8=".to_owned()) {
        seen.push(socket.next().await.unwrap().unwrap().into_text().unwrap().to_string());
    }
    assert_eq!(seen[0], "1", "an empty message comes first");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_connection() {
    let (ours, theirs) = duplex(512);
    let server = serve(theirs, V5, 0);
    let mut socket = websocket::over(Box::new(ours), Role::Client).await;
    socket.next().await.unwrap().unwrap();
    drop(socket);
    assert!(matches!(server.await.unwrap(), Err(StreamError::Disconnected | StreamError::WebSocket(_))));
}

/// Opens the streams of an exec as kubectl does over SPDY.
async fn spdy_exec(io: Io) -> (spdy::Reader, spdy::Writer, [u32; 4]) {
    let (reader, writer) = spdy::over(io, spdy::Role::Client);
    let mut ids = [0; 4];
    for (id, name) in ids.iter_mut().zip(["error", "stdin", "stdout", "stderr"]) {
        *id = writer.open(&Headers::new(&[("streamtype", name)]), |_| {}).await.unwrap();
    }
    (reader, writer, ids)
}

#[tokio::test]
async fn spdy_carries_all_streams_and_the_exit_code() {
    let (ours, theirs) = duplex(512);
    let server = serve(theirs, Protocol::Spdy { version: 4 }, 7);
    let (mut reader, writer, [error, stdin, stdout, stderr]) = spdy_exec(Box::new(ours)).await;
    let input = vec![b'y'; 100_000];
    let sent = async {
        writer.data(stdin, &input).await.unwrap();
        writer.end(stdin).await.unwrap();
    };
    let received = async {
        let mut data: std::collections::BTreeMap<u32, Vec<u8>> = Default::default();
        let mut ended = Vec::new();
        while ![error, stdout, stderr].iter().all(|id| ended.contains(id)) {
            match reader.next().await.unwrap().unwrap() {
                Event::Data(id, bytes) => data.entry(id).or_default().extend_from_slice(&bytes),
                Event::End(id) => ended.push(id),
                other => panic!("{other:?}"),
            }
        }
        data
    };
    let ((), data) = tokio::join!(sent, received);
    assert!(data[&stdout] == input);
    assert_eq!(data[&stderr], b"warning");
    let status: serde_json::Value = serde_json::from_slice(&data[&error]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert!(!server.is_finished(), "the client goes first");
    writer.shutdown().await.unwrap();
    while reader.next().await.unwrap().is_some() {}
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn output_ends_when_a_command_does_not_start() {
    let (ours, theirs) = duplex(512);
    let connection = Connection::new(theirs, Protocol::Spdy { version: 4 });
    let server = tokio::spawn(connection.remote_command(EVERYTHING, |_| async { Err("no".to_owned()) }));
    let (mut reader, _writer, [error, _, stdout, stderr]) = spdy_exec(Box::new(ours)).await;
    let mut ended = Vec::new();
    while ended.last() != Some(&error) {
        if let Event::End(id) = reader.next().await.unwrap().unwrap() {
            ended.push(id);
        }
    }
    assert_eq!(ended, [stdout, stderr, error]);
    server.abort();
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_command() {
    let (ours, theirs) = duplex(512);
    let written = Arc::new(AtomicUsize::new(0));
    let (mut output, stdout) = duplex(1024);
    let count = written.clone();
    tokio::spawn(async move {
        while let Ok(length) = output.write(&[0; 1024]).await {
            count.fetch_add(length, Ordering::Relaxed);
        }
    });
    let exit = Box::pin(std::future::pending());
    let process = Process { stdin: None, stdout: Some(Box::pin(stdout)), stderr: None, resize: None, exit };
    let server =
        tokio::spawn(Connection::new(theirs, V5).remote_command(EVERYTHING, |_| async move { Ok(process) }));
    let mut socket = websocket::over(Box::new(ours), Role::Client).await;
    socket.next().await.unwrap().unwrap();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    let stopped_at = written.load(Ordering::Relaxed);
    assert!(stopped_at < 64 << 10, "{stopped_at} bytes were written though nobody reads");
    for _ in 0..20 {
        socket.next().await.unwrap().unwrap();
    }
    assert!(written.load(Ordering::Relaxed) > stopped_at);
    server.abort();
}

/// Ports below 1000 answer with their number and what they are sent; others refuse.
fn ports() -> Connect {
    Arc::new(|port| {
        async move {
            if port >= 1000 {
                return Err(format!("error forwarding port {port}: connection refused"));
            }
            let (near, mut far) = duplex(256);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                far.read_to_end(&mut seen).await.unwrap();
                far.write_all(format!("{port}:").as_bytes()).await.unwrap();
                far.write_all(&seen).await.unwrap();
            });
            Ok(Box::new(near) as Io)
        }
        .boxed()
    })
}

async fn say(forward: &client::PortForward, port: u16, text: &str) -> Result<String, StreamError> {
    let (local, mut user) = duplex(64);
    let talk = async {
        user.write_all(text.as_bytes()).await.unwrap();
        user.shutdown().await.unwrap();
        let mut answer = String::new();
        user.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (result, answer) = tokio::join!(forward.forward(port, local), talk);
    result.map(|()| answer)
}

#[tokio::test]
async fn ports_are_forwarded_through_the_tunnel() {
    let (ours, theirs) = duplex(512);
    let connection = Connection::new(theirs, Protocol::Tunnel);
    let server = tokio::spawn(async move { connection.port_forward(&[], ports()).await });
    let (forward, driver) = client::PortForward::over(ours).await;
    let driver = tokio::spawn(driver);
    let long = "z".repeat(50_000);
    let (a, b, c) = tokio::join!(say(&forward, 80, "a"), say(&forward, 81, &long), say(&forward, 8080, ""));
    assert_eq!(a.unwrap(), "80:a");
    assert_eq!(b.unwrap(), format!("81:{long}"));
    expect!["error forwarding port 8080: connection refused"].assert_eq(&c.unwrap_err().to_string());
    forward.close().await.unwrap();
    server.await.unwrap().unwrap();
    drop(forward);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tunnel_that_ends_ends_what_it_carries() {
    let (ours, theirs) = duplex(4096);
    let (forward, driver) = client::PortForward::over(ours).await;
    let driver = tokio::spawn(driver);
    let (local, _user) = duplex(64);
    let forwarding = forward.forward(80, local);
    let leaving = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(theirs);
    };
    let (result, ()) = tokio::join!(forwarding, leaving);
    assert!(matches!(result, Err(StreamError::Disconnected)), "{result:?}");
    driver.await.unwrap().unwrap();
    let (local, _user) = duplex(64);
    assert!(forward.forward(80, local).await.is_err());
}

#[tokio::test]
async fn ports_are_forwarded_over_websocket_channels() {
    let (ours, theirs) = duplex(4096);
    let protocol = Protocol::WebSocket { encoding: Encoding::Binary, version: 4 };
    let connection = Connection::new(theirs, protocol);
    tokio::spawn(async move { connection.port_forward(&[80, 8080], ports()).await });
    let mut socket = websocket::over(Box::new(ours), Role::Client).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(socket.next().await.unwrap().unwrap().into_data().to_vec());
    }
    seen.sort();
    assert_eq!(seen[0], [0, 80, 0]);
    assert_eq!(seen[1], [1, 80, 0]);
    assert_eq!(seen[2], [2, 0x90, 0x1f]);
    assert_eq!(seen[4], [3, 0x90, 0x1f]);
    assert_eq!(seen[3][1..], *b"error forwarding port 8080: connection refused");
}

#[tokio::test]
async fn output_is_sent_as_messages() {
    let (ours, theirs) = duplex(64);
    let connection = Connection::new(theirs, Protocol::Messages { encoding: Encoding::Binary });
    let parts = ["container ", "is alive"].map(|part| Ok(bytes::Bytes::from_static(part.as_bytes())));
    let server = tokio::spawn(connection.output(futures::stream::iter(parts)));
    let mut socket = websocket::over(Box::new(ours), Role::Client).await;
    let mut seen = Vec::new();
    while let Some(Ok(Message::Binary(part))) = socket.next().await {
        seen.extend_from_slice(&part);
    }
    assert_eq!(seen, b"container is alive");
    drop(socket);
    server.await.unwrap().unwrap();
}

fn check_accept(purpose: Purpose, headers: &[(&str, &str)], expected: Expect) {
    let mut request = Request::new(());
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let text = match accept(&mut request, purpose) {
        Ok((accepted, response)) => {
            let protocol = ["sec-websocket-protocol", "x-stream-protocol-version"]
                .iter()
                .find_map(|name| response.headers().get(*name));
            format!("{:?}, answer {protocol:?}", accepted.protocol)
        }
        Err(refusal) => format!("{} {refusal}", refusal.code.as_u16()),
    };
    expected.assert_eq(&text);
}

#[test]
fn protocols_are_negotiated() {
    let websocket = |protocols| {
        [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ]
    };
    let spdy = |protocol| {
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)]
    };
    let command = Purpose::RemoteCommand;
    check_accept(
        command,
        &websocket("v5.channel.k8s.io, v4.channel.k8s.io"),
        expect![[r#"WebSocket { encoding: Binary, version: 5 }, answer Some("v5.channel.k8s.io")"#]],
    );
    check_accept(
        command,
        &websocket("base64.channel.k8s.io"),
        expect![[r#"WebSocket { encoding: Base64, version: 1 }, answer Some("base64.channel.k8s.io")"#]],
    );
    check_accept(command, &websocket("chat"), expect!["403 requested protocol(s) are not supported: [chat]"]);
    check_accept(
        Purpose::PortForward,
        &websocket("SPDY/3.1+portforward.k8s.io"),
        expect![[r#"Tunnel, answer Some("SPDY/3.1+portforward.k8s.io")"#]],
    );
    check_accept(
        command,
        &spdy("v4.channel.k8s.io"),
        expect![[r#"Spdy { version: 4 }, answer Some("v4.channel.k8s.io")"#]],
    );
    check_accept(
        Purpose::PortForward,
        &spdy("nothing"),
        expect![
            "403 unable to upgrade: unable to negotiate protocol: client supports [nothing], server accepts [portforward.k8s.io]"
        ],
    );
    check_accept(
        command,
        &spdy("v4.channel.k8s.io")[..2],
        expect!["400 unable to upgrade: X-Stream-Protocol-Version is required"],
    );
    check_accept(
        Purpose::Output,
        &websocket("binary.k8s.io"),
        expect![[r#"Messages { encoding: Binary }, answer Some("binary.k8s.io")"#]],
    );
    check_accept(command, &[], expect!["400 Upgrade request required"]);
}

#[test]
fn sizes_are_read_from_any_cut() {
    let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":1,\"Height\":2}";
    for cut in 0..text.len() {
        let mut sizes = crate::exit::Sizes::default();
        let first = sizes.push(&text[..cut]);
        let last = sizes.push(&text[cut..]).or(first);
        assert_eq!(last, Some((1, 2)), "cut at {cut}");
    }
    let mut sizes = crate::exit::Sizes::default();
    assert_eq!(sizes.push(b"nonsense"), None);
    assert_eq!(sizes.push(b"{\"Width\":3,\"Height\":4}"), Some((3, 4)));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>, frames: Vec<(u8, u16, Vec<u8>)>, tunnel: bool) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut input = bytes;
            for (flags, kind, payload) in frames {
                input.extend_from_slice(&[0x80, 3, 0, (kind % 12) as u8, flags & 1, 0, 0, payload.len() as u8]);
                input.extend_from_slice(&payload[..payload.len().min(255)]);
            }
            for protocol in [V5, Protocol::Spdy { version: 4 }] {
                let (mut ours, theirs) = duplex(1 << 20);
                ours.write_all(&input).await.unwrap();
                drop(ours);
                let connection = Connection::new(theirs, protocol);
                let _any = connection.remote_command(EVERYTHING, |_| async { Err("no".to_owned()) }).await;
            }
            let (mut ours, theirs) = duplex(1 << 20);
            ours.write_all(&input).await.unwrap();
            drop(ours);
            let protocol = if tunnel { Protocol::Tunnel } else { Protocol::Spdy { version: 1 } };
            let _any = Connection::new(theirs, protocol).port_forward(&[80], ports()).await;
        });
    }
}
