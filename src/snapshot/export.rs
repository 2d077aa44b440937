//! Copies of the finance files, each with a CSV twin.

use anyhow::Result;

use super::journal::SUCCESS_FILE;
use super::owner::OWNER_FILE;
use super::storage::{Storage, require};
use super::{CURRENT_FOLDER, FINAL_FOLDER, FINANCE_FOLDERS, csv_twin, digest, is_parquet, parquet_file, sha256};
use crate::failure::Failure;
use crate::store::Store;

/// A file that was copied.
#[derive(Debug)]
pub struct Exported {
    pub path: String,
    pub row_count: usize,
}

/// Copies every file that `from` has for finance, as it was published, with a CSV beside each Parquet.
///
/// # Errors
/// What database or storage say; [`Failure`] of kind bad-data for a file that is not the one that was published.
pub async fn export(store: &Store, from: &Storage, to: &Storage) -> Result<Vec<Exported>> {
    if to.get(OWNER_FILE).await?.is_some() {
        return Err(Failure::usage(format!("`{}` is an output of tallyroll: sealed files are not replaced", to.shown("")))
            .hint("export to a folder of its own")
            .into());
    }
    let published = digest::published(store).await?;
    let mut exported = Vec::new();
    for folder in FINANCE_FOLDERS {
        let mut paths = from.list(folder).await?;
        // What vouches for the others comes after them.
        paths.sort_by_key(|path| path.ends_with(SUCCESS_FILE));
        for path in &paths {
            let bytes = require(from, path).await?;
            // The empty file beside recorded ones is in no record.
            let is_success = path.ends_with(SUCCESS_FILE) && bytes.is_empty();
            if !is_success && !published.contains(&(path.clone(), sha256(&bytes))) {
                if is_parquet(path) || path.starts_with(FINAL_FOLDER) || path.starts_with(CURRENT_FOLDER) {
                    return Err(Failure::bad_data(format!("`{}` is not a file that was published so", from.shown(path)))
                        .hint("`tallyroll verify` says what does not hold, and what fixes it")
                        .into());
                }
                continue;
            }
            to.replace(path, bytes.clone()).await?;
            let Some(stem) = path.strip_suffix(".parquet") else { continue };
            let read = parquet_file::read_named(&from.shown(path), bytes)?;
            let twin = format!("{stem}.csv");
            if !paths.contains(&twin) {
                to.replace(&twin, csv_twin::write(&read.schema, &read.batches)?.into()).await?;
            }
            exported.push(Exported { path: path.clone(), row_count: read.row_count() });
        }
    }
    Ok(exported)
}
