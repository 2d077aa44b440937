//! `verify`: sealed files against manifest, journal and ledger.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

use super::output;
use super::session::Session;
use crate::engine::env::Context;
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::import::parse_instant;
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::verify::{self, Verified, ledger_problem};
use crate::snapshot::{overlap, usage_monthly};

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
    let months =
        overlap::settled(&context, || Box::pin(look(&context, arguments)), |months| months.iter().all(|month| month.problems.is_empty()))
            .await?;
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
            if month.problems.is_empty() { "holds".to_owned() } else { output::counted(month.problems.len(), "problem") },
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
    Err(Failure::bad_data(output::counted(count, "problem"))
        .listing(problems)
        .hint("a sealed file that was changed or lost comes back from a copy; it is never written anew")
        .into())
}

/// What each month gives.
async fn look(context: &Context, arguments: &Arguments) -> Result<Vec<Verified>> {
    let mut months = verify::verify(&context.storage, &context.store, &context.jobs, arguments.billing_month).await?;
    compare_with_ledger(context, arguments, &mut months).await?;
    compare_monthly_files(context, arguments.billing_month, &mut months).await?;
    Ok(months)
}

/// Adds the monthly summaries' files that say other than their tables.
async fn compare_monthly_files(context: &Context, only: Option<BillingMonth>, months: &mut Vec<Verified>) -> Result<()> {
    for (job, folder) in usage_monthly::publishers(&context.jobs) {
        for (window, problem) in usage_monthly::problems(&context.storage, &context.store, job, folder).await? {
            let name = BillingMonth::of(window.start_date).to_string();
            if only.is_some_and(|only| only.to_string() != name) {
                continue;
            }
            match months.iter_mut().find(|month| month.billing_month == name) {
                Some(month) => month.problems.push(problem),
                None => months.push(Verified::of(name, vec![problem])),
            }
        }
    }
    months.sort_by(|left, right| left.billing_month.cmp(&right.billing_month));
    Ok(())
}

/// Adds, to each month, what the ledger says otherwise.
async fn compare_with_ledger(context: &Context, arguments: &Arguments, months: &mut Vec<Verified>) -> Result<()> {
    let job = context.jobs.get("peak_seats")?;
    let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    let Operator::PeakSeats(peak_seats) = &operator else { return Ok(()) };
    let request = Request { as_of: arguments.as_of.unwrap_or_else(|| context.clock.now()), ..Request::default() };
    let mut tx = context.store.begin_read().await?;
    let plan = Plan::make(context, &mut tx, job, &operator, &request, &Found::Nothing).await?;
    drop(tx);
    let folded = &plan.found.seats()?.folded;
    for (window, folded_month) in folded.months.iter().filter(|(_, month)| month.state == State::Final) {
        let month = BillingMonth::of(window.start_date);
        if arguments.billing_month.is_some_and(|only| only != month) {
            continue;
        }
        let unsealed = || Verified::unsealed(month);
        match months.iter_mut().find(|verified| verified.billing_month == month.to_string()) {
            None => months.push(unsealed()),
            Some(verified) if !verified.problems.is_empty() => {}
            Some(verified) if verified.digest.is_none() => verified.problems = unsealed().problems,
            Some(verified) if verified.digest.as_ref() == Some(&folded_month.digest) => {}
            Some(verified) => {
                if peak_seats.agrees_but_for_isolated(folded, *window).await? {
                    continue;
                }
                // Where the rows are at hand the first difference is named.
                let corrections = peak_seats.expected_corrections(folded, *window, false).await.map(|(_, rows)| rows).unwrap_or_default();
                verified.problems.push(ledger_problem(month, &corrections));
            }
        }
    }
    if let (Some(only), true) = (arguments.billing_month, months.is_empty()) {
        return Err(Failure::usage(format!("No file of billing month {only} was published yet"))
            .hint("`tallyroll verify` lists the months that there are")
            .into());
    }
    Ok(())
}
