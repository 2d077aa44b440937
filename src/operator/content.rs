//! What the measures of a window's rows come to, as `job_window` notes it: rows that somebody changed are found by it.

use anyhow::Result;

use super::sql::SqlSelect;
use crate::job::Job;
use crate::measure::{MEASURES, REQUEST_COUNT, SUM_COUNT, TOTAL_COST_NANOS, TOTAL_TOKENS};
use crate::sql_text::quote_identifier;
use crate::store::{Row, Tx, Value};
use crate::window::Window;

/// The measures that are noted.
const NOTED: [usize; 3] = [REQUEST_COUNT, TOTAL_TOKENS, TOTAL_COST_NANOS];

/// The note of rows whose measures come to these sums.
#[must_use]
pub fn of_sums(sums: &[i128; SUM_COUNT]) -> String {
    note(NOTED.map(|index| sums[index].to_string()))
}

fn note(sums: [String; NOTED.len()]) -> String {
    NOTED.iter().zip(sums).map(|(index, sum)| format!("{} = {sum}", MEASURES[*index].name)).collect::<Vec<_>>().join(", ")
}

/// The columns of a SELECT whose row [`of_row`] reads.
#[must_use]
pub fn columns() -> String {
    NOTED.map(|index| MEASURES[index].name).map(|name| format!("CAST(COALESCE(SUM({name}), 0) AS TEXT) AS {name}")).join(", ")
}

/// # Errors
/// When the row has other columns.
pub fn of_row(row: &Row) -> Result<String> {
    let mut sums: [String; NOTED.len()] = Default::default();
    for (sum, index) in sums.iter_mut().zip(NOTED) {
        *sum = row.get(MEASURES[index].name)?.to_text().unwrap_or_default();
    }
    Ok(note(sums))
}

/// Whether a table has the measures that are noted.
pub fn is_noted(has: impl Fn(&str) -> bool) -> bool {
    NOTED.iter().all(|index| has(MEASURES[*index].name))
}

/// The note of the rows that a window of a summary has now; none where they have no measures.
///
/// # Errors
/// What the database says.
pub async fn read(tx: &mut Tx, select: &SqlSelect, job: &Job, window: Window) -> Result<Option<String>> {
    if !is_noted(|column| select.gives(column)) {
        return Ok(None);
    }
    let (table, column) = (quote_identifier(&job.writes), quote_identifier(&job.window_column));
    let sql = format!("SELECT {} FROM {table} WHERE {column} >= $1 AND {column} < $2", columns());
    let range: [Value; 2] = [window.start_date.into(), window.end_date.into()];
    tx.query(&sql, &range).await?.first().map(of_row).transpose()
}
