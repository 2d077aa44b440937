//! Running a plan: lock, plan, windows, record.

mod dry_run;
pub mod log;
mod pass;
mod under_way;
mod windows;
mod work;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::sync::watch;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::dry_run::{ExpectedBilling, ExpectedCorrection, ExpectedWindow, dry_run};
use self::pass::Pass;
pub(crate) use self::under_way::BeatGuard;
use self::under_way::UnderWay;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{self, Failure, Kind};
use crate::fingerprint;
use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::measure::MEASURES;
use crate::operator::peak_seats::PeakSeats;
use crate::operator::rollup::Rollup;
use crate::operator::sql::SqlSelect;
use crate::operator::usage_rollup::UsageRollup;
use crate::plan::{Plan, Planned, Request};
use crate::project::Project;
use crate::snapshot::storage::Storage;
use crate::source::Source;
use crate::source::ledger::SeatSource;
use crate::store::Store;
use crate::store::runs::Origin;

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
    Rollup(Arc<Rollup>),
    Sql(Arc<SqlSelect>),
    PeakSeats(Arc<PeakSeats>),
    Reconcile,
    UsageDashboard,
}

impl Operator {
    /// What its results are made by: a digest of the job's file and one of its SQL, with a space between.
    ///
    /// # Errors
    /// When a source lacks its statement.
    pub fn definition(&self, job: &Job) -> Result<String> {
        let sql = match self {
            Self::UsageRollup(rollup) => {
                let sources = rollup.sources.iter().map(Source::definition).collect::<Result<Vec<_>>>()?;
                fingerprint::of(sources.into_iter().chain(MEASURES.iter().map(|measure| measure.name)))
            }
            _ => fingerprint::of(self.select().into_iter().flat_map(SqlSelect::texts)),
        };
        Ok(format!("{} {sql}", job.definition()))
    }

    /// The SELECT of a summary.
    #[must_use]
    pub fn select(&self) -> Option<&SqlSelect> {
        match self {
            Self::Rollup(rollup) => Some(&rollup.select),
            Self::Sql(select) => Some(select),
            _ => None,
        }
    }

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
    let later = Binding { lock_wait: binding.lock_wait, origin: binding.origin.clone(), ..Binding::default() };
    let pass = match job.operator {
        OperatorKind::UsageRollup if request.downstream => Some(Pass::new(context, job, request, &later, &root_id)),
        _ => None,
    };
    let mut reports = vec![run_one(context, job, request, &root, None, pass.as_ref()).await?];
    if !request.downstream {
        return Ok(reports);
    }
    for job in context.jobs.downstream_of(job) {
        if reports.iter().filter_map(|report| report.failure.as_ref()).any(is_final) {
            break;
        }
        let report = run_one(context, job, &request.for_downstream(), &later, Some(root_id.clone()), pass.as_ref()).await;
        // What ran before stays reported where a later one could not even begin.
        reports.push(report.unwrap_or_else(|error| JobReport { failure: Some(error), ..JobReport::of(job) }));
    }
    if let Some(pass) = &pass {
        reports.extend(pass.end_early().await?);
    }
    Ok(reports)
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
    let under_way = match pass.and_then(|pass| pass.take(job)) {
        Some(under_way) => under_way,
        None => {
            let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
            if let Some(select) = operator.select() {
                select.ensure_table(&context.store, job).await?;
            }
            // A look first: where nothing is due, nothing is locked and nothing is written.
            let mut tx = context.store.begin_read().await?;
            if Plan::make(context, &mut tx, job, &operator, request).await?.windows.is_empty() {
                return Ok(JobReport { failure: operator.left_out().map(Into::into), ..JobReport::of(job) });
            }
            drop(tx);
            Arc::new(UnderWay::begin(context, job, &operator, request, binding, parent_run_id).await?)
        }
    };
    let outcome = windows::run(context, &under_way, binding.resume.as_deref(), pass).instrument(under_way.span.clone()).await;
    under_way.end(context, outcome.err()).await
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
        OperatorKind::Rollup => Ok(Operator::Rollup(Arc::new(Rollup::load(store, jobs, job, config.reporting.timezone).await?))),
    }
}

/// Takes the results of a job over as made by its present definition; how many windows that are.
///
/// # Errors
/// As [`load_operator`].
pub async fn accept_definition(context: &Context, job: &Job) -> Result<u64> {
    let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    context.store.accept_definition(&job.name, &operator.definition(job)?).await
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
