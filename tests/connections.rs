//! Clients that mean harm or hang: what they may hold, and for how long, while pages and scheduler go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as Socket;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::on_both_databases;
use crate::pages::{NOW, filled};
use crate::support::site::{Site, TOKEN};
use crate::support::{Engine, Fixture};
use crate::wire::proxy::{Moment, Proxy, Then};

on_both_databases!(idle_connections_stop_neither_page_nor_scheduler);

/// The longest that a client which does nothing is waited for, and some.
const PATIENCE: Duration = Duration::from_secs(16);

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a new connection is answered to these bytes until it is closed, or until nothing came for a while.
fn ask(address: &str, request: &str, patience: Duration) -> std::io::Result<String> {
    let mut socket = Socket::connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn idle_connections_stop_neither_page_nor_scheduler(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\n");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -n 256; exec {} serve --bind {address}", env!("CARGO_BIN_EXE_tallyroll"))]);
    command.current_dir(fixture.path()).env_clear().env("DATABASE_URL", &fixture.url).env("RUST_LOG", "off");
    let server = Killed(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_mins(1);
    while fixture.rows("SELECT 1 FROM schedule_state WHERE state = 'success'").await.is_empty() {
        assert!(Instant::now() < deadline, "the first slot did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Half a header each, and whoever is sent away comes back.
    let is_over = Arc::new(AtomicBool::new(false));
    let attack = std::thread::spawn({
        let (address, is_over) = (address.clone(), Arc::clone(&is_over));
        move || {
            let half = || -> std::io::Result<Socket> {
                let mut socket = Socket::connect(&address)?;
                socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let mut sockets: Vec<Option<Socket>> = (0..300).map(|_| half().ok()).collect();
            while !is_over.load(Ordering::Relaxed) {
                for socket in &mut sockets {
                    let waits = socket.as_mut().is_some_and(|socket| {
                        socket.read(&mut [0; 100]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
                    });
                    if !waits {
                        *socket = half().ok();
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    // As after a first start: the slot of a minute ago is due again.
    fixture.execute("DELETE FROM schedule_state").await;
    let mut slowest = Duration::ZERO;
    let mut slots = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(40);
    while slots.is_empty() && Instant::now() < deadline {
        let started = Instant::now();
        let health = ask(&address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Duration::from_secs(5));
        assert!(health.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200")), "{health:?}");
        slowest = slowest.max(started.elapsed());
        slots = fixture.rows("SELECT state FROM schedule_state WHERE state IN ('success', 'failed')").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    attack.join().unwrap();
    println!("{engine:?}: under 300 half headers a health check took at most {slowest:?}");
    assert_eq!(slots, ["success"]);
    drop(server);
}

/// A server that may have so many descriptors, with a token.
async fn limited(fixture: &Fixture, descriptors: usize) -> (Killed, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec {} serve --bind {address}", env!("CARGO_BIN_EXE_tallyroll"))]);
    command.current_dir(fixture.path()).env_clear().env("DATABASE_URL", &fixture.url).env("RUST_LOG", "off");
    command.env("TALLYROLL__SERVE__TOKEN", TOKEN);
    let server = Killed(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_mins(1);
    while TcpStream::connect(&address).await.is_err() {
        assert!(Instant::now() < deadline, "the server did not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (server, address)
}

/// Asks again and again over one connection, and over another when it ends: with requests sent ahead, or one after each pause.
async fn ask_for_ever(address: String, pause: Option<Duration>) {
    let request = "GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n";
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.write_all(request.repeat(if pause.is_some() { 1 } else { 20 }).as_bytes()).await;
        let mut answer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut answer).await {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let answers = String::from_utf8_lossy(&answer[..count]).matches("HTTP/1.1 ").count();
            let _ = stream.write_all(request.repeat(answers).as_bytes()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_and_again_keeps_nobody_out() {
    const PROMPTLY: Duration = Duration::from_secs(5);
    let fixture = filled(Engine::Sqlite).await;
    for (descriptors, slots) in [(256, 64), (2_048, 512)] {
        let (server, address) = limited(&fixture, descriptors).await;
        for pause in [None, Some(Duration::from_millis(150))] {
            let flood: Vec<_> = (0..slots).map(|_| tokio::spawn(ask_for_ever(address.clone(), pause))).collect();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let mut slowest = Duration::ZERO;
            for path in ["/healthz", "/runs", "/api/jobs", "/healthz"] {
                let started = Instant::now();
                let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n");
                let address = address.clone();
                let answer = tokio::task::spawn_blocking(move || ask(&address, &request, PROMPTLY)).await.unwrap();
                let is_answered = answer.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200"));
                assert!(is_answered, "{slots} slots, {pause:?}: {path} after {:?}: {answer:?}", started.elapsed());
                slowest = slowest.max(started.elapsed());
            }
            println!("{slots} slots, {pause:?} between requests: answered within {slowest:?}");
            flood.iter().for_each(tokio::task::JoinHandle::abort);
        }
        drop(server);
    }
}

/// Whoever asks whether the server is ready waits for the database; while it hangs, so many wait that nobody else would have a place.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_whether_it_is_ready_keeps_nobody_out_while_the_database_hangs() {
    let asked = Moment::Sent("SELECT 1 AS one");
    let proxy = Proxy::start(&[asked], Some((asked, 1, Then::Hold))).await;
    let mut fixture = Fixture::new(Engine::Postgres).await;
    let through = proxy.url(&fixture.url);
    let direct = std::mem::replace(&mut fixture.url, through);
    let (server, address) = limited(&fixture, 256).await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let flood: Vec<_> = (0..150)
        .map(|_| {
            let (address, ready) = (address.clone(), request("/readyz"));
            tokio::spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                    let _ = stream.write_all(ready.as_bytes()).await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    proxy.fired().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..5 {
        let (address, health) = (address.clone(), request("/healthz"));
        let answer = tokio::task::spawn_blocking(move || ask(&address, &health, Duration::from_secs(2))).await.unwrap();
        assert!(answer.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200")), "{answer:?}");
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    drop(server);
    proxy.release();
    fixture.url = direct;
}

/// What a client is sent until the connection ends, and how long that took.
async fn held(address: &str, begin: &[u8], again: &[u8]) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(begin).await;
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let drip = async {
        while !again.is_empty() && writer.write_all(again).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            read = reader.read_to_end(&mut answer) => drop(read),
            () = drip => {}
        }
    };
    let _ = tokio::time::timeout(PATIENCE * 2, ended).await;
    (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_is_waited_for_so_long_and_no_longer() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let address = site.url.trim_start_matches("http://").to_owned();
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let post = |rest: &str| format!("POST /login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n{rest}");
    // Name, what is sent at once, what is sent twice a second, how the answer begins.
    let cases: Vec<(&str, String, &str, &str)> = vec![
        ("nothing", String::new(), "", ""),
        ("half a header", "GET / HTTP/1.1\r\nHost: h\r\nX: ".to_owned(), "", ""),
        ("a header that goes on", "GET / HTTP/1.1\r\nHost: h\r\n".to_owned(), "X: y\r\n", ""),
        ("an idle connection", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "", "HTTP/1.1 200"),
        ("a body that never comes", post("Content-Length: 100\r\n\r\n"), "", "HTTP/1.1 408"),
        ("a body that drips", post("Content-Length: 4000\r\n\r\n"), "x", "HTTP/1.1 408"),
        ("a body of 10 GB", post("Content-Length: 10000000000\r\n\r\n"), "", "HTTP/1.1 413"),
        (
            "10 GB by one who may",
            format!("POST /api/jobs/usage_daily/run HTTP/1.1\r\nHost: h\r\n{token}Content-Length: 10000000000\r\n\r\n"),
            "",
            "HTTP/1.1 413",
        ),
        ("chunks without end", post("Transfer-Encoding: chunked\r\n\r\n"), "1\r\nx\r\n", "HTTP/1.1 408"),
        (
            "large chunks",
            post(&format!("Transfer-Encoding: chunked\r\n\r\n{}", format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(20))),
            "",
            "HTTP/1.1 413",
        ),
        ("one who waits to be told", post("Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"), "", "HTTP/1.1 100"),
        ("5,000 headers", format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(5_000)), "", "HTTP/1.1 431"),
        ("a header of 200 kB", format!("GET /healthz HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", "x".repeat(200_000)), "", "HTTP/1.1 431"),
        ("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(), "", ""),
    ];
    let held = cases.iter().map(|(name, begin, again, expected)| {
        let address = &address;
        async move {
            let (answer, took) = held(address, begin.as_bytes(), again.as_bytes()).await;
            let problem = match (answer.starts_with(expected), answer.is_empty() || !expected.is_empty(), took < PATIENCE) {
                (true, true, true) => return None,
                _ => format!("{name}: {took:?}, {:?}", answer.chars().take(60).collect::<String>()),
            };
            Some(problem)
        }
    });
    let problems: Vec<String> = join_all(held).await.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_left() {
    let fixture = filled(Engine::Sqlite).await;
    fixture.execute(&format!("UPDATE job_run SET log = '{}'", "a line of the log\n".repeat(20_000))).await;
    let run = fixture.rows("SELECT run_id FROM job_run WHERE job = 'usage_daily'").await.remove(0);
    let site = Site::new(&fixture, TOKEN, NOW).await;
    let request = format!("GET /api/runs/{run} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let mut stream = TcpStream::connect(site.url.trim_start_matches("http://")).await.unwrap();
    // More than all buffers between the two hold.
    let asked = 100;
    stream.write_all(request.repeat(asked).as_bytes()).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let answered = String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count();
    assert!((1..asked).contains(&answered), "{answered} answers");
    // One that reads gets all of them, in order.
    let mut stream = TcpStream::connect(site.url.trim_start_matches("http://")).await.unwrap();
    let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all((request.repeat(9) + &last).as_bytes()).await.unwrap();
    answer.clear();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count(), 10);
}

/// The answers to one request as a client without a token would forge it, until the connection ends.
fn forged(address: &str, request: &str) -> String {
    ask(address, request, PATIENCE).unwrap_or_else(|error| panic!("{request:?}: {error}"))
}

fn statuses(answer: &str) -> Vec<u16> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_request_is_no_way_past_the_token() {
    let fixture = filled(Engine::Sqlite).await;
    let (site, open) = (Site::new(&fixture, TOKEN, NOW).await, Site::new(&fixture, "", NOW).await);
    let (guarded, open) = (site.url.trim_start_matches("http://").to_owned(), open.url.trim_start_matches("http://").to_owned());
    tokio::task::spawn_blocking(move || {
        // A second request hidden in the first one's body is never answered.
        let hidden = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
        let form = "POST /login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        for (framing, status) in [
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 422),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 422),
            ("Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 400),
            ("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
            ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
            ("Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n", 400),
            ("Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
            ("Content-Length: +0\r\n\r\n", 400),
            ("Content-Length: 0, 0\r\n\r\n", 400),
            ("X: a\r\n Content-Length: 0\r\n\r\n", 400),
            ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400),
        ] {
            let answer = forged(&guarded, &format!("{form}{framing}{hidden}"));
            assert_eq!(statuses(&answer), [status], "{framing:?}: {answer}");
        }
        // No other way to write a path leads past the token.
        for path in [
            "/%72uns", "//runs", "/./runs", "/healthz/../runs", "/healthz%2f..%2fruns", "/runs/", "/RUNS", "/login/../metrics", "/style.css/..;/runs",
            "/metrics?", "/metrics%00", "/api/../api/jobs", "/api%2fjobs", "http://h/api/jobs", "http://localhost/metrics", "/login/%2e%2e/runs", "*", "/runs#",
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PROPFIND"] {
                let answer = forged(&guarded, &format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Canary: 7\r\n\r\n"));
                let found = statuses(&answer);
                assert!(found.len() == 1 && [303, 400, 401, 404, 405].contains(&found[0]), "{method} {path}: {answer}");
                assert!(!answer.contains("usage_daily") && !answer.contains("X-Canary"), "{method} {path}: {answer}");
            }
        }
        for request in [
            "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
            "GET /runs HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "GET /runs HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
            "GET /runs HTTP/1.0\r\n\r\n",
            "GET /runs\r\n\r\n",
            "GET /runs HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-HTTP-Method-Override: POST\r\nX-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\n\r\n",
        ] {
            let answer = forged(&guarded, request);
            let found = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            assert!([0, 303, 400, 401, 404, 405].contains(&found), "{request:?}: {answer}");
        }
        let oversized = format!("GET /runs HTTP/1.1\r\nHost: h\r\nConnection: close\r\nCookie: tallyroll_session={}\r\n\r\n", "9.".repeat(14_000));
        assert_eq!(statuses(&forged(&guarded, &oversized)), [303]);

        // A site that is open to this machine: no other name leads to it, however it is said.
        let get = |target: &str, hosts: &str| forged(&open, &format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"));
        assert_eq!(statuses(&get("/api/jobs", "Host: localhost\r\n")), [200]);
        for (target, hosts) in [
            ("/api/jobs", "Host: evil.example\r\n"),
            ("/api/jobs", "Host: localhost\r\nHost: evil.example\r\n"),
            ("/api/jobs", "Host: evil.example\r\nHost: localhost\r\n"),
            ("http://evil.example/api/jobs", "Host: localhost\r\n"),
            ("http://localhost@evil.example/api/jobs", "Host: localhost\r\n"),
            ("/api/jobs", "Host: localhost@evil.example\r\n"),
            ("/api/jobs", "Host: localhost.\r\n"),
            ("/api/jobs", "Host: localhost,evil.example\r\n"),
            ("/api/jobs", "Host: 127.0.0.1.evil.example:80\r\n"),
            ("/api/jobs", "Host: \r\n"),
        ] {
            let answer = get(target, hosts);
            assert!([[400], [401]].contains(&statuses(&answer)[..].try_into().unwrap()), "{target} {hosts}: {answer}");
        }
    })
    .await
    .unwrap();
}
