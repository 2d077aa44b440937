//! What was imported: a row of `usage_import` each, by which an import is taken out again.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::json;

use super::bad_rows;
use super::mapping::Mapping;
use super::report::ImportReport;
use crate::failure::Failure;
use crate::show::counted;
use crate::source::USAGE_EVENT;
use crate::store::windows::TAKEN_OUT;
use crate::store::{Row, Store, Tx};
use crate::window::{Window, day_of};

/// The job that reads the raw log.
const USAGE_DAILY: &str = "usage_daily";

/// One import of usage events.
#[derive(Debug, Clone, Serialize)]
pub struct Import {
    pub import_id: String,
    pub file: String,
    /// Of the file's bytes; none of standard input.
    pub sha256: Option<String>,
    pub row_count: i64,
    pub inserted_count: i64,
    pub bad_count: i64,
    pub imported_at: DateTime<Utc>,
    /// When its rows were taken out, if they were.
    pub undone_at: Option<DateTime<Utc>>,
    /// The import that came in its place.
    pub replaced_by: Option<String>,
}

impl Import {
    fn of(row: &Row) -> Result<Self> {
        Ok(Self {
            import_id: row.text("import_id")?,
            file: row.text("file")?,
            sha256: row.opt_text("sha256")?,
            row_count: row.int("row_count")?,
            inserted_count: row.int("inserted_count")?,
            bad_count: row.int("bad_count")?,
            imported_at: row.instant("imported_at")?,
            undone_at: row.opt_instant("undone_at")?,
            replaced_by: row.opt_text("replaced_by")?,
        })
    }
}

const COLUMNS: &str =
    "SELECT import_id, file, sha256, row_count, inserted_count, bad_count, imported_at, undone_at, replaced_by FROM usage_import";

/// Every import, the latest first.
///
/// # Errors
/// What the database says.
pub async fn imports(store: &Store) -> Result<Vec<Import>> {
    let rows = store.query(&format!("{COLUMNS} ORDER BY imported_at DESC, import_id"), &[]).await?;
    rows.iter().map(Import::of).collect()
}

/// The import whose id begins so, and which was not taken out.
///
/// # Errors
/// [`Failure`] of kind usage where there is none, or more than one.
async fn find(tx: &mut Tx, id: &str) -> Result<Import> {
    let rows = tx.query(COLUMNS, &[]).await?;
    let mut found = rows.iter().map(Import::of).collect::<Result<Vec<_>>>()?;
    found.retain(|import| import.import_id.starts_with(id));
    let refused = |said: String| Err(Failure::usage(said).hint("`tallyroll import list` shows them").into());
    match found.as_slice() {
        [import] if !id.is_empty() => match import.undone_at {
            None => Ok(import.clone()),
            Some(_) => refused(format!("Import `{}` was taken out already", import.import_id)),
        },
        [] => refused(format!("There is no import `{id}`")),
        _ => refused(format!("More than one import begins with `{id}`")),
    }
}

/// Takes the rows of an import out of `usage_event`; the days that they were of become due. What it was, and how many rows went.
///
/// # Errors
/// [`Failure`] of kind usage where there is no such import, or more than one; what the database says, also where this role may not delete rows.
pub async fn undo(tx: &mut Tx, id: &str, replaced_by: Option<&str>, timezone: Tz, now: DateTime<Utc>) -> Result<(Import, u64)> {
    let import = find(tx, id).await?;
    let id = || import.import_id.as_str().into();
    refuse_archived(tx, &import).await?;
    mark_days(tx, &import, timezone).await?;
    let gone = tx.execute("DELETE FROM usage_event WHERE import_id = $1", &[id()]).await?;
    tx.execute("DELETE FROM quarantined_event WHERE source = $1", &[bad_rows::source(Path::new(&import.file)).into()]).await?;
    let sql = "UPDATE usage_import SET undone_at = $2, replaced_by = $3 WHERE import_id = $1";
    tx.execute(sql, &[id(), now.into(), replaced_by.map(str::to_owned).into()]).await?;
    Ok((import, gone))
}

/// Fails where rows of an import may be in the lake: they would stay counted.
async fn refuse_archived(tx: &mut Tx, import: &Import) -> Result<()> {
    let rows = tx.query("SELECT COUNT(*) AS row_count FROM usage_event WHERE import_id = $1", &[import.import_id.as_str().into()]).await?;
    let there = rows.first().map_or(Ok(0), |row| row.int("row_count"))?;
    let days = tx.archived_days(None, None).await?;
    if there < import.inserted_count && days.iter().any(|day| day.is_deleted && day.source == USAGE_EVENT) {
        let gone = import.inserted_count - there;
        return Err(Failure::usage(format!("Import `{}` has {} that are not in the table", import.import_id, counted(gone, "row")))
            .hint("put the days that were archived back, with `tallyroll archive --restore DAY`; then take the import out")
            .into());
    }
    Ok(())
}

/// Makes the written days of an import due, with the reason that tells a run that rows are rightly gone.
async fn mark_days(tx: &mut Tx, import: &Import, timezone: Tz) -> Result<()> {
    let slot = tx.dialect().quarter_of_an_hour("occurred_at");
    let sql = format!("SELECT DISTINCT {slot} AS slot_start FROM usage_event WHERE import_id = $1");
    let mut days = BTreeSet::new();
    for row in tx.query(&sql, &[import.import_id.as_str().into()]).await? {
        let slot_start = row.instant("slot_start")?;
        // A quarter of an hour lies in one day, but in some zones of the past.
        for instant in [slot_start, slot_start + TimeDelta::minutes(15) - TimeDelta::microseconds(1)] {
            days.insert(day_of(instant, timezone)?);
        }
    }
    let written =
        tx.windows(USAGE_DAILY).await?.into_values().filter(|state| state.write_count > 0 && days.contains(&state.window.start_date));
    let due: Vec<(Window, String)> = written.map(|state| (state.window, format!("{TAKEN_OUT} {}", import.import_id))).collect();
    tx.mark_due(USAGE_DAILY, &due, timezone.name()).await
}

/// Notes an import that brought rows.
pub(super) async fn record(
    tx: &mut Tx,
    id: &str,
    report: &ImportReport,
    sha256: Option<String>,
    mapping: &Mapping,
    now: DateTime<Utc>,
) -> Result<()> {
    let counts = [report.row_count, report.inserted_count, report.bad_count];
    let mut values = vec![
        id.into(),
        report.file.as_str().into(),
        sha256.into(),
        json!({ "format": mapping.format.as_ref().map(|format| &format.name), "columns": mapping.columns, "constants": mapping.constants })
            .to_string()
            .into(),
    ];
    for count in counts {
        values.push(i64::try_from(count)?.into());
    }
    values.push(now.into());
    let sql = "INSERT INTO usage_import (import_id, file, sha256, mapping, row_count, inserted_count, bad_count, imported_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    tx.execute(sql, &values).await.map(|_| ())
}
