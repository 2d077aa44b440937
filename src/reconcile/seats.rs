//! Peaks against the ledger, sealed files against their manifests, the ledger against the present memberships.

use anyhow::Result;

use super::Findings;
use crate::plan::{Plan, Request};
use crate::run::{Context, Operator, load_operator};
use crate::snapshot::verify;

/// The table `peak_seats` against the ledger, folded as of the last writing.
pub(super) async fn peaks(context: &Context, findings: &mut Findings) -> Result<()> {
    let last = context.store.query("SELECT MAX(as_of) AS as_of FROM snapshot_file", &[]).await?;
    let Some(as_of) = last.first().map(|row| row.opt_instant("as_of")).transpose()?.flatten() else { return Ok(()) };
    let job = context.jobs.get("peak_seats")?;
    let operator = load_operator(&context.project, &context.config, &context.store, job).await?;
    let Operator::PeakSeats(peak_seats) = &operator else { return Ok(()) };
    let mut tx = context.store.begin_read().await?;
    Plan::make(context, &mut tx, job, &operator, &Request { as_of, ..Request::default() }).await?;
    drop(tx);
    let folded = peak_seats.planned()?;
    let sql =
        "SELECT COUNT(*) AS row_count, CAST(COALESCE(SUM(peak_seats), 0) AS BIGINT) AS peak_seats FROM peak_seats WHERE billing_month = $1";
    for (window, month) in &folded.months {
        let rows = context.store.query(sql, &[window.to_string().into()]).await?;
        let Some(row) = rows.first() else { continue };
        let (isolated_rows, isolated_seats) = peak_seats.isolated_rows(&context.store, *window).await?;
        for (subject, expected) in [("row_count", month.row_count + isolated_rows), ("peak_seats", month.peak_seats + isolated_seats)] {
            findings.compare("peaks", &window.to_string(), subject, &expected, &row.int(subject)?, || {
                format!("tallyroll run-job peak_seats --month {window} --dry-run")
            });
        }
    }
    Ok(())
}

/// Every sealed file against its manifest and the record of it.
pub(super) async fn sealed_files(context: &Context, findings: &mut Findings) -> Result<()> {
    for month in verify::verify(&context.storage, &context.store, None).await? {
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

/// The last total of each org that records by its assignments, against them.
pub(super) async fn drift(context: &Context, findings: &mut Findings) -> Result<()> {
    let collate = crate::source::ledger::collate(&context.store);
    let sql = format!(
        "SELECT org.org_id AS org_id, \
             COALESCE((SELECT seats FROM seat_usage_event WHERE org_id{collate} = org.org_id AND seat_type{collate} = 'total' \
                 ORDER BY occurred_at DESC, id DESC LIMIT 1), 0) AS in_ledger, \
             (SELECT COUNT(*) FROM subscription_seat_assignments WHERE CAST(namespace_id AS TEXT) = org.org_id) AS assigned \
         FROM (SELECT CAST(namespace_id AS TEXT) AS org_id FROM subscription_seat_assignments WHERE namespace_id IS NOT NULL \
             UNION SELECT org_id FROM seat_org) AS org \
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
