//! What the pages read from the state tables: few columns and few rows, found by an index.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::store::runs::RunState;
use crate::store::windows::WindowState;
use crate::store::{Row, Store, Value};
use crate::window::Window;

/// A run as a list shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunLine {
    pub(super) run_id: String,
    pub(super) job: String,
    pub(super) parent_run_id: Option<String>,
    pub(super) trigger: String,
    pub(super) state: RunState,
    pub(super) started_at: DateTime<Utc>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) duration_ms: Option<i64>,
    pub(super) windows_planned: i64,
    pub(super) windows_done: i64,
    pub(super) rows_in: i64,
    pub(super) rows_out: i64,
    pub(super) quarantined_count: i64,
    pub(super) error_class: Option<String>,
    /// The beginning of the error.
    pub(super) error_text: Option<String>,
}

/// A list shows the beginning of an error; the run's page shows all of it.
const COLUMNS: &str = "run_id, job, parent_run_id, \"trigger\", state, started_at, finished_at, duration_ms, windows_planned, windows_done, \
     rows_in, rows_out, quarantined_count, error_class, substr(error_text, 1, 300) AS error_text";

/// Where a page of runs begins: with the newest run older than this one.
#[derive(Debug, Clone)]
pub(super) struct Before {
    pub(super) started_at: DateTime<Utc>,
    pub(super) run_id: String,
}

/// Runs, newest first.
pub(super) async fn runs(store: &Store, job: Option<&str>, failed: bool, before: Option<&Before>, limit: i64) -> Result<Vec<RunLine>> {
    let mut filters: Vec<String> = Vec::new();
    let mut parameters: Vec<Value> = vec![limit.into()];
    let mut bind = |value: Value| {
        parameters.push(value);
        format!("${}", parameters.len())
    };
    if let Some(job) = job {
        filters.push(format!("job = {}", bind(job.into())));
    }
    if failed {
        filters.push("state IN ('failed', 'interrupted')".to_owned());
    }
    if let Some(before) = before {
        filters.push(format!("(started_at, run_id) < ({}, {})", bind(before.started_at.into()), bind(before.run_id.as_str().into())));
    }
    let filter = if filters.is_empty() { String::new() } else { format!("WHERE {}", filters.join(" AND ")) };
    let sql = format!("SELECT {COLUMNS} FROM job_run {filter} ORDER BY started_at DESC, run_id DESC LIMIT $1");
    store.query(&sql, &parameters).await?.iter().map(run_line).collect()
}

/// The downstream runs of a run.
pub(super) async fn downstream(store: &Store, run_id: &str, started_at: DateTime<Utc>) -> Result<Vec<RunLine>> {
    // They start no earlier than it does, so an index finds them.
    let sql = format!(
        "SELECT {COLUMNS} FROM job_run WHERE parent_run_id = $1 AND started_at >= $2 ORDER BY started_at, run_id LIMIT {LISTED_RUNS}"
    );
    store.query(&sql, &[run_id.into(), started_at.into()]).await?.iter().map(run_line).collect()
}

const LISTED_RUNS: usize = 100;

fn run_line(row: &Row) -> Result<RunLine> {
    Ok(RunLine {
        run_id: row.text("run_id")?,
        job: row.text("job")?,
        parent_run_id: row.opt_text("parent_run_id")?,
        trigger: row.text("trigger")?,
        state: row.word("state")?,
        started_at: row.instant("started_at")?,
        finished_at: row.opt_instant("finished_at")?,
        duration_ms: row.opt_int("duration_ms")?,
        windows_planned: row.int("windows_planned")?,
        windows_done: row.int("windows_done")?,
        rows_in: row.int("rows_in")?,
        rows_out: row.int("rows_out")?,
        quarantined_count: row.int("quarantined_count")?,
        error_class: row.opt_text("error_class")?,
        error_text: row.opt_text("error_text")?,
    })
}

/// When a run last showed that it lives.
pub(super) async fn heartbeat_at(store: &Store, run_id: &str) -> Result<Option<DateTime<Utc>>> {
    let rows = store.query("SELECT heartbeat_at FROM job_run WHERE run_id = $1", &[run_id.into()]).await?;
    rows.first().map(|row| row.instant("heartbeat_at")).transpose()
}

/// A window of a job as a run's page shows it.
#[derive(Debug, Serialize)]
pub(super) struct WindowLine {
    pub(super) window: String,
    pub(super) state: WindowState,
    pub(super) rows_in: i64,
    pub(super) rows_out: i64,
    pub(super) quarantined_count: i64,
    pub(super) due_reason: Option<String>,
    pub(super) error_text: Option<String>,
}

/// How many windows a page lists, the latest first.
pub(super) const LISTED_WINDOWS: usize = 200;

/// The windows that this run was the last to write, the latest first.
pub(super) async fn written_windows(store: &Store, job: &str, run_id: &str) -> Result<Vec<WindowLine>> {
    windows(store, "job = $1 AND run_id = $2 AND state = 'done'", &[job.into(), run_id.into()]).await
}

/// The windows of a job that are due or could not be written, the latest first.
pub(super) async fn open_windows(store: &Store, job: &str) -> Result<Vec<WindowLine>> {
    windows(store, "job = $1 AND state IN ('due', 'failed', 'kept')", &[job.into()]).await
}

async fn windows(store: &Store, filter: &str, parameters: &[Value]) -> Result<Vec<WindowLine>> {
    let sql = format!(
        "SELECT window_start, window_end, state, rows_in, rows_out, quarantined_count, substr(due_reason, 1, 300) AS due_reason, \
         substr(error_text, 1, 1000) AS error_text FROM job_window WHERE {filter} ORDER BY window_start DESC LIMIT {LISTED_WINDOWS}"
    );
    let line = |row: &Row| -> Result<WindowLine> {
        let window = Window { start_date: row.date("window_start")?, end_date: row.date("window_end")? };
        Ok(WindowLine {
            window: window.to_string(),
            state: row.word("state")?,
            rows_in: row.int("rows_in")?,
            rows_out: row.int("rows_out")?,
            quarantined_count: row.int("quarantined_count")?,
            due_reason: row.opt_text("due_reason")?,
            error_text: row.opt_text("error_text")?,
        })
    };
    store.query(&sql, parameters).await?.iter().map(line).collect()
}

/// Whether the database can hold a text at all. PostgreSQL has no NUL, so nothing there can have such a name.
pub(super) fn can_hold(engine: &str, text: &str) -> bool {
    engine != "postgres" || !text.contains('\0')
}
