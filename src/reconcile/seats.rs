//! Peaks against the ledger, sealed files against their manifests, the ledger against the present memberships.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::findings::Findings;
use crate::engine::env::Context;
use crate::engine::request::Request;
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;
use crate::seats::calendar::BillingMonth;
use crate::snapshot::{usage_monthly, verify};
use crate::window::Window;

/// The table `peak_seats` against the ledger, each month folded as of its own last writing.
pub(super) async fn peaks(context: &Context, findings: &mut Findings) -> Result<()> {
    let sql = "SELECT billing_month, MAX(as_of) AS as_of FROM snapshot_file GROUP BY billing_month";
    let mut written: BTreeMap<Window, DateTime<Utc>> = BTreeMap::new();
    for row in context.store.query(sql, &[]).await? {
        if let Some(month) = BillingMonth::parse(&row.text("billing_month")?) {
            written.insert(month.window()?, row.instant("as_of")?);
        }
    }
    let Some(latest) = written.values().max().copied() else { return Ok(()) };
    // A month that had ended when it was written says the same ever after: one fold serves all of those.
    let mut folds: BTreeMap<DateTime<Utc>, Vec<Window>> = BTreeMap::new();
    for (window, as_of) in written {
        let has_ended = as_of.date_naive() >= window.end_date;
        folds.entry(if has_ended { latest } else { as_of }).or_default().push(window);
    }
    let job = context.jobs.get("peak_seats")?;
    let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    let Operator::PeakSeats(peak_seats) = &operator else { return Ok(()) };
    let sql =
        "SELECT COUNT(*) AS row_count, CAST(COALESCE(SUM(peak_seats), 0) AS BIGINT) AS peak_seats FROM peak_seats WHERE billing_month = $1";
    for (as_of, windows) in folds {
        let mut tx = context.store.begin_read().await?;
        let request = Request { as_of, ..Request::default() };
        let plan = Plan::make(context, &mut tx, job, &operator, &request, &Found::Nothing).await?;
        drop(tx);
        let folded = &plan.found.seats()?.folded;
        for window in windows {
            if plan.windows.iter().any(|planned| planned.window == window) {
                continue;
            }
            let month = folded.month(window)?;
            let rows = context.store.query(sql, &[window.to_string().into()]).await?;
            let Some(row) = rows.first() else { continue };
            let (isolated_rows, isolated_seats) = peak_seats.isolated_rows(&context.store, folded, window).await?;
            for (subject, expected) in [("row_count", month.row_count + isolated_rows), ("peak_seats", month.peak_seats + isolated_seats)] {
                findings.compare("peaks", &window.to_string(), subject, &expected, &row.int(subject)?, || {
                    format!("tallyroll run-job peak_seats --month {window} --dry-run")
                });
            }
        }
    }
    Ok(())
}

/// Every finance file against what it follows from.
pub(super) async fn files(context: &Context) -> Result<Findings> {
    let mut findings = Findings::default();
    sealed_files(context, &mut findings).await?;
    monthly_files(context, &mut findings).await?;
    Ok(findings)
}

/// Every sealed file against its manifest and the record of it.
async fn sealed_files(context: &Context, findings: &mut Findings) -> Result<()> {
    for month in verify::verify(&context.storage, &context.store, &context.jobs, None).await? {
        let query = || format!("tallyroll verify --billing-month {}", month.billing_month);
        if month.problems.is_empty() {
            findings.compare("sealed_files", &month.billing_month, "files", &"as sealed", &"as sealed", query);
        }
        for problem in &month.problems {
            findings.compare("sealed_files", &month.billing_month, problem, &"as sealed", &"changed or missing", query);
        }
    }
    Ok(())
}

/// Every monthly summary's file against its table.
async fn monthly_files(context: &Context, findings: &mut Findings) -> Result<()> {
    for (job, folder) in usage_monthly::publishers(&context.jobs) {
        for (window, problem) in usage_monthly::problems(&context.storage, &context.store, job, folder).await? {
            findings.compare("sealed_files", &window.to_string(), &problem, &"as the table", &"changed or missing", || {
                format!("tallyroll verify --billing-month {window}")
            });
        }
    }
    Ok(())
}

/// The last total of each org that records by its assignments, against them.
pub(super) async fn drift(context: &Context, findings: &mut Findings) -> Result<()> {
    let collate = context.store.dialect().collate();
    let sql = format!(
        "SELECT org.org_id AS org_id, \
             COALESCE((SELECT seats FROM seat_usage_event WHERE org_id{collate} = org.org_id AND seat_type{collate} = 'total' \
                 ORDER BY occurred_at DESC, id DESC LIMIT 1), 0) AS in_ledger, \
             (SELECT COUNT(*) FROM subscription_seat_assignments WHERE CAST(namespace_id AS TEXT) = org.org_id) AS assigned \
         FROM (SELECT CAST(namespace_id AS TEXT) AS org_id FROM subscription_seat_assignments WHERE namespace_id IS NOT NULL \
             UNION SELECT org_id FROM seat_org WHERE org_id NOT IN (SELECT org_id FROM ai_seat_state WHERE org_id IS NOT NULL)) AS org \
         ORDER BY org.org_id"
    );
    for row in context.store.query(&sql, &[]).await? {
        let org_id = row.text("org_id")?;
        findings.compare("seat_drift", "now", &format!("seats of org {org_id}"), &row.int("assigned")?, &row.int("in_ledger")?, || {
            format!("SELECT * FROM seat_usage_event WHERE org_id = '{}' ORDER BY occurred_at, id", org_id.replace('\'', "''"))
        });
    }
    Ok(())
}
