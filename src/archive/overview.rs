//! How far the archive is: what `status` and the metrics show of it.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::engine::env::Context;
use crate::source::Source;

/// What of a source is in the lake, and since when the rest is in its tables.
#[derive(Debug, Serialize)]
pub struct ArchivedSource {
    pub source: String,
    pub day_count: i64,
    /// Of these, the days whose rows are in the lake alone.
    pub deleted_day_count: i64,
    pub event_count: i64,
    pub size_bytes: i64,
    pub last_day: Option<NaiveDate>,
    pub oldest_event_at: Option<DateTime<Utc>>,
}

/// Each source, in the order of `usage.sources`; none where nothing is archived.
///
/// # Errors
/// What the database says.
pub async fn overview(context: &Context) -> Result<Vec<ArchivedSource>> {
    let days = context.store.archived_days(None, None).await?;
    if days.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = context.store.begin_read().await?;
    let mut found = Vec::new();
    for name in &context.config.usage.sources {
        let source = Source::load(&context.project, name, context.store.engine())?;
        let of_source: Vec<_> = days.iter().filter(|day| day.source == source.name).collect();
        let dates = |is_deleted: Option<bool>| -> Result<i64> {
            let mut dates: Vec<_> =
                of_source.iter().filter(|day| is_deleted.is_none_or(|is| day.is_deleted == is)).map(|day| day.event_date).collect();
            dates.dedup();
            Ok(i64::try_from(dates.len())?)
        };
        found.push(ArchivedSource {
            source: source.name.clone(),
            day_count: dates(None)?,
            deleted_day_count: dates(Some(true))?,
            event_count: of_source.iter().map(|day| day.event_count).sum(),
            size_bytes: of_source.iter().map(|day| day.size_bytes).sum(),
            last_day: of_source.iter().map(|day| day.event_date).max(),
            oldest_event_at: source.next_event(&mut tx, DateTime::UNIX_EPOCH).await?,
        });
    }
    Ok(found)
}
