//! Links, pipes, files and answers without an end, where finance files are: a clear error, no hang, nothing written elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use tallyroll::failure;
use tallyroll::snapshot::parquet_file;
use tallyroll::snapshot::storage::Storage;

use crate::support::seats::tree;
use crate::support::{Engine, Finished, Fixture, repetitions};

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];
const VERIFY: [&str; 3] = ["verify", "--as-of", "2026-04-05T00:00:00Z"];
const MONTH: &str = "peak_seats/final/billing_month=2026-02";

async fn project() -> Fixture {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.three_subscriptions().await;
    fixture
}

/// Ends within a minute, or fails the test.
fn finished(mut command: Command) -> Finished {
    let child = command.spawn().unwrap();
    let id = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(Duration::from_mins(1)) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("{command:?} hangs");
    };
    Finished::of(&output.unwrap())
}

fn assert_named(finished: &Finished, parts: &[&str]) {
    assert_eq!(finished.code, Some(65), "{finished:?}");
    assert!(parts.iter().all(|part| finished.stderr.contains(part)), "{parts:?}: {}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_link_below_the_root_is_followed() {
    for linked in [MONTH, "peak_seats/current/billing_month=2026-02", "peak_seats"] {
        let fixture = project().await;
        let elsewhere = fixture.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let link = fixture.path().join("out").join(linked);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&elsewhere, &link).unwrap();
        assert_named(&fixture.run(&RUN), &[linked, "a symbolic link"]);
        assert!(tree(&elsewhere).is_empty(), "written through `{linked}`");
    }
    // A file that is a link is neither read nor replaced.
    let fixture = project().await;
    fixture.run_well(&RUN);
    let current = fixture.path().join("out/peak_seats/current/billing_month=2026-02/peak_seats.parquet");
    let elsewhere = fixture.path().join("elsewhere.parquet");
    fs::rename(&current, &elsewhere).unwrap();
    symlink(&elsewhere, &current).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    assert_named(&fixture.run(&VERIFY), &["current/billing_month=2026-02/peak_seats.parquet", "a symbolic link"]);
    assert_named(&fixture.run(&[&RUN[..], &["--force"]].concat()), &["current/billing_month=2026-02/peak_seats.parquet"]);
    assert!(current.is_symlink() && fs::read(&elsewhere).unwrap() == before);
    // The root itself may be one.
    let fixture = project().await;
    fs::create_dir(fixture.path().join("disk")).unwrap();
    symlink("disk", fixture.path().join("out")).unwrap();
    fixture.run_well(&RUN);
    fixture.run_well(&VERIFY);
    assert!(fixture.path().join("disk").join(MONTH).is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_plain_files_of_a_bounded_size_are_read() {
    let fixture = project().await;
    fixture.run_well(&RUN);
    let folder = fixture.path().join("out").join(MONTH).join("rev-0001");
    for name in ["peak_seats.parquet", "peak_seats.csv", "manifest.json", "_SUCCESS"] {
        let path = folder.join(name);
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_named(&finished(fixture.command(&VERIFY)), &[name, "a pipe"]);
        assert_named(&finished(fixture.command(&[&RUN[..], &["--force"]].concat())), &[name, "a pipe"]);
        fs::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_named(&finished(fixture.command(&VERIFY)), &[name, "a socket"]);
        fs::remove_file(&path).unwrap();
        // A file of four gigabytes without a block on the disk.
        fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
        assert_named(&finished(fixture.command(&VERIFY)), &[name, "is longer than"]);
        fs::write(&path, good).unwrap();
    }
    fixture.run_well(&VERIFY);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_follows_no_link_and_keeps_a_files_mode() {
    let fixture = project().await;
    fixture.run_well(&RUN);
    let export = ["export", "--to", "finance"];
    fixture.run_well(&export);
    let month = Path::new("peak_seats/current/billing_month=2026-02");
    let exported = fixture.path().join("finance").join(month).join("peak_seats.parquet");
    fs::set_permissions(&exported, fs::Permissions::from_mode(0o600)).unwrap();
    fixture.run_well(&export);
    assert_eq!(fs::metadata(&exported).unwrap().permissions().mode() & 0o7777, 0o600);
    // A link in the target.
    let elsewhere = fixture.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    fs::remove_file(&exported).unwrap();
    symlink(&elsewhere, &exported).unwrap();
    assert_named(&fixture.run(&export), &["finance/peak_seats/current/billing_month=2026-02/peak_seats.parquet", "a symbolic link"]);
    assert!(exported.is_symlink() && fs::read_to_string(&elsewhere).unwrap() == "mine");
    fs::remove_file(&exported).unwrap();
    // A link in the source.
    let source = fixture.path().join("out").join(month).join("peak_seats.parquet");
    fs::rename(&source, fixture.path().join("kept")).unwrap();
    symlink("/etc/hostname", &source).unwrap();
    assert_named(&fixture.run(&export), &["out/peak_seats/current/billing_month=2026-02/peak_seats.parquet", "a symbolic link"]);
    fs::remove_file(&source).unwrap();
    fs::rename(fixture.path().join("kept"), &source).unwrap();
    // The folder of sealed files is no place for copies.
    let refused = fixture.run(&["export", "--to", "out"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

/// What a server of false answers does; each answers listings with one sealed revision, unless it says otherwise.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    EndlessManifest,
    EndlessError,
    EndlessPage,
    EndlessPages,
    Slow,
}

/// An HTTP server of its own, for as long as the test runs.
fn server(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, lie));
        }
    });
    url
}

fn answer(mut stream: &TcpStream, lie: Lie) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = request.clone();
        while header != "\r\n" {
            header.clear();
            reader.read_line(&mut header)?;
        }
        let whole = |mut stream: &TcpStream, status: &str, body: &str| {
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"x\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n{body}",
                body.len()
            )
        };
        let endless = |mut stream: &TcpStream, status: &str, chunk: &[u8], pause: Duration| -> std::io::Result<()> {
            // A length that no memory holds, for a reader that believes it.
            let length = if lie == Lie::Slow { 1_000_000 } else { 9_000_000_000_000_u64 };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\netag: \"x\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
            )?;
            loop {
                stream.write_all(chunk)?;
                // Slow enough that the memory of a reader without bounds is not the machine's.
                std::thread::sleep(pause);
            }
        };
        let megabyte = vec![b' '; 1 << 20];
        let (is_list, pause) = (request.contains("list-type=2"), Duration::from_millis(50));
        match lie {
            Lie::EndlessPage if is_list => endless(stream, "200 OK", &megabyte, pause)?,
            Lie::Slow => endless(stream, "200 OK", b" ", pause)?,
            Lie::EndlessPages if is_list => {
                let page: String = (0..1_000).map(|number| contents(&format!("{MONTH}/{number}"))).collect();
                whole(
                    stream,
                    "200 OK",
                    &listing(&page, "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"),
                )?;
            }
            _ if is_list => {
                let files = ["peak_seats.parquet", "manifest.json"].map(|name| contents(&format!("{MONTH}/rev-0001/{name}")));
                whole(stream, "200 OK", &listing(&files.concat(), "<IsTruncated>false</IsTruncated>"))?;
            }
            Lie::EndlessError => endless(stream, "403 Forbidden", &megabyte, pause)?,
            Lie::EndlessManifest if request.contains("manifest.json") => endless(stream, "200 OK", &megabyte, pause)?,
            _ if request.contains(".parquet") => whole(stream, "200 OK", "PAR1")?,
            _ => whole(stream, "404 Not Found", "")?,
        }
        stream.flush()?;
    }
}

fn contents(key: &str) -> String {
    format!("<Contents><Key>x/{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>4</Size></Contents>")
}

fn listing(files: &str, rest: &str) -> String {
    format!("<?xml version=\"1.0\"?><ListBucketResult><Name>finance</Name><Prefix>x</Prefix>{rest}{files}</ListBucketResult>")
}

/// What verifying a bucket of false answers ends in.
async fn verified(lie: Lie) -> Finished {
    let fixture = project().await;
    let mut command = fixture.command(&VERIFY);
    command.envs([
        ("TALLYROLL__OUTPUT__URL", "s3://finance/x".to_owned()),
        ("AWS_ENDPOINT_URL", server(lie)),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]);
    finished(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_object_ends_in_a_clear_error() {
    assert_named(&verified(Lie::EndlessManifest).await, &["rev-0001/manifest.json", "is longer than"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_listings_and_errors_end_in_a_clear_error() {
    for lie in [Lie::EndlessPage, Lie::EndlessError, Lie::EndlessPages] {
        let finished = verified(lie).await;
        assert!(matches!(finished.code, Some(65 | 75 | 78)), "{finished:?}");
        assert!(finished.stderr.contains("s3://finance/x/"), "{}", finished.stderr);
        assert!(["is longer than", "more than"].iter().any(|word| finished.stderr.contains(word)), "{}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_given_up() {
    let bucket = AmazonS3Builder::new().with_bucket_name("finance").with_region("us-east-1").with_allow_http(true);
    let bucket = bucket.with_endpoint(server(Lie::Slow)).with_access_key_id("test").with_secret_access_key("test").build().unwrap();
    let (prefix, url, max_wait) = ("x".to_owned(), "s3://finance/x".to_owned(), Duration::from_secs(1));
    let storage = Storage::S3 { store: Arc::new(bucket), prefix, url, max_wait };
    for error in [storage.get("manifest.json").await.unwrap_err(), storage.list("peak_seats").await.unwrap_err()] {
        assert_eq!(failure::exit_code(&error), 75, "{error:#}");
        assert!(format!("{error:#}").contains("did not hand over `s3://finance/x/"), "{error:#}");
    }
}

/// Its footer, with the schemas, and its pages: an error, or rows that are not what was written, never a panic.
#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_of_a_parquet_file_is_a_panic() {
    let fixture = project().await;
    fixture.run_well(&RUN);
    let whole = fs::read(fixture.path().join("out").join(MONTH).join("rev-0001/peak_seats.parquet")).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        for bit in (at..).take(repetitions(1, 8)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (bit % 8);
            let read = std::panic::catch_unwind(|| parquet_file::read(bytes.into()).is_err());
            refused += usize::from(read.unwrap_or_else(|_| panic!("byte {at} of {}, bit {}", whole.len(), bit % 8)));
        }
    }
    assert!(refused > whole.len() / 2, "{refused}");
}
