//! The journal of a closed billing month: sealed revisions that are never changed, each with what differs from those before.
//!
//! Rule: `docs/semantics.md` section 7. Revision 1 holds the month as it was sealed. What a late ledger row changes comes as a
//! revision of its own. A revision's Parquet file is created once, whole; CSV, manifest and `_SUCCESS` follow from it, so that any
//! run can complete what a killed one began.

mod revision;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::revision::{MANIFEST_FILE, Revision, SUCCESS_FILE, revision_folder, revision_of, rows_path, write_rows};
use super::manifest::PeakFacts;
use super::peak_row::{Key, PeakRow};
use super::storage::{Storage, require};
use super::{FINAL_FOLDER, PEAK_FILE, correction};
use crate::failure::Failure;
use crate::fingerprint::hex;
use crate::seats::TOTAL;
use crate::seats::calendar::{BillingMonth, State};

/// The revisions of one billing month, in order.
#[derive(Debug)]
pub struct Journal {
    pub month: BillingMonth,
    pub revisions: Vec<Revision>,
}

impl Journal {
    /// Reads every revision of a month; each must be whole, and what its manifest says, where it has one.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data where a file is broken or a revision is missing.
    pub async fn read(storage: &Storage, month: BillingMonth) -> Result<Self> {
        let paths = storage.list(&format!("{FINAL_FOLDER}/billing_month={month}")).await?;
        let last = paths.iter().filter_map(|path| revision_of(path)).map(|(_, number)| number).max();
        let mut journal = Self { month, revisions: Vec::new() };
        for number in 1..=last.unwrap_or(0) {
            // A gap is a lost revision: what came after it was a difference to it.
            let path = format!("{}/{PEAK_FILE}", revision_folder(month, number));
            let bytes = require(storage, &path).await?;
            let manifest_path = format!("{}/{MANIFEST_FILE}", revision_folder(month, number));
            let manifest = storage.get(&manifest_path).await?.map(|bytes| (storage.shown(&manifest_path), bytes));
            // Nothing vouches for it yet, and what follows from it is written once: a storage has to give the same bytes twice.
            if manifest.is_none() && require(storage, &path).await? != bytes {
                return Err(Failure::try_again(format!("The sealed file `{}` was read as other bytes than before", storage.shown(&path)))
                    .hint("this command can be repeated as it is")
                    .into());
            }
            let revision = Revision::read(month, number, bytes, manifest.as_ref()).map_err(|error| {
                let hint = match &manifest {
                    Some(_) => "restore it from a copy; `tallyroll verify` checks it",
                    None => "restore it from a copy; where there is none, it was never whole and nothing vouches for it: remove it, and run the job again",
                };
                Failure::bad_data(format!("The sealed file `{}` is broken", storage.shown(&path))).caused_by(error).hint(hint)
            })?;
            journal.revisions.push(revision);
        }
        journal.require_sums().map_err(|(number, error)| {
            let path = format!("{}/{PEAK_FILE}", revision_folder(month, number));
            Failure::bad_data(format!("The sealed file `{}` is broken", storage.shown(&path)))
                .caused_by(error)
                .hint("restore it from a copy; `tallyroll verify` checks it")
        })?;
        Ok(journal)
    }

    /// Every entry's differences are those to the entries before it; the revision where they are not.
    fn require_sums(&self) -> Result<(), (i32, anyhow::Error)> {
        let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
        for revision in &self.revisions {
            for row in &revision.rows {
                let sum = sums.entry(row.key()).or_default();
                sum.0 = sum.0.saturating_add(row.entry.peak_seats_delta);
                sum.1 = sum.1.saturating_add(row.entry.overage_seats_delta.unwrap_or_default());
                if *sum != (row.month.peak_seats, row.overage_seats().unwrap_or_default()) || row.entry.revision != revision.number {
                    let (id, month) = (&row.subscription_id, row.month.period.number);
                    let error = anyhow::anyhow!("The differences of subscription `{id}`, month {month}, do not add up");
                    return Err((revision.number, error));
                }
            }
        }
        Ok(())
    }

    /// The journal as it was before a revision.
    #[must_use]
    pub fn before(&self, number: i32) -> Self {
        let revisions = self.revisions.iter().filter(|revision| revision.number < number).cloned().collect();
        Self { month: self.month, revisions }
    }

    /// The latest entry of each subscription month, by key; those that stand at nothing are left out.
    #[must_use]
    pub fn truth(&self) -> BTreeMap<Key, &PeakRow<'static>> {
        let mut truth = BTreeMap::new();
        for row in self.revisions.iter().flat_map(|revision| &revision.rows) {
            truth.insert(row.key(), row);
        }
        truth.retain(|_, row| !correction::is_gone(row));
        truth
    }

    /// What would have to be corrected for the journal to say what `computed` says, in file order.
    ///
    /// What was agreed (plan, licence, committed seats) stays as it was sealed, unless `takes_agreement`: the month was billed by it.
    #[must_use]
    pub fn corrections<'a>(
        &'a self,
        computed: &'a [PeakRow<'_>],
        as_of: i64,
        takes_agreement: bool,
        isolated: &BTreeSet<String>,
    ) -> Vec<PeakRow<'a>> {
        let truth = self.truth();
        let mut left = truth.clone();
        let number = self.next_number();
        let mut corrections = Vec::new();
        for row in computed {
            let key = row.key();
            let before = left.remove(&key);
            let mut now = row.clone();
            if !takes_agreement {
                keep_agreement(&truth, &mut now);
            }
            if before.is_some_and(|before| before.has_same_facts(&now) && before.agreement() == now.agreement()) {
                continue;
            }
            corrections.push(correction::changed(before, now, number, as_of));
        }
        for before in left.into_values().filter(|before| !isolated.contains(before.subscription_id.as_ref())) {
            corrections.push(correction::gone(before, number, as_of));
        }
        corrections.sort_by(|left, right| file_order(left).cmp(&file_order(right)));
        corrections
    }

    /// The number of the revision that would come next.
    #[must_use]
    pub fn next_number(&self) -> i32 {
        self.revisions.last().map_or(1, |last| last.number + 1)
    }

    /// The digest of what the journal says, to be compared with that of the ledger.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest_without(&BTreeSet::new())
    }

    /// The same without some subscriptions.
    #[must_use]
    pub fn digest_without(&self, isolated: &BTreeSet<String>) -> String {
        let mut rows: Vec<_> = self.truth().into_values().filter(|row| !isolated.contains(row.subscription_id.as_ref())).collect();
        rows.sort_by(|left, right| file_order(left).cmp(&file_order(right)));
        let mut digest = Sha256::new();
        for row in rows {
            row.digest(&mut digest, false);
        }
        hex(&digest.finalize())
    }

    /// The rows for `current/`: each subscription month once, with the whole as its difference.
    #[must_use]
    pub fn current_rows(&self) -> Vec<PeakRow<'static>> {
        let mut rows: Vec<PeakRow<'static>> = self.truth().into_values().cloned().collect();
        rows.sort_by(|left, right| file_order(left).cmp(&file_order(right)));
        for row in &mut rows {
            row.entry.peak_seats_delta = row.month.peak_seats;
            row.entry.overage_seats_delta = row.overage_seats();
        }
        rows
    }

    /// The file for `current/`.
    ///
    /// # Errors
    /// When a footer lacks a fact.
    pub fn current(&self, project_id: Uuid) -> Result<Bytes> {
        let (Some(last), is_first) = (self.revisions.last(), self.revisions.len() == 1) else { bail!("The journal is empty") };
        if is_first {
            return Ok(last.bytes.clone());
        }
        let id = |key: &str| -> Option<i64> { last.read.fact(key).ok()?.parse().ok() };
        let facts = PeakFacts {
            billing_month: self.month.to_string(),
            revision: last.number,
            state: State::Final.name(),
            as_of: last.read.fact("as_of")?.to_owned(),
            input_fingerprint: self.digest(),
            ledger_ids: id("ledger_first_id").zip(id("ledger_last_id")),
            project_id,
        };
        write_rows(self.month, &self.current_rows(), &facts)
    }
}

/// Gives a row the plan, licence and commitment that were sealed for its subscription month.
fn keep_agreement<'a>(sealed: &BTreeMap<Key, &'a PeakRow<'static>>, row: &mut PeakRow<'a>) {
    let key = row.key();
    let before = sealed.get(&key);
    // A seat type that comes late belongs to a month whose plan and licence are sealed with its total.
    if let Some(labels) = before.or_else(|| sealed.get(&(key.0, TOTAL.to_owned(), key.2))) {
        (row.plan, row.license_id) = (labels.plan.clone(), labels.license_id.clone());
    }
    row.committed_seats = before.map_or(row.committed_seats, |before| before.committed_seats);
}

fn file_order<'a>(row: &'a PeakRow<'_>) -> (&'a str, &'a str, &'a str, i32) {
    (&row.org_id, &row.subscription_id, &row.seat_type, row.month.period.number)
}
