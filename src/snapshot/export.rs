//! Copies of the finance files, each with a CSV twin.

use anyhow::Result;

use super::journal::SUCCESS_FILE;
use super::owner::OWNER_FILE;
use super::storage::{Storage, require};
use super::{PEAK_FOLDER, csv_twin, parquet_file};
use crate::failure::Failure;

/// Folders that finance reads.
const FOLDERS: [&str; 2] = [PEAK_FOLDER, "usage_monthly"];

/// A file that was copied.
#[derive(Debug)]
pub struct Exported {
    pub path: String,
    pub row_count: usize,
}

/// Copies every file that `from` has for finance, with a CSV beside each Parquet.
///
/// # Errors
/// What a storage says; a file that cannot be read.
pub async fn export(from: &Storage, to: &Storage) -> Result<Vec<Exported>> {
    if to.get(OWNER_FILE).await?.is_some() {
        return Err(Failure::usage(format!("`{}` is an output of tallyroll: sealed files are not replaced", to.shown("")))
            .hint("export to a folder of its own")
            .into());
    }
    let mut exported = Vec::new();
    for folder in FOLDERS {
        let mut paths = from.list(folder).await?;
        // What vouches for the others comes after them.
        paths.sort_by_key(|path| path.ends_with(SUCCESS_FILE));
        for path in &paths {
            let bytes = require(from, path).await?;
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
