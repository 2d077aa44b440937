//! Runs that people ask for on a page: one per job at a time, and few at once.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::Scheduler;
use super::runner::Call;
use crate::store::runs::{Origin, Trigger};

/// What happened to a request for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It starts, under this id.
    Starts(String),
    /// An earlier one of this job, under this id, has not ended.
    AtWork(String),
    /// Too many of other jobs are at work.
    TooMany,
}

/// The most requested runs at once: each has connections of its own.
const AT_ONCE_MAX: usize = 4;

impl Scheduler {
    /// Starts a run that a person asked for, and returns at once. It is not a slot: nobody takes it over, and what it leaves stays due.
    pub fn ask(self: &Arc<Self>, job: &str, downstream: bool) -> Asked {
        let run_id = Uuid::now_v7().to_string();
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at_work) = asked.get(job) {
                return Asked::AtWork(at_work.clone());
            }
            if asked.len() >= AT_ONCE_MAX {
                return Asked::TooMany;
            }
            asked.insert(job.to_owned(), run_id.clone());
        }
        let place = Place { scheduler: Arc::clone(self), job: job.to_owned() };
        let call = Call {
            job: job.to_owned(),
            downstream,
            origin: Origin { trigger: Trigger::Page, ..Origin::default() },
            run_id: Some(run_id.clone()),
            lock_wait: Duration::ZERO,
            stop: self.context.stop.clone(),
        };
        tokio::spawn(async move {
            let scheduler = Arc::clone(&place.scheduler);
            let run = (scheduler.runner)(call);
            scheduler.at_work.lock().await.spawn(async move {
                let failures = match run.await {
                    Ok(reports) => reports.into_iter().filter_map(|report| report.failure).collect(),
                    Err(error) => vec![error],
                };
                for failure in &failures {
                    tracing::error!(job = place.job, error = format!("{failure:#}"), "A run that was asked for failed");
                }
            });
        });
        Asked::Starts(run_id)
    }
}

/// Keeps a run in the list of requested ones until it is over, however it ends.
struct Place {
    scheduler: Arc<Scheduler>,
    job: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.scheduler.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job);
    }
}
