//! Days of the raw log that are in the lake: rows of `archived_day` (`docs/semantics.md` section 10).

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use super::{Row, Store, Tx, Value};

/// A revision of one UTC day of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchivedDay {
    pub source: String,
    pub event_date: NaiveDate,
    pub revision: i32,
    /// Whether its rows are in the lake alone; else it is a copy of what the tables have.
    pub is_deleted: bool,
    pub event_count: i64,
    /// Of all tables.
    pub row_count: i64,
    pub size_bytes: i64,
    /// The earliest and the latest instant of its events.
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    pub manifest_sha256: String,
    pub archived_at: DateTime<Utc>,
}

const COLUMNS: &str =
    "source, event_date, revision, is_deleted, event_count, row_count, size_bytes, first_at, last_at, manifest_sha256, archived_at";

impl ArchivedDay {
    /// Whether it has events of `[start, end)` that are in the lake alone.
    #[must_use]
    pub fn is_read_for(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> bool {
        self.is_deleted && self.first_at < end && self.last_at >= start
    }

    fn of(row: &Row) -> Result<Self> {
        Ok(Self {
            source: row.text("source")?,
            event_date: row.date("event_date")?,
            revision: i32::try_from(row.int("revision")?)?,
            is_deleted: row.int("is_deleted")? != 0,
            event_count: row.int("event_count")?,
            row_count: row.int("row_count")?,
            size_bytes: row.int("size_bytes")?,
            first_at: row.instant("first_at")?,
            last_at: row.instant("last_at")?,
            manifest_sha256: row.text("manifest_sha256")?,
            archived_at: row.instant("archived_at")?,
        })
    }
}

fn all(rows: &[Row]) -> Result<Vec<ArchivedDay>> {
    rows.iter().map(ArchivedDay::of).collect()
}

impl Store {
    /// The days of `[from, to)`, in order; all where neither is given.
    ///
    /// # Errors
    /// What the database says.
    pub async fn archived_days(&self, from: Option<NaiveDate>, to: Option<NaiveDate>) -> Result<Vec<ArchivedDay>> {
        let (sql, parameters) = select(from, to);
        all(&self.query(&sql, &parameters).await?)
    }

    /// Sources whose rows of some day are in the lake alone and that `known` lacks, each with the first such day.
    ///
    /// # Errors
    /// What the database says.
    pub async fn archived_sources_but(&self, known: &[String]) -> Result<Vec<(String, NaiveDate)>> {
        let sql = "SELECT source, MIN(event_date) AS event_date FROM archived_day WHERE is_deleted GROUP BY source ORDER BY source";
        let rows = self.query(sql, &[]).await?;
        let mut sources = rows.iter().map(|row| Ok((row.text("source")?, row.date("event_date")?))).collect::<Result<Vec<_>>>()?;
        sources.retain(|(source, _)| !known.contains(source));
        Ok(sources)
    }

    /// When each window of a job was last written, by its first day.
    ///
    /// # Errors
    /// What the database says.
    pub async fn written_at(&self, job: &str) -> Result<BTreeMap<NaiveDate, DateTime<Utc>>> {
        let sql = "SELECT window_start, written_at FROM job_window WHERE job = $1 AND written_at IS NOT NULL";
        let rows = self.query(sql, &[job.into()]).await?;
        rows.iter().map(|row| Ok((row.date("window_start")?, row.instant("written_at")?))).collect()
    }
}

impl Tx {
    /// As [`Store::archived_days`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn archived_days(&mut self, from: Option<NaiveDate>, to: Option<NaiveDate>) -> Result<Vec<ArchivedDay>> {
        let (sql, parameters) = select(from, to);
        all(&self.query(&sql, &parameters).await?)
    }

    /// Says that files of a revision are about to be written, and may be removed until it is noted.
    ///
    /// # Errors
    /// What the database says.
    pub async fn intend_archived_day(&mut self, source: &str, event_date: NaiveDate, revision: i32) -> Result<()> {
        let sql = "INSERT INTO archive_leftover (source, event_date, revision) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.execute(sql, &[source.into(), event_date.into(), i64::from(revision).into()]).await.map(|_| ())
    }

    /// The revisions of a day whose files may be removed.
    ///
    /// # Errors
    /// What the database says.
    pub async fn archive_leftovers(&mut self, source: &str, event_date: NaiveDate) -> Result<Vec<i32>> {
        let sql = "SELECT revision FROM archive_leftover WHERE source = $1 AND event_date = $2";
        let rows = self.query(sql, &[source.into(), event_date.into()]).await?;
        rows.iter().map(|row| Ok(i32::try_from(row.int("revision")?)?)).collect()
    }

    /// They are removed.
    ///
    /// # Errors
    /// What the database says.
    pub async fn forget_leftovers(&mut self, source: &str, event_date: NaiveDate) -> Result<()> {
        let sql = "DELETE FROM archive_leftover WHERE source = $1 AND event_date = $2";
        self.execute(sql, &[source.into(), event_date.into()]).await.map(|_| ())
    }

    /// Forgets revisions of a day; their files may be removed.
    async fn leave_over(&mut self, source: &str, event_date: NaiveDate, which: &str) -> Result<()> {
        let day: [Value; 2] = [source.into(), event_date.into()];
        let keep = format!(
            "INSERT INTO archive_leftover (source, event_date, revision) SELECT source, event_date, revision FROM archived_day \
             WHERE source = $1 AND event_date = $2{which} ON CONFLICT DO NOTHING"
        );
        self.execute(&keep, &day).await?;
        self.execute(&format!("DELETE FROM archived_day WHERE source = $1 AND event_date = $2{which}"), &day).await.map(|_| ())
    }

    /// Notes a revision; the copies of its day that it takes the place of are forgotten.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_archived_day(&mut self, day: &ArchivedDay) -> Result<()> {
        self.leave_over(&day.source, day.event_date, " AND NOT is_deleted").await?;
        let written = "DELETE FROM archive_leftover WHERE source = $1 AND event_date = $2 AND revision = $3";
        self.execute(written, &[day.source.as_str().into(), day.event_date.into(), i64::from(day.revision).into()]).await?;
        let is_deleted = if day.is_deleted { "TRUE" } else { "FALSE" };
        let sql = format!("INSERT INTO archived_day ({COLUMNS}) VALUES ($1, $2, $3, {is_deleted}, $4, $5, $6, $7, $8, $9, $10)");
        let values = [
            day.source.as_str().into(),
            day.event_date.into(),
            i64::from(day.revision).into(),
            day.event_count.into(),
            day.row_count.into(),
            day.size_bytes.into(),
            day.first_at.into(),
            day.last_at.into(),
            day.manifest_sha256.as_str().into(),
            day.archived_at.into(),
        ];
        self.execute(&sql, &values).await.map(|_| ())
    }

    /// Forgets a day: its rows are back in the tables.
    ///
    /// # Errors
    /// What the database says.
    pub async fn forget_archived_day(&mut self, source: &str, event_date: NaiveDate) -> Result<()> {
        self.leave_over(source, event_date, "").await
    }

    /// Takes back the marks that this transaction's own deletes have set in `[start, end)`: what is in the lake is no change of the log.
    /// In SQLite there were none before, which [`Self::has_marks`] says.
    ///
    /// # Errors
    /// What the database says.
    pub async fn take_back_marks(&mut self, source: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<()> {
        let own = self.pick(" AND marked_xid = pg_current_xact_id()", "");
        let sql = format!("DELETE FROM usage_dirty_day WHERE source = $1 AND slot_start >= $2 AND slot_start < $3{own}");
        self.execute(&sql, &[source.into(), start.into(), end.into()]).await.map(|_| ())
    }

    /// Whether rows of `[start, end)` were updated or deleted, and no run has seen it yet.
    ///
    /// # Errors
    /// What the database says.
    pub async fn has_marks(&mut self, source: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<bool> {
        let sql = "SELECT 1 AS one FROM usage_dirty_day WHERE source = $1 AND slot_start >= $2 AND slot_start < $3 LIMIT 1";
        Ok(!self.query(sql, &[source.into(), start.into(), end.into()]).await?.is_empty())
    }
}

fn select(from: Option<NaiveDate>, to: Option<NaiveDate>) -> (String, Vec<Value>) {
    let mut conditions = Vec::new();
    let mut parameters: Vec<Value> = Vec::new();
    for (day, is) in [(from, ">="), (to, "<")] {
        if let Some(day) = day {
            parameters.push(day.into());
            conditions.push(format!("event_date {is} ${}", parameters.len()));
        }
    }
    let of = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    (format!("SELECT {COLUMNS} FROM archived_day{of} ORDER BY source, event_date, revision"), parameters)
}
