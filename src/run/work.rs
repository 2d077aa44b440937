//! One window: computed, then replaced in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use super::pass::Pass;
use super::under_way::UnderWay;
use crate::abort;
use crate::engine::env::Context;
use crate::engine::stop::is_final;
use crate::failure::{self, Failure};
use crate::operator::Operator;
use crate::operator::content;
use crate::operator::peak_seats::PeakSeats;
use crate::operator::rollup::from_table;
use crate::operator::rollup::shape::Shape;
use crate::operator::sql::SqlSelect;
use crate::plan::derived::upstream_of_window;
use crate::reconcile;
use crate::snapshot::usage_monthly;
use crate::store::Tx;
use crate::store::windows::{WindowRecord, WindowState, Written};
use crate::usage_dashboard;
use crate::window::{Window, WindowKind};

/// One window's work, with everything it needs.
pub(super) struct Work {
    pub(super) context: Arc<Context>,
    pub(super) under_way: Arc<UnderWay>,
    pub(super) pass: Option<Arc<Pass>>,
}

impl Work {
    /// Computes and replaces one window; a failure is recorded with it.
    pub(super) async fn window(&self, window: Window, before: Option<&WindowRecord>) -> Result<Written> {
        let result = match &self.under_way.operator {
            Operator::UsageRollup(rollup) => self.roll_up(rollup, window, before).await,
            Operator::Rollup(rollup) => self.derive(&rollup.select, rollup.shape.as_ref(), window).await,
            Operator::Sql(select) => self.derive(select, None, window).await,
            Operator::PeakSeats(peak_seats) => self.bill(peak_seats, window, before).await,
            Operator::Reconcile => self.reconcile(window).await,
            Operator::UsageDashboard => self.keep_dashboards(window).await,
        };
        if let Err(error) = &result {
            tracing::warn!(error = format!("{error:#}"), "The window was not written");
            // A run that is to stop, or lost its lock, leaves the window due.
            if !is_final(error) {
                let state = if error.is::<RawRowsGone>() { WindowState::Kept } else { WindowState::Failed };
                self.fail(window, state, &failure::text(error)).await?;
            }
        }
        result
    }

    pub(super) async fn fail(&self, window: Window, state: WindowState, error: &str) -> Result<()> {
        let timezone = self.context.config.reporting.timezone.name();
        let mut tx = self.context.store.begin().await?;
        tx.fail_window(&self.under_way.job.name, window, state, error, timezone).await?;
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("failure_before_commit");
        tx.commit().await?;
        abort::point("failure_committed");
        Ok(())
    }

    async fn derive(&self, select: &SqlSelect, shape: Option<&Shape>, window: Window) -> Result<Written> {
        let context = &self.context;
        // One snapshot: the check after the write compares what the write read.
        let mut tx = context.store.begin_snapshot().await?;
        select.lock_whole(&mut tx, &self.under_way.job).await?;
        tx.begin_reading().await?;
        let follows = select.follows_from(&mut tx, &self.under_way.job, self.under_way.request.as_of).await?;
        tx.end_reading().await?;
        // Taken before the rows are read: an upstream window that is rewritten in between makes this one due again.
        let (input_fingerprint, rows_in) = upstream_of_window(context, &mut tx, &self.under_way.job, window, &follows).await?;
        let (job, as_of) = (&self.under_way.job, self.under_way.request.as_of);
        let made = match shape {
            Some(shape) => self.made_in_memory(&mut tx, shape, window, rows_in).await?,
            None => None,
        };
        let (rows_out, noted) = match made {
            Some((rows, noted)) => {
                select.replace(&mut tx, job, window, &rows, as_of).await?;
                (i64::try_from(rows.num_rows())?, Some(noted))
            }
            None => (select.write(&mut tx, job, window, as_of).await?, content::read(&mut tx, select, job, window).await?),
        };
        if let Some(folder) = &self.under_way.job.publish {
            // Before the commit: a run that is killed in between leaves the window due, never an old file behind a new table.
            self.under_way.lock.assert_held(&context.store, &mut tx).await?;
            usage_monthly::publish(&context.storage, &context.store, &mut tx, &self.under_way.job, folder, window).await?;
            abort::point("usage_monthly_put");
        }
        let written = Written { rows_in, rows_out, input_fingerprint, content: noted, ..Written::default() };
        self.record(&mut tx, window, &written, context.clock.now()).await?;
        self.commit(tx).await?;
        Ok(written)
    }

    /// A rollup's rows, and what they come to, where they are not left to the database.
    async fn made_in_memory(&self, tx: &mut Tx, shape: &Shape, window: Window, rows_in: i64) -> Result<Option<(RecordBatch, String)>> {
        match &self.pass {
            Some(pass) if self.under_way.job.window == WindowKind::Month => pass.month(tx, shape, window, rows_in).await,
            _ => match from_table::read(tx, &shape.reads, &shape.level(), window, rows_in).await? {
                Some(folded) => folded.rows(shape, window.start_date).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Publishes a billing month, then replaces its rows. A run that is killed in between leaves the month due; the next one
    /// finds the journal as it is and ends in the same files.
    async fn bill(&self, peak_seats: &PeakSeats, window: Window, before: Option<&WindowRecord>) -> Result<Written> {
        let store = &self.context.store;
        let folded = peak_seats.planned()?;
        let month = folded.month(window)?;
        // A count is in force until the next one: a row that is gone makes its month and every later one doubtful.
        if let Some((first, had)) = folded.vanished.filter(|(first, _)| *first <= window && !self.under_way.request.force) {
            let gone = had - folded.month(first)?.ledger_rows;
            let hint = format!(
                "the ledger is append-only: restore them; to bill without them: `tallyroll run-job {} --force`",
                self.under_way.job.name
            );
            let failure =
                Failure::bad_data(format!("{gone} of the {had} ledger rows of {first} are gone; the old result of {window} stays"));
            return Err(anyhow::Error::from(failure.hint(hint)).context(RawRowsGone));
        }
        // What cannot be billed now is not gone.
        let left = month.row_count + peak_seats.isolated_rows(store, window).await?.0;
        let before = before.filter(|before| left * 2 < before.rows_out && !self.under_way.request.force);
        if let Some(before) = before
            && (folded.has_ended(window) || self.lost_subscriptions(peak_seats, window, before).await?)
        {
            let gone =
                format!("Only {left} of the {} rows of {window} are left: subscriptions are gone; its old result stays", before.rows_out);
            let hint =
                format!("restore them; to bill without them: `tallyroll run-job {} --month {window} --force`", self.under_way.job.name);
            return Err(anyhow::Error::from(Failure::bad_data(gone).hint(hint)).context(RawRowsGone));
        }
        let billed = peak_seats.seal(window, store, &self.under_way.lock, self.under_way.request.force).await?;
        abort::point("month_sealed");
        let now = self.context.clock.now();
        let mut tx = store.begin().await?;
        let rows_out = peak_seats.write(store, &mut tx, &self.under_way.lock, window, &billed, now).await?;
        let written = Written {
            rows_in: month.ledger_rows,
            rows_out: i64::try_from(rows_out)?,
            input_fingerprint: month.fingerprint(),
            ..Written::default()
        };
        self.record(&mut tx, window, &written, now).await?;
        self.commit(tx).await?;
        Ok(written)
    }

    /// Whether more than half of the rows of an open month are of subscriptions that are gone. One that ends earlier now has moved to
    /// another month, and as of an earlier instant than it was written as of a month rightly holds less.
    async fn lost_subscriptions(&self, peak_seats: &PeakSeats, window: Window, before: &WindowRecord) -> Result<bool> {
        let store = &self.context.store;
        let sql = "SELECT as_of FROM job_run WHERE run_id = $1";
        let rows = store.query(sql, &[before.run_id.as_deref().unwrap_or_default().into()]).await?;
        let written = rows.first().map(|row| row.instant("as_of")).transpose()?;
        if written.is_some_and(|as_of| as_of > self.under_way.request.as_of) {
            return Ok(false);
        }
        let (there, bad) = peak_seats.source.subscriptions(&mut store.begin_read().await?, self.context.clock.now()).await?;
        let known: BTreeSet<&str> =
            there.iter().map(|subscription| subscription.id.as_str()).chain(bad.iter().map(|bad| bad.id.as_str())).collect();
        let sql = "SELECT subscription_id, COUNT(*) AS row_count FROM peak_seats WHERE billing_month = $1 GROUP BY subscription_id";
        let mut gone = 0;
        for row in store.query(sql, &[window.to_string().into()]).await? {
            if !known.contains(row.text("subscription_id")?.as_str()) {
                gone += row.int("row_count")?;
            }
        }
        Ok(gone * 2 > before.rows_out)
    }

    /// Computes the admin's dashboards and replaces them.
    async fn keep_dashboards(&self, window: Window) -> Result<Written> {
        let context = &self.context;
        let mut tx = context.store.begin_snapshot().await?;
        let follows = [usage_dashboard::follows_from(&context.config, self.under_way.request.as_of)?];
        let (input_fingerprint, rows_in) = upstream_of_window(context, &mut tx, &self.under_way.job, window, &follows).await?;
        let rows_out = usage_dashboard::write(&context.store, &mut tx, &context.config, self.under_way.request.as_of).await?;
        let written = Written { rows_in, rows_out, input_fingerprint, ..Written::default() };
        self.record(&mut tx, window, &written, context.clock.now()).await?;
        self.commit(tx).await?;
        Ok(written)
    }

    /// Checks everything and keeps what does not hold; any of it fails the window.
    async fn reconcile(&self, window: Window) -> Result<Written> {
        let report = reconcile::run(&self.context, &reconcile::Range::default(), self.under_way.request.as_of).await?;
        let mut tx = self.context.store.begin().await?;
        reconcile::write(&mut tx, &report).await?;
        abort::point("reconciliation_written");
        if let Some(failure) = report.failure() {
            self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
            tx.commit().await?;
            return Err(failure);
        }
        let written = Written { rows_in: report.compared_count(), ..Written::default() };
        self.record(&mut tx, window, &written, self.context.clock.now()).await?;
        self.commit(tx).await?;
        Ok(written)
    }

    pub(super) async fn record(&self, tx: &mut Tx, window: Window, written: &Written, now: DateTime<Utc>) -> Result<i64> {
        let timezone = self.context.config.reporting.timezone.name();
        let write_count = tx.record_window(self.under_way.writer(timezone), window, written, now).await?;
        abort::point("window_recorded");
        Ok(write_count)
    }

    pub(super) async fn commit(&self, mut tx: Tx) -> Result<()> {
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("window_before_commit");
        tx.commit().await?;
        abort::point("window_committed");
        Ok(())
    }
}

/// Marks an error: the window keeps its old result, and is not tried again until its rows change.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRowsGone;

impl std::fmt::Display for RawRowsGone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Raw rows have vanished")
    }
}
