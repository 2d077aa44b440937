//! A database and project folder that is copied for each of many runs, and everything in them that a run makes.

use std::fs;
use std::path::Path;

use tallyroll::project::Project;
use tallyroll::store::{Create, Store};
use tempfile::TempDir;

use super::seats::Tree;
use super::{Fixture, config_of, drop_postgres_database, new_postgres_database};

/// A fixture that nobody is connected to.
pub struct Template {
    dir: TempDir,
    url: String,
}

impl Template {
    /// A fixture of its own, as this one is.
    pub async fn copy(&self) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(self.dir.path(), dir.path());
        let url = if self.url.starts_with("sqlite") { self.url.clone() } else { new_postgres_database(Some(&self.url)).await };
        let project = Project::new(dir.path());
        let store = Store::open(&project, &config_of(&project, &url), Create::Never).await.unwrap();
        Fixture { dir, url, store }
    }

    pub async fn remove(self) {
        if !self.url.starts_with("sqlite") {
            drop_postgres_database(&self.url).await;
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Everything that runs make: rows as text, but for when and by whom they were made, and files.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    pub rows: Vec<String>,
    pub files: Tree,
}

impl Whole {
    /// What differs, for a person.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let only = |these: &Vec<String>, those: &Vec<String>, sign: char| -> Vec<String> {
            these.iter().filter(|row| !those.contains(row)).map(|row| format!("{sign} {row}")).collect()
        };
        let mut all = [only(&self.rows, &other.rows, '-'), only(&other.rows, &self.rows, '+')].concat();
        if all.is_empty() && self.rows != other.rows {
            all.push("the same row stands there more than once".to_owned());
        }
        let paths = self.files.keys().chain(other.files.keys()).collect::<std::collections::BTreeSet<_>>();
        all.extend(paths.into_iter().filter(|path| self.files.get(*path) != other.files.get(*path)).map(|path| format!("! {path}")));
        all
    }
}

/// Tables beside the summaries, and their columns that differ from run to run.
const TABLES: [(&str, &[&str]); 18] = [
    ("usage_event", &["ingest_xid", "ingest_seq", "import_id"]),
    ("ai_usage_log", &["ingest_xid", "ingest_seq"]),
    ("chat_requests", &["ingest_xid", "ingest_seq"]),
    ("request_analytics", &[]),
    ("archived_day", &["archived_at"]),
    ("seat_usage_event", &["id", "occurred_at", "created_at", "recorded_at"]),
    ("subscription", &[]),
    ("user_dashboard_data", &["id", "created_at", "updated_at"]),
    ("usage_dashboard", &[]),
    ("usage_by_model", &[]),
    ("peak_seats", &[]),
    ("snapshot_file", &["published_at"]),
    ("file_digest", &[]),
    ("reconciliation", &[]),
    ("schedule_state", &["claimed_at", "finished_at", "heartbeat_at", "claim_id", "host", "pid", "attempt", "run_id"]),
    ("usage_dirty_day", &["mark_seq", "marked_xid"]),
    ("tallyroll_migration", &["installed_on", "execution_time", "checksum"]),
    ("users", &["created_at", "updated_at"]),
];

impl Fixture {
    /// The fixture as a template: its connections end.
    pub async fn freeze(self) -> Template {
        self.store.close().await;
        Template { dir: self.dir, url: self.url }
    }

    /// Removes the database too; a folder goes by itself.
    pub async fn remove(self) {
        self.freeze().await.remove().await;
    }

    pub async fn whole(&self) -> Whole {
        let mut rows = if self.store.table_columns("usage_daily").await.unwrap().is_empty() { Vec::new() } else { self.results().await };
        for (table, varying) in TABLES {
            let columns = self.store.table_columns(table).await.unwrap();
            let shown: Vec<String> = columns
                .iter()
                .filter(|column| !varying.contains(&column.as_str()))
                .map(|column| format!("CAST(\"{column}\" AS TEXT) AS \"{column}\""))
                .collect();
            if shown.is_empty() {
                continue;
            }
            let mut found = self.rows(&format!("SELECT {} FROM {table}", shown.join(", "))).await;
            found.sort();
            rows.extend(found.into_iter().map(|row| format!("{table}: {row}")));
        }
        // Of a window that failed, its words too.
        if self.store.table_columns("job_window").await.unwrap().iter().any(|column| column == "error_text") {
            rows.extend(self.rows("SELECT job, window_start, error_text FROM job_window WHERE error_text IS NOT NULL ORDER BY 1, 2").await);
        }
        rows.extend(self.schema().await);
        let mut files = self.out();
        files.retain(|path, _| !path.rsplit('/').next().unwrap().starts_with('.'));
        Whole { rows, files }
    }

    /// Tables, columns, indexes, functions and triggers.
    async fn schema(&self) -> Vec<String> {
        let sql = self.store.pick(
            "SELECT 'column ' || table_name || ' ' || column_name || ' ' || data_type FROM information_schema.columns \
             WHERE table_schema NOT IN ('pg_catalog', 'information_schema') \
             UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema') \
             UNION ALL SELECT 'invalid ' || indexrelid::regclass::TEXT FROM pg_index WHERE NOT indisvalid \
             UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace::regnamespace::TEXT NOT IN ('pg_catalog', 'information_schema') \
             UNION ALL SELECT 'trigger ' || tgname || ' ' || tgrelid::regclass::TEXT FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
            "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_master ORDER BY 1",
        );
        self.rows(sql).await
    }
}
