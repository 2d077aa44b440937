//! `/quarantine`: what enters no total, and why.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use maud::html;
use serde_json::json;

use crate::quarantine::{self, OF_FILE, Quarantined};
use crate::serve::app::App;
use crate::serve::html::{cut, encode, grouped, instant, name, none};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::session::Session;

/// Events on a page, and the last page.
const PAGE_EVENTS: usize = 50;
const PAGES_MAX: u64 = 100_000;

/// Of a reason in words, and of what a row holds.
const SHOWN_CHARS: usize = 300;

pub(super) async fn json(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let mut tx = app.context.store.begin_read().await?;
    let counts = quarantine::counts(&mut tx).await?;
    let (events, next_page) = events(&mut tx, &query).await?;
    Ok(Json(json!({ "counts": counts, "events": events, "next_page": next_page })).into_response())
}

pub(super) async fn page(State(app): State<Arc<App>>, Extension(session): Extension<Session>, query: Query) -> Result<Response, Problem> {
    let mut tx = app.context.store.begin_read().await?;
    let counts = quarantine::counts(&mut tx).await?;
    let (events, next_page) = events(&mut tx, &query).await?;
    let (source, page) = (query.text("source"), query.number("page", 1..=PAGES_MAX, 1)?);
    let at = |source: Option<&str>, page: u64| {
        let source = source.map(|source| format!("source={}&", encode(source))).unwrap_or_default();
        format!("/quarantine?{source}page={page}")
    };
    let content = html! {
        h1 { "Quarantine" }
        @if counts.is_empty() { p { "Nothing is in quarantine: every event of the log is counted." } } @else {
            p { "These are in no total. An event of the log is taken in once its row is fixed; a row of a file is fixed in the file, and imported again." }
            div class="scroll" { table {
                thead { tr { th { "Source" } th { "Reason" } th class="number" { "Events" } th { "First day" } th { "Last day" } } }
                tbody { @for count in counts.iter().take(PAGE_EVENTS) { tr {
                    td { a href=(at(Some(&count.source), 1)) { (name(&count.source)) } }
                    td { (cut(&count.reason, SHOWN_CHARS)) }
                    td class="number" { (grouped(count.event_count)) }
                    td { @if let Some(day) = count.first_date { (day) } @else { (none()) } }
                    td { @if let Some(day) = count.last_date { (day) } @else { (none()) } }
                } } }
            } }
            h2 { @if let Some(source) = source { "Of " (name(source)) ", the latest first" } @else { "The latest first" } }
            @if source.is_some() { p { a href="/quarantine" { "All sources" } } }
            div class="scroll" { table {
                thead { tr { th { "Event" } th { "Source" } th { "Day" } th { "Why" } th { "Since (UTC)" } th { "What it holds" } } }
                tbody { @for event in &events { tr {
                    td { code { (name(&event.event_id)) } }
                    td { (name(&event.source)) }
                    td { @if let Some(day) = event.usage_date { (day) } @else { (none()) } }
                    td { (cut(&event.reason, SHOWN_CHARS)) }
                    td { (instant(event.first_seen_at)) }
                    td { code { (cut(&held(event), SHOWN_CHARS)) } }
                } } }
            } }
            p class="links" {
                @if page > 1 { a rel="prev" href=(at(source, page - 1)) { "Back" } }
                @if let Some(next) = next_page { a rel="next" href=(at(source, next)) { "More" } }
            }
        }
    };
    Ok(layout::page("Quarantine", Some(&session), &content))
}

/// What a row holds, as one line.
fn held(event: &Quarantined) -> String {
    let record = event.payload["record"].as_str().filter(|_| event.source.starts_with(OF_FILE));
    record.map_or_else(|| event.payload.to_string(), str::to_owned)
}

async fn events(tx: &mut crate::store::Tx, query: &Query) -> Result<(Vec<Quarantined>, Option<u64>), Problem> {
    let page = query.number("page", 1..=PAGES_MAX, 1)?;
    let size = i64::try_from(PAGE_EVENTS).unwrap_or(i64::MAX);
    let skip = i64::try_from(page - 1).unwrap_or(0) * size;
    let mut events = quarantine::list(tx, query.text("source"), skip, size + 1).await?;
    let is_more = events.len() > PAGE_EVENTS;
    events.truncate(PAGE_EVENTS);
    Ok((events, is_more.then_some(page + 1)))
}
