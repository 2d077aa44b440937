//! Windows: one row of `job_window` each (`docs/semantics.md` section 5).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::value::{Row, Value};
use super::words::words;
use super::{Store, Tx};
use crate::window::{Window, WindowKind, first_of_month};

words! {
    /// What is to be done about a window.
    pub enum WindowState {
        /// To be written by the next run.
        Due = "due",
        Done = "done",
        /// The last try to write it failed; its old result stays, and it is still due.
        Failed = "failed",
        /// Its raw rows are gone, and its old result stays; or it lies before `usage.earliest_date`.
        Kept = "kept",
        /// It has not begun.
        Future = "future",
    }
}

/// One row of `job_window`.
#[derive(Debug, Clone)]
pub struct WindowRecord {
    pub window: Window,
    pub state: WindowState,
    pub due_reason: Option<String>,
    pub error_text: Option<String>,
    pub run_id: Option<String>,
    /// How often it was written; a window downstream is due when this has grown.
    pub write_count: i64,
    pub rows_in: i64,
    pub rows_out: i64,
    pub quarantined_count: i64,
    pub input_fingerprint: Option<String>,
    /// What it was made by: digests of the job's file and of its SQL, with a space between.
    pub definition: Option<String>,
    /// What its measures came to.
    pub content: Option<String>,
    pub timezone: String,
}

/// What writing a window gave.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub rows_in: i64,
    pub rows_out: i64,
    pub quarantined_count: i64,
    pub input_fingerprint: String,
    /// What the measures of the rows came to, where they have some.
    pub content: Option<String>,
}

/// Who writes windows, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub job: &'a str,
    pub run_id: &'a str,
    pub definition: &'a str,
    pub timezone: &'a str,
}

impl Store {
    /// How many windows each job has in each state.
    ///
    /// # Errors
    /// What the database says.
    pub async fn window_counts(&self) -> Result<BTreeMap<String, BTreeMap<WindowState, i64>>> {
        let rows = self.query("SELECT job, state, COUNT(*) AS window_count FROM job_window GROUP BY job, state", &[]).await?;
        let mut counts: BTreeMap<String, BTreeMap<WindowState, i64>> = BTreeMap::new();
        for row in rows {
            counts.entry(row.text("job")?).or_default().insert(row.word("state")?, row.int("window_count")?);
        }
        Ok(counts)
    }

    /// Takes the results of a job over as made by another definition; how many windows that are.
    ///
    /// # Errors
    /// What the database says.
    pub async fn accept_definition(&self, job: &str, definition: &str) -> Result<u64> {
        let sql = "UPDATE job_window SET definition = $2 WHERE job = $1 AND write_count > 0 AND (definition IS NULL OR definition <> $2)";
        self.execute(sql, &[job.into(), definition.into()]).await
    }

    /// Every window of a job, in order.
    ///
    /// # Errors
    /// What the database says.
    pub async fn windows(&self, job: &str) -> Result<BTreeMap<Window, WindowRecord>> {
        windows_of(&self.query(&windows_sql(), &[job.into()]).await?)
    }
}

impl Tx {
    /// As [`Store::windows`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn windows(&mut self, job: &str) -> Result<BTreeMap<Window, WindowRecord>> {
        windows_of(&self.query(&windows_sql(), &[job.into()]).await?)
    }

    /// The time zones that windows of some jobs were written in.
    ///
    /// # Errors
    /// What the database says.
    pub async fn timezones_of(&mut self, jobs: &[&str]) -> Result<Vec<String>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=jobs.len()).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT DISTINCT timezone FROM job_window WHERE job IN ({}) ORDER BY timezone", places.join(", "));
        let jobs: Vec<Value> = jobs.iter().map(|job| (*job).into()).collect();
        self.query(&sql, &jobs).await?.iter().map(|row| row.text("timezone")).collect()
    }

    /// The windows of a job that share a day with `window`, and a few beside it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn windows_near(&mut self, job: &str, window: Window) -> Result<BTreeMap<Window, WindowRecord>> {
        let everything = Window::containing(WindowKind::All, window.start_date)?;
        if window == everything {
            return self.windows(job).await;
        }
        // No window is longer than a month, but for the one of everything.
        let sql = format!(
            "{WINDOW_COLUMNS} FROM job_window WHERE job = $1 AND (window_start = $4 OR (window_start >= $2 AND window_start < $3))"
        );
        let from = first_of_month(window.start_date);
        let parameters = [job.into(), from.into(), window.end_date.into(), everything.start_date.into()];
        windows_of(&self.query(&sql, &parameters).await?)
    }

    /// Forgets windows of a job: they are windows no more.
    ///
    /// # Errors
    /// What the database says.
    pub async fn forget_windows(&mut self, job: &str, windows: impl Iterator<Item = Window>) -> Result<()> {
        for window in windows {
            self.execute("DELETE FROM job_window WHERE job = $1 AND window_start = $2", &[job.into(), window.start_date.into()]).await?;
        }
        Ok(())
    }

    /// Marks windows as due, so that they stay so until they are written.
    ///
    /// # Errors
    /// What the database says.
    pub async fn mark_due(&mut self, job: &str, due: &[(Window, String)], timezone: &str) -> Result<()> {
        let columns = ["job", "window_start", "window_end", "state", "due_reason", "timezone"];
        let rows: Vec<Vec<Value>> = due
            .iter()
            .map(|(window, reason)| {
                vec![
                    job.into(),
                    window.start_date.into(),
                    window.end_date.into(),
                    WindowState::Due.into(),
                    reason.as_str().into(),
                    timezone.into(),
                ]
            })
            .collect();
        let suffix = format!(
            "ON CONFLICT (job, window_start) DO UPDATE SET state = 'due', due_reason = CASE \
             WHEN substr(job_window.due_reason, 1, {}) = '{TAKEN_OUT}' THEN job_window.due_reason ELSE excluded.due_reason END",
            TAKEN_OUT.len()
        );
        self.insert_rows("job_window", &columns, &rows, &suffix).await?;
        Ok(())
    }

    /// Records why a window was not written, as `Failed`, `Kept` or `Future`; its old result stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fail_window(&mut self, job: &str, window: Window, state: WindowState, error: &str, timezone: &str) -> Result<()> {
        let sql = "INSERT INTO job_window (job, window_start, window_end, state, error_text, timezone) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (job, window_start) DO UPDATE SET state = excluded.state, error_text = excluded.error_text, \
             timezone = CASE WHEN job_window.write_count = 0 THEN excluded.timezone ELSE job_window.timezone END";
        let parameters = [job.into(), window.start_date.into(), window.end_date.into(), state.into(), error.into(), timezone.into()];
        self.execute(sql, &parameters).await?;
        Ok(())
    }

    /// Records a window as written, in the transaction that replaces its rows; how often it was written now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_window(&mut self, writer: Writer<'_>, window: Window, written: &Written, now: DateTime<Utc>) -> Result<i64> {
        let sql = "INSERT INTO job_window (job, window_start, window_end, state, run_id, write_count, rows_in, rows_out, \
                 quarantined_count, input_fingerprint, timezone, written_at, definition, content) \
             VALUES ($1, $2, $3, 'done', $4, 1, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (job, window_start) DO UPDATE SET window_end = excluded.window_end, state = 'done', due_reason = NULL, \
                 error_text = NULL, run_id = excluded.run_id, write_count = job_window.write_count + 1, rows_in = excluded.rows_in, \
                 rows_out = excluded.rows_out, quarantined_count = excluded.quarantined_count, \
                 input_fingerprint = excluded.input_fingerprint, timezone = excluded.timezone, written_at = excluded.written_at, \
                 definition = excluded.definition, content = excluded.content \
             RETURNING write_count";
        let parameters = [
            writer.job.into(),
            window.start_date.into(),
            window.end_date.into(),
            writer.run_id.into(),
            written.rows_in.into(),
            written.rows_out.into(),
            written.quarantined_count.into(),
            written.input_fingerprint.as_str().into(),
            writer.timezone.into(),
            now.into(),
            writer.definition.into(),
            written.content.clone().into(),
        ];
        let rows = self.query(sql, &parameters).await?;
        rows.first().context("A window was not recorded")?.int("write_count")
    }
}

/// How the reason of a day begins whose rows somebody took out of the raw log by an import's id: that they are gone is meant.
pub const TAKEN_OUT: &str = "taken out: import";

impl WindowRecord {
    #[must_use]
    pub fn has_rows_taken_out(&self) -> bool {
        self.due_reason.as_ref().is_some_and(|reason| reason.starts_with(TAKEN_OUT))
    }
}

const WINDOW_COLUMNS: &str = "SELECT window_start, window_end, state, due_reason, error_text, run_id, write_count, rows_in, rows_out, \
     quarantined_count, input_fingerprint, definition, content, timezone";

fn windows_sql() -> String {
    format!("{WINDOW_COLUMNS} FROM job_window WHERE job = $1 ORDER BY window_start")
}

fn windows_of(rows: &[Row]) -> Result<BTreeMap<Window, WindowRecord>> {
    rows.iter()
        .map(|row| {
            let window = Window { start_date: row.date("window_start")?, end_date: row.date("window_end")? };
            let record = WindowRecord {
                window,
                state: row.word("state")?,
                due_reason: row.opt_text("due_reason")?,
                error_text: row.opt_text("error_text")?,
                run_id: row.opt_text("run_id")?,
                write_count: row.int("write_count")?,
                rows_in: row.int("rows_in")?,
                rows_out: row.int("rows_out")?,
                quarantined_count: row.int("quarantined_count")?,
                input_fingerprint: row.opt_text("input_fingerprint")?,
                definition: row.opt_text("definition")?,
                content: row.opt_text("content")?,
                timezone: row.text("timezone")?,
            };
            Ok((window, record))
        })
        .collect()
}
