//! One window's work: what an operator is given to write it, and how its outcome is kept.

use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::env::Context;
use super::under_way::UnderWay;
use crate::abort;
use crate::store::Tx;
use crate::store::windows::{WindowState, Written};
use crate::window::Window;

/// One window's work, with everything it needs.
#[derive(Clone)]
pub struct Work {
    pub context: Arc<Context>,
    pub under_way: Arc<UnderWay>,
}

impl Work {
    /// Notes that a window was not written.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fail(&self, window: Window, state: WindowState, error: &str) -> Result<()> {
        let timezone = self.context.config.reporting.timezone.name();
        let mut tx = self.context.store.begin().await?;
        tx.fail_window(&self.under_way.job.name, window, state, error, timezone).await?;
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("failure_before_commit");
        tx.commit().await?;
        abort::point("failure_committed");
        Ok(())
    }

    /// Notes what was written of a window, in the transaction that wrote it; how often it was written now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record(&self, tx: &mut Tx, window: Window, written: &Written, now: DateTime<Utc>) -> Result<i64> {
        let timezone = self.context.config.reporting.timezone.name();
        let write_count = tx.record_window(self.under_way.writer(timezone), window, written, now).await?;
        abort::point("window_recorded");
        Ok(write_count)
    }

    /// Commits what was written of a window, if the run's lock is still held.
    ///
    /// # Errors
    /// What the database says; [`Failure`](crate::failure::Failure) of kind try-again where the lock is lost.
    pub async fn commit(&self, mut tx: Tx) -> Result<()> {
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("window_before_commit");
        tx.commit().await?;
        abort::point("window_committed");
        Ok(())
    }
}

/// Marks an error: the window keeps its old result, and is not tried again until its rows change.
#[derive(Debug, Clone, Copy)]
pub struct RawRowsGone;

impl std::fmt::Display for RawRowsGone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Raw rows have vanished")
    }
}
