//! `peak_seats`: the seat ledger, folded into the peaks of every subscription month, and published by billing month.
//!
//! One pass over the ledger finds what every billing month says now. A month whose digest is that of its last writing is left
//! alone, so a late row, an update by hand or a changed subscription is found whatever made it (`docs/semantics.md` section 5).

mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use self::fold::{Folded, FoldedMonth};
use self::fold::{MadeFrom, Order};
use crate::abort;
use crate::engine::request::{ASKED_FOR, FORCED, Request};
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::journal::{self, Journal};
use crate::snapshot::parquet_file::{self, ReadBack};
use crate::snapshot::peak_row::{self, PeakRow};
use crate::snapshot::seal::{self, Computed, Publisher};
use crate::snapshot::storage::Storage;
use crate::snapshot::{self, CURRENT_FOLDER, FINAL_FOLDER, PublishedFile, digest, owner};
use crate::source::ledger::{BadSubscription, SeatSource};
use crate::store::lock::JobLock;
use crate::store::windows::{WindowRecord, WindowState};
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

/// What is published of a month, and what the database knows of it.
#[derive(Debug, Default)]
struct Published {
    /// The latest revision of which there is a file, those whose Parquet file is there, and how many were recorded.
    revisions: i64,
    with_rows: BTreeSet<i64>,
    recorded: i64,
    has_current: bool,
}

impl Published {
    /// Why what is there is not what was recorded, if so: a run was killed or lost its lock, or files are gone.
    fn difference(&self) -> Option<&'static str> {
        match self {
            Self { revisions, recorded, .. } if revisions > recorded => Some("its journal holds a revision that was not recorded"),
            Self { with_rows, recorded, .. } if (1..=*recorded).any(|number| !with_rows.contains(&number)) => {
                Some("its sealed files are missing")
            }
            Self { has_current: false, .. } => Some("its file in `current/` is missing"),
            _ => None,
        }
    }
}

/// How often the ledger is read to collect the rows of closed months that have changed.
const MAX_PASSES: usize = 4;

/// How a sealed month is marked in `job_window.input_fingerprint`.
const SEALED_MARK: &str = "final ";

impl PeakSeats {
    #[must_use]
    pub fn new(source: SeatSource, storage: Storage, grace_hours: u32) -> Self {
        Self { source, storage, grace_hours, folded: Mutex::default(), has_sealed: OnceLock::new() }
    }

    /// The windows to write, each with its reason. Nothing is sealed that had not ended, with its grace, at `now`.
    ///
    /// # Errors
    /// What the ledger says; [`Failure`] of kind usage for a month that is asked for and cannot be written.
    pub async fn plan(
        &self,
        store: &Store,
        states: &BTreeMap<Window, WindowRecord>,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<Window, String>> {
        owner::check(&self.storage, store).await?;
        let published = self.published(store, now).await?;
        // As the first look finds it, before this run records anything.
        let sealed = store.query("SELECT 1 AS one FROM snapshot_file WHERE state = $1 LIMIT 1", &[State::Final.name().into()]).await?;
        self.has_sealed.get_or_init(|| !sealed.is_empty());
        let folded = self.folded(store, states, request, now, &published).await?;
        let mut due = BTreeMap::new();
        for (window, month) in &folded.months {
            let is_sealed = folded.sealed.contains(window);
            if request.from.is_none() {
                let difference = published.get(window).unwrap_or(&Published::default()).difference();
                due.extend(reason(states.get(window), month, is_sealed, difference, request).map(|reason| (*window, reason)));
            } else if folded.is_asked_for(*window) {
                if is_sealed && !folded.has_ended(*window) {
                    return Err(Failure::usage(format!(
                        "Billing month {window} is sealed; a run as of {} cannot change it",
                        request.as_of
                    ))
                    .hint("leave `--as-of` out, or name an instant after the month")
                    .into());
                }
                due.insert(*window, ASKED_FOR.to_owned());
            }
        }
        if let (Some(from), true) = (request.from, due.is_empty()) {
            return Err(Failure::usage(format!("No subscription month ends in {} as of {}", from.format("%Y-%m"), request.as_of))
                .hint("name a billing month that holds the last day of a subscription month, up to the one that `--as-of` lies in")
                .into());
        }
        Ok(due)
    }

    /// What every billing month says; made once for a plan and its run.
    async fn folded(
        &self,
        store: &Store,
        states: &BTreeMap<Window, WindowRecord>,
        request: &Request,
        now: DateTime<Utc>,
        published: &BTreeMap<Window, Published>,
    ) -> Result<Arc<Folded>> {
        let made_from = MadeFrom::new(states, request);
        let known = self.folded.lock().ok().and_then(|folded| folded.clone());
        // A listing of the storage may have said less when the plan was made first.
        let is_collected = |known: &Folded| {
            published
                .iter()
                .all(|(window, month)| month.difference().is_none() || !known.months.contains_key(window) || known.is_collected(*window))
        };
        if let Some(known) = known.filter(|known| known.is_from(&made_from) && is_collected(known)) {
            return Ok(known);
        }
        let was_sealed = states.values().filter(|state| is_sealed(state)).map(|state| state.window);
        let in_journal = published.iter().filter(|(_, month)| month.revisions > 0).map(|(window, _)| *window);
        let sealed: BTreeSet<Window> = in_journal.chain(was_sealed).collect();
        let project_id = owner::project_id(store).await?;
        let order = Order { states, made_from: made_from.clone(), sealed: sealed.clone(), now, grace_hours: self.grace_hours, project_id };
        let mut changed: BTreeSet<Window> = BTreeSet::new();
        for _ in 0..MAX_PASSES {
            let keep = |window: Window| {
                let is_done = states.get(&window).is_some_and(|state| state.state == WindowState::Done);
                let is_as_recorded = published.get(&window).is_some_and(|month| month.difference().is_none());
                let is_settled = sealed.contains(&window) && is_done && is_as_recorded && !request.force && !request.rebuild;
                let is_named = request.from.is_none() || made_from.is_asked_for(window);
                is_named && (!is_settled || request.from.is_some()) || changed.contains(&window)
            };
            let folded = fold::fold(&self.source, store, &order, keep).await?;
            // A closed month whose facts changed is rare: its rows are collected by a second pass.
            let differs = |window: &Window| {
                let fingerprint = folded.months.get(window).map(FoldedMonth::fingerprint);
                request.from.is_none() && states.get(window).is_some_and(|state| state.input_fingerprint != fingerprint)
            };
            let missing: Vec<Window> = sealed
                .iter()
                .filter(|window| folded.has_ended(**window) && differs(window) && !folded.is_collected(**window))
                .copied()
                .collect();
            if missing.is_empty() {
                let folded = Arc::new(folded);
                if let Ok(mut cached) = self.folded.lock() {
                    *cached = Some(Arc::clone(&folded));
                }
                return Ok(folded);
            }
            changed.extend(missing);
        }
        Err(Failure::try_again("Closed months change while they are being looked at").hint("this command can be repeated as it is").into())
    }

    /// What the storage holds of each month, and what the database knows of it.
    async fn published(&self, store: &Store, now: DateTime<Utc>) -> Result<BTreeMap<Window, Published>> {
        let mut published: BTreeMap<Window, Published> = BTreeMap::new();
        for path in self.storage.list(FINAL_FOLDER).await? {
            if let Some((month, number)) = journal::revision_of(&path) {
                let known = published.entry(month.window()?).or_default();
                known.revisions = known.revisions.max(number.into());
                if path == journal::rows_path(month, number) {
                    known.with_rows.insert(number.into());
                }
            }
        }
        for path in self.storage.list(CURRENT_FOLDER).await? {
            if let Some(month) = snapshot::current_month(&path) {
                published.entry(month.window()?).or_default().has_current = true;
            }
        }
        let sql = "SELECT billing_month, MAX(revision) AS revision FROM snapshot_file WHERE state = 'final' GROUP BY billing_month";
        for row in store.query(sql, &[]).await? {
            if let Some(month) = BillingMonth::parse(&row.text("billing_month")?) {
                published.entry(month.window()?).or_default().recorded = row.int("revision")?;
            }
        }
        for (window, month) in &mut published {
            let billing_month = BillingMonth::of(window.start_date);
            if month.revisions > 0 && month.recorded == 0 && now < billing_month.closes_at(self.grace_hours)? {
                tracing::warn!(%billing_month, "The output holds sealed files of a month that is not closed; `tallyroll verify` names them");
                month.revisions = 0;
                month.with_rows.clear();
            }
        }
        Ok(published)
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
            tx.insert_batch("peak_seats", &peak_row::table_batch(batch)?).await?;
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
        let rows = peak_row::rows(&parquet_file::read(folded.file(window)?)?.batches)?;
        let corrections = journal.corrections(&rows, folded.as_of_micros(), takes_agreement, &folded.isolated_ids());
        Ok((journal.revisions.len(), corrections.into_iter().map(PeakRow::into_owned).collect()))
    }
}

fn is_sealed(state: &WindowRecord) -> bool {
    state.input_fingerprint.as_ref().is_some_and(|fingerprint| fingerprint.starts_with(SEALED_MARK))
}

fn reason(
    state: Option<&WindowRecord>,
    month: &FoldedMonth,
    is_sealed: bool,
    difference: Option<&'static str>,
    request: &Request,
) -> Option<String> {
    // A run as of an earlier instant knows less than the one that sealed the month.
    if is_sealed && month.state != State::Final {
        return None;
    }
    let Some(state) = state else { return Some("never written".to_owned()) };
    let is_changed = state.input_fingerprint.as_deref() != Some(&month.fingerprint());
    let reason = match state.state {
        WindowState::Due => state.due_reason.as_deref().unwrap_or("left undone"),
        WindowState::Failed => "failed before",
        _ if let Some(difference) = difference => difference,
        _ if is_changed && is_sealed => "ledger or subscriptions changed after it was sealed",
        _ if is_changed && month.state == State::Final => "its grace is over",
        _ if is_changed => "ledger, subscriptions or time moved on",
        WindowState::Kept => "its ledger rows are back",
        _ if request.force || request.rebuild => FORCED,
        _ => return None,
    };
    Some(reason.to_owned())
}
