//! `peak_seats`: the seat ledger, folded into the peaks of every subscription month, and published by billing month.
//!
//! One pass over the ledger finds what every billing month says now. A month whose digest is that of its last writing is left
//! alone, so a late row, an update by hand or a changed subscription is found whatever made it (`docs/semantics.md` section 5).

mod fold;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

pub use self::fold::{Folded, FoldedMonth};
use crate::failure::Failure;
use crate::plan::{ASKED_FOR, FORCED, Request};
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::journal::{self, Computed, Journal};
use crate::snapshot::parquet_file::{self, ReadBack};
use crate::snapshot::peak_row::{self, PeakRow};
use crate::snapshot::storage::Storage;
use crate::snapshot::{self, Published};
use crate::source::ledger::SeatSource;
use crate::store::state::WindowState;
use crate::store::{Store, Tx, Value};
use crate::window::Window;

/// The operator of the job, with the fold of the run that is being planned.
#[derive(Debug)]
pub struct PeakSeats {
    pub source: SeatSource,
    pub storage: Storage,
    pub grace_hours: u32,
    folded: Mutex<Option<Arc<Folded>>>,
}

/// A billing month, written to the storage.
#[derive(Debug)]
pub struct Billed {
    /// The file in `current/`, read back.
    pub current: ReadBack,
    pub files: Vec<Published>,
}

/// How a sealed month is marked in `job_window.input_fingerprint`.
const SEALED_MARK: &str = "final ";

impl PeakSeats {
    #[must_use]
    pub fn new(source: SeatSource, storage: Storage, grace_hours: u32) -> Self {
        Self { source, storage, grace_hours, folded: Mutex::default() }
    }

    /// The windows to write, each with its reason.
    ///
    /// # Errors
    /// What the ledger says; [`Failure`] of kind usage for a month that is asked for and cannot be written.
    pub async fn plan(&self, store: &Store, states: &BTreeMap<Window, WindowState>, request: &Request) -> Result<BTreeMap<Window, String>> {
        let folded = self.folded(store, states, request).await?;
        let mut due = BTreeMap::new();
        for (window, month) in &folded.months {
            let state = states.get(window);
            if request.from.is_none() {
                due.extend(reason(state, month, request).map(|reason| (*window, reason)));
            } else if folded.is_asked_for(*window) {
                if is_sealed(state) && !folded.has_ended(*window) {
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
    async fn folded(&self, store: &Store, states: &BTreeMap<Window, WindowState>, request: &Request) -> Result<Arc<Folded>> {
        let known = self.folded.lock().ok().and_then(|folded| folded.clone());
        if let Some(known) = known.filter(|known| known.is_of(states, request)) {
            return Ok(known);
        }
        let mut folded = fold::fold(self, store, states, request, |_, is_sealed| !is_sealed).await?;
        // A closed month whose facts changed is rare: its rows are collected by a second pass.
        let changed: Vec<Window> = folded.changed_sealed(states, request.force);
        if !changed.is_empty() {
            let keep = |window: Window, is_sealed: bool| !is_sealed || changed.contains(&window);
            folded = fold::fold(self, store, states, request, keep).await?;
        }
        let folded = Arc::new(folded);
        if let Ok(mut cached) = self.folded.lock() {
            *cached = Some(Arc::clone(&folded));
        }
        Ok(folded)
    }

    /// What the plan was made from.
    ///
    /// # Errors
    /// When nothing was planned.
    pub fn planned(&self) -> Result<Arc<Folded>> {
        self.folded.lock().ok().and_then(|folded| folded.clone()).context("The ledger was not folded")
    }

    /// Publishes a month: seals it where its time has come, then replaces `current/`.
    ///
    /// # Errors
    /// As [`journal::seal`].
    pub async fn publish(&self, window: Window, before: Option<&WindowState>) -> Result<Billed> {
        let folded = self.planned()?;
        let month = folded.month(window)?;
        let billing_month = BillingMonth::of(window.start_date);
        let file = folded.file(window)?;
        let (bytes, current, mut files) = if month.state == State::Final {
            let computed = Computed {
                month: billing_month,
                file,
                as_of: folded.as_of_micros(),
                input_fingerprint: month.digest.clone(),
                ledger_ids: month.ledger_ids,
            };
            let sealed = journal::seal(&self.storage, &computed, is_sealed(before)).await?;
            if sealed.correction_count > 0 {
                tracing::warn!(%billing_month, corrections = sealed.correction_count, "A closed month was corrected by a new revision");
            }
            (sealed.current, sealed.read, sealed.files)
        } else {
            let read = parquet_file::read(file.clone())?;
            (file, read, Vec::new())
        };
        let path = snapshot::current_path(billing_month);
        self.storage.replace(&path, bytes.clone()).await?;
        files.push(Published::of(path, current.fact("revision")?.parse()?, &bytes, current.row_count()));
        Ok(Billed { current, files })
    }

    /// Replaces a month's rows in the tables; how many there are now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&self, tx: &mut Tx, window: Window, billed: &Billed, now: DateTime<Utc>) -> Result<usize> {
        let folded = self.planned()?;
        let month = folded.month(window)?;
        let billing_month = BillingMonth::of(window.start_date).to_string();
        tx.execute("DELETE FROM peak_seats WHERE billing_month = $1", &[billing_month.as_str().into()]).await?;
        for batch in &billed.current.batches {
            tx.insert_batch("peak_seats", &peak_row::table_batch(batch)?).await?;
        }
        tx.execute("DELETE FROM snapshot_file WHERE billing_month = $1", &[billing_month.as_str().into()]).await?;
        let columns = ["path", "billing_month", "revision", "state", "sha256", "size_bytes", "row_count", "as_of", "published_at"];
        let rows: Vec<Vec<Value>> = billed
            .files
            .iter()
            .map(|file| {
                Ok(vec![
                    file.path.as_str().into(),
                    billing_month.as_str().into(),
                    i64::from(file.revision).into(),
                    month.state.name().into(),
                    file.sha256.as_str().into(),
                    i64::try_from(file.size_bytes)?.into(),
                    i64::try_from(file.row_count)?.into(),
                    folded.as_of.into(),
                    now.into(),
                ])
            })
            .collect::<Result<_>>()?;
        tx.insert_rows("snapshot_file", &columns, &rows, "").await?;
        Ok(billed.current.row_count())
    }

    /// What a run would correct in a closed month: the rows of the next revision.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn expected_corrections(&self, window: Window) -> Result<(usize, Vec<PeakRow<'static>>)> {
        let folded = self.planned()?;
        let billing_month = BillingMonth::of(window.start_date);
        let journal = Journal::read(&self.storage, billing_month).await?;
        if journal.revisions.is_empty() {
            return Ok((0, Vec::new()));
        }
        let rows = peak_row::rows(&parquet_file::read(folded.file(window)?)?.batches)?;
        let corrections = journal.corrections(&rows, folded.as_of_micros());
        Ok((journal.revisions.len(), corrections.into_iter().map(PeakRow::into_owned).collect()))
    }
}

/// Whether a window's month was sealed.
#[must_use]
pub fn is_sealed(state: Option<&WindowState>) -> bool {
    state.is_some_and(|state| state.input_fingerprint.as_ref().is_some_and(|print| print.starts_with(SEALED_MARK)))
}

fn reason(state: Option<&WindowState>, month: &FoldedMonth, request: &Request) -> Option<String> {
    let Some(state) = state else { return Some("never written".to_owned()) };
    // A run as of an earlier instant knows less than the one that sealed the month.
    if is_sealed(Some(state)) && month.state != State::Final {
        return None;
    }
    let is_changed = state.input_fingerprint.as_deref() != Some(&month.fingerprint());
    let reason = match state.state.as_str() {
        "due" => state.due_reason.as_deref().unwrap_or("left undone"),
        "failed" => "failed before",
        _ if is_changed && is_sealed(Some(state)) => "ledger or subscriptions changed after it was sealed",
        _ if is_changed && month.state == State::Final => "its grace is over",
        _ if is_changed => "ledger, subscriptions or time moved on",
        _ if request.force || request.rebuild => FORCED,
        _ => return None,
    };
    Some(reason.to_owned())
}
