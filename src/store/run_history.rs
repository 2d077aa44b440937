//! Runs of the past, read from `job_run`.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::Store;
use super::runs::{Run, RunCount};
use super::value::Row;

impl Store {
    /// Runs, newest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn runs(&self, job: Option<&str>, failed_only: bool, limit: i64) -> Result<Vec<Run>> {
        let filter = if failed_only { "AND state IN ('failed', 'interrupted')" } else { "" };
        let sql = format!(
            "SELECT {RUN_COLUMNS} FROM job_run WHERE (CAST($1 AS TEXT) IS NULL OR job = $1) {filter} ORDER BY started_at DESC, run_id DESC LIMIT $2"
        );
        self.query(&sql, &[job.map(str::to_owned).into(), limit.into()]).await?.iter().map(run_of).collect()
    }

    /// When a job last ended well.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_success(&self, job: &str) -> Result<Option<DateTime<Utc>>> {
        let sql = "SELECT MAX(finished_at) AS finished_at FROM job_run WHERE job = $1 AND state = 'success'";
        Ok(self.query(sql, &[job.into()]).await?.first().map(|row| row.opt_instant("finished_at")).transpose()?.flatten())
    }

    /// How many runs each job has in each state.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run_counts(&self) -> Result<Vec<RunCount>> {
        let sql = "SELECT job, state, COUNT(*) AS run_count, MAX(finished_at) AS finished_at FROM job_run GROUP BY job, state";
        let count = |row: &Row| {
            Ok(RunCount {
                job: row.text("job")?,
                state: row.word("state")?,
                run_count: row.int("run_count")?,
                finished_at: row.opt_instant("finished_at")?,
            })
        };
        self.query(sql, &[]).await?.iter().map(count).collect()
    }

    /// The newest run of a job that has ended.
    ///
    /// # Errors
    /// What the database says.
    pub async fn last_ended_run(&self, job: &str) -> Result<Option<Run>> {
        let sql = format!(
            "SELECT {RUN_COLUMNS} FROM job_run WHERE run_id = ( \
             SELECT newest.run_id FROM job_run AS newest WHERE newest.job = $1 AND newest.finished_at IS NOT NULL \
             ORDER BY newest.started_at DESC, newest.run_id DESC LIMIT 1)"
        );
        self.query(&sql, &[job.into()]).await?.first().map(run_of).transpose()
    }

    /// One run by its id, or by the last eight characters of it, which are random.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run(&self, run_id: &str) -> Result<Option<Run>> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM job_run WHERE run_id = $1");
        if let Some(row) = self.query(&sql, &[run_id.into()]).await?.first() {
            return run_of(row).map(Some);
        }
        if run_id.len() != 8 {
            return Ok(None);
        }
        let sql = format!("SELECT {RUN_COLUMNS} FROM job_run WHERE substr(run_id, length(run_id) - 7) = $1 LIMIT 2");
        match self.query(&sql, &[run_id.into()]).await?.as_slice() {
            [row] => run_of(row).map(Some),
            _ => Ok(None),
        }
    }

    /// The log lines of a run that has ended, one per line.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run_log(&self, run_id: &str) -> Result<Option<String>> {
        let rows = self.query("SELECT log FROM job_run WHERE run_id = $1", &[run_id.into()]).await?;
        rows.first().map_or(Ok(None), |row| row.opt_text("log"))
    }
}

const RUN_COLUMNS: &str = "run_id, job, parent_run_id, \"trigger\", scheduled_for, attempt, state, request, as_of, started_at, finished_at, duration_ms, \
     windows_planned, windows_done, rows_in, rows_out, quarantined_count, error_class, error_text, host, pid, version";

fn run_of(row: &Row) -> Result<Run> {
    Ok(Run {
        run_id: row.text("run_id")?,
        job: row.text("job")?,
        parent_run_id: row.opt_text("parent_run_id")?,
        trigger: row.text("trigger")?,
        scheduled_for: row.opt_instant("scheduled_for")?,
        attempt: row.int("attempt")?,
        state: row.word("state")?,
        request: row.text("request")?,
        as_of: row.instant("as_of")?,
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
        host: row.text("host")?,
        pid: row.int("pid")?,
        version: row.text("version")?,
    })
}
