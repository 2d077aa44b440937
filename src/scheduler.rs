//! Running the slots of the schedules: each once, however many schedulers there are (`docs/interface.md`, "Schedules").
//!
//! A tick finds the slots that are due (`slot.rs`), claims them in `schedule_state` (`claim.rs`) and has each job's slots run one after
//! the other (`supervise.rs`). Cron fire times only wake it up: the table and the clock say what is due.

pub mod asked;
mod claim;
mod notify;
pub mod runner;
pub mod slot;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use self::claim::Claim;
use self::notify::{Notice, Notifier};
pub use self::runner::{Call, Runner};
use self::slot::{Known, SlotOutcome, SlotState};
use self::supervise::Ended;
use crate::engine::env::Context;
use crate::engine::stop::check_stop;
use crate::job::OperatorKind;
use crate::jobs::Jobs;
use crate::schedule::Schedule;

/// The schedules of a project, and the slots that are at work.
pub struct Scheduler {
    context: Arc<Context>,
    schedules: BTreeMap<String, Schedule>,
    runner: Runner,
    notifier: Notifier,
    at_work: Mutex<JoinSet<()>>,
    /// Whether anything failed since this was last asked.
    any_failed: AtomicBool,
    /// Claims that this process is working on, so that it does not take them over from itself.
    claims: std::sync::Mutex<BTreeSet<String>>,
    /// Runs that people asked for and that have not ended, by job.
    asked: std::sync::Mutex<BTreeMap<String, String>>,
    tidied_at: std::sync::Mutex<Option<DateTime<Utc>>>,
}

/// What a tick did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ticked {
    /// Slots that now run, as (job, slot).
    pub started: Vec<(String, DateTime<Utc>)>,
    /// Slots that will never run, as (job, slot, `missed` or `skipped`).
    pub passed_over: Vec<(String, DateTime<Utc>, &'static str)>,
    /// When the first slot begins that is only waiting for its jitter.
    pub next_at: Option<DateTime<Utc>>,
}

/// How often to check whether the work at hand has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A job that keeps failing is reported again after this long.
const TELL_AGAIN_AFTER: TimeDelta = TimeDelta::hours(1);
/// How often to look for old history.
const TIDY_EVERY: TimeDelta = TimeDelta::hours(1);

/// A slot that is not done this long after its timeout is overdue.
const OVERDUE_AFTER: TimeDelta = TimeDelta::minutes(5);

impl Scheduler {
    #[must_use]
    pub fn new(context: Arc<Context>, schedules: BTreeMap<String, Schedule>, runner: Runner) -> Self {
        let notifier = Notifier::new(context.config.notify.webhook_url.clone());
        Self {
            context,
            schedules,
            runner,
            notifier,
            at_work: Mutex::new(JoinSet::new()),
            any_failed: AtomicBool::new(false),
            claims: std::sync::Mutex::default(),
            asked: std::sync::Mutex::default(),
            tidied_at: std::sync::Mutex::default(),
        }
    }

    /// Claims what is due and starts it; returns at once.
    ///
    /// # Errors
    /// What the database says about a job, after all other jobs were looked at.
    pub async fn tick(self: &Arc<Self>) -> Result<Ticked> {
        let mut ticked = Ticked::default();
        self.reap(&mut *self.at_work.lock().await);
        let mut problem = None;
        for (job, schedule) in &self.schedules {
            if let Err(error) = self.look(job, schedule, &mut ticked).await {
                tracing::error!(job, error = format!("{error:#}"), "A schedule could not be looked at");
                problem.get_or_insert(error);
            }
        }
        problem.map_or(Ok(ticked), Err)
    }

    async fn look(self: &Arc<Self>, job: &str, schedule: &Schedule, ticked: &mut Ticked) -> Result<()> {
        let now = self.context.clock.now();
        let mine = self.claims.lock().map(|claims| claims.clone()).unwrap_or_default();
        if let Some(taken) = claim::take_over(&self.context, job, schedule, &mine, now).await? {
            for (slot, attempts) in taken.given_up {
                let error_text = format!("The process at work on it ended {attempts} times");
                let outcome = SlotOutcome { state: SlotState::Failed, run_id: None, error_text: Some(error_text), attempts };
                self.record(&taken.claim, slot, &outcome).await?;
            }
            self.start(taken.claim, ticked).await;
            return Ok(());
        }
        let known = claim::known(&self.context, job, now).await?;
        self.tell_if_overdue(job, schedule, &known, now).await?;
        let decided = slot::decide(job, schedule, &known, now);
        ticked.next_at = ticked.next_at.into_iter().chain(decided.next_at).min();
        let (claim, passed_over) = claim::take(&self.context, job, &decided.slots, now).await?;
        ticked.passed_over.extend(passed_over.into_iter().map(|(slot, fate)| (job.to_owned(), slot, fate.state().name())));
        if let Some(claim) = claim {
            self.start(claim, ticked).await;
        }
        Ok(())
    }

    /// Waits until nothing is at work. Returns whether every slot that ran since the last call went well.
    pub async fn finish(&self) -> bool {
        loop {
            {
                // Not held while waiting: work that ends may want to send a notice.
                let mut at_work = self.at_work.lock().await;
                self.reap(&mut at_work);
                if at_work.is_empty() {
                    return !self.any_failed.swap(false, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Forgets what has ended; a task that died has failed.
    fn reap(&self, at_work: &mut JoinSet<()>) {
        while let Some(ended) = at_work.try_join_next() {
            if ended.is_err() {
                self.any_failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Cuts off all work. The database rolls it back, and another scheduler takes the slots over.
    pub async fn abort(&self) {
        self.at_work.lock().await.shutdown().await;
    }

    async fn start(self: &Arc<Self>, claim: Claim, ticked: &mut Ticked) {
        let Some(schedule) = self.schedules.get(&claim.job).cloned().filter(|_| !claim.slots.is_empty()) else { return };
        ticked.started.extend(claim.slots.iter().map(|(slot, _)| (claim.job.clone(), *slot)));
        if let Ok(mut claims) = self.claims.lock() {
            claims.insert(claim.id.clone());
        }
        let scheduler = Arc::clone(self);
        self.at_work.lock().await.spawn(async move {
            let all_well = scheduler.work(&claim, &schedule).await.unwrap_or_else(|error| {
                tracing::error!(job = claim.job, error = format!("{error:#}"), "What came of a slot could not be recorded");
                false
            });
            if let Ok(mut claims) = scheduler.claims.lock() {
                claims.remove(&claim.id);
            }
            if !all_well {
                scheduler.any_failed.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Runs the slots of a claim one after the other. Returns whether all went well.
    async fn work(&self, claim: &Claim, schedule: &Schedule) -> Result<bool> {
        let beating = claim::beat(&self.context, claim);
        let mut all_well = true;
        for (slot, attempt) in &claim.slots {
            if check_stop(&self.context.stop).is_err() {
                drop(beating);
                claim::release(&self.context, claim, None).await?;
                return Ok(false);
            }
            let is_ours = match supervise::run_slot(&self.context, &self.runner, claim, schedule, (*slot, *attempt)).await? {
                Ended::WithOutcome(outcome) => {
                    all_well &= outcome.state != SlotState::Failed;
                    self.record(claim, *slot, &outcome).await?
                }
                Ended::Interrupted => {
                    // A later heartbeat would undo the release.
                    drop(beating);
                    claim::release(&self.context, claim, Some(*slot)).await?;
                    return Ok(false);
                }
                Ended::Lost => false,
            };
            if !is_ours {
                tracing::warn!(job = claim.job, "A slot was taken over by another scheduler; what came of it here does not count");
                return Ok(false);
            }
        }
        drop(beating);
        if let Err(error) = self.tidy().await {
            tracing::warn!(error = format!("{error:#}"), "Old history could not be deleted");
        }
        Ok(all_well)
    }

    /// Records what came of a slot and sends a notice if it is news; false if another scheduler has taken the slot over.
    async fn record(&self, claim: &Claim, slot: DateTime<Utc>, outcome: &SlotOutcome) -> Result<bool> {
        let now = self.context.clock.now();
        let before = claim::last_ended(&self.context, &claim.job, slot).await?;
        if !claim::finish(&self.context, claim, slot, outcome, now).await? {
            return Ok(false);
        }
        let notice = match (outcome.state, before) {
            (SlotState::Failed, _) => Notice::Failed { text: outcome.error_text.clone().unwrap_or_default(), attempts: outcome.attempts },
            (SlotState::Success, Some(SlotState::Failed)) => Notice::Recovered,
            _ => return Ok(true),
        };
        // A job that keeps failing is reported again, but not every minute.
        let is_known =
            before == Some(outcome.state) && claim::is_told_since(&self.context, &claim.job, notice.kind(), now - TELL_AGAIN_AFTER).await?;
        if !is_known {
            self.tell(&claim.job, slot, notice).await?;
        }
        Ok(true)
    }

    async fn tell_if_overdue(&self, job: &str, schedule: &Schedule, known: &Known, now: DateTime<Utc>) -> Result<()> {
        let patience = TimeDelta::from_std(schedule.timeout).unwrap_or_default() + TimeDelta::from_std(schedule.jitter).unwrap_or_default();
        let Some(latest) = known.latest else { return Ok(()) };
        // The newest slot that should have ended by now, had it begun in time.
        let Some(slot) = schedule.slots(latest - TimeDelta::microseconds(1), now - patience - OVERDUE_AFTER).pop() else { return Ok(()) };
        let is_handled = slot == latest && !known.is_busy;
        if is_handled || claim::is_overdue_told(&self.context, job).await? {
            return Ok(());
        }
        self.tell(job, slot, Notice::Overdue { slot }).await
    }

    /// Sends a notice, unless another scheduler has sent it. A receiver that hangs blocks nobody.
    async fn tell(&self, job: &str, slot: DateTime<Utc>, notice: Notice) -> Result<()> {
        if claim::notice(&self.context, job, slot, notice.kind()).await? {
            let (notifier, job) = (self.notifier.clone(), job.to_owned());
            self.at_work.lock().await.spawn(async move {
                notifier.send(&job, &notice).await;
            });
        }
        Ok(())
    }

    /// Deletes history older than `history.keep_days`, at most once an hour. Successful runs of billing jobs are kept forever.
    async fn tidy(&self) -> Result<()> {
        let now = self.context.clock.now();
        if let Ok(mut tidied_at) = self.tidied_at.lock() {
            if tidied_at.is_some_and(|at| now - at < TIDY_EVERY) {
                return Ok(());
            }
            *tidied_at = Some(now);
        }
        let cutoff = now - TimeDelta::days(self.context.config.history.keep_days.into());
        claim::forget(&self.context, &billing_jobs(&self.context.jobs), cutoff).await
    }
}

/// Jobs whose results are billed.
fn billing_jobs(jobs: &Jobs) -> Vec<String> {
    jobs.iter().filter(|job| job.operator == OperatorKind::PeakSeats).map(|job| job.name.clone()).collect()
}
