//! What an import says of itself.

use serde::Serialize;

use super::bad_rows::BadRow;
use super::preview::Preview;

/// What an import of one file did.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    pub file: String,
    pub row_count: u64,
    pub inserted_count: u64,
    /// Rows that were there before.
    pub known_count: u64,
    pub bad_count: u64,
    /// Of those that were there the ones that say something else there; nothing of them was changed.
    pub differing_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_differing_line: Option<u64>,
    /// Rows that are no requests, by the format.
    pub skipped_count: u64,
    /// Of these the sums of spans that are not over.
    pub unfinished_count: u64,
    pub bad_rows: Vec<BadRow>,
    /// Columns of the file that no field takes.
    pub ignored_columns: Vec<String>,
    /// Under which the rows that came are known, where any did.
    pub import_id: Option<String>,
    /// Rows that the import in whose place it came had brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_count: Option<u64>,
    /// Where nothing was to be imported: what would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}
