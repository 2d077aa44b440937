//! `verify`: every sealed file against its manifest, its journal, the record in the database, and the ledger as it is now.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::journal::{Journal, MANIFEST_FILE, Revision, SUCCESS_FILE, revision_folder};
use super::manifest::{CSV_FILE, Manifest};
use super::peak_row::PeakRow;
use super::storage::{Storage, require};
use super::{CURRENT_FOLDER, FINAL_FOLDER, PEAK_FILE, sha256};
use crate::failure;
use crate::seats::calendar::BillingMonth;
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
    /// A month that should be sealed and is not.
    #[must_use]
    pub fn unsealed(month: BillingMonth) -> Self {
        let problem = format!("Billing month {month} is closed and was not sealed: run `tallyroll run-job peak_seats`");
        Self { billing_month: month.to_string(), revision_count: 0, row_count: 0, peak_seats: 0, problems: vec![problem], digest: None }
    }
}

/// Checks the sealed months, or one of them, and the file in `current/` of every month that was written.
///
/// # Errors
/// Where a check could not be made; what a check finds is in the result.
pub async fn verify(storage: &Storage, store: &Store, only: Option<BillingMonth>) -> Result<Vec<Verified>> {
    let mut by_month: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut strangers = Vec::new();
    for path in storage.list(FINAL_FOLDER).await? {
        match month_in(&path) {
            Some(month) => by_month.entry(month.to_string()).or_default().push(path),
            None => strangers.push(path),
        }
    }
    let sql = "SELECT path, billing_month, sha256 FROM snapshot_file ORDER BY path";
    let mut recorded: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in store.query(sql, &[]).await? {
        recorded.entry(row.text("billing_month")?).or_default().push((row.text("path")?, row.text("sha256")?));
    }
    let months: BTreeSet<String> = by_month.keys().chain(recorded.keys()).cloned().collect();
    let mut verified = Vec::new();
    for name in months {
        let Some(month) = BillingMonth::parse(&name).filter(|month| only.is_none_or(|only| only == *month)) else { continue };
        let none = Vec::new();
        let (paths, records) = (by_month.get(&name).unwrap_or(&none), recorded.get(&name));
        verified.push(verify_month(storage, month, paths, records.map_or(&[][..], Vec::as_slice)).await?);
    }
    if only.is_none() && !strangers.is_empty() {
        let problems = strangers.iter().map(|path| format!("`{}` is no file of a billing month", storage.shown(path))).collect();
        verified.push(Verified { billing_month: "-".to_owned(), revision_count: 0, row_count: 0, peak_seats: 0, problems, digest: None });
    }
    Ok(verified)
}

async fn verify_month(storage: &Storage, month: BillingMonth, paths: &[String], recorded: &[(String, String)]) -> Result<Verified> {
    let mut verified =
        Verified { billing_month: month.to_string(), revision_count: 0, row_count: 0, peak_seats: 0, problems: Vec::new(), digest: None };
    for (path, sha) in recorded {
        match storage.get(path).await? {
            None => verified.problems.push(format!("`{}` is missing", storage.shown(path))),
            Some(bytes) if sha256(&bytes) != *sha => {
                let advice = if path.starts_with(CURRENT_FOLDER) { "; `run-job peak_seats --force` writes it anew" } else { "" };
                verified.problems.push(format!("`{}` is not the file that was published{advice}", storage.shown(path)));
            }
            Some(_) => {}
        }
    }
    let journal = match Journal::read(storage, month).await {
        Ok(journal) => journal,
        Err(error) if failure::exit_code(&error) == 65 => {
            verified.problems.push(format!("{error:#}"));
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    if recorded.is_empty() {
        verified
            .problems
            .push(format!("Billing month {month} is sealed, but the database has no record of it: run `tallyroll run-job peak_seats`"));
    }
    let mut expected = BTreeSet::new();
    for revision in &journal.revisions {
        let folder = revision_folder(month, revision.number);
        expected.extend([PEAK_FILE, CSV_FILE, MANIFEST_FILE, SUCCESS_FILE].map(|name| format!("{folder}/{name}")));
        match verify_revision(storage, revision, &folder).await {
            Err(error) if matches!(failure::exit_code(&error), 75 | 78) => return Err(error),
            Err(error) => verified.problems.push(format!("{error:#}")),
            Ok(()) => {}
        }
    }
    let strangers = paths.iter().filter(|path| !expected.contains(*path));
    verified.problems.extend(strangers.map(|path| format!("`{}` belongs to no revision", storage.shown(path))));
    if let Err(error) = verify_deltas(&journal) {
        verified.problems.push(format!("Billing month {month}: {error:#}"));
    }
    let truth = journal.truth();
    verified.digest = (!journal.revisions.is_empty()).then(|| journal.digest());
    verified.revision_count = journal.revisions.len();
    verified.row_count = truth.len();
    verified.peak_seats = truth.values().map(|row| row.month.peak_seats).sum();
    Ok(verified)
}

/// A revision's files against its manifest, and the manifest against the Parquet file it was derived from.
async fn verify_revision(storage: &Storage, revision: &Revision, folder: &str) -> Result<()> {
    let path = |name: &str| format!("{folder}/{name}");
    let csv = require(storage, &path(CSV_FILE)).await?;
    let manifest_bytes = require(storage, &path(MANIFEST_FILE)).await?;
    let shown = storage.shown(&path(MANIFEST_FILE));
    let manifest = Manifest::parse(&manifest_bytes).with_context(|| format!("`{shown}` is broken"))?;
    let success = require(storage, &path(SUCCESS_FILE)).await?;
    ensure!(success.is_empty(), "`{}` is not empty", storage.shown(&path(SUCCESS_FILE)));
    for (name, bytes) in [(PEAK_FILE, &revision.bytes), (CSV_FILE, &csv)] {
        let said = manifest.files.iter().find(|file| file.name == name).with_context(|| format!("`{shown}` does not name `{name}`"))?;
        ensure!(
            said.sha256 == sha256(bytes) && said.size_bytes == bytes.len(),
            "`{}` and `{shown}` do not agree on its SHA-256: one of them was changed",
            storage.shown(&path(name))
        );
    }
    ensure!(manifest == Manifest::of(&revision.bytes, &revision.read, &csv)?, "`{shown}` says other than the footer of its Parquet file");
    Ok(())
}

/// Every entry's differences are those to the entries before it.
fn verify_deltas(journal: &Journal) -> Result<()> {
    let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for revision in &journal.revisions {
        for row in &revision.rows {
            let sum = sums.entry(row.key()).or_default();
            sum.0 += row.entry.peak_seats_delta;
            sum.1 += row.entry.overage_seats_delta.unwrap_or_default();
            ensure!(
                *sum == (row.month.peak_seats, row.overage_seats().unwrap_or_default()) && row.entry.revision == revision.number,
                "the differences of subscription `{}`, month {}, do not add up in revision {}",
                row.subscription_id,
                row.month.period.number,
                revision.number
            );
        }
    }
    Ok(())
}

fn month_in(path: &str) -> Option<BillingMonth> {
    BillingMonth::parse(path.strip_prefix(FINAL_FOLDER)?.strip_prefix("/billing_month=")?.split('/').next()?)
}

/// What the ledger says otherwise, as one line a month: `run-job peak_seats` would write these corrections.
#[must_use]
pub fn ledger_problem(month: BillingMonth, corrections: &[PeakRow<'_>]) -> String {
    let first = corrections.first().map_or_else(String::new, |first| {
        format!(
            " for {} subscription month(s), first `{}` month {} ({})",
            corrections.len(),
            first.subscription_id.chars().take(60).collect::<String>(),
            first.month.period.number,
            first.entry.correction_reason.as_deref().unwrap_or("changed"),
        )
    });
    format!("Billing month {month}: the ledger says otherwise{first}; `tallyroll run-job peak_seats` writes the correction")
}
