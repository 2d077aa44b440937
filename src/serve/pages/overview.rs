//! `/`: what each job does, when it runs, how its last runs went, what is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use maud::{Markup, html};
use serde::Serialize;
use serde_json::json;

use crate::archive::{self, ArchivedSource};
use crate::job::{Job, OperatorKind};
use crate::serve::app::App;
use crate::serve::chart;
use crate::serve::data::{self, RunLine};
use crate::serve::html::{cut, duration, encode, figure, grouped, instant, none, opt_instant};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::session::Session;
use crate::serve::states::{Shown as _, state};
use crate::show::counted;
use crate::store::runs::RunState;
use crate::store::windows::WindowState;

/// How many runs the strip of a job shows.
const STRIP_RUNS: i64 = 30;

#[derive(Debug, Serialize)]
struct JobLine {
    name: String,
    description: String,
    operator: &'static str,
    reads: Vec<String>,
    writes: String,
    grain: Vec<String>,
    window: String,
    schedule: Option<ScheduleLine>,
    /// The scheduled job after which this one runs.
    runs_after: Option<String>,
    last_success_at: Option<DateTime<Utc>>,
    /// Windows by state, as the latest plan and run left them.
    windows: BTreeMap<WindowState, i64>,
    /// The latest first.
    recent_runs: Vec<RunLine>,
    /// Of the job that archives: what is in the lake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archived: Vec<ArchivedSource>,
}

#[derive(Debug, Serialize)]
struct ScheduleLine {
    cron: String,
    timezone: String,
    description: String,
    downstream: bool,
    next_run_at: Option<DateTime<Utc>>,
}

pub(super) async fn json(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    Ok(Json(json!({ "jobs": jobs(&app).await? })).into_response())
}

pub(super) async fn page(State(app): State<Arc<App>>, Extension(session): Extension<Session>) -> Result<Response, Problem> {
    let jobs = jobs(&app).await?;
    let now = app.context.clock.now();
    let content = html! {
        h1 { "Jobs" }
        p class="soft" { "As of " (instant(now)) " UTC, reporting in " (app.context.config.reporting.timezone.name()) "." }
        div class="cards" { @for job in &jobs { (card(job, now)) } }
    };
    Ok(layout::page("Jobs", Some(&session), &content))
}

async fn jobs(app: &App) -> Result<Vec<JobLine>> {
    let store = &app.context.store;
    let mut windows = store.window_counts().await?;
    let lines = try_join_all(app.context.jobs.iter().map(|job| async move {
        let recent_runs = data::runs(store, Some(&job.name), false, None, STRIP_RUNS).await?;
        let last_success_at = match recent_runs.iter().find(|run| run.state == RunState::Success) {
            Some(run) => run.finished_at,
            None => store.last_success(&job.name).await?,
        };
        anyhow::Ok(line(app, job, recent_runs, last_success_at))
    }));
    let mut lines = lines.await?;
    for line in &mut lines {
        line.windows = windows.remove(&line.name).unwrap_or_default();
        if line.operator == OperatorKind::Archive.name() {
            line.archived = archive::overview(&app.context).await?;
        }
    }
    Ok(lines)
}

fn line(app: &App, job: &Job, recent_runs: Vec<RunLine>, last_success_at: Option<DateTime<Utc>>) -> JobLine {
    let schedule = app.schedules.get(&job.name).map(|schedule| ScheduleLine {
        cron: schedule.settings.cron.clone(),
        timezone: schedule.timezone.name().to_owned(),
        description: schedule.cron.describe(),
        downstream: schedule.settings.downstream,
        next_run_at: schedule.next_fires(app.context.clock.now(), 1).first().copied(),
    });
    let jobs = &app.context.jobs;
    let runs_after = app.schedules.iter().find(|(name, schedule)| {
        let upstream = schedule.settings.downstream.then(|| jobs.get(name).ok()).flatten();
        upstream.is_some_and(|upstream| jobs.downstream_of(upstream).iter().any(|downstream| downstream.name == job.name))
    });
    JobLine {
        name: job.name.clone(),
        description: job.description.clone(),
        operator: job.operator.name(),
        reads: job.reads.clone(),
        writes: job.writes.clone(),
        grain: job.grain.clone(),
        window: job.window.to_string(),
        schedule,
        runs_after: runs_after.map(|(name, _)| name.clone()),
        last_success_at,
        windows: BTreeMap::new(),
        recent_runs,
        archived: Vec::new(),
    }
}

fn card(job: &JobLine, now: DateTime<Utc>) -> Markup {
    let count = |state: WindowState| job.windows.get(&state).copied().unwrap_or_default();
    html! {
        section class="card" id={ "job-" (job.name) } {
            h2 { (job.name) }
            p class="soft" { (job.description) }
            dl class="facts" {
                (figure("Schedule", &schedule(job)))
                (figure("Last run", &last_run(job, now)))
                (figure("Last success", &opt_instant(job.last_success_at)))
                (figure("Next run", &opt_instant(job.schedule.as_ref().and_then(|schedule| schedule.next_run_at))))
                (figure("Windows", &html! {
                    (grouped(count(WindowState::Done))) " done"
                    @for state in [WindowState::Due, WindowState::Failed, WindowState::Kept, WindowState::Future] {
                        @if count(state) > 0 { ", " span class=(state.tone()) { (grouped(count(state))) " " (state) } }
                    }
                }))
            }
            @for source in job.archived.iter().filter(|source| source.day_count > 0) {
                p class="soft" { (in_the_lake(source)) }
            }
            (strip(job))
            p class="links" {
                a href={ "/runs?job=" (job.name) } { "All runs" }
                a href={ "/jobs/" (job.name) "/run" } { "Run now" }
            }
        }
    }
}

fn in_the_lake(source: &ArchivedSource) -> Markup {
    html! {
        code { (source.source) } ": " (counted(source.day_count, "day")) " in the lake"
        @if let Some(last) = source.last_day { ", the last " (last) }
        "; " (counted(source.event_count, "event")) ", " (grouped(source.size_bytes)) " bytes; "
        @match source.oldest_event_at {
            Some(at) => { "the oldest event in the table is of " (instant(at)) " UTC" }
            None => { "no event is in the table" }
        }
    }
}

fn schedule(job: &JobLine) -> Markup {
    html! {
        @match (&job.schedule, &job.runs_after) {
            (Some(schedule), _) => {
                code { (schedule.cron) } " " (schedule.timezone)
                div class="soft" { (schedule.description) @if schedule.downstream { " Then what reads it." } }
            }
            (None, Some(upstream)) => { "after " a href={ "#job-" (upstream) } { (upstream) } }
            (None, None) => { "by hand only" }
        }
    }
}

fn last_run(job: &JobLine, now: DateTime<Utc>) -> Markup {
    let Some(run) = job.recent_runs.first() else { return html! { span class="soft" { "never" } } };
    let took_ms = run.duration_ms.unwrap_or_else(|| (run.finished_at.unwrap_or(now) - run.started_at).num_milliseconds());
    html! {
        a href={ "/runs/" (encode(&run.run_id)) } { (state(run.state)) }
        " " (instant(run.started_at)) ", " (duration(took_ms))
        @if let Some(error) = &run.error_text { div class="bad wrap" { (cut(error, 160)) } }
    }
}

/// The latest runs from left to right: the longer a run took, the higher its bar.
fn strip(job: &JobLine) -> Markup {
    if job.recent_runs.is_empty() {
        return none();
    }
    chart::run_strip(&format!("The last {} runs of {}", job.recent_runs.len(), job.name), &job.recent_runs)
}
