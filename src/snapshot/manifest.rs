//! `manifest.json` of a sealed revision: what its files are, derived from the Parquet file alone, so that whoever completes a
//! revision writes the same bytes.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::parquet_file::{Facts, ReadBack, TOOL_VERSION};
use super::{PEAK_FILE, sha256};

/// The CSV twin beside a sealed Parquet file.
pub const CSV_FILE: &str = "peak_seats.csv";

/// Grows when a column or a key of the files changes its meaning, or a byte of what follows from the Parquet file: then sealed files
/// of the older number go on being derived as they were.
pub const SCHEMA_VERSION: &str = "1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub schema_version: String,
    pub billing_month: String,
    pub revision: i32,
    pub state: String,
    pub as_of: String,
    pub tool_version: String,
    /// Whose month it is; files from before it was written name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// SHA-256 over what ledger and subscriptions gave for the whole month, in order.
    pub input_fingerprint: String,
    /// The smallest and largest id of ledger rows that occurred before the month's end.
    pub ledger_first_id: Option<i64>,
    pub ledger_last_id: Option<i64>,
    pub row_count: usize,
    pub files: Vec<ManifestFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    pub name: String,
    pub sha256: String,
    pub size_bytes: usize,
}

/// What a Parquet file of peak seats says of itself in its footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeakFacts {
    pub billing_month: String,
    pub revision: i32,
    pub state: &'static str,
    pub as_of: String,
    pub input_fingerprint: String,
    pub ledger_ids: Option<(i64, i64)>,
    pub project_id: Uuid,
}

impl PeakFacts {
    /// The footer's keys and values.
    #[must_use]
    pub fn to_footer(&self) -> Facts {
        let mut facts = vec![
            ("schema_version", SCHEMA_VERSION.to_owned()),
            (TOOL_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
            ("billing_month", self.billing_month.clone()),
            ("revision", self.revision.to_string()),
            ("state", self.state.to_owned()),
            ("as_of", self.as_of.clone()),
            ("project_id", self.project_id.to_string()),
            ("input_fingerprint", self.input_fingerprint.clone()),
        ];
        if let Some((first, last)) = self.ledger_ids {
            facts.extend([("ledger_first_id", first.to_string()), ("ledger_last_id", last.to_string())]);
        }
        facts
    }
}

impl Manifest {
    /// The manifest of a sealed Parquet file and its CSV twin.
    ///
    /// # Errors
    /// When the file's footer lacks a fact.
    pub fn of(parquet: &Bytes, read: &ReadBack, csv: &[u8]) -> Result<Self> {
        let id = |key: &str| read.fact(key).ok().map(str::parse).transpose();
        let file = |name: &str, bytes: &[u8]| ManifestFile { name: name.to_owned(), sha256: sha256(bytes), size_bytes: bytes.len() };
        Ok(Self {
            schema_version: read.fact("schema_version")?.to_owned(),
            billing_month: read.fact("billing_month")?.to_owned(),
            revision: read.fact("revision")?.parse()?,
            state: read.fact("state")?.to_owned(),
            as_of: read.fact("as_of")?.to_owned(),
            tool_version: read.fact("tool_version")?.to_owned(),
            project_id: read.fact("project_id").ok().map(str::to_owned),
            input_fingerprint: read.fact("input_fingerprint")?.to_owned(),
            ledger_first_id: id("ledger_first_id")?,
            ledger_last_id: id("ledger_last_id")?,
            row_count: read.row_count(),
            files: vec![file(PEAK_FILE, parquet), file(CSV_FILE, csv)],
        })
    }

    /// The file's bytes: JSON, two spaces deep, a line end at the end.
    ///
    /// # Errors
    /// Never: every value is plain.
    pub fn to_bytes(&self) -> Result<Bytes> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text.into())
    }

    /// Reads a manifest; a byte that this version would write otherwise is an error.
    ///
    /// # Errors
    /// When it is not what [`Self::to_bytes`] gives for what it says.
    pub fn parse(bytes: &Bytes) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes).context("It is no manifest")?;
        ensure!(manifest.to_bytes()? == *bytes, "It is not written as a manifest is");
        Ok(manifest)
    }
}
