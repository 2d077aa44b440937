//! `/jobs/{job}/run`: what a run would do, and the button that starts it.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form, Json};
use maud::html;
use serde::Deserialize;
use serde_json::json;

use crate::scheduler::asked::Asked;
use crate::serve::app::App;
use crate::serve::data;
use crate::serve::html::{encode, instant, run_link};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Named;
use crate::serve::session::{Session, csrf_of};
use crate::store::lock;
use crate::store::runs::RunState;
use crate::window::WindowKind;

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let job = app.context.jobs.get(&name)?;
    let downstream = app.context.jobs.downstream_of(job);
    let with_downstream = app.schedules.get(&job.name).is_some_and(|schedule| schedule.settings.downstream);
    let running =
        data::runs(&app.context.store, Some(&job.name), false, None, 1).await?.into_iter().find(|run| run.state == RunState::Running);
    let content = html! {
        h1 { "Run " (job.name) " now" }
        p { (job.description) }
        p {
            "It writes what is due of " code { (job.writes) } ", "
            @match job.window { WindowKind::Day => "day by day", WindowKind::Month | WindowKind::BillingMonth => "month by month", WindowKind::All => "as a whole" }
            ". Where nothing is due, it changes nothing."
        }
        @if let Some(run) = running {
            p class="warn" { "A run has been under way since " (instant(run.started_at)) " UTC: " (run_link(&run.run_id)) ". Another one is refused until it has ended." }
        }
        @if session.can_run {
            form method="post" action={ "/jobs/" (encode(&job.name)) "/run" } class="card" {
                input type="hidden" name="csrf" value=(session.csrf);
                @if !downstream.is_empty() {
                    label {
                        input type="checkbox" name="downstream" value="true" checked[with_downstream];
                        " then run what reads it: "
                        @for (index, job) in downstream.iter().enumerate() { @if index > 0 { ", " } (job.name) }
                    }
                }
                button { "Run now" }
            }
        } @else {
            p class="warn" {
                "A run cannot be started from here: no token is set, and being on this machine is not enough. Set "
                code { "TALLYROLL__SERVE__TOKEN_FILE" } " to the path of a file that holds a token, start the server again and log in. "
                "Or run " code { "tallyroll run-job " (job.name) } "."
            }
        }
        p { a href="/" { "To the jobs" } }
    };
    Ok(layout::page(&format!("Run {} now", job.name), Some(&session), &content))
}

#[derive(Debug, Deserialize)]
pub(super) struct Confirmed {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    downstream: bool,
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Named(name): Named,
    form: Result<Form<Confirmed>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|rejection| Problem::new(rejection.status(), "The form cannot be read"))?;
    if !session.may_post(&form.csrf) {
        return Err(Problem::forbidden());
    }
    let job = app.context.jobs.get(&name)?;
    let run_id = start_run(&app, &job.name, form.downstream).await?;
    Ok(Redirect::to(&format!("/runs/{}?started={}", encode(&run_id), encode(&job.name))).into_response())
}

/// Starts a run, unless one is at work here or elsewhere.
async fn start_run(app: &App, job: &str, downstream: bool) -> Result<String, Problem> {
    let context = &app.context;
    let holder = lock::holder(&context.store, &context.clock, job, context.config.engine.lock_lease_seconds).await?;
    let asked = match holder {
        Some(holder) => Asked::AtWork(holder.run_id),
        None => (app.starter)(job, downstream)?,
    };
    match asked {
        Asked::Starts(run_id) => Ok(run_id),
        Asked::AtWork(run_id) => Err(Problem::new(StatusCode::CONFLICT, format!("Job `{job}` is at work"))
            .hint("it takes what is due; ask again when it has ended")
            .run(run_id, job)),
        Asked::TooMany => Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many runs that were asked for are at work")
            .hint("ask again when one has ended")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    downstream: bool,
}

pub(super) async fn start_json(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Named(name): Named,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    if !session.may_post(csrf_of(&headers)) {
        return Err(Problem::forbidden());
    }
    let job = app.context.jobs.get(&name)?;
    let wanted = wanted(&body).map_err(|error| unreadable(&error))?;
    let run_id = start_run(&app, &job.name, wanted.downstream).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "run_id": run_id }))).into_response())
}

/// What a body asks for. Without a body, only the job runs.
fn wanted(body: &[u8]) -> serde_json::Result<Wanted> {
    if body.is_empty() {
        return Ok(Wanted::default());
    }
    // As an object first: serde would accept a list of values for a struct.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    serde_json::from_value(object.into())
}

fn unreadable(error: &serde_json::Error) -> Problem {
    let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
    Problem::new(status, format!("The body cannot be read: {error}")).hint(r#"it is JSON such as {"downstream": true}"#)
}
