//! Reconciliation: every result against what it was made from (`docs/semantics.md` section 9).
//!
//! What a plan says is due anyway is not compared: it is known to be behind. What differs is named with the window, both numbers,
//! and the query that shows it; nothing is fixed.

mod findings;
mod keys;
pub mod results;
mod seats;
mod totals;
mod usage;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;

use self::findings::Findings;
pub use self::findings::{Difference, Range};
use crate::engine::env::Context;
use crate::failure::Failure;
use crate::show::counted;
use crate::snapshot::overlap;
use crate::store::{Tx, Value};

/// One kind of comparison, and how often it was made.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub description: &'static str,
    pub compared_count: i64,
    pub difference_count: usize,
}

/// What a reconciliation gave.
#[derive(Debug, Serialize)]
pub struct Report {
    pub as_of: DateTime<Utc>,
    pub checks: Vec<Check>,
    pub differences: Vec<Difference>,
}

/// The checks, in the order in which they are made.
const CHECKS: [(&str, &str); 9] = [
    ("raw_log", "usage_daily = raw log - quarantined, per day"),
    ("quarantine", "quarantined events are still bad"),
    ("days", "daily summaries = usage_daily, per day"),
    ("months", "monthly summaries = usage_daily, per month"),
    ("dashboards", "user_dashboard_data = the monthly summaries, per user"),
    ("results", "summaries = what was noted when they were written, per window"),
    ("peaks", "peak_seats = the ledger, per billing month"),
    ("sealed_files", "finance files = their sources"),
    ("seat_drift", "the ledger's last count = the present assignments, per org"),
];

/// Makes every check; nothing is changed.
///
/// # Errors
/// Where a check cannot be made. What checks find is in the report.
pub async fn run(context: &Context, range: &Range, as_of: DateTime<Utc>) -> Result<Report> {
    let mut findings = Findings::default();
    usage::raw_log(context, range, as_of, &mut findings).await?;
    usage::summaries(context, as_of, &mut findings).await?;
    usage::dashboards(context, &mut findings).await?;
    for noted in results::read(&context.store, &context.jobs).await? {
        let name = format!("{} {}", noted.table, noted.window);
        findings.compare("results", &name, "rows and sums as written", &noted.written, &noted.found, || noted.again);
    }
    seats::peaks(context, &mut findings).await?;
    findings.add(overlap::settled(context, || Box::pin(seats::files(context)), |found| found.differences.is_empty()).await?);
    seats::drift(context, &mut findings).await?;
    let checks = CHECKS
        .iter()
        .map(|(name, description)| Check {
            name,
            description,
            compared_count: findings.compared.get(name).copied().unwrap_or_default(),
            difference_count: findings.differences.iter().filter(|difference| difference.check == *name).count(),
        })
        .collect();
    Ok(Report { as_of, checks, differences: findings.differences })
}

impl Report {
    /// How many pairs of numbers were compared.
    #[must_use]
    pub fn compared_count(&self) -> i64 {
        self.checks.iter().map(|check| check.compared_count).sum()
    }

    /// The failure that differences are.
    #[must_use]
    pub fn failure(&self) -> Option<anyhow::Error> {
        let first = self.differences.first()?;
        let text = format!(
            "{} disagree{}; first `{}`, {}: {} should be {} and is {}",
            counted(self.differences.len(), "number"),
            if self.differences.len() == 1 { "s" } else { "" },
            first.check,
            first.window,
            first.subject,
            first.expected,
            first.found
        );
        Some(Failure::bad_data(text).hint(format!("look at it: {}", first.query)).into())
    }
}

/// Replaces what the last reconciliation found.
///
/// # Errors
/// What the database says.
pub async fn write(tx: &mut Tx, report: &Report) -> Result<()> {
    tx.execute("DELETE FROM reconciliation", &[]).await?;
    let columns = ["check_name", "window_name", "subject", "expected", "found", "query", "as_of"];
    let rows: Vec<Vec<Value>> = report
        .differences
        .iter()
        .map(|difference| {
            vec![
                difference.check.into(),
                difference.window.as_str().into(),
                difference.subject.as_str().into(),
                difference.expected.as_str().into(),
                difference.found.as_str().into(),
                difference.query.as_str().into(),
                report.as_of.into(),
            ]
        })
        .collect();
    tx.insert_rows("reconciliation", &columns, &rows, "").await?;
    Ok(())
}
