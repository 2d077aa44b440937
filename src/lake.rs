//! The lake: raw events of past days as Parquet, beside what puts their rows back (`docs/semantics.md` section 10).
//!
//! Two trees. `usage_event/source=S/event_date=D/rev-0001/` holds the events, for whoever reads them: our own fold, DuckDB, Spark.
//! `source_row/table=T/source=S/event_date=D/rev-0001/` holds the rows of the tables that the events were made from, column by column.

pub mod digest;
pub mod event_file;
pub mod manifest;
pub mod part;
pub mod row_file;

use std::collections::BTreeSet;

use anyhow::Result;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};

use self::manifest::{LakeFile, Manifest};
use crate::config::Config;
use crate::failure::Failure;
pub use crate::job::{EVENT_FOLDER, ROW_FOLDER};
use crate::project::Project;
use crate::snapshot::storage::{Storage, require};
use crate::snapshot::{is_parquet, sha256};
use crate::source::Batches;
use crate::store::archived::ArchivedDay;
use crate::window::{next_day, start_of_day};

/// Readers of a folder of Parquet pass over names that begin so.
pub const MANIFEST_FILE: &str = "_manifest.json";
/// The empty file that ends a revision.
pub const SUCCESS_FILE: &str = "_SUCCESS";

/// Where archived days are.
#[derive(Debug, Clone)]
pub struct Lake {
    pub storage: Storage,
}

/// The folder of a source's events of a day.
#[must_use]
pub fn day_folder(source: &str, event_date: NaiveDate) -> String {
    format!("{EVENT_FOLDER}/source={source}/event_date={event_date}")
}

/// The folder of the rows of a table that a source's events of a day were made from.
#[must_use]
pub fn row_folder(table: &str, source: &str, event_date: NaiveDate) -> String {
    format!("{ROW_FOLDER}/table={table}/source={source}/event_date={event_date}")
}

/// The folder of a revision in one of those.
#[must_use]
pub fn revision_folder(folder: &str, revision: i32) -> String {
    format!("{folder}/rev-{revision:04}")
}

/// The instants `[start, end)` of a UTC day.
///
/// # Errors
/// Only at the end of the calendar.
pub fn instants(event_date: NaiveDate) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
    Ok((start_of_day(event_date, chrono_tz::UTC)?, start_of_day(next_day(event_date)?, chrono_tz::UTC)?))
}

impl Lake {
    /// Opens `archive.url`, or the output where that is not set.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open(project: &Project, config: &Config, output: &Storage) -> Result<Self> {
        let url = &config.archive.url;
        let storage = if url.is_empty() { output.clone() } else { Storage::open(project, url)? };
        let (own, finance) = (storage.shown("x"), output.shown("x"));
        if own != finance && own.starts_with(finance.trim_end_matches('x')) {
            return Err(Failure::config("`archive.url` is a folder of `output.url`, where finance files are")
                .hint("leave it out, to have the lake beside them, or name another place")
                .into());
        }
        Ok(Self { storage })
    }

    /// The path of a day's manifest.
    #[must_use]
    pub fn manifest_path(day: &ArchivedDay) -> String {
        format!("{}/{MANIFEST_FILE}", revision_folder(&day_folder(&day.source, day.event_date), day.revision))
    }

    /// What the files of a day are: the manifest that was recorded.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data where it is missing or another one; what the storage says.
    pub async fn manifest(&self, day: &ArchivedDay) -> Result<Manifest> {
        let path = Self::manifest_path(day);
        let bytes = require(&self.storage, &path).await?;
        if sha256(&bytes) != day.manifest_sha256 {
            return Err(self.changed(&path).into());
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The bytes of a file that a manifest names.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn file(&self, file: &LakeFile) -> Result<Bytes> {
        let bytes = require(&self.storage, &file.path).await?;
        if bytes.len() as u64 != file.size_bytes || sha256(&bytes) != file.sha256 {
            return Err(self.changed(&file.path).into());
        }
        Ok(bytes)
    }

    /// The batches of a file of events.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub async fn events(&self, file: &LakeFile) -> Result<Batches> {
        Ok(event_file::read(self.storage.shown(&file.path), self.file(file).await?))
    }

    fn changed(&self, path: &str) -> Failure {
        Failure::bad_data(format!("`{}` is not the file that was archived", self.storage.shown(path)))
            .hint("restore it from a copy; `tallyroll archive --verify` names all that does not hold")
    }

    /// Every file of a day that no revision of `known` has: what a run left that was killed, or that a later revision took the place of.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn strangers(&self, source: &str, tables: &BTreeSet<String>, event_date: NaiveDate, known: &[i32]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let folders = tables.iter().map(|table| row_folder(table, source, event_date)).chain([day_folder(source, event_date)]);
        for folder in folders {
            let kept: Vec<String> = known.iter().map(|revision| format!("{}/", revision_folder(&folder, *revision))).collect();
            let there = self.storage.list(&folder).await?;
            found.extend(there.into_iter().filter(|path| kept.iter().all(|kept| !path.starts_with(kept))));
        }
        Ok(found)
    }

    /// Takes files away, those that readers look for first.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn remove(&self, mut paths: Vec<String>) -> Result<()> {
        paths.sort_by_key(|path| !is_parquet(path));
        for path in &paths {
            self.storage.delete(path).await?;
        }
        Ok(())
    }
}
