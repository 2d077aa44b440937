//! What the statements of the dashboards share.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;

use super::number::{Usd, cost_of_each};
use crate::store::{Row, Tx, Value};
use crate::window::{day_of, next_day};

/// `SUM(…) AS …` of measures, each a 64-bit integer: a sum costs, so each statement has only those that it shows. A cost that no
/// request has is NULL.
pub(super) fn sums(measures: &[&str]) -> String {
    let sum = |measure: &&str| {
        let sum = if measure.ends_with("_cost_nanos") { format!("SUM({measure})") } else { format!("COALESCE(SUM({measure}), 0)") };
        format!("CAST({sum} AS BIGINT) AS {measure}")
    };
    measures.iter().map(sum).collect::<Vec<_>>().join(", ")
}

/// What a successful request costs, over those whose cost is known.
pub(super) fn success_cost(row: &Row, places: u32) -> Result<Option<Usd>> {
    let nanos = row.opt_int("success_cost_nanos")?.unwrap_or(0);
    cost_of_each(nanos.into(), row.int("success_priced_count")?, row.int("success_count")?, places)
}

/// The row of an aggregate.
pub(super) async fn one(tx: &mut Tx, sql: &str, parameters: &[Value]) -> Result<Row> {
    tx.query(sql, parameters).await?.into_iter().next().context("An aggregate gave no row")
}

/// The days `[from, to)` that a dashboard covers: today and the `days` days before it.
///
/// # Errors
/// Only at the end of the calendar.
pub(super) fn span(days: u64, timezone: Tz, as_of: DateTime<Utc>) -> Result<(NaiveDate, NaiveDate)> {
    let today = day_of(as_of, timezone)?;
    let from = today.checked_sub_days(Days::new(days)).context("The first day is out of range")?;
    Ok((from, next_day(today)?))
}
