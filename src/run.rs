//! Running a plan: lock, plan, windows, record.

mod dry_run;
pub mod log;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::Instrument;
use uuid::Uuid;

pub use self::dry_run::{ExpectedBilling, ExpectedCorrection, ExpectedWindow, dry_run};
use self::work::Work;
use crate::abort;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{self, Failure, Kind};
use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::operator::peak_seats::PeakSeats;
use crate::operator::rollup;
use crate::operator::sql::SqlSelect;
use crate::operator::usage_rollup::UsageRollup;
use crate::plan::{ASKED_FOR, FORCED, Plan, Planned, Request};
use crate::project::Project;
use crate::snapshot::owner;
use crate::snapshot::storage::Storage;
use crate::source::Source;
use crate::source::ledger::SeatSource;
use crate::store::Store;
use crate::store::lock::JobLock;
use crate::store::runs::{NewRun, Origin, Outcome, Progress, RunState};
use crate::store::windows::{WindowState, Written};
use crate::window::Window;

/// What every run of a process shares.
pub struct Context {
    pub project: Project,
    pub config: Config,
    pub store: Store,
    /// Where finance files go.
    pub storage: Storage,
    pub jobs: Jobs,
    pub clock: Clock,
    /// The signal that asked the process to stop, once one did.
    pub stop: watch::Receiver<Option<i32>>,
    /// Told of what happens, for progress bars.
    pub observe: Box<dyn Fn(&Event) + Send + Sync>,
}

/// Something a person may want to see while it happens.
#[derive(Debug)]
pub enum Event {
    Planned { job: String, window_count: usize },
    WindowDone { rows_in: i64 },
    JobDone,
}

/// A job's operator, its files loaded and checked.
#[derive(Debug, Clone)]
pub enum Operator {
    UsageRollup(Arc<UsageRollup>),
    Sql(Arc<SqlSelect>),
    PeakSeats(Arc<PeakSeats>),
    Reconcile,
    UsageDashboard,
}

impl Operator {
    /// Why its last plan left something out that no window shows, if it did.
    #[must_use]
    pub fn left_out(&self) -> Option<Failure> {
        if let Self::PeakSeats(peak_seats) = self { peak_seats.left_out() } else { None }
    }
}

/// What a run of one job did.
#[derive(Debug, Serialize)]
pub struct JobReport {
    pub job: String,
    /// None when nothing was due: then nothing was written, not even a record of the run.
    pub run_id: Option<String>,
    pub windows: Vec<Planned>,
    pub windows_done: i64,
    pub rows_in: i64,
    pub rows_out: i64,
    pub quarantined_count: i64,
    pub duration_ms: i64,
    #[serde(skip)]
    pub failure: Option<anyhow::Error>,
}

impl JobReport {
    /// Of a job that has done nothing yet.
    fn of(job: &Job) -> Self {
        Self {
            job: job.name.clone(),
            run_id: None,
            windows: Vec::new(),
            windows_done: 0,
            rows_in: 0,
            rows_out: 0,
            quarantined_count: 0,
            duration_ms: 0,
            failure: None,
        }
    }
}

/// How a run is bound to other runs.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    /// How long to wait for another run of the same job.
    pub lock_wait: Duration,
    /// Windows that this run has written already are left out.
    pub resume: Option<String>,
    pub origin: Origin,
    /// The id that the run gets; a new one unless set.
    pub run_id: Option<String>,
}

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
    let mut reports = vec![run_one(context, job, request, &root, None).await?];
    if !request.downstream {
        return Ok(reports);
    }
    for job in context.jobs.downstream_of(job) {
        if reports.iter().filter_map(|report| report.failure.as_ref()).any(is_final) {
            break;
        }
        let binding = Binding { lock_wait: binding.lock_wait, origin: binding.origin.clone(), ..Binding::default() };
        let report = run_one(context, job, &request.for_downstream(), &binding, Some(root_id.clone())).await;
        // What ran before stays reported where a later one could not even begin.
        reports.push(report.unwrap_or_else(|error| JobReport { failure: Some(error), ..JobReport::of(job) }));
    }
    Ok(reports)
}

/// Loads a job's SQL and settings and checks them against the database.
///
/// # Errors
/// [`Failure`] of kind config.
pub async fn load_operator(
    project: &Project,
    config: &Config,
    store: &Store,
    storage: &Storage,
    jobs: &Jobs,
    job: &Job,
) -> Result<Operator> {
    match job.operator {
        OperatorKind::Reconcile => Ok(Operator::Reconcile),
        OperatorKind::UsageDashboard => Ok(Operator::UsageDashboard),
        OperatorKind::PeakSeats => {
            let source = SeatSource::load(project, store.engine())?;
            source.check(store).await?;
            Ok(Operator::PeakSeats(Arc::new(PeakSeats::new(source, storage.clone(), config.billing.grace_hours))))
        }
        OperatorKind::UsageRollup => {
            let mut sources = Vec::new();
            for name in &config.usage.sources {
                let source = Source::load(project, name, store.engine())?;
                source.check(store).await?;
                sources.push(source);
            }
            Ok(Operator::UsageRollup(Arc::new(UsageRollup {
                sources,
                pricing: config.usage.pricing,
                prices: config.price_book(project)?,
                timezone: config.reporting.timezone,
                earliest_date: config.usage.earliest_date,
                max_quarantined_ratio: config.quarantine.max_ratio,
                batch_rows: usize::try_from(config.engine.batch_rows)?,
                requires_uuid: store.dialect().has_uuids(),
            })))
        }
        OperatorKind::Sql => Ok(Operator::Sql(Arc::new(SqlSelect::load(project, store, jobs, job, config.reporting.timezone).await?))),
        OperatorKind::Rollup => Ok(Operator::Sql(Arc::new(rollup::load(store, jobs, job, config.reporting.timezone).await?))),
    }
}

/// Fails once a signal has asked the process to stop.
///
/// # Errors
/// [`Failure`] of kind interrupted.
pub fn check_stop(stop: &watch::Receiver<Option<i32>>) -> Result<()> {
    match *stop.borrow() {
        Some(signal) => Err(Failure::new(Kind::Interrupted(signal), "Interrupted; nothing is half-written")
            .hint("windows that were not written are still due: run the same command again")
            .into()),
        None => Ok(()),
    }
}

/// Whether an error ends the whole run, not only one window.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(failure::find(error).map(|failure| failure.kind), Some(Kind::Interrupted(_) | Kind::TryAgain | Kind::Locked | Kind::Config))
}

async fn run_one(
    context: &Arc<Context>,
    job: &Job,
    request: &Request,
    binding: &Binding,
    parent_run_id: Option<String>,
) -> Result<JobReport> {
    let started_at = context.clock.now();
    let mut report = JobReport::of(job);
    let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    if let Operator::Sql(select) = &operator {
        select.ensure_table(&context.store, job).await?;
    }
    // A look first: where nothing is due, nothing is locked and nothing is written.
    let mut tx = context.store.begin_read().await?;
    if Plan::make(context, &mut tx, job, &operator, request).await?.windows.is_empty() {
        report.failure = operator.left_out().map(Into::into);
        return Ok(report);
    }
    drop(tx);

    let run = NewRun {
        run_id: binding.run_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string()),
        job: job.name.clone(),
        parent_run_id,
        origin: binding.origin.clone(),
        request: serde_json::to_string(request)?,
        as_of: request.as_of,
    };
    let lease = TimeDelta::seconds(context.config.engine.lock_lease_seconds.into());
    let lock = JobLock::acquire(&context.store, &context.clock, &run, lease, binding.lock_wait, || check_stop(&context.stop)).await?;
    report.run_id = Some(run.run_id.clone());
    let span = tracing::info_span!("run", run_id = run.run_id, job = job.name);
    log::keep(&run.run_id);
    let progress = Arc::new(Mutex::new(Progress::default()));
    let heart = beat(context, &run.run_id, &progress);
    let outcome = run_windows(context, job, &operator, request, binding, &lock, &progress, &mut report).instrument(span.clone()).await;
    drop(heart);

    let done = progress.lock().map_or_else(|poisoned| *poisoned.into_inner(), |progress| *progress);
    report.windows_done = done.windows_done;
    report.rows_in = done.rows_in;
    report.rows_out = done.rows_out;
    report.quarantined_count = done.quarantined_count;
    let now = context.clock.now();
    report.duration_ms = (now - started_at).num_milliseconds();
    report.failure = outcome.err();

    let error_text = report.failure.as_ref().map(failure::text);
    let error_class = report.failure.as_ref().map(failure::class);
    let state = match &report.failure {
        None => RunState::Success,
        Some(error) if matches!(failure::find(error).map(|failure| failure.kind), Some(Kind::Interrupted(_))) => RunState::Interrupted,
        Some(_) => RunState::Failed,
    };
    context.store.heartbeat(&run.run_id, now, done).await?;
    let outcome = Outcome { state, error_class, error_text: error_text.as_deref() };
    abort::point("run_before_finish");
    context.store.finish_run(&run.run_id, now, started_at, outcome).await?;
    abort::point("run_finished");
    lock.release(&context.store).await?;
    abort::point("lock_released");
    (context.observe)(&Event::JobDone);
    span.in_scope(|| {
        tracing::info!(
            state = state.name(),
            windows = report.windows_done,
            rows_in = report.rows_in,
            rows_out = report.rows_out,
            quarantined = report.quarantined_count,
            duration_ms = report.duration_ms,
            "Run ended"
        );
    });
    log::store(&context.store, &run.run_id).await;
    abort::point("log_kept");
    Ok(report)
}

/// A heart that beats until this is dropped, however the run ends.
#[derive(Debug)]
pub(crate) struct BeatGuard(AbortHandle);

impl BeatGuard {
    pub(crate) fn new(heart: &JoinHandle<()>) -> Self {
        Self(heart.abort_handle())
    }
}

impl Drop for BeatGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows, four times in a lease, that the run is alive.
fn beat(context: &Arc<Context>, run_id: &str, progress: &Arc<Mutex<Progress>>) -> BeatGuard {
    let (context, run_id, progress) = (Arc::clone(context), run_id.to_owned(), Arc::clone(progress));
    let period = Duration::from_secs(context.config.engine.lock_lease_seconds.into()) / 4;
    BeatGuard::new(&tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let now = progress.lock().map_or_else(|poisoned| *poisoned.into_inner(), |progress| *progress);
            if let Err(error) = context.store.heartbeat(&run_id, context.clock.now(), now).await {
                tracing::warn!(error = format!("{error:#}"), "The run's heartbeat could not be written");
            }
        }
    }))
}

#[expect(clippy::too_many_arguments, reason = "called once; a struct for it would only rename the arguments")]
async fn run_windows(
    context: &Arc<Context>,
    job: &Job,
    operator: &Operator,
    request: &Request,
    binding: &Binding,
    lock: &JobLock,
    progress: &Arc<Mutex<Progress>>,
    report: &mut JobReport,
) -> Result<()> {
    if matches!(operator, Operator::PeakSeats(_)) || job.publish.is_some() {
        owner::claim(&context.storage, &context.store).await?;
    }
    let mut tx = context.store.begin().await?;
    let mut plan = Plan::make(context, &mut tx, job, operator, request).await?;
    if let Some(resumed) = &binding.resume {
        plan.windows.retain(|planned| {
            let written = plan.states.get(&planned.window);
            let is_done = written.is_some_and(|state| state.run_id.as_ref() == Some(resumed) && state.state == WindowState::Done);
            // What made a window due by itself has come since: it is due whoever wrote it before.
            !(is_done && [ASKED_FOR, FORCED].contains(&planned.reason.as_str()))
        });
    }
    plan.keep(context, &mut tx, job, context.clock.now()).await?;
    lock.assert_held(&context.store, &mut tx).await?;
    abort::point("plan_kept");
    tx.commit().await?;
    abort::point("plan_committed");
    report.windows.clone_from(&plan.windows);
    if let Ok(mut progress) = progress.lock() {
        progress.windows_planned = i64::try_from(plan.windows.len())?;
    }
    (context.observe)(&Event::Planned { job: job.name.clone(), window_count: plan.windows.len() });
    tracing::info!(windows = plan.windows.len(), "Windows are due");

    let work = Arc::new(Work {
        context: Arc::clone(context),
        job: job.clone(),
        operator: operator.clone(),
        request: request.clone(),
        lock: lock.clone(),
        run_id: report.run_id.clone().unwrap_or_default(),
    });
    let mut states = plan.states;
    let mut waiting = plan.windows.into_iter();
    let mut at_work: JoinSet<(Window, Result<Written>)> = JoinSet::new();
    let mut failures: BTreeMap<Window, anyhow::Error> = BTreeMap::new();
    let at_once = usize::try_from(context.config.engine.windows_at_once)?;
    loop {
        let may_start = !failures.values().any(is_final) && check_stop(&context.stop).is_ok();
        while may_start && at_work.len() < at_once {
            let Some(planned) = waiting.next() else { break };
            let (work, before) = (Arc::clone(&work), states.remove(&planned.window));
            let span = tracing::info_span!("window", window = %planned.window);
            at_work.spawn(async move { (planned.window, work.window(planned.window, before.as_ref()).await) }.instrument(span));
        }
        let Some(ended) = at_work.join_next().await else { break };
        match ended.context("A window's task died")? {
            (window, Ok(written)) => {
                if let Ok(mut progress) = progress.lock() {
                    progress.windows_done += 1;
                    progress.rows_in += written.rows_in;
                    progress.rows_out += written.rows_out;
                    progress.quarantined_count += written.quarantined_count;
                }
                (context.observe)(&Event::WindowDone { rows_in: written.rows_in });
                tracing::info!(%window, rows_in = written.rows_in, rows_out = written.rows_out, quarantined = written.quarantined_count, "Window written");
            }
            (window, Err(error)) => {
                failures.insert(window, error);
            }
        }
    }
    let failed_count = failures.len();
    // The one that ended the run, if any did, says most.
    let chosen = failures.iter().find(|(_, error)| is_final(error)).or_else(|| failures.iter().next()).map(|(window, _)| *window);
    match chosen.and_then(|window| failures.remove(&window).map(|error| (window, error))) {
        None => {
            check_stop(&context.stop)?;
            operator.left_out().map_or(Ok(()), |failure| Err(failure.into()))
        }
        Some((_, error)) if matches!(failure::find(&error).map(|failure| failure.kind), Some(Kind::Interrupted(_))) => Err(error),
        Some((window, error)) => {
            Err(error.context(format!("{failed_count} of {} windows failed, the first {window}", report.windows.len())))
        }
    }
}
