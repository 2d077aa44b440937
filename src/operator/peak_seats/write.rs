//! A billing month: published, sealed where its time has come, and replaced in its table.

use std::collections::BTreeSet;

use anyhow::Result;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Folded, FoundLedger, PeakSeats};
use crate::abort;
use crate::engine::work::{RawRowsGone, Work};
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::parquet_file::{self, ReadBack};
use crate::snapshot::peak_row;
use crate::snapshot::seal::{self, Computed, Publisher};
use crate::snapshot::{self, PublishedFile, digest, owner};
use crate::store::lock::JobLock;
use crate::store::windows::{WindowRecord, Written};
use crate::store::{Store, Tx, Value};
use crate::window::Window;

/// A billing month, written to the storage.
#[derive(Debug)]
struct Billed {
    /// The file for `current/`, and the same read back.
    bytes: Bytes,
    current: ReadBack,
    /// The files of the journal.
    files: Vec<PublishedFile>,
}

impl PeakSeats {
    /// Publishes a billing month, then replaces its rows. A run that is killed in between leaves the month due; the next one
    /// finds the journal as it is and ends in the same files.
    ///
    /// # Errors
    /// What database and storage say; [`Failure`] of kind bad-data where ledger rows or subscriptions are gone.
    pub(in crate::operator) async fn write(
        &self,
        work: &Work,
        found: &FoundLedger,
        window: Window,
        before: Option<&WindowRecord>,
    ) -> Result<Written> {
        let Work { context, under_way } = work;
        let (store, folded) = (&context.store, &found.folded);
        let month = folded.month(window)?;
        // A count is in force until the next one: a row that is gone makes its month and every later one doubtful.
        if let Some((first, had)) = folded.vanished.filter(|(first, _)| *first <= window && !under_way.request.force) {
            let gone = had - folded.month(first)?.ledger_rows;
            let hint = format!(
                "the ledger is append-only: restore them; to bill without them: `tallyroll run-job {} --force`",
                under_way.job.name
            );
            let failure =
                Failure::bad_data(format!("{gone} of the {had} ledger rows of {first} are gone; the old result of {window} stays"));
            return Err(anyhow::Error::from(failure.hint(hint)).context(RawRowsGone));
        }
        // What cannot be billed now is not gone.
        let left = month.row_count + self.isolated_rows(store, folded, window).await?.0;
        let before = before.filter(|before| left * 2 < before.rows_out && !under_way.request.force);
        if let Some(before) = before
            && (folded.has_ended(window) || self.lost_subscriptions(work, window, before).await?)
        {
            let gone =
                format!("Only {left} of the {} rows of {window} are left: subscriptions are gone; its old result stays", before.rows_out);
            let hint = format!("restore them; to bill without them: `tallyroll run-job {} --month {window} --force`", under_way.job.name);
            return Err(anyhow::Error::from(Failure::bad_data(gone).hint(hint)).context(RawRowsGone));
        }
        let billed = self.seal(found, window, store, &under_way.lock, under_way.request.force).await?;
        abort::point("month_sealed");
        let now = context.clock.now();
        let mut tx = store.begin().await?;
        let rows_out = self.publish(folded, work, &mut tx, window, &billed, now).await?;
        let written = Written {
            rows_in: month.ledger_rows,
            rows_out: i64::try_from(rows_out)?,
            input_fingerprint: month.fingerprint(),
            ..Written::default()
        };
        work.record(&mut tx, window, &written, now).await?;
        work.commit(tx).await?;
        Ok(written)
    }

    /// Whether more than half of the rows of an open month are of subscriptions that are gone. One that ends earlier now has moved to
    /// another month, and as of an earlier instant than it was written as of a month rightly holds less.
    async fn lost_subscriptions(&self, work: &Work, window: Window, before: &WindowRecord) -> Result<bool> {
        let Work { context, under_way } = work;
        let store = &context.store;
        let sql = "SELECT as_of FROM job_run WHERE run_id = $1";
        let rows = store.query(sql, &[before.run_id.as_deref().unwrap_or_default().into()]).await?;
        let written = rows.first().map(|row| row.instant("as_of")).transpose()?;
        if written.is_some_and(|as_of| as_of > under_way.request.as_of) {
            return Ok(false);
        }
        let (there, bad) = self.source.subscriptions(&mut store.begin_read().await?, context.clock.now()).await?;
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

    /// Seals a month where its time has come, and says what `current/` is to hold.
    ///
    /// # Errors
    /// As [`seal::seal`].
    async fn seal(&self, found: &FoundLedger, window: Window, store: &Store, lock: &JobLock, takes_agreement: bool) -> Result<Billed> {
        let folded = &found.folded;
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
        let knows_month = !known_files.is_empty() || known_revision.is_some() || found.has_sealed;
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
    async fn publish(
        &self,
        folded: &Folded,
        work: &Work,
        tx: &mut Tx,
        window: Window,
        billed: &Billed,
        now: DateTime<Utc>,
    ) -> Result<usize> {
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
        work.under_way.lock.assert_held(&work.context.store, tx).await?;
        self.storage.replace(&path, billed.bytes.clone()).await?;
        abort::point("current_put");
        Ok(billed.current.row_count())
    }
}
