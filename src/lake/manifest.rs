//! `manifest.json` of an archived revision: what its files are, and what they come to. Pure.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use super::digest::RowDigest;

/// Grows when a file of the lake changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema_version: u32,
    pub tool_version: String,
    pub project_id: String,
    pub source: String,
    /// UTC.
    pub event_date: NaiveDate,
    pub revision: i32,
    /// A digest of the statement that gave the events; of days that were archived before it was kept, none.
    #[serde(default)]
    pub definition: String,
    pub events: EventSums,
    pub tables: Vec<ArchivedTable>,
}

/// What a source's events of a day come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSums {
    pub row_count: i64,
    /// Of whole events: [`RowDigest`].
    pub digest: String,
    /// The earliest and the latest instant.
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    /// As they were logged; those that none was logged of add nothing.
    pub total_tokens: i64,
    pub total_cost_nanos: i64,
    pub files: Vec<LakeFile>,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedTable {
    pub table: String,
    pub columns: Vec<String>,
    pub row_count: i64,
    pub digest: String,
    pub files: Vec<LakeFile>,
}

/// A file, by its path below `archive.url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeFile {
    pub path: String,
    pub sha256: String,
    pub size_bytes: u64,
    pub row_count: i64,
}

impl Manifest {
    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &LakeFile> {
        self.events.files.iter().chain(self.tables.iter().flat_map(|table| &table.files))
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files().map(|file| file.size_bytes).sum()
    }

    /// Rows of all tables.
    #[must_use]
    pub fn row_count(&self) -> i64 {
        self.tables.iter().map(|table| table.row_count).sum()
    }
}

impl ArchivedTable {
    /// The digest of its rows.
    ///
    /// # Errors
    /// When it is none.
    pub fn rows(&self) -> Result<RowDigest> {
        RowDigest::parse(self.row_count, &self.digest)
    }

    /// Whether these are the rows that it names.
    #[must_use]
    pub fn is_of(&self, digest: &RowDigest) -> bool {
        self.row_count == digest.row_count && self.digest == digest.shown()
    }
}
