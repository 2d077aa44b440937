//! Which windows of a job are due, and why (`docs/semantics.md` section 5). Planning reads; [`Plan::keep`] makes it last.

pub mod derived;
pub mod raw;

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};

use crate::engine::env::Context;
use crate::engine::request::{ASKED_FOR, Planned, Request};
use crate::failure::Failure;
use crate::job::{Job, OperatorKind};
use crate::operator::Operator;
use crate::sql_text::quote_identifier;
use crate::store::Tx;
use crate::store::windows::WindowRecord;
use crate::usage_dashboard;
use crate::window::{Window, WindowKind, day_of, next_day};

/// The windows that one run of one job will write.
#[derive(Debug, Default)]
pub struct Plan {
    pub windows: Vec<Planned>,
    /// Windows as they were when the plan was made.
    pub states: BTreeMap<Window, WindowRecord>,
    /// What the job's results are made by now.
    definition: Definition,
    /// How far each source was looked at to find them.
    positions: Vec<(String, String)>,
}

impl Plan {
    /// Makes the plan: nothing is changed.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind config when the windows were written in another time zone, or the database
    /// is a restored one.
    pub async fn make(context: &Context, tx: &mut Tx, job: &Job, operator: &Operator, request: &Request) -> Result<Self> {
        tx.begin_reading().await?;
        let plan = Self::find(context, tx, job, operator, request).await?;
        tx.end_reading().await?;
        Ok(plan)
    }

    async fn find(context: &Context, tx: &mut Tx, job: &Job, operator: &Operator, request: &Request) -> Result<Self> {
        let states = tx.windows(&job.name).await?;
        let mut plan = Self { states, definition: Definition::of(operator, job)?, ..Self::default() };
        plan.check_timezone(context, tx, job, request).await?;
        let mut due: BTreeMap<Window, String> = BTreeMap::new();
        if let Operator::PeakSeats(peak_seats) = operator {
            due = peak_seats.plan(&context.store, &plan.states, request, context.clock.now()).await?;
        } else if let Some(from) = request.from {
            let to = request.to.map_or_else(|| day_of(request.as_of, context.config.reporting.timezone).and_then(next_day), Ok)?;
            for window in Window::covering(job.window, from, to)? {
                due.insert(window, ASKED_FOR.to_owned());
            }
        } else {
            match operator {
                Operator::UsageRollup(rollup) => plan.find_raw(context, tx, job, rollup, request, &mut due).await?,
                Operator::Sql(_) | Operator::Rollup(_) => {
                    let follows = match operator.select() {
                        Some(select) => select.follows_from(tx, job, request.as_of).await?,
                        None => Vec::new(),
                    };
                    plan.find_derived(context, tx, job, &follows, request, &mut due).await?;
                }
                Operator::UsageDashboard => {
                    let follows = [usage_dashboard::follows_from(&context.config, request.as_of)?];
                    plan.find_derived(context, tx, job, &follows, request, &mut due).await?;
                }
                // It looks at everything each time it runs.
                Operator::Reconcile => {
                    due.insert(Window::containing(WindowKind::All, NaiveDate::default())?, "checked at every run".to_owned());
                }
                Operator::PeakSeats(_) => {}
            }
            if matches!(operator, Operator::UsageRollup(_) | Operator::Rollup(_) | Operator::Sql(_)) {
                find_emptied(tx, job, &plan.states, &mut due).await?;
            }
        }
        plan.windows = due.into_iter().map(|(window, reason)| Planned { window, reason }).collect();
        Ok(plan)
    }

    /// Makes the plan last: its windows stay due until they are written, and only then is the watermark moved past what
    /// made them so. The caller commits.
    ///
    /// # Errors
    /// What the database says.
    pub async fn keep(&self, context: &Context, tx: &mut Tx, job: &Job, now: DateTime<Utc>) -> Result<()> {
        let due: Vec<(Window, String)> = self.windows.iter().map(|planned| (planned.window, planned.reason.clone())).collect();
        tx.mark_due(&job.name, &due, context.config.reporting.timezone.name()).await?;
        for (source, position) in &self.positions {
            tx.set_watermark(source, position, now).await?;
        }
        Ok(())
    }

    async fn check_timezone(&self, context: &Context, tx: &mut Tx, job: &Job, request: &Request) -> Result<()> {
        if request.rebuild {
            return Ok(());
        }
        let timezone = context.config.reporting.timezone.name();
        // A summary's own windows are rewritten once what they read is: only that counts.
        let mut written: Vec<String> = Vec::new();
        for upstream in context.jobs.upstream_of(job) {
            written.extend(tx.windows(&upstream.name).await?.into_values().map(|state| state.timezone));
        }
        if job.operator == OperatorKind::UsageRollup {
            written.extend(self.states.values().map(|state| state.timezone.clone()));
        }
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
}

/// What a job's results are made by.
#[derive(Debug, Default)]
struct Definition {
    now: String,
    /// As it was written before the source `usage_event`.
    first: String,
}

impl Definition {
    fn of(operator: &Operator, job: &Job) -> Result<Self> {
        Ok(Self { now: operator.definition(job)?, first: operator.first_definition(job)? })
    }
}

/// What stands before a digest of a definition or of rules from before the source `usage_event`, by its migration.
const FIRST: &str = "v1 ";
/// What stands before a digest of rules from before prices had a provider, a tier or a size, by its migration.
const SECOND: &str = "v2 ";

/// Why a window's result was made by something else than what makes it now, if so.
fn changed_definition(state: &WindowRecord, definition: &Definition) -> Option<&'static str> {
    let known = state.definition.as_deref()?;
    let (known, definition) = known.strip_prefix(FIRST).map_or((known, &definition.now), |known| (known, &definition.first));
    let sql = |definition: &str| definition.split_once(' ').map(|(_, sql)| sql.to_owned());
    match known == definition {
        true => None,
        false if sql(known) == sql(definition) => Some("its job's file changed"),
        false => Some("its SQL changed"),
    }
}

/// Windows whose rows are all gone from the table, by whatever way.
async fn find_emptied(tx: &mut Tx, job: &Job, states: &BTreeMap<Window, WindowRecord>, due: &mut BTreeMap<Window, String>) -> Result<()> {
    let with_rows: Vec<Window> = states.values().filter(|state| state.rows_out > 0).map(|state| state.window).collect();
    if with_rows.is_empty() {
        return Ok(());
    }
    let sql = format!("SELECT 1 AS one FROM {} LIMIT 1", quote_identifier(&job.writes));
    if tx.query(&sql, &[]).await?.is_empty() {
        for window in with_rows {
            due.entry(window).or_insert_with(|| "its rows are gone from the table".to_owned());
        }
    }
    Ok(())
}
