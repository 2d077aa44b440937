//! One slot: its tries with pauses between them. Each try has a time limit, and none can take the scheduler down with it.

use std::time::Duration;

use anyhow::{Result, anyhow};
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use super::claim::{self, Claim};
use super::runner::{Call, Runner};
use super::slot::{SlotOutcome, SlotState};
use crate::engine::env::Context;
use crate::engine::log;
use crate::engine::report::JobReport;
use crate::failure::{self, Failure, Kind};
use crate::schedule::{Overlap, Schedule};
use crate::store::runs::{Origin, Trigger};

/// How the work on a slot ended.
pub(super) enum Ended {
    WithOutcome(SlotOutcome),
    /// A signal asked the process to stop.
    Interrupted,
    /// Another scheduler has taken the slot over.
    Lost,
}

/// How long a run may take to end after it was asked to, before it is cut off.
const GRACE: Duration = Duration::from_secs(10);

/// Sent to a run that has timed out, in place of a signal's number.
const TIMED_OUT: i32 = 0;

/// Runs a slot until it succeeds, fails for good, or its tries are used up.
///
/// # Errors
/// What the database says about the slot itself.
pub(super) async fn run_slot(
    context: &Context,
    runner: &Runner,
    claim: &Claim,
    schedule: &Schedule,
    (slot, first_attempt): (DateTime<Utc>, i64),
) -> Result<Ended> {
    let last_attempt = (i64::from(schedule.settings.retries.max) + 1).max(first_attempt);
    let mut attempt = first_attempt;
    loop {
        let with_outcome = |state, run_id, error: Option<&anyhow::Error>| {
            Ok(Ended::WithOutcome(SlotOutcome { state, run_id, error_text: error.map(failure::text), attempts: attempt }))
        };
        if !claim::begin(context, claim, slot, attempt).await? {
            return Ok(Ended::Lost);
        }
        let origin = Origin { trigger: Trigger::Schedule, scheduled_for: Some(slot), attempt };
        let error = match attempt_once(context, runner, claim, schedule, &origin).await {
            Ok(run_id) => return with_outcome(SlotState::Success, run_id, None),
            Err(error) => error,
        };
        match failure::find(&error).map(|failure| failure.kind) {
            Some(Kind::Interrupted(_)) => return Ok(Ended::Interrupted),
            // Somebody runs the job by hand or downstream of another. The lock of a job downstream of this one does not count.
            Some(Kind::Locked) if schedule.settings.overlap == Overlap::Skip && attempt == 1 && error.is::<Failure>() => {
                return with_outcome(SlotState::Skipped, None, Some(&error));
            }
            Some(Kind::TryAgain | Kind::Locked) if attempt < last_attempt => {
                let pause = schedule.backoff * 2_u32.saturating_pow(u32::try_from(attempt - first_attempt).unwrap_or(u32::MAX).min(10));
                tracing::warn!(job = claim.job, attempt, error = format!("{error:#}"), pause_seconds = pause.as_secs(), "Trying again");
                if !pause_unless_stopped(context.stop.clone(), pause).await {
                    return Ok(Ended::Interrupted);
                }
                attempt += 1;
            }
            _ => {
                tracing::error!(job = claim.job, attempt, error = format!("{error:#}"), "A scheduled run failed");
                return with_outcome(SlotState::Failed, None, Some(&error));
            }
        }
    }
}

/// One try, in a task of its own. Returns the id of its run, if anything was due.
async fn attempt_once(context: &Context, runner: &Runner, claim: &Claim, schedule: &Schedule, origin: &Origin) -> Result<Option<String>> {
    let (stop, stopped) = watch::channel(None);
    let lease = Duration::from_secs(context.config.engine.lock_lease_seconds.into());
    let lock_wait = match schedule.settings.overlap {
        Overlap::Queue => schedule.timeout,
        // A run that was cut off elsewhere holds its lock a little longer than its slot.
        Overlap::Skip if origin.attempt > 1 => lease + lease / 2,
        Overlap::Skip => Duration::ZERO,
    };
    let root_id = Uuid::now_v7().to_string();
    let call = Call {
        job: claim.job.clone(),
        downstream: schedule.settings.downstream,
        origin: origin.clone(),
        run_id: Some(root_id.clone()),
        lock_wait,
        stop: stopped,
    };
    let runner = runner.clone();
    let mut task = AbortOnDrop(tokio::spawn(async move { runner(call).await }));
    let mut process_stop = context.stop.clone();
    let timeout = tokio::time::sleep(lock_wait + schedule.timeout);
    tokio::pin!(timeout);
    let mut is_stopping = false;
    // Only the task's handle is waited for here: a connection is never cut off on its own, only with its whole run.
    let joined = loop {
        tokio::select! {
            joined = &mut task.0 => break Some(joined),
            () = &mut timeout => {
                stop.send_replace(Some(TIMED_OUT));
                break None;
            }
            signal = signal_of(&mut process_stop), if !is_stopping => {
                stop.send_replace(Some(signal));
                is_stopping = true;
            }
        }
    };
    let Some(joined) = joined else {
        if tokio::time::timeout(GRACE, &mut task.0).await.is_err() {
            task.0.abort();
        }
        let error = anyhow!("It ran longer than its timeout of {}", schedule.settings.timeout);
        fail(context, &root_id, "timeout", &error).await;
        return Err(error);
    };
    match joined {
        Ok(result) => outcome_of(result?),
        Err(died) => {
            let error = anyhow!("It panicked: {}", panic_text(died));
            fail(context, &root_id, "panic", &error).await;
            Err(error)
        }
    }
}

/// Ends the records of runs that could not end themselves, and keeps their log lines.
async fn fail(context: &Context, root_id: &str, class: &str, error: &anyhow::Error) {
    match context.store.fail_runs(root_id, context.clock.now(), class, &failure::text(error)).await {
        Ok(run_ids) => {
            for run_id in run_ids {
                log::store(&context.store, &run_id).await;
            }
        }
        Err(error) => tracing::warn!(error = format!("{error:#}"), "The record of a run that was cut off could not be ended"),
    }
}

/// The first failure of the runs, else the id of the slot's own run.
fn outcome_of(reports: Vec<JobReport>) -> Result<Option<String>> {
    let run_id = reports.first().and_then(|report| report.run_id.clone());
    for report in reports {
        if let Some(failure) = report.failure {
            return Err(failure.context(format!("Job `{}` failed", report.job)));
        }
    }
    Ok(run_id)
}

/// The number of the signal that asks the process to stop, once one does.
async fn signal_of(stop: &mut watch::Receiver<Option<i32>>) -> i32 {
    match stop.wait_for(Option::is_some).await.map(|signal| *signal) {
        Ok(Some(signal)) => signal,
        // Nobody is left to ask.
        _ => std::future::pending().await,
    }
}

/// Whether the pause passed without a signal.
async fn pause_unless_stopped(mut stop: watch::Receiver<Option<i32>>, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        _ = signal_of(&mut stop) => false,
    }
}

fn panic_text(died: tokio::task::JoinError) -> String {
    let Ok(payload) = died.try_into_panic() else { return "it was cut off".to_owned() };
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

/// A task that is aborted when nobody waits for it any more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
