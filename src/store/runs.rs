//! Runs: one row of `job_run` each (`docs/semantics.md` section 5).

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::words::words;
use super::{Store, Tx};

words! {
    /// How far a run is.
    pub enum RunState {
        Running = "running",
        Success = "success",
        Failed = "failed",
        /// Stopped by a signal, or its process is gone: what it left is still due.
        Interrupted = "interrupted",
    }
}

words! {
    /// Who started a run.
    pub enum Trigger {
        /// The command line.
        Manual = "manual",
        /// The button of a page, or its JSON.
        Page = "page",
        Schedule = "schedule",
    }
}

/// A run about to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub run_id: String,
    pub job: String,
    /// The run that this one is downstream of.
    pub parent_run_id: Option<String>,
    pub origin: Origin,
    /// The arguments, as JSON, for `--resume`.
    pub request: String,
    pub as_of: DateTime<Utc>,
}

/// What started a run.
#[derive(Debug, Clone)]
pub struct Origin {
    pub trigger: Trigger,
    /// The slot of the schedule that the run is for.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Which try of the slot it is, from 1.
    pub attempt: i64,
}

impl Default for Origin {
    fn default() -> Self {
        Self { trigger: Trigger::Manual, scheduled_for: None, attempt: 1 }
    }
}

/// What is known of the holder of a lock.
#[derive(Debug, Clone)]
pub struct Running {
    pub host: String,
    pub pid: i64,
    pub heartbeat_at: DateTime<Utc>,
}

/// One row of `job_run`.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub run_id: String,
    pub job: String,
    pub parent_run_id: Option<String>,
    /// A word of [`Trigger`]. Nothing is decided by it: it is shown as it stands.
    pub trigger: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub attempt: i64,
    pub state: RunState,
    #[serde(skip)]
    pub request: String,
    pub as_of: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub duration_ms: Option<i64>,
    pub windows_planned: i64,
    pub windows_done: i64,
    pub rows_in: i64,
    pub rows_out: i64,
    pub quarantined_count: i64,
    pub error_class: Option<String>,
    pub error_text: Option<String>,
    pub host: String,
    pub pid: i64,
    pub version: String,
}

/// What a run has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub windows_planned: i64,
    pub windows_done: i64,
    pub rows_in: i64,
    pub rows_out: i64,
    pub quarantined_count: i64,
}

/// The runs of a job that are in one state.
#[derive(Debug, Clone)]
pub struct RunCount {
    pub job: String,
    pub state: RunState,
    pub run_count: i64,
    /// When the last of them ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub state: RunState,
    pub error_class: Option<&'a str>,
    pub error_text: Option<&'a str>,
}

/// This machine's name, as runs record it.
#[must_use]
pub fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

pub(super) async fn insert_run(tx: &mut Tx, run: &NewRun, now: DateTime<Utc>) -> Result<()> {
    let sql = r#"
        INSERT INTO job_run (
            run_id, job, parent_run_id, "trigger", attempt, state, request, as_of, started_at, heartbeat_at,
            windows_planned, windows_done, rows_in, rows_out, quarantined_count, host, pid, version, scheduled_for
        ) VALUES ($1, $2, $3, $4, $11, 'running', $5, $6, $7, $7, 0, 0, 0, 0, 0, $8, $9, $10, $12)"#;
    let parameters = [
        run.run_id.as_str().into(),
        run.job.as_str().into(),
        run.parent_run_id.clone().into(),
        run.origin.trigger.into(),
        run.request.as_str().into(),
        run.as_of.into(),
        now.into(),
        host().into(),
        i64::from(std::process::id()).into(),
        env!("CARGO_PKG_VERSION").into(),
        run.origin.attempt.into(),
        run.origin.scheduled_for.into(),
    ];
    tx.execute(sql, &parameters).await?;
    Ok(())
}

pub(super) async fn running(tx: &mut Tx, run_id: &str) -> Result<Option<Running>> {
    let sql = "SELECT host, pid, heartbeat_at FROM job_run WHERE run_id = $1 AND state = 'running'";
    let rows = tx.query(sql, &[run_id.into()]).await?;
    rows.first()
        .map(|row| Ok(Running { host: row.text("host")?, pid: row.int("pid")?, heartbeat_at: row.instant("heartbeat_at")? }))
        .transpose()
}

pub(super) async fn interrupt(tx: &mut Tx, run_id: &str, now: DateTime<Utc>, why: &str) -> Result<()> {
    let sql = "UPDATE job_run SET state = 'interrupted', finished_at = $2, error_class = 'interrupted', error_text = $3 \
         WHERE run_id = $1 AND state = 'running'";
    tx.execute(sql, &[run_id.into(), now.into(), why.into()]).await?;
    Ok(())
}

impl Store {
    /// Says that a run is alive, and how far it is.
    ///
    /// # Errors
    /// What the database says.
    pub async fn heartbeat(&self, run_id: &str, now: DateTime<Utc>, progress: Progress) -> Result<()> {
        let sql = "UPDATE job_run SET heartbeat_at = $2, windows_planned = $3, windows_done = $4, rows_in = $5, rows_out = $6, \
             quarantined_count = $7 WHERE run_id = $1 AND state = 'running'";
        let parameters = [
            run_id.into(),
            now.into(),
            progress.windows_planned.into(),
            progress.windows_done.into(),
            progress.rows_in.into(),
            progress.rows_out.into(),
            progress.quarantined_count.into(),
        ];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Ends a run.
    ///
    /// # Errors
    /// What the database says.
    pub async fn finish_run(&self, run_id: &str, now: DateTime<Utc>, started_at: DateTime<Utc>, outcome: Outcome<'_>) -> Result<()> {
        let sql = "UPDATE job_run SET state = $2, finished_at = $3, duration_ms = $4, error_class = $5, error_text = $6 \
             WHERE run_id = $1 AND state = 'running'";
        let parameters = [
            run_id.into(),
            outcome.state.into(),
            now.into(),
            (now - started_at).num_milliseconds().into(),
            outcome.error_class.into(),
            outcome.error_text.into(),
        ];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Ends a run, and those downstream of it, that could not end by themselves: cut off, or panicked. Their ids.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fail_runs(&self, root_id: &str, now: DateTime<Utc>, class: &str, text: &str) -> Result<Vec<String>> {
        let sql = "UPDATE job_run SET state = 'failed', finished_at = $2, error_class = $3, error_text = $4 \
             WHERE state IN ('running', 'interrupted') AND (run_id = $1 OR parent_run_id = $1) RETURNING run_id";
        let rows = self.query(sql, &[root_id.into(), now.into(), class.into(), text.into()]).await?;
        rows.iter().map(|row| row.text("run_id")).collect()
    }

    /// Keeps the log lines of a run with its record.
    ///
    /// # Errors
    /// What the database says.
    pub async fn keep_log(&self, run_id: &str, lines: &str) -> Result<()> {
        // PostgreSQL keeps no NUL.
        let lines = lines.replace('\0', "\u{fffd}");
        self.execute("UPDATE job_run SET log = $2 WHERE run_id = $1", &[run_id.into(), lines.into()]).await?;
        Ok(())
    }
}
