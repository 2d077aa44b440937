//! The rows of a window in its result table.

use anyhow::Result;

use crate::job::Job;
use crate::sql_text::quote_identifier;
use crate::store::Tx;
use crate::window::{Window, WindowKind};

/// Removes them: the window is written anew, whole.
///
/// # Errors
/// What the database says.
pub(super) async fn delete(tx: &mut Tx, job: &Job, window: Window) -> Result<()> {
    let (table, column) = (quote_identifier(&job.writes), quote_identifier(&job.window_column));
    if job.window == WindowKind::All {
        tx.execute(&format!("DELETE FROM {table}"), &[]).await?;
    } else {
        let sql = format!("DELETE FROM {table} WHERE {column} >= $1 AND {column} < $2");
        tx.execute(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
    }
    Ok(())
}
