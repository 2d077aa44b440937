//! `verify`: sealed files against manifest, journal and ledger.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

use super::output;
use super::session::Session;
use crate::failure::Failure;
use crate::import::parse_instant;
use crate::operator::peak_seats::is_sealed;
use crate::plan::{Plan, Request};
use crate::run::{self, Operator};
use crate::seats::calendar::BillingMonth;
use crate::snapshot::verify::{self, ledger_problem};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this billing month, such as 2026-03
    #[arg(long, value_parser = billing_month)]
    billing_month: Option<BillingMonth>,
    /// Compare with the ledger as of this instant; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
}

fn billing_month(text: &str) -> Result<BillingMonth, String> {
    BillingMonth::parse(text).ok_or_else(|| "write a month as 2026-03".to_owned())
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let context = session.context().await?;
    let mut months = verify::verify(&context.storage, &context.store, arguments.billing_month).await?;

    let job = context.jobs.get("peak_seats")?;
    let operator = run::load_operator(&context.project, &context.config, &context.store, job).await?;
    let request = Request { as_of: arguments.as_of.unwrap_or_else(|| context.clock.now()), ..Request::default() };
    let mut tx = context.store.begin_read().await?;
    let plan = Plan::make(&context, &mut tx, job, &operator, &request).await?;
    drop(tx);
    if let Operator::PeakSeats(peak_seats) = &operator {
        for planned in &plan.windows {
            let month = BillingMonth::of(planned.window.start_date);
            let Some(verified) = months.iter_mut().find(|verified| verified.billing_month == month.to_string()) else { continue };
            if verified.problems.is_empty() && is_sealed(plan.states.get(&planned.window)) {
                let (_, corrections) = peak_seats.expected_corrections(planned.window).await?;
                verified.problems.extend(ledger_problem(month, &corrections));
            }
        }
    }
    context.store.close().await;

    let mut rows = Vec::new();
    for month in &months {
        if session.json {
            output::json(month)?;
        }
        rows.push(vec![
            month.billing_month.clone(),
            month.revision_count.to_string(),
            output::grouped(i64::try_from(month.row_count)?),
            output::grouped(month.peak_seats),
            if month.problems.is_empty() { "holds".to_owned() } else { format!("{} problem(s)", month.problems.len()) },
        ]);
    }
    if !session.json {
        if rows.is_empty() {
            output::line("No month is sealed or published yet")?;
        } else {
            output::line(&output::table(
                &["billing month", "revisions", "rows", "peak seats", "result"],
                &["revisions", "rows", "peak seats"],
                &rows,
            ))?;
        }
    }
    let problems: Vec<String> = months.into_iter().flat_map(|month| month.problems).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let count = problems.len();
    Err(Failure::bad_data(format!("{count} problem(s)\n{}", output::printable(&problems.join("\n"))))
        .hint("a sealed file that was changed or lost comes back from a copy; it is never written anew")
        .into())
}
