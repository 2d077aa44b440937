//! `rollup`: a usage summary by fewer keys than the one it reads. It has a grain, labels and unique counts, and no SELECT.

pub mod folded;
pub mod from_table;
pub mod months;
pub mod shape;

use anyhow::{Context as _, Result};
use chrono_tz::Tz;

use self::shape::Shape;
use super::sql::SqlSelect;
use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::measure::{self, MEASURES, Measure};
use crate::sql_text::quote_identifier;
use crate::store::Store;
use crate::window::WindowKind;

/// A rollup, ready to run.
#[derive(Debug)]
pub struct Rollup {
    /// What gives its rows inside the database.
    pub select: SqlSelect,
    /// What did so before there were the measures of `usage_event`.
    pub first_select: String,
    /// How its rows follow from groups in memory, where it reads the summary of the raw log.
    pub shape: Option<Shape>,
}

impl Rollup {
    /// # Errors
    /// [`Failure`](crate::failure::Failure) of kind config where it does not fit what it reads.
    pub async fn load(store: &Store, jobs: &Jobs, job: &Job, timezone: Tz) -> Result<Self> {
        let upstream = job.reads.first().and_then(|table| jobs.writer_of(table));
        let upstream = upstream.with_context(|| format!("`{}` reads a table that no job writes", job.origin))?;
        let shape = if upstream.operator == OperatorKind::UsageRollup { Some(Shape::of(job, upstream)?) } else { None };
        let mut checked = job.clone();
        checked.checks.equal_sums.get_or_insert_with(|| upstream.writes.clone());
        let statement = select(job, upstream, MEASURES.iter());
        let select = SqlSelect::generated(store, jobs, &checked, timezone, statement, columns(job)).await?;
        Ok(Self { select, first_select: self::select(job, upstream, measure::first_ones()), shape })
    }
}

/// The columns of the result: the grain, each label behind its key, the measures, and the unique counts.
fn columns(job: &Job) -> Vec<String> {
    let measures = MEASURES.iter().map(|measure| measure.name.to_owned());
    job.grain.iter().chain(&job.labels).cloned().chain(measures).chain(job.unique.keys().cloned()).collect()
}

fn select<'a>(job: &Job, upstream: &Job, measures: impl Iterator<Item = &'a Measure>) -> String {
    let day = quote_identifier(&upstream.window_column);
    let keys: Vec<String> = job.grain.iter().skip(1).map(|key| quote_identifier(key)).collect();
    let mut columns = vec![format!(":window_start AS {}", quote_identifier(&job.window_column))];
    columns.extend(keys.iter().map(|key| format!("{key} AS {key}")));
    columns.extend(job.labels.iter().map(|label| {
        let label = quote_identifier(label);
        match job.window {
            // All rows of a day carry the day's latest label, or none.
            WindowKind::Day => format!("MAX({label}) AS {label}"),
            // The label of the latest day that has one.
            _ => format!("substr(MAX(CAST({day} AS TEXT) || {label}), 11) AS {label}"),
        }
    }));
    columns.extend(measures.map(Measure::sql));
    columns.extend(job.unique.iter().map(|(name, key)| format!("COUNT(DISTINCT {}) AS {}", quote_identifier(key), quote_identifier(name))));
    // A window without rows has none here either.
    let by =
        if keys.is_empty() { "HAVING COUNT(*) > 0".to_owned() } else { format!("GROUP BY {keys} ORDER BY {keys}", keys = keys.join(", ")) };
    format!(
        "SELECT {} FROM {} WHERE {day} >= :window_start AND {day} < :window_end {by}",
        columns.join(", "),
        quote_identifier(&upstream.writes)
    )
}
