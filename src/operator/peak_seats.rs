//! `peak_seats`: the seat ledger, folded into the peaks of every subscription month, and published by billing month.
//!
//! One pass over the ledger finds what every billing month says now. A month whose digest is that of its last writing is left
//! alone, so a late row, an update by hand or a changed subscription is found whatever made it (`docs/semantics.md` section 5).

mod collect;
mod due;
mod fold;
mod folded;

use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use self::folded::{Folded, FoldedMonth};
use crate::abort;
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::journal::Journal;
use crate::snapshot::parquet_file::{self, ReadBack};
use crate::snapshot::peak_row::{self, PeakRow};
use crate::snapshot::seal::{self, Computed, Publisher};
use crate::snapshot::storage::Storage;
use crate::snapshot::{self, PublishedFile, digest, owner};
use crate::source::ledger::{BadSubscription, SeatSource};
use crate::store::lock::JobLock;
use crate::store::{Store, Tx, Value};
use crate::window::Window;

/// The operator of the job, with the fold of the run that is being planned.
#[derive(Debug)]
pub struct PeakSeats {
    pub source: SeatSource,
    pub storage: Storage,
    pub grace_hours: u32,
    folded: Mutex<Option<Arc<Folded>>>,
    /// Whether the database had sealed any month before the run.
    has_sealed: OnceLock<bool>,
}

/// A billing month, written to the storage.
#[derive(Debug)]
pub struct Billed {
    /// The file for `current/`, and the same read back.
    pub bytes: Bytes,
    pub current: ReadBack,
    /// The files of the journal.
    pub files: Vec<PublishedFile>,
}

impl PeakSeats {
    #[must_use]
    pub fn new(source: SeatSource, storage: Storage, grace_hours: u32) -> Self {
        Self { source, storage, grace_hours, folded: Mutex::default(), has_sealed: OnceLock::new() }
    }

    /// What the plan was made from.
    ///
    /// # Errors
    /// When nothing was planned.
    pub fn planned(&self) -> Result<Arc<Folded>> {
        self.folded.lock().ok().and_then(|folded| folded.clone()).context("The ledger was not folded")
    }

    /// Seals a month where its time has come, and says what `current/` is to hold.
    ///
    /// # Errors
    /// As [`seal::seal`].
    pub async fn seal(&self, window: Window, store: &Store, lock: &JobLock, takes_agreement: bool) -> Result<Billed> {
        let folded = self.planned()?;
        let month = folded.month(window)?;
        let billing_month = BillingMonth::of(window.start_date);
        let file = folded.file(window)?;
        if month.state != State::Final {
            let current = parquet_file::read(file.clone())?;
            return Ok(Billed { bytes: file, current, files: Vec::new() });
        }
        let computed = Computed {
            month: billing_month,
            file,
            as_of: folded.as_of_micros(),
            input_fingerprint: month.digest.clone(),
            ledger_ids: month.ledger_ids,
            takes_agreement,
            isolated: folded.isolated_ids(),
        };
        let sql = "SELECT path, sha256, state FROM snapshot_file WHERE billing_month = $1";
        let known_files = store.query(sql, &[billing_month.to_string().into()]).await?;
        let mut recorded = Vec::new();
        for file in &known_files {
            if State::named(&file.text("state")?) == Some(State::Final) {
                recorded.push((file.text("path")?, file.text("sha256")?));
            }
        }
        let sql = "SELECT MAX(revision) AS revision FROM peak_seats WHERE billing_month = $1";
        let known = store.query(sql, &[billing_month.to_string().into()]).await?;
        let known_revision = known.first().map(|row| row.opt_int("revision")).transpose()?.flatten();
        let knows_month =
            !known_files.is_empty() || known_revision.is_some() || self.has_sealed.get().is_some_and(|has_sealed| *has_sealed);
        let known_revision = known_revision.unwrap_or(0);
        let publisher = Publisher { store, lock, project_id: owner::project_id(store).await?, recorded, knows_month, known_revision };
        let sealed = seal::seal(&self.storage, &computed, &publisher).await?;
        if sealed.correction_count > 0 {
            tracing::warn!(%billing_month, corrections = sealed.correction_count, "A closed month was corrected by a new revision");
        }
        Ok(Billed { bytes: sealed.current, current: sealed.read, files: sealed.files })
    }

    /// Replaces a month's rows in the tables and its file in `current/`; how many rows there are now.
    ///
    /// The file comes last, under the lock that `tx` holds: a transaction that fails after it leaves the month due.
    ///
    /// # Errors
    /// What database and storage say; [`Failure`] of kind try-again where the run has lost its lock.
    pub async fn write(
        &self,
        store: &Store,
        tx: &mut Tx,
        lock: &JobLock,
        window: Window,
        billed: &Billed,
        now: DateTime<Utc>,
    ) -> Result<usize> {
        let folded = self.planned()?;
        let month = folded.month(window)?;
        let billing_month = BillingMonth::of(window.start_date);
        let path = snapshot::current_path(billing_month);
        let revision = billed.current.fact("revision")?.parse()?;
        let current = PublishedFile::of(path.clone(), revision, &billed.bytes, billed.current.row_count());
        let parameter: Value = billing_month.to_string().into();
        tx.execute("DELETE FROM peak_seats WHERE billing_month = $1", std::slice::from_ref(&parameter)).await?;
        abort::point("peaks_deleted");
        for batch in &billed.current.batches {
            tx.insert_batch("peak_seats", &peak_row::read::table_batch(batch)?).await?;
        }
        abort::point("peaks_written");
        tx.execute("DELETE FROM snapshot_file WHERE billing_month = $1", std::slice::from_ref(&parameter)).await?;
        let columns = ["path", "billing_month", "revision", "state", "sha256", "size_bytes", "row_count", "as_of", "published_at"];
        let rows = billed.files.iter().chain([&current]).map(|file| {
            Ok(vec![
                file.path.as_str().into(),
                parameter.clone(),
                i64::from(file.revision).into(),
                month.state.name().into(),
                file.sha256.as_str().into(),
                i64::try_from(file.size_bytes)?.into(),
                i64::try_from(file.row_count)?.into(),
                folded.as_of.into(),
                now.into(),
            ])
        });
        tx.insert_rows("snapshot_file", &columns, &rows.collect::<Result<Vec<_>>>()?, "").await?;
        for file in &billed.files {
            digest::forget(tx, &file.path).await?;
        }
        abort::point("snapshot_recorded");
        lock.assert_held(store, tx).await?;
        self.storage.replace(&path, billed.bytes.clone()).await?;
        abort::point("current_put");
        Ok(billed.current.row_count())
    }

    /// Why the last plan left subscriptions out, if it did: a run that bills the others must not pass for one that bills all.
    #[must_use]
    pub fn left_out(&self) -> Option<Failure> {
        BadSubscription::failure_of_all(&self.planned().ok()?.isolated)
    }

    /// The rows that a month has in the table of subscriptions that cannot be billed now, and the sum of their peaks.
    ///
    /// # Errors
    /// What the database says.
    pub async fn isolated_rows(&self, store: &Store, window: Window) -> Result<(i64, i64)> {
        let isolated = self.planned()?.isolated_ids();
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
    pub async fn agrees_but_for_isolated(&self, window: Window) -> Result<bool> {
        let folded = self.planned()?;
        let journal = Journal::read(&self.storage, BillingMonth::of(window.start_date)).await?;
        Ok(!folded.isolated.is_empty() && journal.digest_without(&folded.isolated_ids()) == folded.month(window)?.digest)
    }

    /// What a run would correct in a closed month: the rows of the next revision.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn expected_corrections(&self, window: Window, takes_agreement: bool) -> Result<(usize, Vec<PeakRow<'static>>)> {
        let folded = self.planned()?;
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
