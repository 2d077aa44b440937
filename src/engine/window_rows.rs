//! The rows of a window in its result table.

use anyhow::Result;

use crate::failure::Failure;
use crate::job::Job;
use crate::sql_text::quote_identifier;
use crate::store::{Tx, Value};
use crate::window::{Window, WindowKind};

/// Removes them: the window is written anew, whole.
///
/// # Errors
/// What the database says.
pub async fn delete(tx: &mut Tx, job: &Job, window: Window) -> Result<()> {
    let (table, column) = (quote_identifier(&job.writes), quote_identifier(&job.window_column));
    if job.window == WindowKind::All {
        tx.execute(&format!("DELETE FROM {table}"), &[]).await?;
    } else {
        let sql = format!("DELETE FROM {table} WHERE {column} >= $1 AND {column} < $2");
        tx.execute(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
    }
    Ok(())
}

/// Fails where `rows` (what stands behind FROM, with its parameters) holds one that lies outside of its window: that window's rows would be
/// there twice, or be deleted by their own.
///
/// # Errors
/// [`Failure`] of kind bad-data; what the database says.
pub async fn require_inside(tx: &mut Tx, origin: &str, within: Option<(&Job, Window)>, rows: &str, parameters: &[Value]) -> Result<()> {
    let Some((job, window)) = within.filter(|(job, _)| job.window != WindowKind::All) else { return Ok(()) };
    let (column, count) = (quote_identifier(&job.window_column), parameters.len());
    let sql = format!(
        "SELECT CAST({column} AS TEXT) AS day FROM {rows} WHERE {column} IS NULL OR {column} < ${} OR {column} >= ${} LIMIT 1",
        count + 1,
        count + 2
    );
    let mut parameters = parameters.to_vec();
    parameters.extend([window.start_date.into(), window.end_date.into()]);
    let Some(row) = tx.query(&sql, &parameters).await?.into_iter().next() else { return Ok(()) };
    let day = row.get("day")?.to_text().unwrap_or_else(|| "NULL".to_owned());
    Err(Failure::bad_data(format!("`{origin}` gives a row whose `{}` is {day}, for the window {window}", job.window_column))
        .hint("it must give the rows of one window: `:window_start` is its first day, `:window_end` the first one after it")
        .into())
}
