//! When a run is to end.

use anyhow::Result;
use tokio::sync::watch;

use crate::failure::{self, Failure, Kind};

/// Fails once a signal has asked the process to stop.
///
/// # Errors
/// [`Failure`] of kind interrupted.
pub fn check_stop(stop: &watch::Receiver<Option<i32>>) -> Result<()> {
    match *stop.borrow() {
        Some(signal) => Err(Failure::new(Kind::Interrupted(signal), "Interrupted; nothing is half-written")
            .hint("run the same command again: it does what was not done")
            .into()),
        None => Ok(()),
    }
}

/// Whether an error ends the whole run, not only one window.
#[must_use]
pub fn is_final(error: &anyhow::Error) -> bool {
    matches!(failure::find(error).map(|failure| failure.kind), Some(Kind::Interrupted(_) | Kind::TryAgain | Kind::Locked | Kind::Config))
}

/// Whether the database takes nothing more from this run: its disk is full, the connection lost, or the run is to stop.
#[must_use]
pub fn takes_nothing_more(error: &anyhow::Error) -> bool {
    matches!(failure::find(error).map(|failure| failure.kind), Some(Kind::TryAgain | Kind::Interrupted(_)))
}
