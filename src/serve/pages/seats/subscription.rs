//! `/seats/{subscription}`: the ledger as a step line, the months with their peaks, and what coverage and state mean.

use std::sync::Arc;

use anyhow::Result;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::read::{self, Written};
use crate::money::div_half_even;
use crate::seats::calendar::{Period, State as MonthState, instant as instant_of};
use crate::seats::{Coverage, LedgerRow, Subscription, TOTAL};
use crate::serve::app::App;
use crate::serve::chart::steps::{self, Mark};
use crate::serve::html::{cut, encode, figure, grouped, instant, name, none, opt_instant, opt_number};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::{Named, Query};
use crate::serve::session::Session;
use crate::serve::states::state;
use crate::source::ledger::SeatSource;
use crate::store::Tx;

/// Months that a chart covers unless more are asked for.
const CHART_MONTHS: u64 = 24;

/// How many ledger rows a chart is drawn from, the latest ones.
const CHART_ROWS: i64 = 20_000;

pub(in crate::serve::pages) async fn page(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Named(id): Named,
    query: Query,
) -> Result<Response, Problem> {
    let store = &app.context.store;
    let now = app.context.clock.now();
    let chart_months = usize::try_from(query.number("months", 1..=read::MONTHS_MAX as u64, CHART_MONTHS)?).unwrap_or(usize::MAX);
    let source = SeatSource::load(&app.context.project, store.engine())?;
    let mut tx = store.begin_read().await?;
    let subscription = read::subscription(&mut tx, &source, &id, now).await?;
    let periods = read::periods(subscription.start_at, subscription.end_at, now)?;
    let mut written = read::written(&mut tx, &[&id], &periods).await?;
    let mut types: Vec<String> = written.iter().map(|written| written.row.seat_type.clone().into_owned()).collect();
    types.dedup();
    let seat_type = query.text("type").unwrap_or(TOTAL);
    if seat_type != TOTAL && types.iter().all(|known| known != seat_type) {
        return Err(Problem::not_found("The subscription has no such seat type").hint(format!("it has {}", cut(&types.join(", "), 200))));
    }
    written.retain(|written| written.row.seat_type == seat_type);
    let drawn = &periods[periods.len().saturating_sub(chart_months)..];
    let content = html! {
        h1 { "Subscription " (name(&id)) }
        (facts(&subscription)?)
        (links(&id, seat_type, &types, chart_months))
        @if drawn.is_empty() {
            p { "It has not begun." }
        } @else {
            h2 { "Ledger, seats of type " (name(seat_type)) }
            (chart(&mut tx, &source, &subscription, seat_type, drawn, &written, now).await?)
        }
        h2 { "Months" }
        (months(&written, &periods))
    };
    Ok(layout::page(&format!("Subscription {}", cut(&id, 60)), Some(&session), &content))
}

fn facts(subscription: &Subscription) -> Result<Markup> {
    let text = |text: Option<&str>| text.map_or_else(none, name);
    let (start_at, end_at) = (instant_of(subscription.start_at)?, subscription.end_at.map(instant_of).transpose()?);
    Ok(html! {
        dl class="facts card" {
            (figure("Org", &name(&subscription.org_id)))
            (figure("Plan", &text(subscription.plan.as_deref())))
            (figure("Committed seats", &opt_number(subscription.committed_seats)))
            (figure("Licence", &text(subscription.license_id.as_deref())))
            (figure("Since (UTC)", &instant(start_at)))
            (figure("Until (UTC)", &opt_instant(end_at)))
        }
    })
}

fn links(id: &str, seat_type: &str, types: &[String], chart_months: usize) -> Markup {
    let id = encode(id);
    html! {
        p class="links" {
            a href={ "/api/seats/" (id) } { "Report as JSON" }
            a href={ "/api/seats/" (id) "?format=csv" } { "Months as CSV" }
            a href={ "/api/seats/" (id) "?format=parquet" } { "Months as Parquet" }
            @for known in types.iter().filter(|known| *known != seat_type) {
                a href={ "/seats/" (id) "?type=" (encode(known)) } { "Seats of type " (name(known)) }
            }
            @for months in [12, 24, 60, read::MONTHS_MAX] {
                @if months != chart_months {
                    a href={ "/seats/" (id) "?months=" (months) "&type=" (encode(seat_type)) } { "Chart of " (months) " months" }
                }
            }
        }
    }
}

async fn chart(
    tx: &mut Tx,
    source: &SeatSource,
    subscription: &Subscription,
    seat_type: &str,
    drawn: &[Period],
    written: &[Written],
    now: DateTime<Utc>,
) -> Result<Markup> {
    let (Some(first), Some(last)) = (drawn.first(), drawn.last()) else { return Ok(none()) };
    let end = last.end.min(now.timestamp_micros()).max(first.start + 1);
    let within = (instant_of(first.start)?, instant_of(end)?);
    let rows = source.latest_counts(tx, (&subscription.org_id, seat_type), within, CHART_ROWS).await?;
    let cut_at = rows.first().filter(|row| rows.len() as u64 > CHART_ROWS.unsigned_abs() && row.occurred_at > first.start).copied();
    if rows.is_empty() {
        return Ok(html! { p class="soft" { "The ledger of the org has no row of this type." } });
    }
    let counts: Vec<(i64, i64)> = rows.iter().map(|row: &LedgerRow| (row.occurred_at, row.seats)).collect();
    let mut bounds = Vec::new();
    for period in drawn {
        bounds.push(Mark { at: period.start, label: instant_of(period.start)?.date_naive().to_string(), seats: 0 });
    }
    let mut peaks = Vec::new();
    for written in written.iter().filter(|written| written.row.month.period.start >= first.start) {
        let month = &written.row.month;
        if let Some(at) = month.peak_at {
            let label = format!(
                "Month {}: peak {} at {} UTC",
                month.period.number,
                grouped(month.peak_seats),
                instant_of(at)?.format("%Y-%m-%d %H:%M:%S")
            );
            peaks.push(Mark { at, label, seats: month.peak_seats });
        }
    }
    let committed = subscription.committed_seats.filter(|_| seat_type == TOTAL);
    let label = format!("Seats of type {} from {} to {}", cut(seat_type, 40), within.0.date_naive(), within.1.date_naive());
    Ok(html! {
        (steps::chart(&label, (first.start, end), &counts, &bounds, &peaks, committed))
        p class="soft" {
            "Dots are the peaks of months as the last run wrote them, vertical lines where months begin"
            @if committed.is_some() { ", the dashed line is what was committed" } "."
            @if let Some(cut_at) = cut_at {
                " Only the latest " (grouped(CHART_ROWS)) " rows are drawn, from " (instant(instant_of(cut_at.occurred_at)?)) " UTC on."
            }
        }
    })
}

fn months(written: &[Written], periods: &[Period]) -> Markup {
    if written.is_empty() {
        return html! { p { "None is written yet; " code { "tallyroll run-job peak_seats" } " writes them." } };
    }
    html! {
        div class="scroll" { table {
            thead { tr {
                th class="number" { "Month" } th { "From (UTC)" } th { "To" } th class="number" { "Peak" } th { "Peak at" } th { "Coverage" }
                th { "State" } th class="number" { "Committed" } th class="number" { "Above it" } th class="number" { "Mean" } th { "Billed in" }
            } }
            tbody { @for written in written.iter().rev() { (month(written)) } }
        } }
        @if periods.len() > written.len() {
            p class="soft" { (grouped(i64::try_from(periods.len() - written.len()).unwrap_or(0))) " months are not written." }
        }
        dl class="facts" {
            @for (coverage, word) in [
                (Coverage::Complete, "complete: the ledger begins at or before the month."),
                (Coverage::Partial, "partial: the ledger begins inside the month; what was held before is not known."),
                (Coverage::None, "none: the ledger begins after the month, or never. The peak is unknown and billed as 0."),
            ] {
                @if written.iter().any(|written| written.row.month.coverage == coverage) { (figure("Coverage", &html! { (word) })) }
            }
            @for (state, word) in [
                (MonthState::Open, "open: the month goes on."),
                (MonthState::Provisional, "provisional: the month has ended and waits for late rows before it is sealed."),
                (MonthState::Final, "final: sealed. What comes late is a correction of its own."),
            ] {
                @if written.iter().any(|written| written.row.state == state) { (figure("State", &html! { (word) })) }
            }
        }
    }
}

fn month(written: &Written) -> Markup {
    let (row, month) = (&written.row, &written.row.month);
    let at = |micros: i64| DateTime::from_timestamp_micros(micros).map_or_else(none, instant);
    let is_known = month.coverage != Coverage::None;
    html! {
        tr {
            td class="number" { (month.period.number) }
            td { (at(month.period.start)) }
            td { (at(month.period.end)) }
            td class="number" { @if is_known { (grouped(month.peak_seats)) } @else { "unknown" } }
            td { @match month.peak_at { Some(peak_at) => { (at(peak_at)) @if month.peak_carried_in { " carried in" } }, None => (none()) } }
            td { (month.coverage.name()) }
            td {
                (state(row.state))
                @if row.entry.revision > 1 { " revision " (row.entry.revision) }
                @if let Some(reason) = &row.entry.correction_reason { " " (name(reason)) }
            }
            td class="number" { (opt_number(row.committed_seats)) }
            td class="number" { (opt_number(row.overage_seats())) }
            td class="number" { @if let Some(micros) = month.avg_seats_micros { (mean(micros)) } @else { "-" } }
            td { (written.billing_month) }
        }
    }
}

/// Millionths of a seat as seats, to the hundredth.
fn mean(micros: i64) -> String {
    let hundredths = i64::try_from(div_half_even(micros.into(), 10_000)).unwrap_or(i64::MAX);
    format!("{}.{:02}", grouped(hundredths / 100), hundredths % 100)
}
