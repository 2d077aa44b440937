//! Subscriptions, ledger rows and finance files of a test.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tallyroll::snapshot::parquet_file;
use tallyroll::snapshot::peak_row::{self, PeakRow};

use super::Fixture;

/// Every file below a folder, by its path from there.
pub type Tree = BTreeMap<String, Vec<u8>>;

impl Fixture {
    pub async fn subscribe(&self, id: &str, org_id: &str, start: &str, committed_seats: i64) {
        self.execute(&format!(
            "INSERT INTO subscription (id, org_id, plan, committed_seats, start_at, license_id) \
             VALUES ('{id}', '{org_id}', 'team', {committed_seats}, '{start}', 'lic-{id}')"
        ))
        .await;
    }

    pub async fn seats(&self, id: i64, org_id: &str, occurred_at: &str, seats: i64) {
        self.execute(&format!(
            "INSERT INTO seat_usage_event (id, org_id, seats, occurred_at) VALUES ({id}, '{org_id}', {seats}, '{occurred_at}')"
        ))
        .await;
    }

    /// Three subscriptions of two orgs over five months, with closed months as of April.
    pub async fn three_subscriptions(&self) {
        self.subscribe("a", "org-1", "2025-12-15T13:45:30.000000Z", 10).await;
        self.subscribe("b", "org-1", "2026-01-31T00:00:00.000000Z", 20).await;
        self.subscribe("c", "org-2", "2026-01-01T00:00:00.000000Z", 5).await;
        for (id, org_id, at, seats) in [
            (1, "org-1", "2025-12-01T00:00:00.000000Z", 9),
            (2, "org-1", "2026-01-20T10:00:00.000000Z", 14),
            (3, "org-2", "2026-01-10T00:00:00.000000Z", 4),
            (4, "org-1", "2026-02-03T00:00:00.000000Z", 11),
            (5, "org-2", "2026-02-20T00:00:00.000000Z", 6),
            (6, "org-1", "2026-03-09T00:00:00.000000Z", 12),
        ] {
            self.seats(id, org_id, at, seats).await;
        }
    }

    /// Every finance file of the project's folder.
    pub fn out(&self) -> Tree {
        tree(&self.path().join("out"))
    }

    /// The rows of the files in `current/`.
    pub fn current(&self) -> Vec<PeakRow<'static>> {
        rows(&self.out(), "peak_seats/current/")
    }

    /// The rows of the sealed files.
    pub fn journal(&self) -> Vec<PeakRow<'static>> {
        rows(&self.out(), "peak_seats/final/")
    }
}

/// The rows of the Parquet files below a folder, in order of their paths.
pub fn rows(tree: &Tree, folder: &str) -> Vec<PeakRow<'static>> {
    let files = tree.iter().filter(|(path, _)| path.starts_with(folder) && path.ends_with(".parquet"));
    files.flat_map(|(_, bytes)| peak_row::read::rows(&parquet_file::read(bytes.clone().into()).unwrap().batches).unwrap()).collect()
}

pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                // A file that is being renamed may be gone again.
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), bytes);
            }
        }
    }
    found
}

/// Python with the packages of `scripts/python.sh`.
pub fn python(script: &str) -> Command {
    let packages = std::env::var_os("TALLYROLL_TEST_PYTHONPATH")
        .expect("TALLYROLL_TEST_PYTHONPATH names no packages: run the tests with scripts/test.sh");
    let mut command = Command::new("python3");
    command.arg(format!("{}/tests/support/{script}", env!("CARGO_MANIFEST_DIR"))).env("PYTHONPATH", packages);
    command
}

/// An S3-compatible server with a bucket `finance`; it ends with the test.
pub struct S3 {
    server: Child,
    pub url: String,
}

impl S3 {
    pub fn start() -> Self {
        let mut server = python("s3_server.py").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "the S3 server did not start");
        Self { server, url: url.trim().to_owned() }
    }

    /// The environment in which a command writes to it.
    pub fn environment(&self, prefix: &str) -> Vec<(&'static str, String)> {
        vec![
            ("TALLYROLL__OUTPUT__URL", format!("s3://finance/{prefix}")),
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
