//! A run under way: its lock, its record and its heartbeat.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use tracing::Span;
use uuid::Uuid;

use super::env::{Context, Event};
use super::heartbeat::BeatGuard;
use super::log;
use super::report::{Binding, JobReport};
use super::request::{Planned, Request};
use super::stop::check_stop;
use crate::abort;
use crate::failure::{self, Kind};
use crate::job::Job;
use crate::store::lock::JobLock;
use crate::store::result_table::require_alone;
use crate::store::runs::{NewRun, Outcome, Progress, RunState};
use crate::store::windows::{Writer, Written};

/// A run that holds the lock of its job.
pub struct UnderWay {
    pub job: Job,
    pub definition: String,
    pub request: Request,
    pub run_id: String,
    pub lock: JobLock,
    pub span: Span,
    started_at: DateTime<Utc>,
    progress: Arc<Mutex<Progress>>,
    /// What was written so far, for the report.
    windows: Mutex<Vec<Planned>>,
    heart: Mutex<Option<BeatGuard>>,
}

impl UnderWay {
    /// Takes the lock and writes the run's record; `definition` is what the job's results are made by.
    ///
    /// # Errors
    /// As [`JobLock::acquire`] and [`require_alone`].
    pub async fn begin(
        context: &Arc<Context>,
        job: &Job,
        definition: String,
        request: &Request,
        binding: &Binding,
        parent_run_id: Option<String>,
    ) -> Result<Self> {
        require_alone(&context.store, job).await?;
        let started_at = context.clock.now();
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
        log::keep(&run.run_id);
        let progress = Arc::new(Mutex::new(Progress::default()));
        let heart = beat(context, &run.run_id, &progress);
        Ok(Self {
            span: tracing::info_span!("run", run_id = run.run_id, job = job.name),
            job: job.clone(),
            definition,
            request: request.clone(),
            run_id: run.run_id,
            lock,
            started_at,
            progress,
            windows: Mutex::default(),
            heart: Mutex::new(Some(heart)),
        })
    }

    /// As `job_window` names it.
    #[must_use]
    pub fn writer<'a>(&'a self, timezone: &'a str) -> Writer<'a> {
        Writer { job: &self.job.name, run_id: &self.run_id, definition: &self.definition, timezone }
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.heart.lock().is_ok_and(|heart| heart.is_none())
    }

    /// Windows are due.
    pub fn planned(&self, windows: &[Planned]) {
        self.progress(|progress| progress.windows_planned += i64::try_from(windows.len()).unwrap_or(i64::MAX));
        if let Ok(mut known) = self.windows.lock() {
            known.extend_from_slice(windows);
        }
    }

    /// A window was written.
    pub fn written(&self, written: &Written) {
        self.progress(|progress| {
            progress.windows_done += 1;
            progress.rows_in += written.rows_in;
            progress.rows_out += written.rows_out;
            progress.quarantined_count += written.quarantined_count;
        });
    }

    fn progress(&self, change: impl FnOnce(&mut Progress)) {
        if let Ok(mut progress) = self.progress.lock() {
            change(&mut progress);
        }
    }

    /// Ends the run: records how, gives the lock back, keeps its log.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end(&self, context: &Context, failure: Option<anyhow::Error>) -> Result<JobReport> {
        drop(self.heart.lock().ok().and_then(|mut heart| heart.take()));
        let done = self.progress.lock().map_or_else(|poisoned| *poisoned.into_inner(), |progress| *progress);
        let now = context.clock.now();
        let report = JobReport {
            job: self.job.name.clone(),
            run_id: Some(self.run_id.clone()),
            windows: self.windows.lock().map(|windows| windows.clone()).unwrap_or_default(),
            windows_done: done.windows_done,
            rows_in: done.rows_in,
            rows_out: done.rows_out,
            quarantined_count: done.quarantined_count,
            duration_ms: (now - self.started_at).num_milliseconds(),
            failure,
        };
        let error_text = report.failure.as_ref().map(failure::text);
        let error_class = report.failure.as_ref().map(failure::class);
        let state = match &report.failure {
            None => RunState::Success,
            Some(error) if matches!(failure::find(error).map(|failure| failure.kind), Some(Kind::Interrupted(_))) => RunState::Interrupted,
            Some(_) => RunState::Failed,
        };
        context.store.heartbeat(&self.run_id, now, done).await?;
        let outcome = Outcome { state, error_class, error_text: error_text.as_deref() };
        abort::point("run_before_finish");
        context.store.finish_run(&self.run_id, now, self.started_at, outcome).await?;
        abort::point("run_finished");
        self.lock.release(&context.store).await?;
        abort::point("lock_released");
        (context.observe)(&Event::JobDone { job: report.job.clone() });
        self.span.in_scope(|| {
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
        log::store(&context.store, &self.run_id).await;
        abort::point("log_kept");
        Ok(report)
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
