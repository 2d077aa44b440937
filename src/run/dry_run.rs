//! `run-job --dry-run`: what a run would do.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::engine::env::Context;
use crate::engine::request::{Planned, Request};
use crate::engine::upstream::readers_of;
use crate::job::Job;
use crate::operator::peak_seats::{Folded, PeakSeats};
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;
use crate::seats::calendar::State;
use crate::window::Window;

/// Plans jobs, each after those it reads, and tells what a run would do; nothing is changed.
///
/// # Errors
/// As [`Plan::make`].
pub async fn dry_run(context: &Context, jobs: &[&Job], request: &Request) -> Result<Vec<ExpectedWindow>> {
    let mut expected = Vec::new();
    let mut planned: BTreeMap<&str, Vec<Window>> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        let mut tx = context.store.begin_read().await?;
        let request = if index == 0 { request.clone() } else { request.for_downstream() };
        let mut plan = Plan::make(context, &mut tx, job, &operator, &request, &Found::Nothing).await?;
        // What the plan above it would rewrite makes a window due as well.
        for upstream in context.jobs.upstream_of(job) {
            for rewritten in planned.get(upstream.name.as_str()).into_iter().flatten() {
                for window in readers_of(job.window, *rewritten)? {
                    if plan.windows.iter().all(|known| known.window != window) {
                        plan.windows.push(Planned { window, reason: format!("reads windows of {} above", upstream.name) });
                    }
                }
            }
        }
        plan.windows.sort_by_key(|planned| planned.window);
        for Planned { window, reason } in &plan.windows {
            let state = plan.states.get(window).map_or("new", |state| state.state.name()).to_owned();
            // Rows that the windows above it will hold are not known yet.
            let is_known = !reason.ends_with("above");
            let rows_in = if is_known { Some(operator.expected_rows(context, &mut tx, job, &plan.found, *window).await?) } else { None };
            let billing = match &operator {
                Operator::PeakSeats(peak_seats) => {
                    Some(expected_billing(peak_seats, &plan.found.seats()?.folded, *window, request.force).await?)
                }
                _ => None,
            };
            expected.push(ExpectedWindow {
                job: job.name.clone(),
                window: window.to_string(),
                reason: reason.clone(),
                state,
                rows_in,
                billing,
            });
        }
        planned.insert(&job.name, plan.windows.into_iter().map(|planned| planned.window).collect());
    }
    Ok(expected)
}

/// What a run would make of a billing month.
async fn expected_billing(peak_seats: &PeakSeats, folded: &Folded, window: Window, takes_agreement: bool) -> Result<ExpectedBilling> {
    let state = folded.month(window)?.state;
    let (revision_count, rows) =
        if state == State::Final { peak_seats.expected_corrections(folded, window, takes_agreement).await? } else { (0, Vec::new()) };
    let corrections = rows
        .into_iter()
        .map(|row| ExpectedCorrection {
            subscription_id: row.subscription_id.into_owned(),
            seat_type: row.seat_type.into_owned(),
            month_number: row.month.period.number,
            peak_seats: row.month.peak_seats,
            peak_seats_delta: row.entry.peak_seats_delta,
            reason: row.entry.correction_reason.unwrap_or_default().into_owned(),
        })
        .collect();
    Ok(ExpectedBilling { state: state.name(), revision_count, corrections })
}

/// A line of `run-job --dry-run`.
#[derive(Debug, Serialize)]
pub struct ExpectedWindow {
    pub job: String,
    pub window: String,
    pub reason: String,
    /// `new`, or the state in `job_window`.
    pub state: String,
    /// Rows that it would read, where they are known before.
    pub rows_in: Option<i64>,
    /// Of a billing month: how far it is, and what would be corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<ExpectedBilling>,
}

#[derive(Debug, Serialize)]
pub struct ExpectedBilling {
    /// `open`, `provisional` or `final`.
    pub state: &'static str,
    /// Revisions that are sealed already.
    pub revision_count: usize,
    pub corrections: Vec<ExpectedCorrection>,
}

/// A row of the revision that a run would add.
#[derive(Debug, Serialize)]
pub struct ExpectedCorrection {
    pub subscription_id: String,
    pub seat_type: String,
    pub month_number: i32,
    pub peak_seats: i64,
    pub peak_seats_delta: i64,
    pub reason: String,
}
