//! `peak_seats`: the seat ledger, folded into the peaks of every subscription month, and published by billing month.
//!
//! One pass over the ledger finds what every billing month says now. A month whose digest is that of its last writing is left
//! alone, so a late row, an update by hand or a changed subscription is found whatever made it (`docs/semantics.md` section 5).

mod collect;
pub mod due;
mod fold;
mod folded;
pub mod write;

use std::sync::Arc;

use anyhow::Result;

pub use self::folded::{Folded, FoldedMonth};
use crate::failure::Failure;
use crate::seats::calendar::BillingMonth;
use crate::snapshot::journal::Journal;
use crate::snapshot::parquet_file;
use crate::snapshot::peak_row::{self, PeakRow};
use crate::snapshot::storage::Storage;
use crate::source::ledger::{BadSubscription, SeatSource};
use crate::store::Store;
use crate::window::Window;

/// The operator of the job.
#[derive(Debug)]
pub struct PeakSeats {
    pub source: SeatSource,
    pub storage: Storage,
    pub grace_hours: u32,
}

/// What a look at the ledger found; the look before a run serves the run, too.
#[derive(Debug)]
pub struct FoundLedger {
    pub folded: Arc<Folded>,
    /// Whether the database had sealed any month before.
    has_sealed: bool,
}

impl FoundLedger {
    /// Why subscriptions were left out, if any were: a run that bills the others must not pass for one that bills all.
    #[must_use]
    pub fn left_out(&self) -> Option<Failure> {
        BadSubscription::failure_of_all(&self.folded.isolated)
    }
}

impl PeakSeats {
    /// The rows that a month has in the table of subscriptions that cannot be billed now, and the sum of their peaks.
    ///
    /// # Errors
    /// What the database says.
    pub async fn isolated_rows(&self, store: &Store, folded: &Folded, window: Window) -> Result<(i64, i64)> {
        let isolated = folded.isolated_ids();
        if isolated.is_empty() {
            return Ok((0, 0));
        }
        let sql = "SELECT subscription_id, COUNT(*) AS row_count, CAST(SUM(peak_seats) AS BIGINT) AS peak_seats FROM peak_seats \
             WHERE billing_month = $1 GROUP BY subscription_id";
        let (mut row_count, mut peak_seats) = (0, 0);
        for row in store.query(sql, &[window.to_string().into()]).await? {
            if isolated.contains(&row.text("subscription_id")?) {
                row_count += row.int("row_count")?;
                peak_seats += row.int("peak_seats")?;
            }
        }
        Ok((row_count, peak_seats))
    }

    /// Whether the journal of a month says what the ledger does, but for subscriptions that cannot be billed now.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn agrees_but_for_isolated(&self, folded: &Folded, window: Window) -> Result<bool> {
        let journal = Journal::read(&self.storage, BillingMonth::of(window.start_date)).await?;
        Ok(!folded.isolated.is_empty() && journal.digest_without(&folded.isolated_ids()) == folded.month(window)?.digest)
    }

    /// What a run would correct in a closed month: the rows of the next revision.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn expected_corrections(
        &self,
        folded: &Folded,
        window: Window,
        takes_agreement: bool,
    ) -> Result<(usize, Vec<PeakRow<'static>>)> {
        let billing_month = BillingMonth::of(window.start_date);
        let journal = Journal::read(&self.storage, billing_month).await?;
        if journal.revisions.is_empty() {
            return Ok((0, Vec::new()));
        }
        let rows = peak_row::read::rows(&parquet_file::read(folded.file(window)?)?.batches)?;
        let corrections = journal.corrections(&rows, folded.as_of_micros(), takes_agreement, &folded.isolated_ids());
        Ok((journal.revisions.len(), corrections.into_iter().map(PeakRow::into_owned).collect()))
    }
}
