//! Which days could be archived, and which are known to be counted whole.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::engine::env::Context;
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::job::{Job, OperatorKind};
use crate::lake::{self, Lake};
use crate::operator::usage_rollup::UsageRollup;
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;
use crate::source::Source;
use crate::store::archived::ArchivedDay;
use crate::store::lock::JobLock;
use crate::store::windows::WindowState;
use crate::window::{Window, WindowKind, day_of};

/// A day of a source that could be archived.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    pub source: String,
    pub event_date: NaiveDate,
    /// The revision that it would get.
    pub revision: i32,
    /// Why it waits, if it does.
    pub waits: Option<String>,
}

/// The summary of the raw log, by which days are known to be counted.
pub(super) struct Summary<'a> {
    job: &'a Job,
    operator: Operator,
}

impl<'a> Summary<'a> {
    pub(super) async fn load(context: &'a Context) -> Result<Self> {
        let job = context.jobs.iter().find(|job| job.operator == OperatorKind::UsageRollup).context("No job reads the raw log")?;
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        Ok(Self { job, operator })
    }

    pub(super) fn rollup(&self) -> Result<&UsageRollup> {
        if let Operator::UsageRollup(rollup) = &self.operator { Ok(rollup) } else { bail!("The job of the raw log is another one") }
    }

    /// How the days of the log stand now.
    pub(super) async fn counted(&self, context: &Context, as_of: DateTime<Utc>) -> Result<Counted> {
        let mut tx = context.store.begin_read().await?;
        let request = Request { as_of, ..Request::default() };
        let plan = Plan::make(context, &mut tx, self.job, &self.operator, &request, &Found::Nothing).await?;
        let due = plan.windows.iter().map(|planned| planned.window).collect();
        Ok(Counted { plan, due })
    }
}

/// Windows of the raw log, and those that are due.
pub(super) struct Counted {
    plan: Plan,
    due: BTreeSet<Window>,
}

impl Counted {
    /// Why not all rows of a UTC day are known to be counted, if so.
    pub(super) fn lacks(&self, event_date: NaiveDate, timezone: Tz) -> Result<Option<String>> {
        let (start, end) = lake::instants(event_date)?;
        let (mut day, last) = (day_of(start, timezone)?, day_of(end - TimeDelta::microseconds(1), timezone)?);
        while day <= last {
            let window = Window::containing(WindowKind::Day, day)?;
            let state = self.plan.states.get(&window).map(|state| state.state);
            if self.due.contains(&window) {
                return Ok(Some(format!("{window} is due")));
            }
            match state {
                Some(WindowState::Done) => {}
                Some(state) => return Ok(Some(format!("{window} is {}", state.name()))),
                // A day of another zone that has no event need not be written.
                None => {}
            }
            day = window.end_date;
        }
        Ok(None)
    }
}

/// The days that could be archived: of those that ended `archive.after_days` ago, or of those asked for.
///
/// # Errors
/// What the database says; [`Failure`] of kind usage for a day that has not ended.
pub async fn candidates(context: &Context, request: &Request) -> Result<Vec<Candidate>> {
    let summary = Summary::load(context).await?;
    candidates_of(context, &summary, request).await
}

pub(super) async fn candidates_of(context: &Context, summary: &Summary<'_>, request: &Request) -> Result<Vec<Candidate>> {
    let rollup = summary.rollup()?;
    let today = request.as_of.date_naive();
    let until = match request.from {
        Some(_) => request.to.map_or(today, |to| to.min(today)),
        None => today - Days::new(context.config.archive.after_days.into()),
    };
    if request.from.is_some_and(|from| from >= until) {
        return Err(Failure::usage("No day that has ended is asked for").hint("a UTC day is archived once it has ended").into());
    }
    let counted = summary.counted(context, request.as_of).await?;
    let known = context.store.archived_days(None, None).await?;
    let written = context.store.written_at(&summary.job.name).await?;
    let mut found = Vec::new();
    for source in &rollup.sources {
        let mut tx = context.store.begin_read().await?;
        for event_date in rollup.days_in_table(&mut tx, source, request.from, Some(until), Tz::UTC).await? {
            let revisions: Vec<&ArchivedDay> =
                known.iter().filter(|day| day.source == source.name && day.event_date == event_date).collect();
            let copied_at = revisions.iter().filter(|day| !day.is_deleted).map(|day| day.archived_at).max();
            let mut windows = window_dates(event_date, rollup.timezone)?.into_iter().filter_map(|day| written.get(&day));
            // A copy says what the table says, until a run has found that something changed.
            if !context.config.archive.delete && copied_at.is_some_and(|at| windows.all(|written_at| *written_at < at)) {
                continue;
            }
            let revision = revisions.iter().map(|day| day.revision).max().unwrap_or(0) + 1;
            let waits = if source.archived_tables(&context.store, request.as_of, request.as_of)?.is_empty() {
                Some(format!("`{}` has no statement `-- name: archive TABLE`", source.origin))
            } else {
                counted.lacks(event_date, rollup.timezone)?
            };
            found.push(Candidate { source: source.name.clone(), event_date, revision, waits });
        }
    }
    found.sort_by(|one, other| (one.event_date, &one.source).cmp(&(other.event_date, &other.source)));
    Ok(found)
}

/// The days of `reporting.timezone` that a UTC day touches.
fn window_dates(event_date: NaiveDate, timezone: Tz) -> Result<BTreeSet<NaiveDate>> {
    let (start, end) = lake::instants(event_date)?;
    Ok(BTreeSet::from([day_of(start, timezone)?, day_of(end - TimeDelta::microseconds(1), timezone)?]))
}

/// Removes files of a day that a run was about to write and has not noted, and those of revisions that are no longer read: their rows are in
/// the tables. Nobody takes the lock over meanwhile. Files that this database knows nothing of are left: another one that has the
/// project's id, a copy of it or the one that it is a copy of, may have deleted their rows. `also` are tables that rows are archived of and
/// that the source may not name any more.
///
/// # Errors
/// [`Failure`] of kind bad-data where there are such files, of kind try-again where the lock is lost; what database and storage say.
pub(super) async fn sweep(
    context: &Context,
    lock: &JobLock,
    lake: &Lake,
    source: &Source,
    event_date: NaiveDate,
    also: &[String],
) -> Result<()> {
    let mut tx = context.store.begin().await?;
    lock.assert_held(&context.store, &mut tx).await?;
    let known = tx.archived_days(Some(event_date), Some(event_date + Days::new(1))).await?;
    let revisions: Vec<i32> = known.iter().filter(|day| day.source == source.name).map(|day| day.revision).collect();
    let leftovers = tx.archive_leftovers(&source.name, event_date).await?;
    let (start, end) = lake::instants(event_date)?;
    let named = source.archived_tables(&context.store, start, end)?.into_iter().map(|(table, _)| table);
    let tables: BTreeSet<String> = named.chain(also.iter().cloned()).collect();
    let others = lake.strangers(&source.name, &tables, event_date, &[revisions.clone(), leftovers.clone()].concat()).await?;
    if let Some(path) = others.first() {
        return Err(Failure::bad_data(format!("`{}` belongs to no archived day of this database", lake.storage.shown(path)))
            .hint(
                "another database of the same id may need it: give each a lake of its own; remove its folder if no database of yours does",
            )
            .into());
    }
    if leftovers.is_empty() {
        return Ok(());
    }
    lake.remove(lake.strangers(&source.name, &tables, event_date, &revisions).await?).await?;
    tx.forget_leftovers(&source.name, event_date).await?;
    tx.commit().await
}
