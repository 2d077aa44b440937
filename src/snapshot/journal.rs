//! The journal of a closed billing month: sealed revisions that are never changed, each with what differs from those before.
//!
//! Rule: `docs/semantics.md` section 7. Revision 1 holds the month as it was sealed. What a late ledger row changes comes as a
//! revision of its own. A revision's Parquet file is created once, whole; CSV, manifest and `_SUCCESS` follow from it, so that any
//! run can complete what a killed one began.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::manifest::{CSV_FILE, Manifest, PeakFacts};
use super::parquet_file::{self, ReadBack};
use super::peak_row::{self, Entry, Key, PeakBatch, PeakRow};
use super::storage::{Storage, require};
use super::{FINAL_FOLDER, PEAK_FILE, PublishedFile, csv_twin, sha256};
use crate::abort;
use crate::failure::Failure;
use crate::fingerprint::hex;
use crate::seats::Coverage;
use crate::seats::calendar::{BillingMonth, State, instant};
use crate::store::lock::JobLock;
use crate::store::{Store, format_instant};

pub const MANIFEST_FILE: &str = "manifest.json";
pub const SUCCESS_FILE: &str = "_SUCCESS";

/// Why a row of the journal stands at nothing.
const NO_LONGER_THERE: &str = "subscription month no longer exists";

/// How often another publisher may be first with the same revision before this one gives up.
const MAX_ATTEMPTS: usize = 5;

/// One sealed revision, read back.
#[derive(Debug)]
pub struct Revision {
    pub number: i32,
    pub bytes: Bytes,
    pub read: ReadBack,
    pub rows: Vec<PeakRow<'static>>,
}

/// The revisions of one billing month, in order.
#[derive(Debug)]
pub struct Journal {
    pub month: BillingMonth,
    pub revisions: Vec<Revision>,
}

/// A billing month as ledger and subscriptions have it now.
#[derive(Debug)]
pub struct Computed {
    pub month: BillingMonth,
    /// The file of revision 1, if this becomes it.
    pub file: Bytes,
    /// The instant of the run, in microseconds.
    pub as_of: i64,
    pub input_fingerprint: String,
    pub ledger_ids: Option<(i64, i64)>,
    /// Whether what was committed may change in a closed month; else it stays as it was sealed.
    pub takes_commitment: bool,
    /// Ids of subscriptions that cannot be billed now: what was sealed of them stays.
    pub isolated: BTreeSet<String>,
}

/// The run that publishes, and what its database knows of sealed files: path and SHA-256.
pub struct Publisher<'a> {
    pub store: &'a Store,
    pub lock: &'a JobLock,
    pub recorded: Vec<(String, String)>,
}

/// What sealing gave.
#[derive(Debug)]
pub struct Sealed {
    /// The file for `current/`: each subscription month once.
    pub current: Bytes,
    /// The same, read back.
    pub read: ReadBack,
    /// Every file of the journal.
    pub files: Vec<PublishedFile>,
    /// Rows of a revision that this call added, the first aside.
    pub correction_count: usize,
}

/// The folder of a revision.
#[must_use]
pub fn revision_folder(month: BillingMonth, number: i32) -> String {
    format!("{FINAL_FOLDER}/billing_month={month}/rev-{number:04}")
}

/// The month and number of the revision whose Parquet file a path names.
#[must_use]
pub fn revision_of(path: &str) -> Option<(BillingMonth, i32)> {
    let (month, rest) = path.strip_prefix(FINAL_FOLDER)?.strip_prefix("/billing_month=")?.split_once('/')?;
    let (revision, _) = rest.split_once('/')?;
    Some((BillingMonth::parse(month)?, revision.strip_prefix("rev-")?.parse().ok()?))
}

impl Revision {
    fn read(month: BillingMonth, number: i32, bytes: Bytes, manifest: Option<&(String, Bytes)>) -> Result<Self> {
        if let Some((shown, manifest)) = manifest {
            let manifest = Manifest::parse(manifest).with_context(|| format!("`{shown}`"))?;
            let said = manifest.files.iter().find(|file| file.name == PEAK_FILE).map(|file| &file.sha256);
            if said != Some(&sha256(&bytes)) {
                bail!("It and `{shown}` do not agree on its SHA-256");
            }
        }
        let read = parquet_file::read(bytes.clone())?;
        let rows = peak_row::rows(&read.batches)?;
        if read.fact("billing_month")? != month.to_string() || read.fact("revision")? != number.to_string() {
            bail!("Its footer is that of another revision");
        }
        Ok(Self { number, bytes, read, rows })
    }
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
            let revision = Revision::read(month, number, bytes, manifest.as_ref()).map_err(|error| {
                Failure::bad_data(format!("The sealed file `{}` is broken", storage.shown(&path)))
                    .caused_by(error)
                    .hint("restore it from a copy; `tallyroll verify` checks it")
            })?;
            journal.revisions.push(revision);
        }
        Ok(journal)
    }

    /// The latest entry of each subscription month, by key; those that stand at nothing are left out.
    #[must_use]
    pub fn truth(&self) -> BTreeMap<Key, &PeakRow<'static>> {
        let mut truth = BTreeMap::new();
        for row in self.revisions.iter().flat_map(|revision| &revision.rows) {
            truth.insert(row.key(), row);
        }
        truth.retain(|_, row| row.entry.correction_reason.as_deref() != Some(NO_LONGER_THERE));
        truth
    }

    /// What would have to be corrected for the journal to say what `computed` says, in file order.
    ///
    /// What was committed stays as it was sealed, unless `takes_commitment`: the month was billed by it.
    #[must_use]
    pub fn corrections<'a>(
        &'a self,
        computed: &'a [PeakRow<'_>],
        as_of: i64,
        takes_commitment: bool,
        isolated: &BTreeSet<String>,
    ) -> Vec<PeakRow<'a>> {
        let mut truth = self.truth();
        let number = self.next_number();
        let mut corrections = Vec::new();
        for row in computed {
            let before = truth.remove(&row.key());
            let sealed_commitment = before.filter(|_| !takes_commitment).map(|before| before.committed_seats);
            let committed_seats = sealed_commitment.unwrap_or(row.committed_seats);
            if before.is_some_and(|before| before.has_same_facts(row) && before.committed_seats == committed_seats) {
                continue;
            }
            let now = PeakRow { committed_seats, ..row.clone() };
            let reason = before.map_or_else(|| "subscription month added after closing".to_owned(), |before| reason(before, &now));
            corrections.push(correction(before, now, number, as_of, reason));
        }
        for before in truth.into_values().filter(|before| !isolated.contains(before.subscription_id.as_ref())) {
            corrections.push(correction(Some(before), nothing_of(before), number, as_of, NO_LONGER_THERE.to_owned()));
        }
        corrections.sort_by(|left, right| file_order(left).cmp(&file_order(right)));
        corrections
    }

    fn next_number(&self) -> i32 {
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

    /// The file for `current/`: each subscription month once, with the whole as its difference.
    ///
    /// # Errors
    /// When a footer lacks a fact.
    pub fn current(&self) -> Result<Bytes> {
        let (Some(last), is_first) = (self.revisions.last(), self.revisions.len() == 1) else { bail!("The journal is empty") };
        if is_first {
            return Ok(last.bytes.clone());
        }
        let mut rows: Vec<PeakRow<'_>> = self.truth().into_values().cloned().collect();
        rows.sort_by(|left, right| file_order(left).cmp(&file_order(right)));
        for row in &mut rows {
            row.entry.peak_seats_delta = row.month.peak_seats;
            row.entry.overage_seats_delta = row.overage_seats();
        }
        let id = |key: &str| -> Option<i64> { last.read.fact(key).ok()?.parse().ok() };
        let facts = PeakFacts {
            billing_month: self.month.to_string(),
            revision: last.number,
            state: State::Final.name(),
            as_of: last.read.fact("as_of")?.to_owned(),
            input_fingerprint: self.digest(),
            ledger_ids: id("ledger_first_id").zip(id("ledger_last_id")),
        };
        write_rows(self.month, &rows, &facts)
    }
}

/// Makes the journal say what `computed` says: revision 1, or one more with what has changed since, or nothing new.
///
/// # Errors
/// [`Failure`] of kind bad-data where a sealed file is missing, broken, or not the one that the database knows, of kind
/// try-again where the run has lost its lock; what the storage says.
pub async fn seal(storage: &Storage, computed: &Computed, publisher: &Publisher<'_>) -> Result<Sealed> {
    let month = computed.month;
    let mut correction_count = 0;
    for _ in 0..MAX_ATTEMPTS {
        let journal = Journal::read(storage, month).await?;
        require_recorded(storage, &journal, publisher)?;
        let (number, bytes) = if journal.revisions.is_empty() {
            (1, computed.file.clone())
        } else {
            let rows = peak_row::rows(&parquet_file::read(computed.file.clone())?.batches)?;
            let corrections = journal.corrections(&rows, computed.as_of, computed.takes_commitment, &computed.isolated);
            if corrections.is_empty() {
                let mut files = Vec::new();
                for revision in &journal.revisions {
                    files.extend(complete(storage, month, revision.number, &revision.bytes, &revision.read).await?);
                }
                let current = journal.current()?;
                let read = parquet_file::read(current.clone())?;
                return Ok(Sealed { current, read, files, correction_count });
            }
            let facts = PeakFacts {
                billing_month: month.to_string(),
                revision: journal.next_number(),
                state: State::Final.name(),
                as_of: format_instant(instant(computed.as_of)?),
                input_fingerprint: computed.input_fingerprint.clone(),
                ledger_ids: computed.ledger_ids,
            };
            correction_count = corrections.len();
            (journal.next_number(), write_rows(month, &corrections, &facts)?)
        };
        publisher.lock.check(publisher.store).await?;
        // Where another publisher is first, its revision is read and this month is looked at again.
        let path = format!("{}/{PEAK_FILE}", revision_folder(month, number));
        let is_first = storage.create(&path, bytes.clone()).await?;
        abort::point("revision_put");
        if is_first && number == 1 {
            // What was written is read back before anything vouches for it.
            let stored = require(storage, &path).await?;
            let read = parquet_file::read(stored.clone())?;
            abort::point("revision_read_back");
            let files = complete(storage, month, number, &stored, &read).await?;
            return Ok(Sealed { current: stored, read, files, correction_count: 0 });
        }
    }
    Err(Failure::try_again(format!("Billing month {month} is being sealed by other processes too")).hint("run this command again").into())
}

/// Every sealed Parquet file that the database knows is there, as it was.
fn require_recorded(storage: &Storage, journal: &Journal, publisher: &Publisher<'_>) -> Result<()> {
    for (path, sha) in publisher.recorded.iter().filter(|(path, _)| path.ends_with(PEAK_FILE)) {
        let Some((_, number)) = revision_of(path) else { continue };
        let revision = journal.revisions.iter().find(|revision| revision.number == number);
        let what = match revision {
            None => "is missing",
            Some(revision) if sha256(&revision.bytes) != *sha => "is not the one that was sealed",
            Some(_) => continue,
        };
        return Err(Failure::bad_data(format!("The sealed file `{}` {what}", storage.shown(path)))
            .hint("restore it, or set `output.url` back to where it is: a closed month is never sealed twice")
            .into());
    }
    Ok(())
}

/// Writes what follows from a sealed Parquet file and is not there yet; every file of the revision.
async fn complete(storage: &Storage, month: BillingMonth, number: i32, bytes: &Bytes, read: &ReadBack) -> Result<Vec<PublishedFile>> {
    let folder = revision_folder(month, number);
    let path = |name: &str| format!("{folder}/{name}");
    if storage.get(&path(SUCCESS_FILE)).await?.is_some() {
        let manifest_bytes = require(storage, &path(MANIFEST_FILE)).await?;
        let manifest = Manifest::parse(&manifest_bytes).with_context(|| format!("`{}`", storage.shown(&path(MANIFEST_FILE))))?;
        return Ok(published(&folder, number, &manifest, &manifest_bytes));
    }
    let mut csv: Bytes = csv_twin::write(&read.schema, &read.batches)?.into();
    if !storage.create(&path(CSV_FILE), csv.clone()).await? {
        csv = require(storage, &path(CSV_FILE)).await?;
    }
    abort::point("csv_put");
    let manifest = Manifest::of(bytes, read, &csv)?;
    let manifest_bytes = manifest.to_bytes()?;
    storage.create(&path(MANIFEST_FILE), manifest_bytes.clone()).await?;
    abort::point("manifest_put");
    storage.create(&path(SUCCESS_FILE), Bytes::new()).await?;
    abort::point("success_put");
    Ok(published(&folder, number, &manifest, &manifest_bytes))
}

fn published(folder: &str, revision: i32, manifest: &Manifest, manifest_bytes: &Bytes) -> Vec<PublishedFile> {
    let files = manifest.files.iter().map(|file| PublishedFile {
        path: format!("{folder}/{}", file.name),
        revision,
        sha256: file.sha256.clone(),
        size_bytes: file.size_bytes,
        row_count: manifest.row_count,
    });
    files.chain([PublishedFile::of(format!("{folder}/{MANIFEST_FILE}"), revision, manifest_bytes, manifest.row_count)]).collect()
}

fn write_rows(month: BillingMonth, rows: &[PeakRow<'_>], facts: &PeakFacts) -> Result<Bytes> {
    let mut batch = PeakBatch::new(month)?;
    for row in rows {
        batch.push(row);
    }
    parquet_file::write(peak_row::schema(), &[batch.finish()?], &facts.to_footer())
}

fn file_order<'a>(row: &'a PeakRow<'_>) -> (&'a str, &'a str, &'a str, i32) {
    (&row.org_id, &row.subscription_id, &row.seat_type, row.month.period.number)
}

fn correction<'a>(before: Option<&PeakRow<'_>>, now: PeakRow<'a>, number: i32, as_of: i64, reason: String) -> PeakRow<'a> {
    let overage_before = before.and_then(PeakRow::overage_seats);
    let overage_now = now.overage_seats();
    let overage_seats_delta =
        (overage_before.is_some() || overage_now.is_some()).then(|| overage_now.unwrap_or_default() - overage_before.unwrap_or_default());
    let entry = Entry {
        revision: number,
        is_correction: true,
        peak_seats_delta: now.month.peak_seats - before.map_or(0, |before| before.month.peak_seats),
        overage_seats_delta,
        correction_reason: Some(reason.into()),
    };
    PeakRow { as_of, entry, state: State::Final, ..now }
}

/// A subscription month taken back: nobody held a seat in it.
fn nothing_of<'a>(before: &PeakRow<'a>) -> PeakRow<'a> {
    let mut row = before.clone();
    let month = &mut row.month;
    month.coverage = Coverage::None;
    (month.peak_seats, month.seconds_at_peak, month.ledger_rows, month.term_peak_seats) = (0, 0, 0, 0);
    (month.peak_at, month.peak_event_id, month.peak_carried_in) = (None, None, false);
    (month.opening_seats, month.closing_seats, month.min_seats, month.avg_seats_micros) = (None, None, None, None);
    row
}

/// What made a row differ, for a person.
fn reason(before: &PeakRow<'_>, now: &PeakRow<'_>) -> String {
    let (old, new) = (&before.month, &now.month);
    let shown = |number: Option<i64>| number.map_or("none".to_owned(), |number| number.to_string());
    if before.org_id != now.org_id {
        return "subscription changed: another org".to_owned();
    }
    if old.period != new.period {
        return "subscription changed: its start or end".to_owned();
    }
    if before.committed_seats != now.committed_seats {
        return format!("subscription changed: committed seats {} -> {}", shown(before.committed_seats), shown(now.committed_seats));
    }
    if (old.peak_seats, old.peak_event_id) != (new.peak_seats, new.peak_event_id) {
        let set_by = |month: &crate::seats::MonthPeak| format!("{} by row {}", month.peak_seats, shown(month.peak_event_id));
        return format!("late ledger row: peak {} -> {}", set_by(old), set_by(new));
    }
    if old.term_peak_seats != new.term_peak_seats && old.ledger_rows == new.ledger_rows && old.avg_seats_micros == new.avg_seats_micros {
        return format!("late ledger row in an earlier month: term peak {} -> {}", old.term_peak_seats, new.term_peak_seats);
    }
    format!("late ledger row: rows in the month {} -> {}", old.ledger_rows, new.ledger_rows)
}
