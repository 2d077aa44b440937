//! Sealing a billing month: a revision's Parquet file is created, the journal is read again and checked against what the database
//! knows, and what follows from it is written. Nothing that is found is recorded for what it says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use bytes::Bytes;
use uuid::Uuid;

use super::journal::{Journal, keep_agreement, revision_folder, write_rows};
use super::manifest::PeakFacts;
use super::parquet_file::{self, ReadBack};
use super::peak_row::{self, PeakRow};
use super::storage::{Storage, require};
use super::{FINAL_FOLDER, PEAK_FILE, PublishedFile, correction, owner};
use crate::abort;
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State, instant};
use crate::store::lock::JobLock;
use crate::store::{Store, format_instant};

/// How often another publisher may be first with the same revision before this one gives up.
const MAX_ATTEMPTS: usize = 5;

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
    /// Whether plan, licence and what was committed may change in a closed month; else they stay as they were sealed.
    pub takes_agreement: bool,
    /// Ids of subscriptions that cannot be billed now: what was sealed of them stays.
    pub isolated: BTreeSet<String>,
}

/// The run that publishes, and what its database knows of sealed files.
pub struct Publisher<'a> {
    pub store: &'a Store,
    pub lock: &'a JobLock,
    pub project_id: Uuid,
    /// Path and SHA-256.
    pub recorded: Vec<(String, String)>,
    /// The latest revision that the month's rows in the database are from; 0 where they are of none.
    pub known_revision: i64,
}

impl Publisher<'_> {
    fn has_recorded(&self, path: &str) -> bool {
        self.recorded.iter().any(|(recorded, _)| recorded == path)
    }
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

/// Makes the journal say what `computed` says: revision 1, or one more with what has changed since, or nothing new.
///
/// # Errors
/// [`Failure`] of kind bad-data where a sealed file is missing, broken, or not the one that the database knows, of kind
/// try-again where the run has lost its lock, of kind config where the month is another project's; what the storage says.
pub async fn seal(storage: &Storage, computed: &Computed, publisher: &Publisher<'_>) -> Result<Sealed> {
    let month = computed.month;
    let rows = peak_row::rows(&parquet_file::read(computed.file.clone())?.batches)?;
    let mut correction_count = 0;
    for _ in 0..MAX_ATTEMPTS {
        let journal = Journal::read(storage, month).await?;
        abort::point("revision_read_back");
        let files = complete(storage, &journal, computed, &rows, publisher).await?;
        let (number, bytes) = if journal.revisions.is_empty() {
            (1, computed.file.clone())
        } else {
            let corrections = journal.corrections(&rows, computed.as_of, computed.takes_agreement, &computed.isolated);
            if corrections.is_empty() {
                let current = journal.current(publisher.project_id)?;
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
                project_id: publisher.project_id,
            };
            correction_count = corrections.len();
            (journal.next_number(), write_rows(month, &corrections, &facts)?)
        };
        publisher.lock.check(publisher.store).await?;
        // Written or found there: the journal is read again, and what it then says is what counts.
        storage.create(&format!("{}/{PEAK_FILE}", revision_folder(month, number)), bytes).await?;
        abort::point("revision_put");
    }
    Err(Failure::try_again(format!("Billing month {month} is being sealed by other processes too")).hint("run this command again").into())
}

/// Checks every revision against what the database knows, and writes what follows from its Parquet file and is not there yet.
async fn complete(
    storage: &Storage,
    journal: &Journal,
    computed: &Computed,
    rows: &[PeakRow<'_>],
    publisher: &Publisher<'_>,
) -> Result<Vec<PublishedFile>> {
    let mut files = Vec::new();
    let mut derived = Vec::new();
    for revision in &journal.revisions {
        let follows = revision.derived(journal.month)?;
        files.extend(revision.published(journal.month, &follows));
        derived.push(follows);
    }
    require_recorded(storage, journal, &files, publisher)?;
    if !computed.takes_agreement {
        require_agreement(storage, journal, computed, rows, publisher)?;
    }
    for [csv, manifest, success] in &derived {
        put_derived(storage, csv).await?;
        abort::point("csv_put");
        put_derived(storage, manifest).await?;
        abort::point("manifest_put");
        put_derived(storage, success).await?;
        abort::point("success_put");
    }
    Ok(files)
}

/// Writes a file where it is not there yet; what is there must be the same.
async fn put_derived(storage: &Storage, (path, bytes): &(String, Bytes)) -> Result<()> {
    let found = match storage.get(path).await? {
        Some(found) => found,
        None if storage.create(path, bytes.clone()).await? => return Ok(()),
        None => require(storage, path).await?,
    };
    require_derived(storage, path, &found, bytes)
}

/// Fails where a file that was found is not what its revision's Parquet file says.
///
/// # Errors
/// [`Failure`] of kind bad-data.
pub fn require_derived(storage: &Storage, path: &str, found: &Bytes, derived: &Bytes) -> Result<()> {
    if found == derived {
        return Ok(());
    }
    Err(Failure::bad_data(format!(
        "The sealed file `{}` does not follow from the Parquet file beside it: it was changed",
        storage.shown(path)
    ))
    .hint("restore it from a copy, or remove it: the next run writes it as it follows from the Parquet file")
    .into())
}

/// Every sealed file that the database knows is there, as it was; it knows those that its rows are from; and those that it does not
/// know are this project's.
fn require_recorded(storage: &Storage, journal: &Journal, files: &[PublishedFile], publisher: &Publisher<'_>) -> Result<()> {
    for (path, sha) in publisher.recorded.iter().filter(|(path, _)| path.starts_with(FINAL_FOLDER)) {
        let what = match files.iter().find(|file| file.path == *path) {
            None => "is missing",
            Some(file) if file.sha256 != *sha => "is not the one that was sealed",
            Some(_) => continue,
        };
        return Err(Failure::bad_data(format!("The sealed file `{}` {what}", storage.shown(path)))
            .hint("restore it, or set `output.url` back to where it is: a closed month is never sealed twice")
            .into());
    }
    let is_known = |file: &&PublishedFile| i64::from(file.revision) <= publisher.known_revision;
    if let Some(file) = files.iter().filter(is_known).find(|file| !publisher.has_recorded(&file.path)) {
        return Err(Failure::bad_data(format!("The database has lost its record of the sealed file `{}`", storage.shown(&file.path)))
            .hint("restore the month's rows of `snapshot_file` from a backup of the database")
            .into());
    }
    for revision in &journal.revisions {
        let path = format!("{}/{PEAK_FILE}", revision_folder(journal.month, revision.number));
        if !publisher.has_recorded(&path) {
            owner::check_file(storage, publisher.store, &path, &revision.read, publisher.project_id)?;
        }
    }
    Ok(())
}

/// A revision after recorded ones, which itself was not recorded, changes no plan, licence or commitment: it has those that were
/// sealed, or of a subscription month that came late the present ones. Only a run with `--force` writes others, so only one goes on
/// with them.
fn require_agreement(
    storage: &Storage,
    journal: &Journal,
    computed: &Computed,
    rows: &[PeakRow<'_>],
    publisher: &Publisher<'_>,
) -> Result<()> {
    let path = |number| format!("{}/{PEAK_FILE}", revision_folder(journal.month, number));
    let Some(last) = journal.revisions.iter().rev().find(|revision| publisher.has_recorded(&path(revision.number))) else { return Ok(()) };
    let mut now: Option<BTreeMap<_, _>> = None;
    for revision in journal.revisions.iter().filter(|revision| revision.number > last.number) {
        let now = now.get_or_insert_with(|| rows.iter().map(|row| (row.key(), row)).collect());
        let sealed = journal.truth_before(revision.number);
        let is_agreed = |row: &&PeakRow<'static>| {
            let (before, present) = (sealed.get(&row.key()).copied(), now.get(&row.key()).copied());
            // What is taken back and is there would come again as it is agreed now.
            let is_there = present.is_some() || computed.isolated.contains(row.subscription_id.as_ref());
            before.or(present).is_some_and(|known| {
                let mut expected = known.clone();
                keep_agreement(&sealed, &mut expected);
                row.agreement() == expected.agreement() && !(correction::is_gone(row) && is_there)
            })
        };
        if let Some(odd) = revision.rows.iter().find(|row| !is_agreed(row)) {
            let (path, month) = (storage.shown(&path(revision.number)), computed.month);
            let id: String = odd.subscription_id.chars().take(60).collect();
            return Err(Failure::bad_data(format!(
                "The database has no record of the sealed file `{path}`, and it says of subscription `{id}`, month {}, what was neither sealed nor follows from the ledger",
                odd.month.period.number
            ))
            .hint(format!(
                "remove its folder if no run of yours wrote it; if one with `--force` was killed, `tallyroll run-job peak_seats --month {month} --force` \
                 goes on with it and takes plan, licence and commitment as they are now"
            ))
            .into());
        }
    }
    Ok(())
}
