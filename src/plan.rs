//! Which windows of a job are due, and why (`docs/semantics.md` section 5). Planning reads; [`Plan::keep`] makes it last.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};

use crate::engine::due::Look;
use crate::engine::env::Context;
use crate::engine::request::{Planned, Request};
use crate::failure::Failure;
use crate::job::{Job, OperatorKind};
use crate::operator::{Found, Operator};
use crate::store::Tx;
use crate::store::windows::WindowRecord;
use crate::window::Window;

/// The windows that one run of one job will write.
#[derive(Debug, Default)]
pub struct Plan {
    pub windows: Vec<Planned>,
    /// Windows as they were when the plan was made.
    pub states: BTreeMap<Window, WindowRecord>,
    /// What else the look found.
    pub found: Found,
    /// How far each source was looked at to find them.
    positions: Vec<(String, String)>,
}

impl Plan {
    /// Makes the plan: nothing is changed. `before` is what an earlier one found.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind config when the windows were written in another time zone, or the database
    /// is a restored one.
    pub async fn make(context: &Context, tx: &mut Tx, job: &Job, operator: &Operator, request: &Request, before: &Found) -> Result<Self> {
        tx.begin_reading().await?;
        let states = tx.windows(&job.name).await?;
        check_timezone(context, tx, job, request).await?;
        let definition = operator.definitions(job)?;
        let mut look = Look { context, tx: &mut *tx, job, states: &states, definition: &definition, request };
        let due = operator.due(&mut look, before).await?;
        tx.end_reading().await?;
        let windows = due.windows.into_iter().map(|(window, reason)| Planned { window, reason }).collect();
        Ok(Self { windows, states, found: due.found, positions: due.positions })
    }

    /// Makes the plan last: its windows stay due until they are written, and only then is the watermark moved past what
    /// made them so. The caller commits.
    ///
    /// # Errors
    /// What the database says.
    pub async fn keep(&self, context: &Context, tx: &mut Tx, job: &Job, now: DateTime<Utc>) -> Result<()> {
        // The job's file said another `window` when these were written: what is written now takes the place of their rows.
        let is_of_the_job = |window: &Window| Window::containing(job.window, window.start_date).is_ok_and(|own| own == *window);
        tx.forget_windows(&job.name, self.states.keys().filter(|window| !is_of_the_job(window)).copied()).await?;
        let due: Vec<(Window, String)> = self.windows.iter().map(|planned| (planned.window, planned.reason.clone())).collect();
        tx.mark_due(&job.name, &due, context.config.reporting.timezone.name()).await?;
        for (source, position) in &self.positions {
            tx.set_watermark(source, position, now).await?;
        }
        Ok(())
    }
}

async fn check_timezone(context: &Context, tx: &mut Tx, job: &Job, request: &Request) -> Result<()> {
    if request.rebuild {
        return Ok(());
    }
    let timezone = context.config.reporting.timezone.name();
    // A summary's own windows are rewritten once what they read is: only that counts.
    let mut read: Vec<&str> = context.jobs.upstream_of(job).into_iter().map(|upstream| upstream.name.as_str()).collect();
    if job.operator == OperatorKind::UsageRollup {
        read.push(&job.name);
    }
    let written = tx.timezones_of(&read).await?;
    match written.into_iter().find(|zone| zone != timezone) {
        Some(zone) => Err(Failure::config(format!(
            "The windows of job `{}` were written with `reporting.timezone` = `{zone}`, and it is `{timezone}` now",
            job.name
        ))
        .hint("set it back, or redo every day with `tallyroll run-job usage_daily --rebuild --downstream`")
        .into()),
        None => Ok(()),
    }
}
