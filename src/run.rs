//! Running a plan: lock, plan, windows, record.

mod dry_run;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::NaiveDate;
use tokio::task::JoinSet;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::dry_run::{ExpectedBilling, ExpectedCorrection, ExpectedWindow, dry_run};
use crate::archive::{self, Restored};
use crate::engine::env::Context;
use crate::engine::report::{Binding, JobReport};
use crate::engine::request::Request;
use crate::engine::stop::is_final;
use crate::engine::under_way::UnderWay;
use crate::job::{Job, OperatorKind};
use crate::operator::pass::Pass;
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;

/// Runs one job over its due windows or those asked for, then, where asked, what reads it.
///
/// A job that fails in some of its windows still lets the jobs downstream run over the others; the report has its failure.
///
/// # Errors
/// Where nothing could be run: configuration, lock, connection.
pub async fn run(context: &Arc<Context>, job: &Job, request: &Request, binding: &Binding) -> Result<Vec<JobReport>> {
    // Known beforehand: what runs downstream names it also where the job itself had nothing due, and has no record.
    let root_id = binding.run_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let root = Binding { run_id: Some(root_id.clone()), ..binding.clone() };
    let later = Binding { lock_wait: binding.lock_wait, origin: binding.origin.clone(), ..Binding::default() };
    let pass = match job.operator {
        OperatorKind::UsageRollup if request.downstream => Some(Pass::new(context, job, request, &later, &root_id)),
        _ => None,
    };
    let mut reports = vec![run_one(context, job, request, &root, None, pass.as_ref()).await?];
    if request.downstream {
        let is_over = reports[0].failure.as_ref().is_some_and(is_final);
        reports.extend(run_downstream(context, job, request, &later, &root_id, pass.as_ref(), is_over).await?);
    }
    Ok(reports)
}

/// Runs what reads `root`, each job after all that it reads; those that do not read each other side by side. Nothing more is begun
/// where it `is_over`.
async fn run_downstream(
    context: &Arc<Context>,
    root: &Job,
    request: &Request,
    binding: &Binding,
    root_id: &str,
    pass: Option<&Arc<Pass>>,
    mut is_over: bool,
) -> Result<Vec<JobReport>> {
    let jobs = context.jobs.downstream_of(root);
    let at_once = usize::try_from(context.store.dialect().jobs_at_once())?;
    let mut reports: BTreeMap<usize, JobReport> = BTreeMap::new();
    let mut begun: BTreeSet<usize> = BTreeSet::new();
    let mut at_work = JoinSet::new();
    loop {
        for (index, job) in jobs.iter().enumerate() {
            let is_read = |(other, upstream): (usize, &&Job)| !reports.contains_key(&other) && job.reads.contains(&upstream.writes);
            if is_over || at_work.len() >= at_once || begun.contains(&index) || jobs[..index].iter().enumerate().any(is_read) {
                continue;
            }
            begun.insert(index);
            let (context, job, request, binding) = (Arc::clone(context), (*job).clone(), request.for_downstream(), binding.clone());
            let (root_id, pass) = (root_id.to_owned(), pass.cloned());
            at_work.spawn(async move {
                let report = run_one(&context, &job, &request, &binding, Some(root_id), pass.as_ref()).await;
                // What ran before stays reported where a later one could not even begin.
                (index, report.unwrap_or_else(|error| JobReport { failure: Some(error), ..JobReport::of(&job) }))
            });
        }
        let Some(ended) = at_work.join_next().await else { break };
        let (index, report) = ended.context("A job's task died")?;
        is_over |= report.failure.as_ref().is_some_and(is_final);
        reports.insert(index, report);
    }
    let early = match pass {
        Some(pass) => pass.end_early().await?,
        None => Vec::new(),
    };
    Ok(reports.into_values().chain(early).collect())
}

/// Runs one job: what `pass` has begun of it is finished.
async fn run_one(
    context: &Arc<Context>,
    job: &Job,
    request: &Request,
    binding: &Binding,
    parent_run_id: Option<String>,
    pass: Option<&Arc<Pass>>,
) -> Result<JobReport> {
    let (under_way, operator, found) = if let Some((under_way, rollup)) = pass.and_then(|pass| pass.take(job)) {
        (under_way, Operator::Rollup(rollup), Found::Nothing)
    } else {
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        if let Some(select) = operator.select() {
            select.ensure_table(&context.store, job).await?;
        }
        // A look first: where nothing is due, nothing is locked and nothing is written.
        let mut tx = context.store.begin_read().await?;
        let plan = Plan::make(context, &mut tx, job, &operator, request, &Found::Nothing).await?;
        if plan.windows.is_empty() {
            return Ok(JobReport { failure: plan.found.left_out().map(Into::into), ..JobReport::of(job) });
        }
        drop(tx);
        let definition = operator.definition(job)?;
        (Arc::new(UnderWay::begin(context, job, definition, request, binding, parent_run_id).await?), operator, plan.found)
    };
    let outcome =
        windows::run(context, &under_way, operator, &found, binding.resume.as_deref(), pass).instrument(under_way.span.clone()).await;
    under_way.end(context, outcome.err()).await
}

/// Takes the results of a job over as made by its present definition; how many windows that are.
///
/// # Errors
/// As [`operator::load`].
pub async fn accept_definition(context: &Context, job: &Job) -> Result<u64> {
    let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    context.store.accept_definition(&job.name, &operator.definition(job)?).await
}

/// Puts the rows of an archived day back, as a run of the job of the archive.
///
/// # Errors
/// As [`archive::restore`]; where another run of the archive is at work.
pub async fn restore(
    context: &Arc<Context>,
    job: &Job,
    request: &Request,
    binding: &Binding,
    event_date: NaiveDate,
    source: Option<&str>,
) -> Result<Vec<Restored>> {
    let under_way = UnderWay::begin(context, job, job.definition(), request, binding, None).await?;
    let restored = archive::restore(context, &under_way, event_date, source).instrument(under_way.span.clone()).await;
    let (restored, failure) = match restored {
        Ok(restored) => (restored, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    match under_way.end(context, failure).await?.failure {
        Some(failure) => Err(failure),
        None => Ok(restored),
    }
}
