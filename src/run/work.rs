//! One window: computed, then replaced in one transaction.

use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{Context, Operator, is_final, upstream_rows};
use crate::failure::Failure;
use crate::job::Job;
use crate::operator::sql::SqlSelect;
use crate::operator::usage_rollup::{Rollup, UsageRollup, quarantine};
use crate::plan::{Request, upstream_fingerprints};
use crate::store::Tx;
use crate::store::lock::JobLock;
use crate::store::state::{WindowState, Written};
use crate::window::Window;

/// One window's work, with everything it needs.
pub(super) struct Work {
    pub(super) context: Arc<Context>,
    pub(super) job: Job,
    pub(super) operator: Operator,
    pub(super) request: Request,
    pub(super) lock: JobLock,
    pub(super) run_id: String,
}

impl Work {
    /// Computes and replaces one window; a failure is recorded with it.
    pub(super) async fn window(&self, window: Window, before: Option<&WindowState>) -> Result<Written> {
        let result = match &self.operator {
            Operator::UsageRollup(rollup) => self.roll_up(rollup, window, before).await,
            Operator::Sql(select) => self.derive(select, window).await,
        };
        if let Err(error) = &result {
            tracing::warn!(error = format!("{error:#}"), "The window was not written");
            // A run that is to stop, or lost its lock, leaves the window due.
            if !is_final(error) {
                let state = if error.is::<RawRowsGone>() { "kept" } else { "failed" };
                self.fail(window, state, &format!("{error:#}")).await?;
            }
        }
        result
    }

    async fn fail(&self, window: Window, state: &str, error: &str) -> Result<()> {
        let timezone = self.context.config.reporting.timezone.name();
        self.context.store.fail_window(&self.job.name, window, state, error, timezone).await
    }

    async fn roll_up(&self, rollup: &UsageRollup, window: Window, before: Option<&WindowState>) -> Result<Written> {
        let store = &self.context.store;
        let as_of = self.request.as_of;
        let input_fingerprint = rollup.rules_fingerprint(window)?;
        let computed = rollup.compute(store, window, as_of, &self.context.stop).await?;
        let rows_before = before.map_or(0, |state| state.rows_in);
        if computed.rows_in == 0 && rows_before > 0 && !self.request.force && !self.request.rebuild {
            return Err(anyhow::Error::from(
                Failure::bad_data(format!("The {rows_before} raw rows of {window} are gone; its old result stays")).hint(format!(
                    "if they were deleted by mistake, restore them; to empty the window: `tallyroll run-job {} --day {window} --force`",
                    self.job.name
                )),
            )
            .context(RawRowsGone));
        }
        if window.instants(rollup.timezone)?.0 > quarantine::latest_occurred_at(as_of) {
            return self.postpone(window, &computed).await;
        }
        if let Err(error) = rollup.check_quarantine(window, &computed) {
            // What is wrong with the rows must be seen although their window is not written.
            self.quarantine(window, &computed).await?;
            return Err(error);
        }
        let now = self.context.clock.now();
        let mut tx = store.begin().await?;
        rollup.write(&mut tx, &self.job, window, &computed, &self.run_id, now).await?;
        let written = Written {
            rows_in: computed.rows_in,
            rows_out: i64::try_from(computed.rows.num_rows())?,
            quarantined_count: i64::try_from(computed.quarantined.len())?,
            input_fingerprint,
        };
        self.commit(tx, window, written, now).await
    }

    async fn derive(&self, select: &SqlSelect, window: Window) -> Result<Written> {
        let context = &self.context;
        let mut tx = context.store.begin().await?;
        // Taken before the rows are read: an upstream window that is rewritten in between makes this one due again.
        let input_fingerprint = upstream_fingerprints(context, &mut tx, &self.job).await?.remove(&window).unwrap_or_default();
        let rows_in = upstream_rows(context, &mut tx, &self.job, window).await?;
        let rows_out = select.write(&mut tx, &self.job, window, self.request.as_of).await?;
        let written = Written { rows_in, rows_out, quarantined_count: 0, input_fingerprint };
        self.commit(tx, window, written, context.clock.now()).await
    }

    async fn commit(&self, mut tx: Tx, window: Window, written: Written, now: DateTime<Utc>) -> Result<Written> {
        let timezone = self.context.config.reporting.timezone.name();
        tx.record_window(&self.job.name, window, &self.run_id, &written, timezone, now).await?;
        self.lock.assert_held(&self.context.store, &mut tx).await?;
        tx.commit().await?;
        Ok(written)
    }

    /// A window that has not begun: its events wait in the quarantine until `as_of` reaches them.
    async fn postpone(&self, window: Window, computed: &Rollup) -> Result<Written> {
        self.quarantine(window, computed).await?;
        self.fail(window, "future", "it holds only events of the future").await?;
        Ok(Written { rows_in: computed.rows_in, quarantined_count: i64::try_from(computed.quarantined.len())?, ..Written::default() })
    }

    async fn quarantine(&self, window: Window, computed: &Rollup) -> Result<()> {
        let mut tx = self.context.store.begin().await?;
        quarantine::replace(&mut tx, window, &computed.quarantined, &self.run_id, self.context.clock.now()).await?;
        self.lock.assert_held(&self.context.store, &mut tx).await?;
        tx.commit().await
    }
}

/// Marks an error: the window keeps its old result, and is not tried again until its rows change.
#[derive(Debug, Clone, Copy)]
struct RawRowsGone;

impl std::fmt::Display for RawRowsGone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Raw rows have vanished")
    }
}
