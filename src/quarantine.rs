//! Events that enter no total, and rows of files that were not imported: which, why, and what can be done (`docs/semantics.md` section 3).
//!
//! The record of an event follows its row in the log, so it is the row that is fixed or deleted. The record of a file's row is all that
//! there is of it.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value as Json;

use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::job::OperatorKind;
use crate::jobs::Jobs;
use crate::store::{Row, Store, Tx, Value, lock};
use crate::window::{Window, WindowKind};

/// What stands before the name of a file whose rows were not imported.
pub const OF_FILE: &str = "import:";

/// One that is set aside.
#[derive(Debug, Serialize)]
pub struct Quarantined {
    pub source: String,
    pub event_id: String,
    pub usage_date: Option<NaiveDate>,
    pub reason: String,
    pub first_seen_at: DateTime<Utc>,
    /// What the row holds.
    pub payload: Json,
}

/// How many of a source are set aside for one reason. Rows of a file have a reason each, in words, and are counted together.
#[derive(Debug, Serialize)]
pub struct Count {
    pub source: String,
    pub reason: String,
    pub event_count: i64,
    pub first_date: Option<NaiveDate>,
    pub last_date: Option<NaiveDate>,
}

const COLUMNS: &str = "source, event_id, usage_date, reason, first_seen_at, payload";

fn read(row: &Row) -> Result<Quarantined> {
    let payload = row.get("payload")?.to_text().unwrap_or_default();
    let usage_date = if *row.get("usage_date")? == Value::Null { None } else { Some(row.date("usage_date")?) };
    Ok(Quarantined {
        source: row.text("source")?,
        event_id: row.text("event_id")?,
        usage_date,
        reason: row.text("reason")?,
        first_seen_at: row.instant("first_seen_at")?,
        payload: serde_json::from_str(&payload).unwrap_or(Json::String(payload)),
    })
}

/// By source and reason, the most first.
///
/// # Errors
/// What the database says.
pub async fn counts(tx: &mut Tx) -> Result<Vec<Count>> {
    let sql = "SELECT source, reason, COUNT(*) AS event_count, MIN(usage_date) AS first_date, MAX(usage_date) AS last_date \
         FROM (SELECT source, CASE WHEN source LIKE $1 THEN $2 ELSE reason END AS reason, usage_date FROM quarantined_event) AS event \
         GROUP BY source, reason ORDER BY COUNT(*) DESC, source, reason";
    let rows = tx.query(sql, &[format!("{OF_FILE}%").into(), "not imported".into()]).await?;
    let date = |row: &Row, name: &str| if *row.get(name)? == Value::Null { Ok(None) } else { row.date(name).map(Some) };
    rows.iter()
        .map(|row| {
            Ok(Count {
                source: row.text("source")?,
                reason: row.text("reason")?,
                event_count: row.int("event_count")?,
                first_date: date(row, "first_date")?,
                last_date: date(row, "last_date")?,
            })
        })
        .collect()
}

/// The latest of them, of one source where it is named.
///
/// # Errors
/// What the database says.
pub async fn list(tx: &mut Tx, source: Option<&str>, skip: i64, limit: i64) -> Result<Vec<Quarantined>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM quarantined_event WHERE CAST($1 AS TEXT) IS NULL OR source = $1 \
         ORDER BY first_seen_at DESC, source, event_id LIMIT $3 OFFSET $2"
    );
    let rows = tx.query(&sql, &[source.map(str::to_owned).into(), skip.into(), limit.into()]).await?;
    rows.iter().map(read).collect()
}

/// Those with an id.
///
/// # Errors
/// [`Failure`] of kind usage where there is none; what the database says.
pub async fn of_id(tx: &mut Tx, event_id: &str) -> Result<Vec<Quarantined>> {
    let sql = format!("SELECT {COLUMNS} FROM quarantined_event WHERE event_id = $1 ORDER BY source");
    let rows = tx.query(&sql, &[event_id.into()]).await?;
    if rows.is_empty() {
        return Err(Failure::usage(format!("No event `{event_id}` is in quarantine"))
            .hint("`tallyroll quarantine list` shows what is there")
            .into());
    }
    rows.iter().map(read).collect()
}

/// Makes the days of the log's quarantined events due, of one source where it is named; which, by job.
///
/// # Errors
/// [`Failure`] of kind locked where a run of the job is at work, which may have read the days already; what the database says.
pub async fn retry(
    store: &Store,
    clock: &Clock,
    config: &Config,
    jobs: &Jobs,
    source: Option<&str>,
) -> Result<BTreeMap<String, Vec<NaiveDate>>> {
    let mut tx = store.begin().await?;
    let sql = "SELECT DISTINCT usage_date FROM quarantined_event \
         WHERE usage_date IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR source = $1) ORDER BY usage_date";
    let rows = tx.query(sql, &[source.map(str::to_owned).into()]).await?;
    let days = rows.iter().map(|row| row.date("usage_date")).collect::<Result<Vec<_>>>()?;
    let mut due = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.operator == OperatorKind::UsageRollup && !days.is_empty()) {
        if let Some(holder) = lock::holder(store, clock, &job.name, config.engine.lock_lease_seconds).await? {
            return Err(Failure::new(Kind::Locked, format!("Job `{}` is at work: {}", job.name, holder.shown))
                .hint("it may have read the rows before they were fixed: ask again when it has ended")
                .into());
        }
        let window =
            |day: &NaiveDate| Ok((Window::containing(WindowKind::Day, *day)?, "its quarantined events are to be tried again".to_owned()));
        let windows = days.iter().map(window).collect::<Result<Vec<_>>>()?;
        tx.mark_due(&job.name, &windows, config.reporting.timezone.name()).await?;
        due.insert(job.name.clone(), days.clone());
    }
    tx.commit().await?;
    Ok(due)
}

/// Forgets the rows of a file that were not imported; how many.
///
/// # Errors
/// [`Failure`] of kind usage for a source that is none, or is of the log; what the database says.
pub async fn drop_rows(store: &Store, source: &str) -> Result<u64> {
    if !source.starts_with(OF_FILE) {
        return Err(Failure::usage(format!(
            "`{source}` is a source of the log: its events are in quarantine for as long as their rows are bad"
        ))
        .hint("fix the rows or delete them, then `tallyroll quarantine retry`")
        .into());
    }
    let dropped = store.execute("DELETE FROM quarantined_event WHERE source = $1", &[source.into()]).await?;
    if dropped == 0 {
        return Err(Failure::usage(format!("Nothing of `{source}` is in quarantine"))
            .hint("`tallyroll quarantine list` shows what is there")
            .into());
    }
    Ok(dropped)
}
