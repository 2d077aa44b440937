//! `verify`: every sealed file against its manifest, its journal, the record in the database, and the ledger as it is now.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;

use super::journal::{Journal, MANIFEST_FILE, SUCCESS_FILE, revision_folder};
use super::manifest::CSV_FILE;
use super::peak_row::{self, PeakRow};
use super::seal::require_derived;
use super::storage::{Storage, require};
use super::{CURRENT_FOLDER, FINAL_FOLDER, PEAK_FILE, PEAK_FOLDER, current_path, owner, parquet_file, sha256, usage_monthly};
use crate::failure::{self, Failure};
use crate::jobs::Jobs;
use crate::seats::calendar::BillingMonth;
use crate::show::counted;
use crate::store::Store;

/// What checking one billing month gave.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub billing_month: String,
    pub revision_count: usize,
    pub row_count: usize,
    pub peak_seats: i64,
    pub problems: Vec<String>,
    /// The digest of what the journal says.
    #[serde(skip)]
    pub digest: Option<String>,
}

impl Verified {
    /// Takes what was found as a problem of the month.
    fn add(&mut self, error: anyhow::Error) -> Result<()> {
        if matches!(failure::exit_code(&error), 75 | 78) {
            return Err(error);
        }
        self.problems.push(format!("{error:#}"));
        Ok(())
    }

    /// A month of which nothing holds but these problems.
    #[must_use]
    pub fn of(billing_month: String, problems: Vec<String>) -> Self {
        Self { billing_month, revision_count: 0, row_count: 0, peak_seats: 0, problems, digest: None }
    }

    /// A month that should be sealed and is not.
    #[must_use]
    pub fn unsealed(month: BillingMonth) -> Self {
        let problem = format!("Billing month {month} is closed and was not sealed: run `tallyroll run-job peak_seats`");
        Self::of(month.to_string(), vec![problem])
    }
}

/// What fixes a file in `current/`.
const WRITTEN_ANEW: &str = "; `run-job peak_seats --force` writes it anew";

/// Checks the sealed months, or one of them, and the file in `current/` of every month that was written; names files that no run of
/// these jobs published.
///
/// # Errors
/// Where a check could not be made; what a check finds is in the result.
pub async fn verify(storage: &Storage, store: &Store, jobs: &Jobs, only: Option<BillingMonth>) -> Result<Vec<Verified>> {
    owner::check(storage, store).await?;
    let mut by_month: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut strangers = Vec::new();
    let sql = "SELECT path, billing_month, sha256 FROM snapshot_file ORDER BY path";
    let mut recorded: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in store.query(sql, &[]).await? {
        recorded.entry(row.text("billing_month")?).or_default().push((row.text("path")?, row.text("sha256")?));
    }
    let known: BTreeSet<&str> = recorded.values().flatten().map(|(path, _)| path.as_str()).collect();
    for path in storage.list(PEAK_FOLDER).await? {
        if let Some(month) = month_in(&path) {
            by_month.entry(month.to_string()).or_default().push(path);
        } else if !known.contains(path.as_str()) {
            strangers.push(path);
        }
    }
    strangers.extend(usage_monthly::strangers(storage, store, jobs).await?);
    let months: BTreeSet<String> = by_month.keys().chain(recorded.keys()).cloned().collect();
    let mut verified = Vec::new();
    for name in months {
        let Some(month) = BillingMonth::parse(&name).filter(|month| only.is_none_or(|only| only == *month)) else { continue };
        let none = Vec::new();
        let (paths, records) = (by_month.get(&name).unwrap_or(&none), recorded.get(&name));
        verified.push(verify_month(storage, month, paths, records.map_or(&[][..], Vec::as_slice)).await?);
    }
    if only.is_none() && !strangers.is_empty() {
        let problems =
            strangers.iter().map(|path| format!("`{}` is no file that was published here: remove it", storage.shown(path))).collect();
        verified.push(Verified::of("-".to_owned(), problems));
    }
    Ok(verified)
}

async fn verify_month(storage: &Storage, month: BillingMonth, paths: &[String], recorded: &[(String, String)]) -> Result<Verified> {
    let mut verified = Verified::of(month.to_string(), Vec::new());
    for (path, sha) in recorded {
        match storage.get(path).await {
            Ok(None) => verified.problems.push(format!("`{}` is missing", storage.shown(path))),
            Ok(Some(bytes)) if sha256(&bytes) != *sha => {
                let advice = if path.starts_with(CURRENT_FOLDER) { WRITTEN_ANEW } else { "" };
                verified.problems.push(format!("`{}` is not the file that was published{advice}", storage.shown(path)));
            }
            Ok(Some(_)) => {}
            Err(error) => verified.add(error)?,
        }
    }
    let journal = match Journal::read(storage, month).await {
        Ok(journal) => journal,
        Err(error) => {
            verified.add(error)?;
            return Ok(verified);
        }
    };
    if let Some(path) = unrecorded(&journal, recorded) {
        let shown = storage.shown(&path);
        verified.problems.push(format!(
            "`{shown}` is sealed, but the database has no record of it: remove its folder if no run of yours wrote it; `tallyroll run-job \
             peak_seats` takes up what one did"
        ));
    }
    let mut expected = BTreeSet::new();
    for revision in &journal.revisions {
        let folder = revision_folder(month, revision.number);
        expected.extend([PEAK_FILE, CSV_FILE, MANIFEST_FILE, SUCCESS_FILE].map(|name| format!("{folder}/{name}")));
        for (path, derived) in revision.derived(month)? {
            if let Err(error) = verify_derived(storage, &path, &derived).await {
                verified.add(error)?;
            }
        }
    }
    let strangers = paths.iter().filter(|path| !expected.contains(*path));
    verified.problems.extend(strangers.map(|path| format!("`{}` belongs to no revision", storage.shown(path))));
    if let Err(error) = verify_current(storage, &journal).await {
        verified.add(error)?;
    }
    let truth = journal.truth();
    verified.digest = (!journal.revisions.is_empty()).then(|| journal.digest());
    verified.revision_count = journal.revisions.len();
    verified.row_count = truth.len();
    verified.peak_seats = truth.values().map(|row| row.month.peak_seats).sum();
    Ok(verified)
}

async fn verify_derived(storage: &Storage, path: &str, derived: &Bytes) -> Result<()> {
    require_derived(storage, path, &require(storage, path).await?, derived)
}

/// The first file of the journal that the database has not recorded.
fn unrecorded(journal: &Journal, recorded: &[(String, String)]) -> Option<String> {
    let files = journal.revisions.iter().flat_map(|revision| {
        let folder = revision_folder(journal.month, revision.number);
        [PEAK_FILE, CSV_FILE, MANIFEST_FILE].map(|name| format!("{folder}/{name}"))
    });
    files.into_iter().find(|path| recorded.iter().all(|(known, _)| known != path))
}

/// The file in `current/` of a sealed month says what its journal says, whatever was recorded of it.
async fn verify_current(storage: &Storage, journal: &Journal) -> Result<()> {
    let path = current_path(journal.month);
    let (false, Some(bytes)) = (journal.revisions.is_empty(), storage.get(&path).await?) else { return Ok(()) };
    let rows = parquet_file::read(bytes).and_then(|read| peak_row::read::rows(&read.batches));
    if rows.is_ok_and(|rows| rows == journal.current_rows()) {
        return Ok(());
    }
    Err(Failure::bad_data(format!("`{}` says other than the sealed files of {}{WRITTEN_ANEW}", storage.shown(&path), journal.month)).into())
}

fn month_in(path: &str) -> Option<BillingMonth> {
    BillingMonth::parse(path.strip_prefix(FINAL_FOLDER)?.strip_prefix("/billing_month=")?.split('/').next()?)
}

/// What the ledger says otherwise, as one line a month: `run-job peak_seats` would write these corrections.
#[must_use]
pub fn ledger_problem(month: BillingMonth, corrections: &[PeakRow<'_>]) -> String {
    let first = corrections.first().map_or_else(String::new, |first| {
        format!(
            " for {}, first `{}` month {} ({})",
            counted(corrections.len(), "subscription month"),
            first.subscription_id.chars().take(60).collect::<String>(),
            first.month.period.number,
            first.entry.correction_reason.as_deref().unwrap_or("changed"),
        )
    });
    format!("Billing month {month}: the ledger says otherwise{first}; `tallyroll run-job peak_seats` writes the correction")
}
