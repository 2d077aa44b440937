//! What every page works with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::auth::Auth;
use crate::engine::env::Context;
use crate::schedule::Schedule;
use crate::scheduler::asked::Asked;

/// Starts a run of a job, and of the jobs that read it where the flag is set.
pub type Starter = Arc<dyn Fn(&str, bool) -> Result<Asked> + Send + Sync>;

/// Shared by all requests.
pub struct App {
    pub context: Arc<Context>,
    pub schedules: BTreeMap<String, Schedule>,
    pub auth: Auth,
    pub starter: Starter,
    /// When the scheduler last showed that it lives, in microseconds of the Unix epoch.
    pub heartbeat_micros: Arc<AtomicI64>,
}

impl App {
    /// When the scheduler last showed that it lives.
    #[must_use]
    pub fn heartbeat_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.heartbeat_micros.load(Ordering::Relaxed)).unwrap_or_default()
    }
}
