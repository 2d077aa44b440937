//! Schedules in tests: a clock that a test sets, runners that note their calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use tallyroll::clock::Clock;
use tallyroll::jobs::Jobs;
use tallyroll::project::Project;
use tallyroll::schedule::{self, Schedule};
use tallyroll::scheduler::{Call, Runner, Scheduler};
use tokio::sync::watch;

use super::{Fixture, context_of};

/// A schedule of `usage_daily`; the settings that it does not name are none.
pub fn schedules(settings: &str) -> BTreeMap<String, Schedule> {
    let dir = tempfile::tempdir().unwrap();
    let project = Project::new(dir.path());
    std::fs::write(dir.path().join("schedules.toml"), format!("[usage_daily]\n{settings}\n")).unwrap();
    let (schedules, problems) = schedule::read(&project, &Jobs::load(&project).unwrap()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    schedules
}

impl Fixture {
    /// Has the slots of a job count from 70 days ago: two or three firsts of a month.
    pub async fn first_seen(&self, job: &str) {
        let at = tallyroll::store::format_instant(Utc::now() - TimeDelta::days(70));
        let sql = format!(
            "INSERT INTO schedule_state (job, scheduled_for, state, claimed_at, finished_at) VALUES ('{job}', '{at}', 'first_seen', '{at}', '{at}')"
        );
        self.execute(&sql).await;
    }
}

/// A clock that a test sets.
#[derive(Clone)]
pub struct Hands(Arc<AtomicI64>);

impl Hands {
    pub fn at(text: &str) -> Self {
        Self(Arc::new(AtomicI64::new(instant(text).timestamp_micros())))
    }

    pub fn set(&self, text: &str) {
        self.0.store(instant(text).timestamp_micros(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let micros = Arc::clone(&self.0);
        Clock::new(move || DateTime::from_timestamp_micros(micros.load(Ordering::SeqCst)).unwrap())
    }
}

pub fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Calls that a runner got, in order.
pub type Calls = Arc<Mutex<Vec<(DateTime<Utc>, i64)>>>;

/// A runner that notes each call and does what `act` says.
pub fn noting<F, R>(calls: &Calls, act: F) -> Runner
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let calls = Arc::clone(calls);
    let act = Arc::new(act);
    Arc::new(move |call: Call| {
        calls.lock().unwrap().push((call.origin.scheduled_for.unwrap(), call.origin.attempt));
        let act = Arc::clone(&act);
        Box::pin(async move { act(call).await.map(|()| Vec::new()) })
    })
}

/// A scheduler over the fixture's database, with a clock of its own, and what keeps its process from being asked to stop.
pub fn scheduler(fixture: &Fixture, hands: &Hands, settings: &str, runner: Runner) -> (Arc<Scheduler>, watch::Sender<Option<i32>>) {
    let (keep, stop) = watch::channel(None);
    (Arc::new(Scheduler::new(context_of(fixture, hands.clock(), stop), schedules(settings), runner)), keep)
}
