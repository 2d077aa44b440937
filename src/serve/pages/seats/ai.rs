//! `/seats/ai/users`: who has an AI seat, and when it was last used.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use maud::html;
use serde_json::json;

use super::PAGES_MAX;
use crate::ai_seats::AiSeat;
use crate::serve::app::App;
use crate::serve::html::{encode, grouped, instant, name, none};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::session::Session;

/// Seats on a page.
const PAGE_SEATS: usize = 50;

pub(in crate::serve::pages) async fn json(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let (seats, next_page) = list(&app, &query).await?;
    Ok(Json(json!({ "seats": seats, "next_page": next_page })).into_response())
}

pub(in crate::serve::pages) async fn page(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    query: Query,
) -> Result<Response, Problem> {
    let (seats, next_page) = list(&app, &query).await?;
    let now = app.context.clock.now();
    let org = query.text("org");
    let page = query.number("page", 1..=PAGES_MAX, 1)?;
    let at = |page: u64| {
        let org = org.map(|org| format!("org={}&", encode(org))).unwrap_or_default();
        format!("/seats/ai/users?{org}page={page}")
    };
    let content = html! {
        h1 { "AI seats" }
        form method="get" action="/seats/ai/users" {
            label { "Org " input type="search" name="org" value=(org.unwrap_or_default()) maxlength="500"; }
            button class="quiet" { "Show" }
        }
        @if seats.is_empty() { p { "Nobody has an AI seat." } } @else {
            div class="scroll" { table {
                thead { tr { th { "User" } th { "Id" } th { "Org" } th { "Since (UTC)" } th { "Last used (UTC)" } th class="number" { "Days ago" } th { "For" } th { "Which is" } } }
                tbody { @for seat in &seats { tr {
                    td { @if let Some(email) = &seat.email { (name(email)) } @else { (none()) } }
                    td { code { (name(&seat.user_id)) } }
                    td { @if let Some(org) = &seat.org_id { (name(org)) } @else { (none()) } }
                    td { (instant(seat.first_used_at)) }
                    td { (instant(seat.last_used_at)) }
                    td class="number" { (grouped(seat.days_ago(now))) }
                    td { (name(&seat.last_event_type)) }
                    td { (name(&seat.last_event_description)) }
                } } }
            } }
        }
        p class="links" {
            @if page > 1 { a rel="prev" href=(at(page - 1)) { "Back" } }
            @if let Some(next) = next_page { a rel="next" href=(at(next)) { "More" } }
        }
    };
    Ok(layout::page("AI seats", Some(&session), &content))
}

async fn list(app: &App, query: &Query) -> Result<(Vec<AiSeat>, Option<u64>), Problem> {
    let page = query.number("page", 1..=PAGES_MAX, 1)?;
    let size = i64::try_from(PAGE_SEATS).unwrap_or(i64::MAX);
    let skip = i64::try_from(page - 1).unwrap_or(0) * size;
    let mut tx = app.context.store.begin_read().await?;
    let mut seats = AiSeat::read(&mut tx, query.text("org"), skip, size + 1).await?;
    let is_more = seats.len() > PAGE_SEATS;
    seats.truncate(PAGE_SEATS);
    Ok((seats, is_more.then_some(page + 1)))
}
