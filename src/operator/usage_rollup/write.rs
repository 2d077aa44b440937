//! A day of the raw log: computed, then replaced together with the rollups that fall out of it.

use std::sync::Arc;

use anyhow::Result;

use super::{Rollup, UsageRollup, quarantine};
use crate::abort;
use crate::engine::stop::takes_nothing_more;
use crate::engine::work::{RawRowsGone, Work};
use crate::failure::Failure;
use crate::operator::content;
use crate::operator::pass::{CarriedRows, CarryFailed, Pass};
use crate::show::counted;
use crate::sql_text::quote_identifier;
use crate::store::windows::{WindowRecord, WindowState, Written};
use crate::window::Window;

/// A day on its way into its table.
struct DayWork<'a> {
    work: &'a Work,
    pass: Option<&'a Arc<Pass>>,
    rollup: &'a Arc<UsageRollup>,
    window: Window,
}

/// Computes and replaces one day.
///
/// # Errors
/// What database and sources say; [`Failure`] of kind bad-data where rows are gone, or too many are quarantined.
pub(in crate::operator) async fn write(
    rollup: &Arc<UsageRollup>,
    work: &Work,
    pass: Option<&Arc<Pass>>,
    window: Window,
    before: Option<&WindowRecord>,
) -> Result<Written> {
    DayWork { work, pass, rollup, window }.write(before).await
}

impl DayWork<'_> {
    async fn write(&self, before: Option<&WindowRecord>) -> Result<Written> {
        let Self { work, rollup, window, .. } = *self;
        let store = &work.context.store;
        let as_of = work.under_way.request.as_of;
        let input_fingerprint = rollup.rules_fingerprint(window)?;
        let computed = Arc::new(rollup.compute(store, window, as_of, &work.context.stop).await?);
        rollup.require_each_once(window, &computed)?;
        abort::point("window_computed");
        // Written once, it is written again: what it counted may have moved.
        let is_new = before.is_none_or(|state| state.write_count == 0);
        if window.begins_after(quarantine::latest_occurred_at(as_of), rollup.timezone)?
            || (window.begins_after(as_of, rollup.timezone)? && is_new && computed.holds_only_the_future())
        {
            return self.set_aside(&computed, WindowState::Future, "it holds only events of the future").await;
        }
        if rollup.is_implausible(window) && is_new {
            return self.set_aside(&computed, WindowState::Kept, "it lies before `usage.earliest_date`").await;
        }
        if let Err(error) = self.check_raw_rows(before, &computed).await {
            // The quarantine says what is wrong with the rows that there are, also where their window is not written.
            self.quarantine(&computed).await?;
            return Err(error);
        }
        let written = Written {
            rows_in: computed.rows_in(),
            rows_out: i64::try_from(computed.groups.len())?,
            quarantined_count: i64::try_from(computed.quarantined.len())?,
            input_fingerprint,
            content: Some(content::of_sums(&computed.sums)),
        };
        let mut carried = match self.pass {
            Some(pass) => pass.rows_of(window, &computed).await?,
            None => Vec::new(),
        };
        let write_count = loop {
            match self.replace(&computed, &written, &carried).await {
                Ok(write_count) => break write_count,
                // A full disk or a lost connection is nobody's fault, and ends the run.
                Err(error) if takes_nothing_more(&error) => return Err(error),
                Err(error) => match (self.pass, error.downcast_ref::<CarryFailed>()) {
                    (Some(pass), Some(failed)) => {
                        tracing::warn!(error = format!("{error:#}"), "A rollup is left to its turn");
                        pass.give_up(failed, &mut carried);
                    }
                    _ => return Err(error),
                },
            }
        };
        if let Some(pass) = self.pass {
            pass.committed(carried, window, write_count, computed).await;
        }
        Ok(written)
    }

    /// Replaces a day's rows, and those of the rollups that are made with it, in one transaction; how often it was written now.
    async fn replace(&self, computed: &Rollup, written: &Written, carried: &[CarriedRows]) -> Result<i64> {
        let Self { work, rollup, window, .. } = *self;
        let now = work.context.clock.now();
        let mut tx = work.context.store.begin().await?;
        rollup.replace_rows(&mut tx, &work.under_way.job, window, computed, &work.under_way.run_id, now).await?;
        let write_count = work.record(&mut tx, window, written, now).await?;
        if let Some(pass) = self.pass {
            pass.write(&mut tx, carried, window, written, write_count, now).await?;
        }
        work.commit(tx).await?;
        Ok(write_count)
    }

    async fn check_raw_rows(&self, before: Option<&WindowRecord>, computed: &Rollup) -> Result<()> {
        if !self.work.under_way.request.force {
            self.require_allowed_day(before)?;
            self.require_raw_rows(before, computed).await?;
        }
        self.rollup.check_quarantine(self.window, computed)
    }

    /// Fails where the setting that says which days there are would empty one that was written.
    fn require_allowed_day(&self, before: Option<&WindowRecord>) -> Result<()> {
        let (window, rollup) = (self.window, self.rollup);
        let Some(before) = before.filter(|state| rollup.is_implausible(window) && state.rows_in > state.quarantined_count) else {
            return Ok(());
        };
        let what = format!(
            "`usage.earliest_date` = {} would empty {window}, which was written from {}; its old result stays",
            rollup.earliest_date,
            counted(before.rows_in - before.quarantined_count, "event")
        );
        let job = &self.work.under_way.job.name;
        let hint = format!("set it back; to give the day up: `tallyroll run-job {job} --day {window} --force`");
        Err(Failure::bad_data(what).hint(hint).into())
    }

    /// Fails where rows that a window was written from are gone: that is no change of the log.
    async fn require_raw_rows(&self, before: Option<&WindowRecord>, computed: &Rollup) -> Result<()> {
        let (window, job) = (self.window, &self.work.under_way.job);
        // Of quarantined rows nothing was written; of an import that was taken out none are missed.
        let Some(before) = before.filter(|state| state.rows_in > state.quarantined_count && !state.has_rows_taken_out()) else {
            return Ok(());
        };
        // In another time zone a day may rightly lose all of its events; the plan of the rebuild has looked for lost ones.
        if before.timezone != self.rollup.timezone.name() {
            return Ok(());
        }
        let gone = if computed.rows_in() == 0 {
            Some(format!("The {} raw rows of {window} are gone; its old result stays", before.rows_in))
        } else {
            let sql = format!("SELECT DISTINCT source FROM {} WHERE usage_date = $1 ORDER BY source", quote_identifier(&job.writes));
            let rows = self.work.context.store.query(&sql, &[window.start_date.into()]).await?;
            let sources = rows.iter().map(|row| row.text("source")).collect::<Result<Vec<_>>>()?;
            let vanished =
                sources.into_iter().find(|source| computed.rows_in_by_source.iter().any(|(name, rows)| name == source && *rows == 0));
            vanished.map(|source| format!("The raw rows of {window} in `{source}` are gone; its old result stays"))
        };
        let Some(gone) = gone else { return Ok(()) };
        let hint = format!(
            "if they were deleted by mistake, restore them; to do without them: `tallyroll run-job {} --day {window} --force`",
            job.name
        );
        Err(anyhow::Error::from(Failure::bad_data(gone).hint(hint)).context(RawRowsGone))
    }

    /// A window that lies outside of the days that events may be of: its events wait in the quarantine, until `as_of` reaches
    /// them or the setting allows them.
    async fn set_aside(&self, computed: &Rollup, state: WindowState, why: &str) -> Result<Written> {
        self.quarantine(computed).await?;
        self.work.fail(self.window, state, why).await?;
        Ok(Written { rows_in: computed.rows_in(), quarantined_count: i64::try_from(computed.quarantined.len())?, ..Written::default() })
    }

    async fn quarantine(&self, computed: &Rollup) -> Result<()> {
        let Work { context, under_way } = self.work;
        let mut tx = context.store.begin().await?;
        quarantine::replace(&mut tx, self.window, &computed.quarantined, &under_way.run_id, context.clock.now()).await?;
        under_way.lock.assert_held(&context.store, &mut tx).await?;
        tx.commit().await?;
        abort::point("quarantine_committed");
        Ok(())
    }
}
