//! Result tables against what `job_window` noted when it wrote them: rows that somebody deleted, added or edited.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::NaiveDate;

use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::operator::content;
use crate::show::counted;
use crate::sql_text::quote_identifier;
use crate::store::Store;
use crate::window::{Window, WindowKind};

/// A window of a result table: what was written, and what is there.
#[derive(Debug)]
pub struct Noted {
    pub job: String,
    pub table: String,
    pub window: Window,
    pub written: String,
    pub found: String,
    /// The command that writes it anew.
    pub again: String,
}

/// Every window of every summary by day or month, with what was noted of it and what its table holds.
///
/// # Errors
/// What the database says.
pub async fn read(store: &Store, jobs: &Jobs) -> Result<Vec<Noted>> {
    let mut all = Vec::new();
    for job in jobs.iter().filter(|job| matches!(job.window, WindowKind::Day | WindowKind::Month)) {
        if matches!(job.operator, OperatorKind::UsageRollup | OperatorKind::Rollup | OperatorKind::Sql) {
            all.extend(of_job(store, job).await?);
        }
    }
    Ok(all)
}

async fn of_job(store: &Store, job: &Job) -> Result<Vec<Noted>> {
    let windows = store.windows(&job.name).await?;
    let columns = store.table_columns(&job.writes).await?;
    // A job that never ran need not have its table yet.
    if columns.is_empty() && windows.values().all(|state| state.write_count == 0) {
        return Ok(Vec::new());
    }
    let is_noted = content::is_noted(|name| columns.iter().any(|column| column == name));
    let stored = if columns.is_empty() { BTreeMap::new() } else { stored(store, job, is_noted).await? };
    let starts: BTreeSet<NaiveDate> = windows.keys().map(|window| window.start_date).chain(stored.keys().copied()).collect();
    let mut all = Vec::new();
    for start in starts {
        let window = Window::containing(job.window, start)?;
        let state = windows.get(&window).filter(|state| state.write_count > 0);
        let found = stored.get(&start);
        // Windows from before contents were noted have their row count alone.
        let has_content = state.is_none_or(|state| state.content.is_some());
        let shown = |rows: i64, content: Option<&String>| match content.filter(|_| has_content && rows > 0) {
            Some(content) => format!("{}, {content}", counted(rows, "row")),
            None => counted(rows, "row"),
        };
        all.push(Noted {
            job: job.name.clone(),
            table: job.writes.clone(),
            window,
            written: state.map_or_else(|| shown(0, None), |state| shown(state.rows_out, state.content.as_ref())),
            found: found.map_or_else(|| shown(0, None), |(rows, content)| shown(*rows, content.as_ref())),
            again: format!("tallyroll run-job {} --from {} --to {} --downstream", job.name, window.start_date, window.end_date),
        });
    }
    Ok(all)
}

async fn stored(store: &Store, job: &Job, is_noted: bool) -> Result<BTreeMap<NaiveDate, (i64, Option<String>)>> {
    let column = quote_identifier(&job.window_column);
    let sums = if is_noted { format!(", {}", content::columns()) } else { String::new() };
    // The rows of a month need not be of its first day.
    let start = if job.window == WindowKind::Month { store.dialect().first_of_month(&column) } else { column };
    let sql = format!("SELECT {start} AS window_start, COUNT(*) AS row_count{sums} FROM {} GROUP BY 1", quote_identifier(&job.writes));
    let rows = store.query(&sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let content = if is_noted { Some(content::of_row(row)?) } else { None };
            Ok((row.date("window_start")?, (row.int("row_count")?, content)))
        })
        .collect()
}
