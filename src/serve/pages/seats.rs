//! `/seats`: the subscriptions, and the current month of each.

pub(super) mod ai;
pub(super) mod files;
mod read;
pub(super) mod subscription;

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Serialize;
use serde_json::json;

use crate::seats::calendar::{Period, State as MonthState, instant as instant_of};
use crate::seats::{Coverage, Subscription, TOTAL, overage};
use crate::serve::app::App;
use crate::serve::html::{encode, grouped, linked, name, none, opt_instant, opt_number};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::session::Session;
use crate::serve::states::state;
use crate::source::ledger::{BadSubscription, SeatSource};

/// Subscriptions on a page.
const PAGE_SUBSCRIPTIONS: usize = 50;

/// The highest page number.
const PAGES_MAX: u64 = 100_000;

#[derive(Debug, Serialize)]
struct Line {
    subscription_id: String,
    org_id: String,
    plan: Option<String>,
    license_id: Option<String>,
    committed_seats: Option<i64>,
    /// None if it cannot be billed.
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    /// Its latest month as the last run wrote it; none before the first run, or before it begins.
    latest_month: Option<LatestMonth>,
    /// Why it cannot be billed, if so.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct LatestMonth {
    month_number: i32,
    peak_seats: i64,
    coverage: Coverage,
    state: MonthState,
}

struct Listed<'a> {
    search: Option<&'a str>,
    lines: Vec<Line>,
    page: u64,
    is_more: bool,
}

pub(super) async fn json(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let listed = list(&app, &query).await?;
    let next_page = listed.is_more.then_some(listed.page + 1);
    Ok(Json(json!({ "subscriptions": listed.lines, "next_page": next_page })).into_response())
}

pub(super) async fn page(State(app): State<Arc<App>>, Extension(session): Extension<Session>, query: Query) -> Result<Response, Problem> {
    let listed = list(&app, &query).await?;
    let at = |page: u64| {
        let search = listed.search.map(|search| format!("q={}&", encode(search))).unwrap_or_default();
        format!("/seats?{search}page={page}")
    };
    let content = html! {
        h1 { "Seats" }
        form method="get" action="/seats" {
            label { "Subscription, org or plan " input type="search" name="q" value=(listed.search.unwrap_or_default()) maxlength="500"; }
            button class="quiet" { "Search" }
        }
        p class="links" { a href="/seats/ai/users" { "Who uses AI seats" } }
        @if listed.lines.is_empty() { p { "There is no such subscription." } } @else { (table(&listed.lines)) }
        p class="links" {
            @if listed.page > 1 { a rel="prev" href=(at(listed.page - 1)) { "Back" } }
            @if listed.is_more { a rel="next" href=(at(listed.page + 1)) { "More" } }
        }
    };
    Ok(layout::page("Seats", Some(&session), &content))
}

fn table(lines: &[Line]) -> Markup {
    html! {
        div class="scroll" { table {
            thead { tr {
                th { "Subscription" } th { "Org" } th { "Plan" } th { "Since (UTC)" } th class="number" { "Month" }
                th class="number" { "Peak" } th class="number" { "Committed" } th class="number" { "Above it" } th { "State" }
            } }
            tbody { @for line in lines { tr {
                td { (linked("/seats/", &line.subscription_id, &name(&line.subscription_id))) }
                td { (name(&line.org_id)) }
                td { @if let Some(plan) = &line.plan { (name(plan)) } @else { (none()) } }
                td { (opt_instant(line.start_at)) }
                @match &line.latest_month {
                    Some(month) => {
                        td class="number" { (month.month_number) }
                        td class="number" { @if month.coverage == Coverage::None { "unknown" } @else { (grouped(month.peak_seats)) } }
                        td class="number" { (opt_number(line.committed_seats)) }
                        td class="number" { (opt_number(overage(month.peak_seats, line.committed_seats))) }
                        td { (state(month.state)) }
                    }
                    None => {
                        td class="number" { "-" } td class="number" { "-" }
                        td class="number" { (opt_number(line.committed_seats)) } td class="number" { "-" }
                        td { @if let Some(problem) = &line.problem { "cannot be billed: " (name(problem)) } @else { span class="soft" { "not written yet" } } }
                    }
                }
            } } }
        } }
    }
}

async fn list<'a>(app: &App, query: &'a Query) -> Result<Listed<'a>, Problem> {
    let store = &app.context.store;
    let (search, page) = (query.text("q"), query.number("page", 1..=PAGES_MAX, 1)?);
    let source = SeatSource::load(&app.context.project, store.engine())?;
    let size = i64::try_from(PAGE_SUBSCRIPTIONS).unwrap_or(i64::MAX);
    let skip = i64::try_from(page - 1).unwrap_or(0) * size;
    let now = app.context.clock.now();
    let mut tx = store.begin_read().await?;
    let mut subscriptions = source.some_subscriptions(&mut tx, search, (skip, size + 1), now).await?;
    let is_more = subscriptions.len() > PAGE_SUBSCRIPTIONS;
    subscriptions.truncate(PAGE_SUBSCRIPTIONS);
    let mut latest: Vec<Option<Period>> = Vec::with_capacity(subscriptions.len());
    for subscription in &subscriptions {
        latest.push(match subscription {
            Ok(subscription) => read::periods(subscription.start_at, subscription.end_at, now)?.pop(),
            Err(_) => None,
        });
    }
    let ids: Vec<&str> = subscriptions.iter().flatten().map(|subscription| subscription.id.as_str()).collect();
    let periods: Vec<Period> = latest.iter().flatten().copied().collect();
    let written = read::written(&mut tx, &ids, &periods).await?;
    let month = |id: &str, period: Option<Period>| {
        let number = period?.number;
        let found = written
            .iter()
            .map(|written| &written.row)
            .find(|row| row.subscription_id == id && row.seat_type == TOTAL && row.month.period.number == number)?;
        Some(LatestMonth { month_number: number, peak_seats: found.month.peak_seats, coverage: found.month.coverage, state: found.state })
    };
    let mut lines = Vec::with_capacity(subscriptions.len());
    for (subscription, period) in subscriptions.iter().zip(latest) {
        lines.push(match subscription {
            Ok(subscription) => line(subscription, month(&subscription.id, period))?,
            Err(bad) => bad_line(bad),
        });
    }
    Ok(Listed { search, lines, page, is_more })
}

fn line(subscription: &Subscription, latest_month: Option<LatestMonth>) -> Result<Line> {
    Ok(Line {
        subscription_id: subscription.id.clone(),
        org_id: subscription.org_id.clone(),
        plan: subscription.plan.clone(),
        license_id: subscription.license_id.clone(),
        committed_seats: subscription.committed_seats,
        start_at: Some(instant_of(subscription.start_at)?),
        end_at: subscription.end_at.map(instant_of).transpose()?,
        latest_month,
        problem: None,
    })
}

fn bad_line(bad: &BadSubscription) -> Line {
    Line {
        subscription_id: bad.id.clone(),
        org_id: bad.org_id.clone().unwrap_or_default(),
        plan: None,
        license_id: None,
        committed_seats: None,
        start_at: None,
        end_at: None,
        latest_month: None,
        problem: Some(bad.reason.clone()),
    }
}
