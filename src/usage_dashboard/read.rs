//! What the statements of the dashboards share.

use anyhow::{Context as _, Result};

use super::number::{Usd, cost_of_each};
use crate::store::{Row, Tx, Value};

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
