//! Sealing a billing month: a revision's Parquet file is created, the journal is read again and checked against what the database
//! knows, and what follows from it is written. Nothing that is found is recorded for what it says.

use std::collections::BTreeSet;

use anyhow::Result;
use bytes::Bytes;
use uuid::Uuid;

use super::journal::{Journal, revision_folder, write_rows};
use super::manifest::PeakFacts;
use super::parquet_file::{self, ReadBack};
use super::peak_row::{self, PeakRow};
use super::storage::{Storage, require};
use super::{FINAL_FOLDER, PEAK_FILE, PublishedFile, digest, owner, sha256};
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
    /// Whether the database holds anything of the month, sealed or not, or had sealed any month before this run: whoever can write into the
    /// output could else put months there that are to come.
    pub knows_month: bool,
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
    let rows = peak_row::read::rows(&parquet_file::read(computed.file.clone())?.batches)?;
    let mut correction_count = 0;
    for _ in 0..MAX_ATTEMPTS {
        let journal = Journal::read(storage, month).await?;
        abort::point("revision_read_back");
        let files = complete(storage, &journal, computed, &rows, publisher).await?;
        let Some(next) = next(&journal, computed, &rows, publisher)? else {
            let current = journal.current(publisher.project_id)?;
            let read = parquet_file::read(current.clone())?;
            return Ok(Sealed { current, read, files, correction_count });
        };
        correction_count = next.correction_count;
        let path = format!("{}/{PEAK_FILE}", revision_folder(month, next.number));
        digest::intend(publisher.store, publisher.lock, &path, &next.bytes).await?;
        abort::point("revision_intended");
        // Written or found there: the journal is read again, and what it then says is what counts.
        storage.create(&path, next.bytes).await?;
        abort::point("revision_put");
    }
    Err(Failure::try_again(format!("Billing month {month} is being sealed by other processes too")).hint("run this command again").into())
}

/// A revision to be created.
struct Next {
    number: i32,
    bytes: Bytes,
    correction_count: usize,
}

/// What the journal lacks to say what `computed` says, if anything.
fn next(journal: &Journal, computed: &Computed, rows: &[PeakRow<'_>], publisher: &Publisher<'_>) -> Result<Option<Next>> {
    let number = journal.next_number();
    if journal.revisions.is_empty() {
        return Ok(Some(Next { number, bytes: computed.file.clone(), correction_count: 0 }));
    }
    let corrections = journal.corrections(rows, computed.as_of, computed.takes_agreement, &computed.isolated);
    if corrections.is_empty() {
        return Ok(None);
    }
    let facts = PeakFacts {
        billing_month: journal.month.to_string(),
        revision: number,
        state: State::Final.name(),
        as_of: format_instant(instant(computed.as_of)?),
        input_fingerprint: computed.input_fingerprint.clone(),
        ledger_ids: computed.ledger_ids,
        project_id: publisher.project_id,
    };
    Ok(Some(Next { number, bytes: write_rows(journal.month, &corrections, &facts)?, correction_count: corrections.len() }))
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
    require_recorded(storage, &files, publisher)?;
    require_ours(storage, journal, computed, rows, publisher).await?;
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

/// Every sealed file that the database knows is there, as it was, and it knows those that its rows are from.
fn require_recorded(storage: &Storage, files: &[PublishedFile], publisher: &Publisher<'_>) -> Result<()> {
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
    Ok(())
}

/// A revision that the database has not recorded is taken up where a run of this database was about to create it, or where this run
/// would. Where the database has sealed nothing yet and knows nothing of the month, it has to be what the writer makes of what it says,
/// byte for byte.
async fn require_ours(
    storage: &Storage,
    journal: &Journal,
    computed: &Computed,
    rows: &[PeakRow<'_>],
    publisher: &Publisher<'_>,
) -> Result<()> {
    for revision in &journal.revisions {
        let path = format!("{}/{PEAK_FILE}", revision_folder(journal.month, revision.number));
        if publisher.has_recorded(&path) {
            continue;
        }
        owner::check_file(storage, publisher.store, &path, &revision.read, publisher.project_id)?;
        let intended = digest::of(&mut publisher.store.begin_read().await?, &path).await?;
        let is_ours = if intended.contains(&sha256(&revision.bytes)) {
            true
        } else if publisher.knows_month {
            let next = next(&journal.before(revision.number), computed, rows, publisher)?;
            next.is_some_and(|next| next.number == revision.number && next.bytes == revision.bytes)
        } else {
            revision.is_as_written(journal.month)?
        };
        if !is_ours {
            return Err(Failure::bad_data(format!(
                "The database has no record of the sealed file `{}`, and no run of it was about to write it so",
                storage.shown(&path)
            ))
            .hint(format!(
                "remove its folder if no run of yours wrote it; if one did, and the database was restored from a backup since, say so and run again: {}",
                digest::adoption(publisher.store, &path, &revision.bytes)
            ))
            .into());
        }
    }
    Ok(())
}
