//! A sealed revision: its folder, its files, and what of them follows from the rows.

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::manifest::{CSV_FILE, Manifest, PeakFacts, SCHEMA_VERSION};
use crate::snapshot::parquet_file::{self, Facts, ReadBack, TOOL_VERSION};
use crate::snapshot::peak_row::{self, BATCH_ROWS, PeakBatch, PeakRow};
use crate::snapshot::{FINAL_FOLDER, PEAK_FILE, PublishedFile, csv_twin, sha256};

pub const MANIFEST_FILE: &str = "manifest.json";
pub const SUCCESS_FILE: &str = "_SUCCESS";

/// One sealed revision, read back.
#[derive(Debug, Clone)]
pub struct Revision {
    pub number: i32,
    pub bytes: Bytes,
    pub read: ReadBack,
    pub rows: Vec<PeakRow<'static>>,
}

/// The folder of a revision.
#[must_use]
pub fn revision_folder(month: BillingMonth, number: i32) -> String {
    format!("{FINAL_FOLDER}/billing_month={month}/rev-{number:04}")
}

/// The Parquet file of a revision.
#[must_use]
pub fn rows_path(month: BillingMonth, number: i32) -> String {
    format!("{}/{PEAK_FILE}", revision_folder(month, number))
}

/// The month and number of the revision of which a path names a file.
#[must_use]
pub fn revision_of(path: &str) -> Option<(BillingMonth, i32)> {
    let (month, rest) = path.strip_prefix(FINAL_FOLDER)?.strip_prefix("/billing_month=")?.split_once('/')?;
    let (revision, _) = rest.split_once('/')?;
    Some((BillingMonth::parse(month)?, revision.strip_prefix("rev-")?.parse().ok()?))
}

impl Revision {
    pub(super) fn read(month: BillingMonth, number: i32, bytes: Bytes, manifest: Option<&(String, Bytes)>) -> Result<Self> {
        if let Some((shown, manifest)) = manifest {
            let manifest = Manifest::parse(manifest).with_context(|| format!("`{shown}`"))?;
            let said = manifest.files.iter().find(|file| file.name == PEAK_FILE).map(|file| &file.sha256);
            if said != Some(&sha256(&bytes)) {
                bail!("It and `{shown}` do not agree on its SHA-256");
            }
        }
        let read = parquet_file::read(bytes.clone())?;
        if read.fact("schema_version")? != SCHEMA_VERSION {
            bail!("It was written by a version of Tallyroll that this one does not know");
        }
        let rows = peak_row::read::rows(&read.batches)?;
        require_whole(month, &read, &rows)?;
        if read.fact("billing_month")? != month.to_string() || read.fact("revision")? != number.to_string() {
            bail!("Its footer is that of another revision");
        }
        Ok(Self { number, bytes, read, rows })
    }

    /// The files that follow from the Parquet file, byte by byte, in the order in which they are written.
    ///
    /// # Errors
    /// When the footer lacks a fact.
    pub fn derived(&self, month: BillingMonth) -> Result<[(String, Bytes); 3]> {
        let csv: Bytes = csv_twin::write(&self.read.schema, &self.read.batches)?.into();
        let manifest = Manifest::of(&self.bytes, &self.read, &csv)?.to_bytes()?;
        let path = |name: &str| format!("{}/{name}", revision_folder(month, self.number));
        Ok([(path(CSV_FILE), csv), (path(MANIFEST_FILE), manifest), (path(SUCCESS_FILE), Bytes::new())])
    }

    /// Whether the file is what its version writes for what it says, to the byte: so its statistics are those of its rows.
    ///
    /// # Errors
    /// When the footer lacks a fact.
    pub fn is_as_written(&self, month: BillingMonth) -> Result<bool> {
        let fact = |key: &str| self.read.fact(key);
        let id = |key: &str| fact(key).ok().and_then(|text| text.parse().ok());
        let Some(project_id) = fact("project_id").ok().and_then(|text| text.parse().ok()) else { return Ok(false) };
        let facts = PeakFacts {
            billing_month: month.to_string(),
            revision: self.number,
            state: State::Final.name(),
            as_of: fact("as_of")?.to_owned(),
            input_fingerprint: fact("input_fingerprint")?.to_owned(),
            ledger_ids: id("ledger_first_id").zip(id("ledger_last_id")),
            project_id,
        };
        let mut footer = facts.to_footer();
        let version = footer.iter_mut().find(|(key, _)| *key == TOOL_VERSION);
        if let Some((_, version)) = version {
            fact(TOOL_VERSION)?.clone_into(version);
        }
        Ok(write_with(month, &self.rows, &footer)? == self.bytes)
    }

    /// The files that the database records: all but the empty one.
    #[must_use]
    pub fn published(&self, month: BillingMonth, derived: &[(String, Bytes); 3]) -> Vec<PublishedFile> {
        let parquet = (format!("{}/{PEAK_FILE}", revision_folder(month, self.number)), self.bytes.clone());
        let files = [&parquet].into_iter().chain(&derived[..2]);
        files.map(|(path, bytes)| PublishedFile::of(path.clone(), self.number, bytes, self.read.row_count())).collect()
    }
}

/// A file says nothing but what its rows say: no column is another than Tallyroll writes for them.
fn require_whole(month: BillingMonth, read: &ReadBack, rows: &[PeakRow<'_>]) -> Result<()> {
    let mut rest = rows;
    for batch in &read.batches {
        let (these, after) = rest.split_at(batch.num_rows());
        let mut derived = PeakBatch::new(month)?;
        for row in these {
            derived.push(row);
        }
        let derived = derived.finish()?;
        if derived.columns() != batch.columns() {
            let fields = derived.schema_ref().fields();
            let odd = fields.iter().zip(derived.columns().iter().zip(batch.columns())).find(|(_, (ours, found))| ours != found);
            bail!("Its column `{}` does not follow from the others", odd.map_or("", |(field, _)| field.name()));
        }
        rest = after;
    }
    Ok(())
}

/// A file of these rows.
///
/// # Errors
/// As [`parquet_file::write`].
pub fn write_rows(month: BillingMonth, rows: &[PeakRow<'_>], facts: &PeakFacts) -> Result<Bytes> {
    write_with(month, rows, &facts.to_footer())
}

pub(super) fn write_with(month: BillingMonth, rows: &[PeakRow<'_>], footer: &Facts) -> Result<Bytes> {
    let mut batch = PeakBatch::new(month)?;
    // In batches as a fold writes them: a file does not depend on who wrote it.
    let batches = rows.chunks(BATCH_ROWS).map(|rows| {
        for row in rows {
            batch.push(row);
        }
        batch.finish()
    });
    parquet_file::write(peak_row::schema(), &batches.collect::<Result<Vec<_>>>()?, footer)
}
