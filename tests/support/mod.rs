//! A project folder and a database of its own for each test.

pub mod cluster;
pub mod schedules;
pub mod seats;
pub mod site;
pub mod template;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection};
use tallyroll::clock::Clock;
use tallyroll::config::{self, Config};
use tallyroll::engine::env::Context;
use tallyroll::jobs::Jobs;
use tallyroll::project::Project;
use tallyroll::snapshot::storage::Storage;
use tallyroll::store::{Create, Store, Value};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Writes one test for each database.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Engine::Postgres).await;
            })*
        }
    };
}

/// The project of every fixture: what is published is the same from either database.
pub const PROJECT_ID: &str = "00000000-0000-4000-8000-00000000000a";

/// A migrated database, with a project folder beside it.
pub struct Fixture {
    pub dir: TempDir,
    pub url: String,
    pub store: Store,
}

impl Fixture {
    pub async fn new(engine: Engine) -> Self {
        let fixture = Self::empty(engine).await;
        fixture.store.migrate(false).await.unwrap();
        fixture.execute(&format!("UPDATE tallyroll_project SET project_id = '{PROJECT_ID}'")).await;
        fixture
    }

    /// A PostgreSQL database as migrations up to `version` left it.
    pub async fn of_before(version: i64) -> Self {
        let fixture = Self::empty(Engine::Postgres).await;
        let mut migrator = Migrator::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/migrations/postgres"))).await.unwrap();
        migrator.dangerous_set_table_name("tallyroll_migration");
        let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
        migrator.run_to(version, &mut connection).await.unwrap();
        connection.close().await.unwrap();
        fixture
    }

    /// A database without any table.
    pub async fn empty(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => "sqlite://tallyroll.db".to_owned(),
            Engine::Postgres => new_postgres_database(None).await,
        };
        let project = Project::new(dir.path());
        let store = Store::open(&project, &config_of(&project, &url), Create::IfMissing).await.unwrap();
        Self { dir, url, store }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let file = self.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    pub fn config(&self) -> Config {
        config_of(&Project::new(self.path()), &self.url)
    }

    pub async fn execute(&self, sql: &str) -> u64 {
        self.store.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{error:#}\n{sql}"))
    }

    /// Rows as text, the same from either database.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.store.query(sql, &[]).await.unwrap_or_else(|error| panic!("{error:#}\n{sql}"));
        let text = |value: &Value| value.to_text().unwrap_or_else(|| "NULL".to_owned());
        rows.iter().map(|row| row.values.iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.rows(sql).await[0].parse().unwrap()
    }

    /// Everything that a run computes, but for when and by whom.
    pub async fn results(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in SUMMARIES {
            let columns = self.store.table_columns(table).await.unwrap().join(", ");
            all.push(format!("{table}: {columns}"));
            let mut rows = self.rows(&format!("SELECT {columns} FROM {table}")).await;
            rows.sort();
            all.extend(rows);
        }
        all.extend(
            self.rows(
                // The archive's counts are those of its last run alone.
                "SELECT job, window_start, window_end, state, rows_in, rows_out, quarantined_count, timezone FROM job_window \
                 WHERE job <> 'archive' ORDER BY 1, 2",
            )
            .await,
        );
        all.extend(self.rows("SELECT source, event_id, usage_date, reason, payload FROM quarantined_event ORDER BY 1, 2").await);
        all
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyroll"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("DATABASE_URL", &self.url)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(&self.command(arguments).output().unwrap())
    }

    /// Runs and requires exit code 0.
    pub fn run_well(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}\n{}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    }

    /// Runs a script of `sh` in a mount namespace of its own, where it may mount a disk as small as it likes: nothing is left behind.
    pub fn run_in_own_mounts(&self, script: &str) {
        let inherited = self.command(&[]);
        let mut shell = Command::new("unshare");
        shell.args(["--map-root-user", "--mount", "sh", "-c", script]).current_dir(self.path());
        shell.envs(inherited.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let finished = Finished::of(&shell.output().expect("the tests need unshare(1) of util-linux"));
        assert_eq!(finished.code, Some(0), "{finished:?} (99: the tests may not mount a tmpfs in a namespace of their own)");
    }

    /// Says of each trigger that the test made that it is meant, as the tables' owner does.
    pub async fn accept_triggers(&self) {
        if !self.url.starts_with("postgres") {
            return;
        }
        let accept = "DO $$ DECLARE v_trigger RECORD; BEGIN \
             PERFORM set_config('search_path', 'pg_catalog, pg_temp', TRUE); \
             FOR v_trigger IN SELECT oid, tgname, tgenabled, tgrelid::REGCLASS AS made_on FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT LIKE 'tallyroll\\_%' LOOP \
                 EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', v_trigger.tgname, v_trigger.made_on, 'tallyroll: accepted ' \
                     || encode(sha256(convert_to(pg_get_triggerdef(v_trigger.oid) || ' ' || v_trigger.tgenabled::TEXT, 'UTF8')), 'hex')); \
             END LOOP; END $$";
        self.execute(accept).await;
    }

    /// One row of `ai_usage_log`; what is not named has the fixture's default.
    pub async fn log(&self, occurred_at: &str, set: &[(&str, &str)]) -> String {
        let id = Uuid::new_v4().to_string();
        let mut columns = vec!["id".to_owned(), "created_at".to_owned()];
        let mut values = vec![format!("'{id}'"), format!("'{occurred_at}'")];
        let defaults = [("user_id", "'00000000-0000-4000-8000-000000000001'"), ("input_tokens", "100"), ("output_tokens", "10")];
        for (column, value) in defaults.iter().filter(|(column, _)| set.iter().all(|(name, _)| name != column)).chain(set) {
            columns.push((*column).to_owned());
            values.push((*value).to_owned());
        }
        self.execute(&format!("INSERT INTO ai_usage_log ({}) VALUES ({})", columns.join(", "), values.join(", "))).await;
        id
    }

    /// The windows written since, as `job window`, from a JSON report.
    pub fn written(&self, arguments: &[&str]) -> Vec<String> {
        let report: serde_json::Value = serde_json::from_str(&self.run_well(&[arguments, &["--json"]].concat())).unwrap();
        let mut written = Vec::new();
        for job in report["jobs"].as_array().unwrap() {
            for window in job["windows"].as_array().unwrap() {
                written.push(format!("{} {}", job["job"].as_str().unwrap(), window["window"].as_str().unwrap()));
            }
        }
        written
    }
}

pub const SUMMARIES: [&str; 7] = [
    "usage_daily",
    "usage_daily_user",
    "usage_daily_customer",
    "usage_daily_total",
    "usage_daily_type",
    "usage_monthly_user",
    "usage_monthly_customer",
];

/// What a run in this process works with, by a clock of the test's.
pub fn context_of(fixture: &Fixture, clock: Clock, stop: watch::Receiver<Option<i32>>) -> Arc<Context> {
    let project = Project::new(fixture.path());
    Arc::new(Context {
        config: fixture.config(),
        jobs: Jobs::load(&project).unwrap(),
        project,
        store: fixture.store.clone(),
        storage: Storage::Local { root: fixture.path().join("out") },
        clock,
        stop,
        observe: Box::new(|_| {}),
    })
}

/// What a process left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub fn config_of(project: &Project, url: &str) -> Config {
    config::load(project, [("DATABASE_URL".into(), url.into())], &[]).unwrap().config
}

/// The test server's URL; a PostgreSQL test never skips.
pub fn postgres_url() -> String {
    std::env::var("TALLYROLL_TEST_POSTGRES").expect("TALLYROLL_TEST_POSTGRES names no server: run the tests with scripts/test.sh")
}

/// The URL of a new database: empty, or a copy of another that nobody is connected to.
async fn new_postgres_database(template: Option<&str>) -> String {
    let name = format!("test_{}", Uuid::new_v4().simple());
    let template = template.map(|url| format!(" TEMPLATE {}", postgres_database_name(url))).unwrap_or_default();
    as_postgres_admin(&format!("CREATE DATABASE {name}{template}")).await;
    postgres_url().replace("/postgres?", &format!("/{name}?"))
}

async fn drop_postgres_database(url: &str) {
    as_postgres_admin(&format!("DROP DATABASE {} WITH (FORCE)", postgres_database_name(url))).await;
}

fn postgres_database_name(url: &str) -> &str {
    url.split('?').next().unwrap().rsplit('/').next().unwrap()
}

async fn as_postgres_admin(sql: &str) {
    let dir = tempfile::tempdir().unwrap();
    let project = Project::new(dir.path());
    let store = Store::open(&project, &config_of(&project, &postgres_url()), Create::Never).await.unwrap();
    store.execute(sql, &[]).await.unwrap();
    store.close().await;
}

/// How often a campaign repeats: short in the test command, whole through `scripts/campaign.sh`.
pub fn repetitions(short: usize, whole: usize) -> usize {
    match std::env::var("TALLYROLL_CAMPAIGN").as_deref().map(str::parse) {
        Err(_) => short,
        Ok(Ok(most @ 2..)) => whole.min(most),
        Ok(_) => whole,
    }
}
