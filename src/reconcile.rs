//! Reconciliation: every result against what it was made from (`docs/semantics.md` section 9).
//!
//! What a plan says is due anyway is not compared: it is known to be behind. What differs is named with the window, both numbers,
//! and the query that shows it; nothing is fixed.

pub mod results;
mod seats;
mod totals;
mod usage;

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::engine::env::Context;
use crate::failure::Failure;
use crate::show::counted;
use crate::snapshot::overlap;
use crate::store::{Tx, Value};

/// Which days of the raw log are compared; every one unless said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub from: Option<NaiveDate>,
    /// Exclusive.
    pub to: Option<NaiveDate>,
}

impl Range {
    fn holds(self, date: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }
}

/// One kind of comparison, and how often it was made.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub description: &'static str,
    pub compared_count: i64,
    pub difference_count: usize,
}

/// Two numbers that should be one.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    pub check: &'static str,
    pub window: String,
    pub subject: String,
    pub expected: String,
    pub found: String,
    /// What shows it: a statement for the database, or a command.
    pub query: String,
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

/// Collects what checks find.
#[derive(Debug, Default)]
struct Findings {
    compared: BTreeMap<&'static str, i64>,
    differences: Vec<Difference>,
}

impl Findings {
    fn compare(
        &mut self,
        check: &'static str,
        window: &str,
        subject: &str,
        expected: &impl ToString,
        found: &impl ToString,
        query: impl FnOnce() -> String,
    ) {
        *self.compared.entry(check).or_default() += 1;
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            let (window, subject) = (window.to_owned(), subject.to_owned());
            self.differences.push(Difference { check, window, subject, expected, found, query: query() });
        }
    }

    fn add(&mut self, others: Self) {
        for (check, count) in others.compared {
            *self.compared.entry(check).or_default() += count;
        }
        self.differences.extend(others.differences);
    }
}

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
