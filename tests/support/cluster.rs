//! A PostgreSQL server of a test's own, which it may stop, restore, copy, and set as an administrator would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tallyroll::project::Project;
use tallyroll::store::{Create, Store};
use tempfile::TempDir;

use super::{Fixture, config_of};

/// Stopped, at once, when it is dropped.
pub struct Cluster {
    dir: TempDir,
    data: PathBuf,
    options: String,
}

impl Cluster {
    /// Starts a server with these settings beside those of `scripts/postgres.sh`.
    pub fn start(options: &str) -> Self {
        let dir = folder();
        let data = dir.path().join("data");
        let cluster = Self { data, dir, options: options.to_owned() };
        let arguments = ["-D", &text(&cluster.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
        cluster.well("initdb", &arguments);
        cluster.go_on();
        // As scripts/postgres.sh.
        for database in ["template1", "postgres"] {
            cluster.well("psql", &["-X", "-q", "-c", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", &cluster.url(database)]);
        }
        cluster
    }

    /// A streaming standby of this server, as `pg_basebackup` makes it.
    pub fn standby(&self) -> Self {
        let dir = folder();
        let data = dir.path().join("data");
        let standby = Self { data, dir, options: String::new() };
        standby.well("pg_basebackup", &["-d", &self.url("postgres"), "-D", &text(&standby.data), "-R", "-c", "fast", "--no-sync"]);
        standby.go_on();
        standby
    }

    /// Starts it, or starts it again after [`Self::stop`]; what was committed is there.
    pub fn go_on(&self) {
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c max_connections=60 {}",
            text(self.dir.path()),
            self.options
        );
        self.well("pg_ctl", &["-D", &text(&self.data), "-l", &text(&self.dir.path().join("server.log")), "-w", "-o", &options, "start"]);
    }

    /// Ends it as a crash does: no connection is told, nothing is written down first.
    pub fn stop(&self) {
        self.well("pg_ctl", &["-D", &text(&self.data), "-m", "immediate", "-w", "stop"]);
    }

    /// Runs one of PostgreSQL's programs as the server's user, and requires that it does well; what it printed.
    pub fn well(&self, program: &str, arguments: &[&str]) -> String {
        let output = as_server(&binary(program)).args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}\n{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", text(self.dir.path()))
    }

    /// A folder that the server's user may write.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = as_server(&binary("pg_ctl")).args(["-D", &text(&self.data), "-m", "immediate", "-w", "stop"]).output();
    }
}

impl Fixture {
    /// An empty project folder with the database of this URL, which is migrated.
    pub async fn at(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::new(dir.path());
        let store = Store::open(&project, &config_of(&project, url), Create::IfMissing).await.unwrap();
        store.migrate(false).await.unwrap();
        Self { dir, url: url.to_owned(), store }
    }

    /// The same SQLite file once more, after its connections were closed.
    pub async fn reopened(fixture: Self) -> Self {
        let Self { dir, url, .. } = fixture;
        let project = Project::new(dir.path());
        let store = Store::open(&project, &config_of(&project, &url), Create::Never).await.unwrap();
        Self { dir, url, store }
    }
}

/// A command as the user that servers run as: PostgreSQL refuses root.
pub fn as_server(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// A folder that belongs to the user that servers run as.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        let status = Command::new("chown").args(["nobody", &text(dir.path())]).status().unwrap();
        assert!(status.success());
    }
    dir
}

/// Where Debian, or the PATH, has one of PostgreSQL's programs.
fn binary(name: &str) -> PathBuf {
    let debian =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|version| version.path().join("bin").join(name));
    debian.filter(|path| path.exists()).max().unwrap_or_else(|| PathBuf::from(name))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
