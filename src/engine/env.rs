//! What every run of a process shares.

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::jobs::Jobs;
use crate::project::Project;
use crate::snapshot::storage::Storage;
use crate::store::Store;

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
    JobDone { job: String },
}
