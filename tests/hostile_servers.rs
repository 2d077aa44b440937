//! Servers that turn on those who ask them: they send a request elsewhere, or repeat the password that they were sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tallyroll::failure;
use tallyroll::project::Project;
use tallyroll::store::{Create, Store};

use crate::secrets::{CANARY, run_loudly};
use crate::support::{Engine, Finished, Fixture, config_of, postgres_url};

type Heard = Arc<Mutex<Vec<String>>>;

/// An HTTP server that answers each request by `answer`; its address, and the heads that it heard.
fn http_server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Heard::default();
    let (kept, answer) = (Arc::clone(&heard), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            std::thread::spawn(move || while answer_one(&stream, &kept, &*answer).is_some() {});
        }
    });
    (address, heard)
}

fn answer_one(mut stream: &TcpStream, kept: &Heard, answer: impl Fn(&str) -> String) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        length = line.to_lowercase().strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
        head.push_str(&line);
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let said = answer(&head);
    kept.lock().unwrap().push(head);
    stream.write_all(said.as_bytes()).ok()
}

fn redirect(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

const NOTHING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_sends_nobody_elsewhere() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.three_subscriptions().await;
    let (third, heard) = http_server(|_| NOTHING.to_owned());
    for status in [301, 302, 303, 307, 308] {
        for is_put_alone in [false, true] {
            let location = format!("http://{third}/{CANARY}");
            let (bucket, asked) = http_server(move |head| match is_put_alone && !head.starts_with("PUT") {
                true if head.contains("list-type") => {
                    let listing =
                        "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{listing}", listing.len())
                }
                true => NOTHING.to_owned(),
                false => redirect(status, &location),
            });
            let environment = [
                ("TALLYROLL__OUTPUT__URL", "s3://finance/x"),
                ("AWS_ENDPOINT_URL", &format!("http://{bucket}")),
                ("AWS_ALLOW_HTTP", "1"),
                ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", CANARY),
                ("AWS_SESSION_TOKEN", CANARY),
                ("AWS_REGION", "us-east-1"),
            ];
            let finished = run_loudly(&fixture, &["run-job", "peak_seats"], &environment).await;
            assert_eq!(finished.code, Some(75), "{status} {finished:?}");
            assert!(finished.stderr.contains(&format!("It answered {status}")), "{status} {finished:?}");
            assert!(!asked.lock().unwrap().is_empty());
            assert_eq!(*heard.lock().unwrap(), Vec::<String>::new(), "{status}: followed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_sends_nobody_elsewhere_and_its_host_is_not_logged() {
    let (third, heard) = http_server(|_| NOTHING.to_owned());
    let (hook, asked) = http_server(move |head| {
        let path = head.split(' ').nth(1).unwrap();
        let status = path.rsplit('/').next().unwrap().parse().unwrap();
        redirect(status, &format!("http://{third}{path}"))
    });
    let hooks = [301, 302, 303, 307, 308].map(|status| format!("http://{hook}/{CANARY}/{status}"));
    let hidden = format!("http://{CANARY}.invalid/x");
    for url in hooks.iter().chain([&hidden]) {
        // Overdue from the start, and its output is no place for files.
        let fixture = Fixture::new(Engine::Sqlite).await;
        fixture.three_subscriptions().await;
        fixture.write("schedules.toml", "[peak_seats]\ncron = \"* * * * *\"\n");
        fixture.write("out", "");
        asked.lock().unwrap().clear();
        let environment = [("TALLYROLL__NOTIFY__WEBHOOK_URL", url.as_str())];
        let failed = run_loudly(&fixture, &["run-due"], &environment).await;
        assert_ne!(failed.code, Some(0), "{failed:?}");
        assert!(failed.stderr.contains("The webhook could not be told"), "{url} {}", failed.stderr);
        assert!(*url == hidden || !asked.lock().unwrap().is_empty(), "{url}");
        assert_eq!(*heard.lock().unwrap(), Vec::<String>::new(), "{url}: followed");
    }
}

/// A message of PostgreSQL's protocol.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn error_of(kind: u8, severity: &[u8], code: &[u8], fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = [b"S", severity, b"\0V", severity, b"\0C", code, b"\0"].concat();
    for (field, text) in fields {
        body.extend([&[*field][..], text, b"\0"].concat());
    }
    body.push(0);
    message(kind, &body)
}

/// Ways to repeat a password to whoever sent it.
const ECHOES: [&str; 14] = [
    "message",
    "detail",
    "hint",
    "other fields",
    "code",
    "severity",
    "notice",
    "mechanism",
    "unknown authentication",
    "no message",
    "status",
    "unreachable",
    "error of a setting",
    "notice of a setting",
];

fn echo(name: &str, password: &[u8]) -> Vec<u8> {
    let refused = error_of(b'E', b"FATAL", b"28P01", &[(b'M', b"x")]);
    let ready = [message(b'R', &[0; 4]), message(b'K', &[0; 8]), message(b'Z', b"I")].concat();
    match name {
        "message" => error_of(b'E', b"FATAL", b"28P01", &[(b'M', password)]),
        "detail" => error_of(b'E', b"FATAL", b"28P01", &[(b'M', b"x"), (b'D', password)]),
        "hint" => error_of(b'E', b"FATAL", b"3D000", &[(b'M', b"x"), (b'H', password)]),
        "other fields" => error_of(b'E', b"FATAL", b"28000", &[(b'M', b"x"), (b'n', password), (b's', password), (b'W', password)]),
        "code" => error_of(b'E', b"FATAL", password, &[(b'M', b"x")]),
        "severity" => error_of(b'E', password, b"28P01", &[(b'M', b"x")]),
        "notice" => [error_of(b'N', b"WARNING", b"01000", &[(b'M', password), (b'D', password)]), refused].concat(),
        "mechanism" => message(b'R', &[&10_u32.to_be_bytes()[..], password, b"\0\0"].concat()),
        "unknown authentication" => message(b'R', &[&99_u32.to_be_bytes()[..], password].concat()),
        "no message" => [password, b"\0\0\0\0\0\0"].concat(),
        "status" => [message(b'R', &[0; 4]), message(b'S', &[password, b"\0", password, b"\0"].concat()), refused].concat(),
        "unreachable" => error_of(b'E', b"FATAL", b"53300", &[(b'M', password)]),
        "error of a setting" => {
            [ready, error_of(b'E', b"ERROR", b"42501", &[(b'M', password), (b'D', password)]), message(b'Z', b"I")].concat()
        }
        "notice of a setting" => [ready, error_of(b'N', b"WARNING", b"01000", &[(b'M', password)]), refused].concat(),
        _ => unreachable!("{name}"),
    }
}

/// The body of a message, behind its kind where it has one.
fn take(mut stream: &TcpStream, kind: usize) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; kind + 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[kind..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Asks for a password in the clear, and repeats it.
fn greet(mut stream: &TcpStream, name: &str) -> std::io::Result<()> {
    // No TLS, whatever is asked first.
    while take(stream, 0)?[..2] != [0, 3] {
        stream.write_all(b"N")?;
    }
    stream.write_all(&message(b'R', &3_u32.to_be_bytes()))?;
    let password = take(stream, 1)?;
    stream.write_all(&echo(name, password.strip_suffix(b"\0").unwrap()))?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_repeats_the_password_is_not_repeated() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let fixture = &fixture;
    let tried = ECHOES.map(|name| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || greet(&stream, name));
            }
        });
        let url = format!("postgres://app:{CANARY}@{address}/db");
        for arguments in [&["status"][..], &["check"], &["run-due"]] {
            let finished = run_loudly(fixture, arguments, &[("DATABASE_URL", &url)]).await;
            assert!(matches!(finished.code, Some(75 | 78)), "{name} {arguments:?} {finished:?}");
        }
    });
    futures_util::future::join_all(tried).await;
}

/// What is wrong is still told, by the code alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_told_by_its_code() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let url = postgres_url().replace("/postgres?", "/there_is_none?");
    let refused = run_loudly(&fixture, &["status"], &[("DATABASE_URL", &url)]).await;
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("there is no such database [3D000]"), "{}", refused.stderr);
}

/// A role that may no longer connect: what was open is gone, and another session is not given.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_refused_later_is_tried_again() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let role = format!("late_{}", uuid::Uuid::new_v4().simple());
    fixture.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
    let separator = if fixture.url.contains("user=") { panic!("the server's URL names a user: {}", fixture.url) } else { "&user=" };
    let url = format!("{}{separator}{role}", fixture.url.replace("postgres://postgres@", "postgres://"));
    let project = Project::new(fixture.path());
    let store = Store::open(&project, &config_of(&project, &url), Create::Never).await.unwrap();
    store.query("SELECT 1 AS one", &[]).await.unwrap();
    fixture.execute(&format!("ALTER ROLE {role} NOLOGIN")).await;
    fixture.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")).await;
    for attempt in 0..3 {
        for error in [store.query("SELECT 1 AS one", &[]).await.unwrap_err(), store.begin().await.map(drop).unwrap_err()] {
            assert_eq!(failure::exit_code(&error), 75, "{attempt} {error:#}");
            assert!(!format!("{error:#}").contains(&role), "{attempt} {error:#}");
        }
    }
    store.close().await;
    fixture.execute(&format!("DROP ROLE {role}")).await;
}

/// A URL where none belongs.
#[tokio::test(flavor = "multi_thread")]
async fn a_misplaced_url_is_not_repeated() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let url = format!("postgres://app:{CANARY}@127.0.0.1:1/db");
    let option = format!("--databse-url={url}");
    let limit = format!("--limit={url}");
    for arguments in [
        &[url.as_str()][..],
        &["run-job", &url],
        &["run-job", "usage_daily", &url],
        &["run-job", "usage_daily", "--month", &url],
        &["-C", &url, "status"],
        &["runs", "--limit", &url],
        &["runs", &limit],
        &["runs", "--job", &url],
        &["status", &option],
        &["import", "usage", &url],
        &["serve", "--bind", &url],
        &["export", "--to", &url],
    ] {
        run_loudly(&fixture, arguments, &[]).await;
    }
}

/// What no PostgreSQL says, and the library that reads it does not expect.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_keep_to_the_protocol_is_an_error() {
    for answer in [
        &b"E\0\0\0\0"[..],
        b"E\0\0\0\x03",
        b"R\0\0\0\x05\0",
        b"K\0\0\0\x04",
        b"Z\0\0\0\x04",
        b"R\0\0\0\x0a\0\0\0\x05aa",
        b"\xff\xff\xff\xff\xff",
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut head = [0; 1_024];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(answer);
            }
        });
        let fixture = Fixture::empty(Engine::Sqlite).await;
        let url = format!("postgres://runner:CanarY7@{address}/app?sslmode=disable");
        let finished = Finished::of(&fixture.command(&["status"]).env("DATABASE_URL", &url).output().unwrap());
        assert!([Some(1), Some(75), Some(78)].contains(&finished.code), "{answer:?} {finished:?}");
        assert!(!format!("{finished:?}").contains("CanarY7"), "{finished:?}");
    }
}
