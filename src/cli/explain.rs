//! `explain`: the ledger rows behind one peak, as a table and a small chart.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use super::session::Session;
use crate::clock::Clock;
use crate::import::parse_instant;
use crate::seat_report::{Billed, SubscriptionMonths};
use crate::seats::calendar::instant;
use crate::seats::{Coverage, MonthPeak, TOTAL, overage};
use crate::source::ledger::{ReadRow, SeatSource};
use crate::store::{Create, format_instant};

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// The ledger rows behind the peak of a subscription month
    #[command(after_help = "Example:\n  tallyroll explain peak-seats --subscription acme-2026 --month-number 3")]
    PeakSeats(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The subscription's id
    #[arg(long)]
    subscription: String,
    /// The month of the subscription, from 1
    #[arg(long, value_name = "K")]
    month_number: i32,
    /// The kind of seat
    #[arg(long, default_value = TOTAL)]
    seat_type: String,
    /// The instant the ledger is read as of; the present one unless set
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<DateTime<Utc>>,
    /// List every ledger row, however many there are
    #[arg(long)]
    all: bool,
}

/// Columns of the longest bar.
const BAR_COLUMNS: i64 = 20;

/// Rows listed at the beginning, around the peak and at the end of a month that has more than all of them.
const SHOWN_ROWS: usize = 12;

/// Letters of a name that are shown.
const SHOWN_NAME: usize = 30;

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    let What::PeakSeats(arguments) = what;
    let as_of = arguments.as_of.unwrap_or_else(|| Clock::system().now());
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let source = SeatSource::load(&session.project, store.engine())?;
    let mut tx = store.begin_read().await?;
    let months = SubscriptionMonths::read(&mut tx, &source, &arguments.subscription, &arguments.seat_type, as_of).await?;
    let month = months.month(arguments.month_number)?;
    let billed = months.billed(&mut tx, month).await?;
    drop(tx);
    store.close().await;
    if session.json {
        return print_json(&months, month, billed.as_ref());
    }
    print_facts(&months, month, billed.as_ref(), as_of)?;
    print_rows(&months, month, arguments.all)
}

fn print_json(months: &SubscriptionMonths, month: &MonthPeak, billed: Option<&Billed>) -> Result<()> {
    output::json(&json!({
        "subscription_id": months.subscription.id,
        "org_id": months.subscription.org_id,
        "seat_type": months.seat_type,
        "month_number": month.period.number,
        "period_start": instant(month.period.start)?,
        "period_end": instant(month.period.end)?,
        "billing_month": SubscriptionMonths::billing_month(month)?.to_string(),
        "coverage": month.coverage.name(),
        "peak_seats": month.peak_seats,
        "peak_at": month.peak_at.map(instant).transpose()?,
        "peak_event_id": month.peak_event_id,
        "peak_carried_in": month.peak_carried_in,
        "seconds_at_peak": month.seconds_at_peak,
        "overage_seats": overage(month.peak_seats, months.committed_seats()),
        "ledger_rows": months.rows_behind(month),
        "billed": billed,
    }))
}

fn print_facts(months: &SubscriptionMonths, month: &MonthPeak, billed: Option<&Billed>, as_of: DateTime<Utc>) -> Result<()> {
    let subscription = &months.subscription;
    let name = |text: &str| output::printable(&text.chars().take(SHOWN_NAME).collect::<String>()).replace('\n', " ");
    let number = |number: Option<i64>| number.map_or("unknown".to_owned(), output::grouped);
    output::line(&format!(
        "Subscription {}, month {}, seats of type {}",
        name(&subscription.id),
        month.period.number,
        name(&months.seat_type)
    ))?;
    output::line(&format!("  org       {}", name(&subscription.org_id)))?;
    output::line(&format!("  from      {}", shown(instant(month.period.start)?)))?;
    output::line(&format!("  to        {}", shown(instant(month.period.end)?)))?;
    output::line(&format!("  billed in {}, {}", SubscriptionMonths::billing_month(month)?, state(month, billed, as_of)))?;
    output::line(&format!("  coverage  {}", coverage(months, month)))?;
    let peak = match (month.peak_event_id, month.peak_at) {
        (Some(row), Some(_)) if month.peak_carried_in => {
            format!("{}, carried in: ledger row {row} was in force when it began", output::grouped(month.peak_seats))
        }
        (Some(row), Some(at)) => format!("{}, set by ledger row {row} at {}", output::grouped(month.peak_seats), shown(instant(at)?)),
        _ => "unknown: no ledger row reaches the month; it is billed as 0".to_owned(),
    };
    output::line(&format!("  peak      {peak}"))?;
    if month.coverage != Coverage::None {
        let avg = month.avg_seats_micros.unwrap_or_default();
        output::line(&format!("  at peak   {}", duration(month.seconds_at_peak)))?;
        output::line(&format!(
            "  counts    opening {}, closing {}, lowest {}, average {}.{:06}",
            number(month.opening_seats),
            number(month.closing_seats),
            number(month.min_seats),
            output::grouped(avg / 1_000_000),
            avg % 1_000_000
        ))?;
    }
    if let Some(committed) = months.committed_seats() {
        let over = overage(month.peak_seats, Some(committed)).unwrap_or_default();
        output::line(&format!("  committed {}, {} above it", output::grouped(committed), output::grouped(over)))?;
    }
    output::line("")
}

fn state(month: &MonthPeak, billed: Option<&Billed>, as_of: DateTime<Utc>) -> String {
    match billed {
        None if month.period.end > as_of.timestamp_micros() => "not written yet; the month goes on".to_owned(),
        None => "not written yet".to_owned(),
        Some(billed) if billed.peak_seats != month.peak_seats => {
            format!("{} with {}: the next run corrects it", billed.state, output::grouped(billed.peak_seats))
        }
        Some(billed) if billed.revision > 0 => format!("{}, revision {}", billed.state, billed.revision),
        Some(billed) => billed.state.clone(),
    }
}

fn coverage(months: &SubscriptionMonths, month: &MonthPeak) -> String {
    let begins = months.rows.first().map(|row| shown(row.occurred_at));
    match (month.coverage, begins) {
        (Coverage::Complete, _) => "complete".to_owned(),
        (Coverage::Partial, Some(begins)) => format!("partial: the ledger begins at {begins}"),
        (_, Some(begins)) => format!("none: the ledger begins at {begins}, after the month"),
        (_, None) => format!("none: the org has no ledger row of type {}", output::printable(&months.seat_type)),
    }
}

fn print_rows(months: &SubscriptionMonths, month: &MonthPeak, all: bool) -> Result<()> {
    let behind = months.rows_behind(month);
    if behind.is_empty() {
        return output::line("No ledger row stands behind it.");
    }
    let largest = behind.iter().map(|row| row.seats).max().unwrap_or(1).max(1);
    let peak_index = behind.iter().position(|row| Some(row.id) == month.peak_event_id).unwrap_or(0);
    let is_shown = |index: usize| {
        all || behind.len() <= 3 * SHOWN_ROWS
            || index < SHOWN_ROWS
            || index + SHOWN_ROWS >= behind.len()
            || index.abs_diff(peak_index) < SHOWN_ROWS / 2
    };
    let mut table = Vec::new();
    let mut hidden = 0;
    for (index, row) in behind.iter().enumerate() {
        if !is_shown(index) {
            hidden += 1;
            continue;
        }
        if hidden > 0 {
            table.push(vec!["…".to_owned(), format!("{} rows", output::grouped(hidden)), String::new(), String::new(), String::new()]);
            hidden = 0;
        }
        let bar = output::bar(row.seats, largest, BAR_COLUMNS);
        table.push(vec![row.id.to_string(), shown(row.occurred_at), output::grouped(row.seats), bar, note(row, month)]);
    }
    output::line(&output::table(&["row", "in force from (UTC)", "seats", "", "note"], &["row", "seats"], &table))
}

fn note(row: &ReadRow, month: &MonthPeak) -> String {
    let at = row.occurred_at.timestamp_micros();
    let is_replaced = at < month.period.start && !month.peak_carried_in && month.opening_seats != Some(row.seats);
    match (Some(row.id) == month.peak_event_id, at < month.period.start) {
        (true, true) => "peak, carried in",
        (true, false) => "peak",
        (false, true) if is_replaced => "replaced at the start",
        (false, true) => "carried in",
        (false, false) => "",
    }
    .to_owned()
}

/// An instant to the second, or to the microsecond where it has one.
fn shown(at: DateTime<Utc>) -> String {
    let text = format_instant(at).replace('T', " ");
    text.trim_end_matches('Z').trim_end_matches(".000000").to_owned()
}

fn duration(seconds: i64) -> String {
    let day = 86_400;
    format!("{} d {:02} h {:02} min {:02} s", seconds / day, seconds % day / 3_600, seconds % 3_600 / 60, seconds % 60)
}
