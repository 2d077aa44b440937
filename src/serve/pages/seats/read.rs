//! What the last run of `peak_seats` wrote about a subscription, found by its billing months.

use anyhow::{Context, Result};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};

use crate::seats::calendar::{BillingMonth, Period, State};
use crate::seats::{Coverage, MonthPeak, Subscription, overage};
use crate::serve::data;
use crate::serve::html::shortened;
use crate::serve::problem::Problem;
use crate::snapshot::peak_row::{Entry, PeakRow};
use crate::source::ledger::SeatSource;
use crate::store::{Row, Tx, Value};

/// A month of a subscription as it was written, with the billing month that it belongs to.
pub(super) struct Written {
    pub(super) billing_month: BillingMonth,
    pub(super) row: PeakRow<'static>,
}

/// How many months of one subscription are read, the latest first: fifty years.
pub(super) const MONTHS_MAX: usize = 600;

const COLUMNS: &str = "billing_month, subscription_id, org_id, license_id, plan, seat_type, month_number, period_start, period_end, coverage, \
     state, revision, entry, peak_seats, peak_at, peak_event_id, CAST(peak_carried_in AS INTEGER) AS peak_carried_in, seconds_at_peak, \
     opening_seats, closing_seats, min_seats, avg_seats_micros, committed_seats, term_number, term_peak_seats, ledger_rows, \
     correction_reason, as_of";

/// The latest months of a subscription up to `now`.
pub(super) fn periods(start_at: i64, end_at: Option<i64>, now: DateTime<Utc>) -> Result<Vec<Period>> {
    let mut periods = crate::seats::calendar::subscription_months(start_at, end_at, now.timestamp_micros())?;
    periods.drain(..periods.len().saturating_sub(MONTHS_MAX));
    Ok(periods)
}

/// What was written about these subscriptions in these months, for every seat type, in order of type and month.
pub(super) async fn written(tx: &mut Tx, subscriptions: &[&str], periods: &[Period]) -> Result<Vec<Written>> {
    let mut months = periods.iter().map(|period| Ok(BillingMonth::of(period.last_date()?).to_string())).collect::<Result<Vec<_>>>()?;
    months.sort_unstable();
    months.dedup();
    if months.is_empty() || subscriptions.is_empty() {
        return Ok(Vec::new());
    }
    let mut parameters: Vec<Value> = Vec::new();
    let mut list = |values: &mut dyn Iterator<Item = Value>| {
        let numbered = values.map(|value| {
            parameters.push(value);
            format!("${}", parameters.len())
        });
        numbered.collect::<Vec<_>>().join(", ")
    };
    let months = list(&mut months.iter().map(|month| month.as_str().into()));
    let ids = list(&mut subscriptions.iter().map(|id| (*id).into()));
    let sql = format!(
        "SELECT {COLUMNS} FROM peak_seats WHERE billing_month IN ({months}) AND subscription_id IN ({ids}) \
         ORDER BY subscription_id, seat_type, month_number"
    );
    tx.query(&sql, &parameters).await?.iter().map(written_row).collect()
}

fn written_row(row: &Row) -> Result<Written> {
    let small = |column: &str| Ok::<_, anyhow::Error>(i32::try_from(row.int(column)?)?);
    let micros = |column: &str| Ok::<_, anyhow::Error>(row.instant(column)?.timestamp_micros());
    let (peak_seats, committed_seats) = (row.int("peak_seats")?, row.opt_int("committed_seats")?);
    let row = PeakRow {
        subscription_id: row.text("subscription_id")?.into(),
        org_id: row.text("org_id")?.into(),
        license_id: row.opt_text("license_id")?.map(Into::into),
        plan: row.opt_text("plan")?.map(Into::into),
        seat_type: row.text("seat_type")?.into(),
        month: MonthPeak {
            period: Period { number: small("month_number")?, start: micros("period_start")?, end: micros("period_end")? },
            coverage: Coverage::named(&row.text("coverage")?).context("Unknown coverage")?,
            peak_seats,
            peak_at: row.opt_instant("peak_at")?.map(|at| at.timestamp_micros()),
            peak_event_id: row.opt_int("peak_event_id")?,
            peak_carried_in: row.int("peak_carried_in")? != 0,
            seconds_at_peak: row.int("seconds_at_peak")?,
            opening_seats: row.opt_int("opening_seats")?,
            closing_seats: row.opt_int("closing_seats")?,
            min_seats: row.opt_int("min_seats")?,
            avg_seats_micros: row.opt_int("avg_seats_micros")?,
            ledger_rows: row.int("ledger_rows")?,
            term_number: small("term_number")?,
            term_peak_seats: row.int("term_peak_seats")?,
        },
        committed_seats,
        state: State::named(&row.text("state")?).context("Unknown state")?,
        as_of: micros("as_of")?,
        // There is one row for a month here, so its difference is the whole count, as in the files of `current/`.
        entry: Entry {
            revision: small("revision")?,
            is_correction: row.text("entry")? == "correction",
            peak_seats_delta: peak_seats,
            overage_seats_delta: overage(peak_seats, committed_seats),
            correction_reason: row.opt_text("correction_reason")?.map(Into::into),
        },
    };
    let billing_month = BillingMonth::of(row.month.period.last_date()?);
    Ok(Written { billing_month, row })
}

/// The subscription of an id, which a stranger may have sent.
pub(super) async fn subscription(
    tx: &mut Tx,
    source: &SeatSource,
    id: &str,
    now: DateTime<Utc>,
) -> std::result::Result<Subscription, Problem> {
    let read = if data::can_hold(tx.engine(), id) { source.subscription(tx, id, now).await? } else { None };
    read.ok_or_else(|| unknown(id))?.map_err(|bad| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("This subscription cannot be billed: {}", bad.reason))
            .hint("fix its row; the next run bills it, and until then it bills all others")
    })
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("There is no subscription `{}`", shortened(id)))
        .hint("`tallyroll import subscriptions` takes them in; the table is `subscription`")
}
