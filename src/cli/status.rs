//! `status`: how far each job is.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::output;
use super::session::Session;
use crate::archive::{self, ArchivedSource};
use crate::clock::Clock;
use crate::engine::env::Context;
use crate::engine::request::Request;
use crate::failure::{self, Failure};
use crate::job::{Job, OperatorKind};
use crate::operator::{self, Found};
use crate::plan::Plan;
use crate::store::windows::WindowState;

/// Windows of one job, counted by state.
#[derive(Debug, Serialize)]
pub(super) struct JobStatus {
    pub(super) job: String,
    pub(super) done: usize,
    /// To be written at the next run, failed ones aside.
    pub(super) due: usize,
    pub(super) failed: usize,
    /// Of those due, the ones that were never written.
    pub(super) missing: usize,
    /// Their raw rows are gone; the old result stays.
    pub(super) kept: usize,
    pub(super) first_window: Option<String>,
    pub(super) last_window: Option<String>,
    pub(super) last_success_at: Option<DateTime<Utc>>,
    pub(super) last_error: Option<String>,
    /// Of the job that archives: what is in the lake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) archived: Vec<ArchivedSource>,
}

pub(super) async fn run(session: Session) -> Result<()> {
    let statuses = all(&session).await?;
    if session.json {
        return statuses.iter().try_for_each(output::json);
    }
    let (wide, now) = (session.wide, Clock::system().now());
    let rows: Vec<Vec<String>> = statuses
        .iter()
        .map(|status| {
            vec![
                status.job.clone(),
                status.done.to_string(),
                status.due.to_string(),
                status.failed.to_string(),
                status.missing.to_string(),
                status.kept.to_string(),
                status.first_window.clone().unwrap_or_else(|| "-".to_owned()),
                status.last_window.clone().unwrap_or_else(|| "-".to_owned()),
                status.last_success_at.map_or("never".to_owned(), |at| output::instant(wide, at, now)),
            ]
        })
        .collect();
    let header = ["job", "done", "due", "failed", "missing", "kept", "first", "last", "last success"];
    let right = ["done", "due", "failed", "missing", "kept"];
    output::line(&output::narrow(wide, &header, &right, &rows, &["first"], &["failed", "missing", "kept"]))?;
    for status in &statuses {
        for source in &status.archived {
            output::line(&format!(
                "{}: {} of {} in the lake, {} in {}, {} alone; the oldest in the tables: {}",
                status.job,
                output::counted(source.event_count, "event"),
                source.source,
                output::grouped(source.size_bytes) + " bytes",
                output::counted(source.day_count, "day"),
                source.deleted_day_count,
                source.oldest_event_at.map_or("none".to_owned(), |at| output::instant(wide, at, now)),
            ))?;
        }
        if let Some(error) = &status.last_error {
            output::line(&format!("{}: {}", status.job, output::printable(error)))?;
        }
    }
    Ok(())
}

/// The status of every job.
pub(super) async fn all(session: &Session) -> Result<Vec<JobStatus>> {
    let context = session.context().await?;
    let request = Request { as_of: context.clock.now(), ..Request::default() };
    let mut statuses = Vec::new();
    for job in context.jobs.iter() {
        // A job that cannot be planned says so; the others are shown all the same.
        let (plan, problem) = match plan(&context, job, &request).await {
            Ok((plan, left_out)) => (plan, left_out.map(|failure| failure::text(&failure.into()))),
            Err(error) => {
                let mut plan = Plan::default();
                plan.states = context.store.windows(&job.name).await?;
                (plan, Some(failure::text(&error)))
            }
        };
        let states = &plan.states;
        let count = |state: WindowState| states.values().filter(|window| window.state == state).count();
        let is_failed = |planned: &&crate::engine::request::Planned| {
            states.get(&planned.window).is_some_and(|state| state.state == WindowState::Failed)
        };
        let archived = if job.operator == OperatorKind::Archive { archive::overview(&context).await? } else { Vec::new() };
        let last_success = context.store.last_success(&job.name).await?;
        statuses.push(JobStatus {
            job: job.name.clone(),
            done: count(WindowState::Done)
                - plan
                    .windows
                    .iter()
                    .filter(|planned| states.get(&planned.window).is_some_and(|state| state.state == WindowState::Done))
                    .count(),
            due: plan.windows.iter().filter(|planned| !is_failed(planned)).count(),
            failed: plan.windows.iter().filter(is_failed).count(),
            missing: plan.windows.iter().filter(|planned| states.get(&planned.window).is_none_or(|state| state.write_count == 0)).count(),
            kept: count(WindowState::Kept),
            first_window: states.keys().next().map(ToString::to_string),
            last_window: states.keys().next_back().map(ToString::to_string),
            last_success_at: last_success,
            archived,
            last_error: problem
                .or_else(|| states.values().filter(|state| state.state == WindowState::Failed).find_map(|state| state.error_text.clone())),
        });
    }
    context.store.close().await;
    Ok(statuses)
}

async fn plan(context: &Context, job: &Job, request: &Request) -> Result<(Plan, Option<Failure>)> {
    let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    let mut tx = context.store.begin_read().await?;
    let plan = Plan::make(context, &mut tx, job, &operator, request, &Found::Nothing).await?;
    let left_out = plan.found.left_out();
    Ok((plan, left_out))
}
