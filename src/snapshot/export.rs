//! Copies of the finance files, each with a CSV twin.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::journal::SUCCESS_FILE;
use super::storage::{Storage, require};
use super::{
    FINAL_FOLDER, FINANCE_FOLDERS, PEAK_FILE, PEAK_FOLDER, csv_twin, digest, is_parquet, owner, parquet_file, sha256, usage_monthly,
};
use crate::failure::Failure;
use crate::jobs::Jobs;
use crate::store::Store;

/// A file that was copied.
#[derive(Debug)]
pub struct Exported {
    pub path: String,
    pub row_count: usize,
}

/// Copies every file that `from` has for finance, as it was published, with a CSV beside each Parquet. All that was published is there,
/// and nothing else, before the first is copied.
///
/// # Errors
/// What database or storage say; [`Failure`] of kind config for another project's output, of kind bad-data for a file that is missing, or is not the one that was published.
pub async fn export(store: &Store, jobs: &Jobs, from: &Storage, to: &Storage) -> Result<Vec<Exported>> {
    owner::check(from, store).await?;
    let (recorded, ours) = (digest::published(store).await?, usage_monthly::paths(store, jobs).await?);
    let is_peaks = |path: &str| path.split('/').next() == Some(PEAK_FOLDER);
    // A job that is no more, or that publishes elsewhere by now, has no files.
    let published: BTreeSet<_> = recorded.into_iter().filter(|(path, _)| is_peaks(path) || ours.contains(path)).collect();
    let strangers = usage_monthly::strangers(from, store, jobs).await?;
    if let Some(path) = strangers.first() {
        return Err(unpublished(from, path));
    }
    let folders: BTreeSet<&str> = FINANCE_FOLDERS.into_iter().chain(usage_monthly::publishers(jobs).map(|(_, folder)| folder)).collect();
    let mut listed = BTreeMap::new();
    for folder in folders {
        listed.insert(folder, from.list(folder).await?);
    }
    require_all(from, &published, &listed.values().flatten().map(String::as_str).collect())?;
    // Another project's files are not replaced, whatever names them.
    let project = owner::project_id(store).await?;
    for path in listed.values().flatten().filter(|path| is_parquet(path)) {
        if let Some(read) = to.get(path).await?.and_then(|there| parquet_file::read(there).ok()) {
            owner::check_file(to, store, path, &read, project)?;
        }
    }
    refuse_others(to, &listed).await?;
    let mut exported = Vec::new();
    for paths in listed.values_mut() {
        // What vouches for the others comes after them.
        paths.sort_by_key(|path| path.ends_with(SUCCESS_FILE));
        for path in &*paths {
            let bytes = require(from, path).await?;
            // The empty file beside recorded ones is in no record.
            let is_success = path.ends_with(SUCCESS_FILE) && bytes.is_empty();
            if !is_success && !published.contains(&(path.clone(), sha256(&bytes))) {
                return Err(unpublished(from, path));
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

/// Fails where the folders that are written to hold other tables: who reads them would count those, too.
async fn refuse_others(to: &Storage, listed: &BTreeMap<&str, Vec<String>>) -> Result<()> {
    for (folder, paths) in listed {
        let is_ours = |path: &str| {
            paths.iter().any(|ours| ours == path || path.strip_suffix(".csv").is_some_and(|stem| format!("{stem}.parquet") == *ours))
        };
        let there = to.list(folder).await?;
        let mut others = there.iter().filter(|path| is_parquet(path) || path.to_ascii_lowercase().ends_with(".csv"));
        if let Some(other) = others.find(|path| !is_ours(path)) {
            return Err(Failure::usage(format!("`{}` is none of the files that are exported, and stands among them", to.shown(other)))
                .hint("whoever reads the folder would count it: remove it, or export to a folder of its own")
                .into());
        }
    }
    Ok(())
}

/// Fails where a file that was published, or the empty one that ends a sealed revision, is not there.
fn require_all(from: &Storage, published: &BTreeSet<(String, String)>, listed: &BTreeSet<&str>) -> Result<()> {
    for (path, _) in published {
        let success =
            path.strip_suffix(PEAK_FILE).filter(|_| path.starts_with(FINAL_FOLDER)).map(|folder| format!("{folder}{SUCCESS_FILE}"));
        if let Some(missing) = [Some(path), success.as_ref()].into_iter().flatten().find(|path| !listed.contains(path.as_str())) {
            return Err(Failure::bad_data(format!(
                "`{}` is missing, and without it the files are not all that was published",
                from.shown(missing)
            ))
            .hint("`tallyroll verify` says what does not hold, and what fixes it")
            .into());
        }
    }
    Ok(())
}

fn unpublished(from: &Storage, path: &str) -> anyhow::Error {
    Failure::bad_data(format!("`{}` is not a file that was published so", from.shown(path)))
        .hint("`tallyroll verify` says what does not hold, and what fixes it")
        .into()
}
