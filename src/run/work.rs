//! One window: computed, then replaced in one transaction.

use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::pass::{CarriedRows, CarryFailed, Pass};
use super::under_way::UnderWay;
use super::{Context, Operator, is_final};
use crate::abort;
use crate::failure::{self, Failure};
use crate::operator::content;
use crate::operator::peak_seats::PeakSeats;
use crate::operator::rollup::shape::{Shape, sums_of};
use crate::operator::sql::SqlSelect;
use crate::operator::usage_rollup::{Rollup, UsageRollup, quarantine};
use crate::plan::upstream_of_window;
use crate::reconcile;
use crate::snapshot::usage_monthly;
use crate::sql_text::quote_identifier;
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

    async fn fail(&self, window: Window, state: WindowState, error: &str) -> Result<()> {
        let timezone = self.context.config.reporting.timezone.name();
        let mut tx = self.context.store.begin().await?;
        tx.fail_window(&self.under_way.job.name, window, state, error, timezone).await?;
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("failure_before_commit");
        tx.commit().await?;
        abort::point("failure_committed");
        Ok(())
    }

    async fn roll_up(&self, rollup: &Arc<UsageRollup>, window: Window, before: Option<&WindowRecord>) -> Result<Written> {
        let store = &self.context.store;
        let as_of = self.under_way.request.as_of;
        let input_fingerprint = rollup.rules_fingerprint(window)?;
        let computed = Arc::new(rollup.compute(store, window, as_of, &self.context.stop).await?);
        abort::point("window_computed");
        // Written once, it is written again: what it counted may have moved.
        let is_new = before.is_none_or(|state| state.write_count == 0);
        if window.begins_after(quarantine::latest_occurred_at(as_of), rollup.timezone)?
            || (window.begins_after(as_of, rollup.timezone)? && is_new && computed.holds_only_the_future())
        {
            return self.set_aside(window, &computed, WindowState::Future, "it holds only events of the future").await;
        }
        if rollup.is_implausible(window) && is_new {
            return self.set_aside(window, &computed, WindowState::Kept, "it lies before `usage.earliest_date`").await;
        }
        if let Err(error) = self.check_raw_rows(rollup, window, before, &computed).await {
            // The quarantine says what is wrong with the rows that there are, also where their window is not written.
            self.quarantine(window, &computed).await?;
            return Err(error);
        }
        let written = Written {
            rows_in: computed.rows_in(),
            rows_out: i64::try_from(computed.groups.len())?,
            quarantined_count: i64::try_from(computed.quarantined.len())?,
            input_fingerprint,
            content: Some(content::of_sums(&sums_of(&computed.groups))),
        };
        let mut carried = match &self.pass {
            Some(pass) => pass.rows_of(window, &computed).await,
            None => Vec::new(),
        };
        let write_count = loop {
            match self.replace(rollup, window, &computed, &written, &carried).await {
                Ok(write_count) => break write_count,
                Err(error) => match (&self.pass, error.downcast_ref::<CarryFailed>()) {
                    (Some(pass), Some(failed)) => {
                        tracing::warn!(error = format!("{error:#}"), "A rollup is left to its turn");
                        pass.give_up(failed, &mut carried);
                    }
                    _ => return Err(error),
                },
            }
        };
        if let Some(pass) = &self.pass {
            pass.committed(carried, window, write_count, computed).await;
        }
        Ok(written)
    }

    /// Replaces a day's rows, and those of the rollups that are made with it, in one transaction; how often it was written now.
    async fn replace(
        &self,
        rollup: &UsageRollup,
        window: Window,
        computed: &Rollup,
        written: &Written,
        carried: &[CarriedRows],
    ) -> Result<i64> {
        let now = self.context.clock.now();
        let mut tx = self.context.store.begin().await?;
        rollup.write(&mut tx, &self.under_way.job, window, computed, &self.under_way.run_id, now).await?;
        let write_count = self.record(&mut tx, window, written, now).await?;
        if let Some(pass) = &self.pass {
            pass.write(&mut tx, carried, window, written, write_count, now).await?;
        }
        self.commit(tx).await?;
        Ok(write_count)
    }

    async fn check_raw_rows(&self, rollup: &UsageRollup, window: Window, before: Option<&WindowRecord>, computed: &Rollup) -> Result<()> {
        if !self.under_way.request.force {
            self.require_raw_rows(rollup, window, before, computed).await?;
        }
        rollup.check_quarantine(window, computed)
    }

    /// Fails where rows that a window was written from are gone: that is no change of the log.
    async fn require_raw_rows(&self, rollup: &UsageRollup, window: Window, before: Option<&WindowRecord>, computed: &Rollup) -> Result<()> {
        // Of quarantined rows nothing was written.
        let Some(before) = before.filter(|state| state.rows_in > state.quarantined_count) else { return Ok(()) };
        // In another time zone a day may rightly lose all of its events; the plan of the rebuild has looked for lost ones.
        if before.timezone != rollup.timezone.name() {
            return Ok(());
        }
        let gone = if computed.rows_in() == 0 {
            Some(format!("The {} raw rows of {window} are gone; its old result stays", before.rows_in))
        } else {
            let sql = format!(
                "SELECT DISTINCT source FROM {} WHERE usage_date = $1 ORDER BY source",
                quote_identifier(&self.under_way.job.writes)
            );
            let rows = self.context.store.query(&sql, &[window.start_date.into()]).await?;
            let sources = rows.iter().map(|row| row.text("source")).collect::<Result<Vec<_>>>()?;
            let vanished =
                sources.into_iter().find(|source| computed.rows_in_by_source.iter().any(|(name, rows)| name == source && *rows == 0));
            vanished.map(|source| format!("The raw rows of {window} in `{source}` are gone; its old result stays"))
        };
        let Some(gone) = gone else { return Ok(()) };
        let hint = format!(
            "if they were deleted by mistake, restore them; to do without them: `tallyroll run-job {} --day {window} --force`",
            self.under_way.job.name
        );
        Err(anyhow::Error::from(Failure::bad_data(gone).hint(hint)).context(RawRowsGone))
    }

    async fn derive(&self, select: &SqlSelect, shape: Option<&Shape>, window: Window) -> Result<Written> {
        let context = &self.context;
        // One snapshot: the check after the write compares what the write read.
        let mut tx = context.store.begin_snapshot().await?;
        select.lock_whole(&context.store, &mut tx, &self.under_way.job).await?;
        tx.begin_reading().await?;
        let follows = select.follows_from(&mut tx, &self.under_way.job, self.under_way.request.as_of).await?;
        tx.end_reading().await?;
        // Taken before the rows are read: an upstream window that is rewritten in between makes this one due again.
        let (input_fingerprint, rows_in) = upstream_of_window(context, &mut tx, &self.under_way.job, window, &follows).await?;
        let (job, as_of) = (&self.under_way.job, self.under_way.request.as_of);
        let in_memory = match (&self.pass, shape) {
            (Some(pass), Some(shape)) if job.window == WindowKind::Month => pass.month(&mut tx, shape, window).await?,
            _ => None,
        };
        let (rows_out, content) = match in_memory {
            Some((rows, content)) => {
                select.replace(&mut tx, job, window, &rows, as_of).await?;
                (i64::try_from(rows.num_rows())?, Some(content))
            }
            None => (select.write(&mut tx, job, window, as_of).await?, content::read(&mut tx, select, job, window).await?),
        };
        if let Some(folder) = &self.under_way.job.publish {
            // Before the commit: a run that is killed in between leaves the window due, never an old file behind a new table.
            self.under_way.lock.assert_held(&context.store, &mut tx).await?;
            usage_monthly::publish(&context.storage, &context.store, &mut tx, &self.under_way.job, folder, window).await?;
            abort::point("usage_monthly_put");
        }
        let written = Written { rows_in, rows_out, input_fingerprint, content, ..Written::default() };
        self.record(&mut tx, window, &written, context.clock.now()).await?;
        self.commit(tx).await?;
        Ok(written)
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
        if let Some(before) =
            before.filter(|before| folded.has_ended(window) && left * 2 < before.rows_out && !self.under_way.request.force)
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

    async fn record(&self, tx: &mut Tx, window: Window, written: &Written, now: DateTime<Utc>) -> Result<i64> {
        let timezone = self.context.config.reporting.timezone.name();
        let write_count = tx.record_window(self.under_way.writer(timezone), window, written, now).await?;
        abort::point("window_recorded");
        Ok(write_count)
    }

    async fn commit(&self, mut tx: Tx) -> Result<()> {
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        abort::point("window_before_commit");
        tx.commit().await?;
        abort::point("window_committed");
        Ok(())
    }

    /// A window that lies outside of the days that events may be of: its events wait in the quarantine, until `as_of` reaches
    /// them or the setting allows them.
    async fn set_aside(&self, window: Window, computed: &Rollup, state: WindowState, why: &str) -> Result<Written> {
        self.quarantine(window, computed).await?;
        self.fail(window, state, why).await?;
        Ok(Written { rows_in: computed.rows_in(), quarantined_count: i64::try_from(computed.quarantined.len())?, ..Written::default() })
    }

    async fn quarantine(&self, window: Window, computed: &Rollup) -> Result<()> {
        let mut tx = self.context.store.begin().await?;
        quarantine::replace(&mut tx, window, &computed.quarantined, &self.under_way.run_id, self.context.clock.now()).await?;
        self.under_way.lock.assert_held(&self.context.store, &mut tx).await?;
        tx.commit().await?;
        abort::point("quarantine_committed");
        Ok(())
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
