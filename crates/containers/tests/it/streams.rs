//! Logs, commands, attached clients, forwarded ports.

use std::time::{Duration, Instant};

use containers::{Runtime, RuntimeError, StreamRequest, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Test;
use crate::world::{LIMIT, World, eventually, exit_of, log_by_stream, plain_log, words};

pub const TESTS: &[Test] = &[
    ("log_lines", |tokio| tokio.block_on(log_lines())),
    ("log_rotation", |tokio| tokio.block_on(log_rotation())),
    ("exec_sync", |tokio| tokio.block_on(exec_sync())),
    ("exec_with_streams", |tokio| tokio.block_on(exec_with_streams())),
    ("exec_with_terminal", |tokio| tokio.block_on(exec_with_terminal())),
    ("attach", |tokio| tokio.block_on(attach())),
    ("attach_to_terminal", |tokio| tokio.block_on(attach_to_terminal())),
    ("slow_client", |tokio| tokio.block_on(slow_client())),
    ("port_forward", |tokio| tokio.block_on(port_forward())),
];

async fn log_lines() {
    let world = World::new().await;
    let script =
        "printf 'one\\ntwo'; head -c 20000 /dev/zero | tr '\\0' x >&2; echo >&2; sleep 0.1; echo ' more'";
    let (status, _) = world.run(script, |_| {}).await;
    let streams = log_by_stream(&status.log_path);
    assert_eq!(streams["stdout"], ["F one", "F two more"]);
    let lengths: Vec<(char, usize)> =
        streams["stderr"].iter().map(|line| (line.chars().next().unwrap(), line.len() - 2)).collect();
    assert_eq!(lengths, [('P', 16384), ('F', 20000 - 16384)]);
    world.end().await;
}

async fn log_rotation() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world
        .container(&sandbox.id, &["sh", "-c", "while read line; do echo $line; done"], |config| {
            config.stdin = true
        })
        .await;
    world.runtime.start_container(&id).await.unwrap();
    let request = StreamRequest { stdin: true, ..StreamRequest::default() };
    let mut stdin = world.runtime.attach(&id, &request).await.unwrap().stdin.unwrap();
    let log = world.runtime.container(&id).await.unwrap().log_path;
    stdin.write_all(b"first\n").await.unwrap();
    eventually("first\n".to_owned(), || plain_log(&log)).await;
    let old = log.with_extension("old");
    std::fs::rename(&log, &old).unwrap();
    world.runtime.reopen_log(&id).await.unwrap();
    stdin.write_all(b"second\n").await.unwrap();
    eventually("second\n".to_owned(), || plain_log(&log)).await;
    assert_eq!(plain_log(&old), "first\n");
    world.end().await;
}

async fn exec_sync() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let run = async |script: &str| world.runtime.exec_sync(&id, &shell(script), LIMIT).await.unwrap();
    let result = run("echo out; echo err >&2; exit 4").await;
    assert_eq!((result.exit_code, &result.stdout[..], &result.stderr[..]), (4, &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(run("kill -9 $$").await.exit_code, 137);
    // Too much output is cut, and does not hold the command up.
    assert_eq!(run("head -c 300000 /dev/zero").await.stdout.len(), 16384);
    // What it leaves running in the background does not hold up the answer.
    let started = Instant::now();
    assert_eq!(run("sleep 5 & echo left").await.stdout, b"left\n");
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!(run("ps | grep -c '[s]leep 1000'").await.stdout, b"1\n");
    let command = shell("sleep 77; true");
    let outcome = world.runtime.exec_sync(&id, &command, Duration::from_millis(200)).await;
    assert!(matches!(outcome, Err(RuntimeError::Timeout(_))), "{outcome:?}");
    assert_eq!(run("while ps | grep '[s]leep 77' >/dev/null; do sleep 0.05; done").await.exit_code, 0);
    let outcome = world.runtime.exec_sync(&id, &words("nothing-here"), LIMIT).await;
    assert!(
        matches!(&outcome, Err(RuntimeError::Start(text)) if text.contains("not found in $PATH")),
        "{outcome:?}"
    );
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let outcome = world.runtime.exec_sync(&id, &words("true"), LIMIT).await;
    assert!(matches!(outcome, Err(RuntimeError::NotRunning(_))), "{outcome:?}");
    world.end().await;
}

fn request(command: &str, tty: bool) -> StreamRequest {
    let command = if command.is_empty() { vec![] } else { vec!["sh".into(), "-c".into(), command.into()] };
    StreamRequest { command, stdin: true, stdout: true, stderr: !tty, tty, size: None }
}

async fn read_all(stream: impl AsyncReadExt) -> String {
    let mut text = String::new();
    tokio::time::timeout(LIMIT, Box::pin(stream).read_to_string(&mut text))
        .await
        .expect("the stream ends")
        .unwrap();
    text
}

async fn exec_with_streams() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    let streams = world.runtime.exec(&id, &request("cat; echo gone >&2; exit 9", false)).await.unwrap();
    let Streams { stdin, stdout, stderr, exit, .. } = streams;
    let text = "x".repeat(1 << 20);
    let sent = text.clone();
    let writing = tokio::spawn(async move {
        let mut stdin = stdin.unwrap();
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    assert_eq!(read_all(stdout.unwrap()).await, text);
    assert_eq!(read_all(stderr.unwrap()).await, "gone\n");
    assert_eq!(exit.await, Ok(9));
    writing.await.unwrap();
    world.end().await;
}

async fn expect(stream: &mut (impl AsyncReadExt + Unpin), what: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    let reading = async {
        while !seen.contains(what) {
            let count = stream.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "the stream ended after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    if tokio::time::timeout(LIMIT, reading).await.is_err() {
        panic!("{what:?} did not come");
    }
    seen
}

async fn exec_with_terminal() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    let streams = world.runtime.exec(&id, &request("tty; echo $TERM; exec sh -i", true)).await.unwrap();
    let (mut stdin, mut stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    let seen = expect(&mut stdout, "# ").await;
    assert!(seen.contains("/dev/pts/0") && seen.contains("xterm"), "{seen}");
    streams.resize.send((132, 43)).await.unwrap();
    stdin.write_all(b"while ! stty size | grep '^43 132'; do :; done\n").await.unwrap();
    expect(&mut stdout, "43 132\r\n").await;
    stdin.write_all(b"exit 5\n").await.unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, streams.exit).await.unwrap(), Ok(5));
    world.end().await;
}

async fn attach() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let script = "while read line; do echo got $line; done; echo end >&2; exit 3";
    let id = world
        .container(&sandbox.id, &["sh", "-c", script], |config| {
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    world.runtime.start_container(&id).await.unwrap();
    let streams = world.runtime.attach(&id, &request("", false)).await.unwrap();
    let (mut stdin, mut stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    stdin.write_all(b"a\nb\n").await.unwrap();
    expect(&mut stdout, "got a\ngot b\n").await;
    stdin.shutdown().await.unwrap();
    assert_eq!(read_all(streams.stderr.unwrap()).await, "end\n");
    assert_eq!(tokio::time::timeout(LIMIT, streams.exit).await.unwrap(), Ok(0));
    let status = world.wait_exit(&id).await;
    assert_eq!(exit_of(&status).0, 3);
    assert_eq!(log_by_stream(&status.log_path)["stdout"], ["F got a", "F got b"]);
    world.end().await;
}

async fn attach_to_terminal() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world
        .container(&sandbox.id, &["sh", "-i"], |config| {
            config.stdin = true;
            config.tty = true;
        })
        .await;
    world.runtime.start_container(&id).await.unwrap();
    let streams = world.runtime.attach(&id, &request("", true)).await.unwrap();
    let (mut stdin, mut stdout) = (streams.stdin.unwrap(), streams.stdout.unwrap());
    streams.resize.send((99, 11)).await.unwrap();
    stdin
        .write_all(b"while ! stty size | grep '^11 99'; do :; done; test -c /dev/console && echo yes\n")
        .await
        .unwrap();
    expect(&mut stdout, "yes\r\n").await;
    stdin.write_all(b"exit 6\n").await.unwrap();
    assert_eq!(exit_of(&world.wait_exit(&id).await).0, 6);
    world.end().await;
}

/// A client that does not read holds the container up, and lets it go by leaving.
async fn slow_client() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let script = "read go; i=0; while [ $i -lt 3000 ]; do echo $i 0123456789012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done; exit 2";
    let id = world.container(&sandbox.id, &["sh", "-c", script], |config| config.stdin = true).await;
    world.runtime.start_container(&id).await.unwrap();
    let streams = world.runtime.attach(&id, &request("", false)).await.unwrap();
    streams.stdin.unwrap().write_all(b"go\n").await.unwrap();
    let log = world.runtime.container(&id).await.unwrap().log_path;
    let mut stdout = streams.stdout.unwrap();
    expect(&mut stdout, "10 0").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = plain_log(&log).lines().count();
    assert!(held < 3000, "{held} lines");
    drop(stdout);
    let status = world.wait_exit(&id).await;
    assert_eq!((exit_of(&status).0, plain_log(&log).lines().count()), (2, 3000));
    world.end().await;
}

async fn port_forward() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["nc", "-l", "-p", "8080", "-e", "cat"]).await;
    let mut stream = None;
    for _ in 0..100 {
        match world.runtime.port_forward(&sandbox.id, 8080).await {
            Ok(found) => {
                stream = Some(found);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let mut stream = stream.expect("the port answers in time");
    stream.write_all(b"ping\n").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping\n");
    drop(stream);
    let refused = world.runtime.port_forward(&sandbox.id, 9).await;
    let text = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("localhost:9") && text.contains("refused"), "{text}");
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    world.end().await;
}
