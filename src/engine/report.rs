//! What runs are told, and what they tell.

use std::time::Duration;

use serde::Serialize;

use crate::engine::request::Planned;
use crate::job::Job;
use crate::store::runs::Origin;

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
    #[must_use]
    pub fn of(job: &Job) -> Self {
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
