//! `/runs`: history, newest first, page by page.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::DateTime;
use maud::{Markup, html};
use serde_json::json;

use crate::serve::app::App;
use crate::serve::data::{self, Before, RunLine};
use crate::serve::html::{cut, duration, encode, grouped, instant, job_link, run_link};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::session::Session;
use crate::serve::states::state;
use crate::store::format_instant;

/// Runs on a page.
const PAGE_RUNS: usize = 50;

/// The runs that were asked for, and where the next page begins.
struct Listed {
    job: Option<String>,
    failed: bool,
    runs: Vec<RunLine>,
    next: Option<String>,
}

pub(super) async fn json(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let listed = list(&app, &query).await?;
    Ok(Json(json!({ "runs": listed.runs, "next_before": listed.next })).into_response())
}

pub(super) async fn page(State(app): State<Arc<App>>, Extension(session): Extension<Session>, query: Query) -> Result<Response, Problem> {
    let listed = list(&app, &query).await?;
    let content = html! {
        h1 { "Runs" }
        form method="get" action="/runs" {
            label { "Job " select name="job" {
                option value="" { "all" }
                @for job in app.context.jobs.iter() {
                    option value=(job.name) selected[listed.job.as_ref() == Some(&job.name)] { (job.name) }
                }
            } }
            label { input type="checkbox" name="failed" value="1" checked[listed.failed]; " only those that failed" }
            button class="quiet" { "Show" }
        }
        @if listed.runs.is_empty() {
            p { "There is no such run" @if query.text("before").is_some() { " before that one" } "." }
        } @else {
            (table(&listed.runs, true))
        }
        @if let Some(next) = &listed.next {
            p { a rel="next" href={ "/runs?" (earlier(&listed, next)) } { "Earlier runs" } }
        }
    };
    Ok(layout::page("Runs", Some(&session), &content))
}

/// Runs as a table; `with_job` where they are of several jobs.
pub(super) fn table(runs: &[RunLine], with_job: bool) -> Markup {
    html! {
        div class="scroll" { table {
            thead { tr {
                th { "Run" } @if with_job { th { "Job" } } th { "State" } th { "Started (UTC)" } th class="number" { "Took" }
                th class="number" { "Windows" } th class="number" { "Rows in" } th class="number" { "Rows out" } th { "By" } th { "Error" }
            } }
            tbody { @for run in runs { tr {
                td { (run_link(&run.run_id)) }
                @if with_job { td { (job_link(&run.job)) } }
                td { (state(run.state)) }
                td { (instant(run.started_at)) }
                td class="number" { @if let Some(ms) = run.duration_ms { (duration(ms)) } @else { "-" } }
                td class="number" { (grouped(run.windows_done)) "/" (grouped(run.windows_planned)) }
                td class="number" { (grouped(run.rows_in)) }
                td class="number" { (grouped(run.rows_out)) }
                td { (cut(&run.trigger, 20)) }
                td class="bad" { @if let Some(error) = &run.error_text { (cut(error, 60)) } }
            } } }
        } }
    }
}

async fn list(app: &App, query: &Query) -> Result<Listed, Problem> {
    // A job that was removed from the project still has its history.
    let job = query.text("job").map(str::to_owned);
    let failed = query.text("failed").is_some_and(|failed| !["0", "false", "no"].contains(&failed));
    let before = query.text("before").map(before).transpose()?;
    let limit = i64::try_from(PAGE_RUNS + 1).unwrap_or(i64::MAX);
    let mut runs = data::runs(&app.context.store, job.as_deref(), failed, before.as_ref(), limit).await?;
    let is_more = runs.len() > PAGE_RUNS;
    runs.truncate(PAGE_RUNS);
    let next = runs.last().filter(|_| is_more).map(|run| format!("{},{}", format_instant(run.started_at), run.run_id));
    Ok(Listed { job, failed, runs, next })
}

/// Reads where a page begins, as `next_before` gave it.
fn before(text: &str) -> Result<Before, Problem> {
    let parsed = text.split_once(',').and_then(|(at, run_id)| {
        let started_at = DateTime::parse_from_rfc3339(at).ok()?.to_utc();
        Some(Before { started_at, run_id: run_id.to_owned() })
    });
    parsed.ok_or_else(|| Problem::bad_request("`before` is no place in the list").hint("take `next_before` of the page before, as it is"))
}

/// The query of the page of earlier runs.
fn earlier(listed: &Listed, before: &str) -> String {
    let mut query = format!("before={}", encode(before));
    if let Some(job) = &listed.job {
        query = format!("job={}&{query}", encode(job));
    }
    if listed.failed { format!("failed=1&{query}") } else { query }
}
