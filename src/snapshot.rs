//! Finance files: Parquet with a CSV twin, published whole or not at all, and the journal of closed billing months
//! (`docs/semantics.md` section 7, `docs/interface.md` "Parquet for finance").

mod bounded_http;
mod correction;
pub mod csv_twin;
pub mod digest;
pub mod export;
pub mod journal;
mod local;
pub mod manifest;
pub mod overlap;
pub mod owner;
pub mod parquet_file;
pub mod peak_row;
mod s3_error;
pub mod seal;
pub mod storage;
pub mod usage_monthly;
pub mod verify;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::fingerprint::hex;
pub use crate::job::PEAK_FOLDER;
use crate::seats::calendar::BillingMonth;

/// The file of a billing month's latest truth.
#[must_use]
pub fn current_path(month: BillingMonth) -> String {
    format!("{CURRENT_FOLDER}/billing_month={month}/{PEAK_FILE}")
}

/// The billing month of a file in `current/`.
#[must_use]
pub fn current_month(path: &str) -> Option<BillingMonth> {
    let month = path.strip_prefix(CURRENT_FOLDER)?.strip_prefix("/billing_month=")?.strip_suffix(PEAK_FILE)?;
    BillingMonth::parse(month.strip_suffix('/')?)
}

/// Whether a reader of a folder takes a file for one of its own, by its name.
#[must_use]
pub fn is_parquet(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".parquet")
}

/// Folders that finance reads.
pub const FINANCE_FOLDERS: [&str; 2] = [PEAK_FOLDER, "usage_monthly"];

pub const CURRENT_FOLDER: &str = "peak_seats/current";
pub const FINAL_FOLDER: &str = "peak_seats/final";
pub const PEAK_FILE: &str = "peak_seats.parquet";

/// A file as it was published.
#[derive(Debug, Clone)]
pub struct PublishedFile {
    pub path: String,
    pub revision: i32,
    pub sha256: String,
    pub size_bytes: usize,
    pub row_count: usize,
}

impl PublishedFile {
    #[must_use]
    pub fn of(path: String, revision: i32, bytes: &Bytes, row_count: usize) -> Self {
        Self { path, revision, sha256: sha256(bytes), size_bytes: bytes.len(), row_count }
    }
}

/// The SHA-256 of a file, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
