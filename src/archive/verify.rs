//! Every byte of the lake against what was recorded of it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chrono::NaiveDate;
use serde::Serialize;

use super::copy::prove;
use crate::engine::env::Context;
use crate::engine::stop::{check_stop, is_final};
use crate::failure;
use crate::lake::{EVENT_FOLDER, Lake, ROW_FOLDER, SUCCESS_FILE, day_folder, revision_folder, row_folder};
use crate::snapshot::owner;
use crate::store::archived::ArchivedDay;

/// A revision, and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub source: String,
    pub event_date: NaiveDate,
    pub revision: i32,
    pub event_count: i64,
    pub problem: Option<String>,
}

/// Checks every archived day, its files and rows; and names files that belong to none.
///
/// # Errors
/// What database and storage say.
pub async fn verify(context: &Context) -> Result<(Vec<Verified>, Vec<String>)> {
    let lake = Lake::open(&context.project, &context.config, &context.storage)?;
    owner::check(&lake.storage, &context.store).await?;
    let mut verified = Vec::new();
    let mut known = BTreeSet::new();
    for day in context.store.archived_days(None, None).await? {
        check_stop(&context.stop)?;
        let problem = match verify_day(&lake, &day, &mut known).await {
            Ok(()) => None,
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => Some(failure::text(&error)),
        };
        let ArchivedDay { source, event_date, revision, event_count, .. } = day;
        verified.push(Verified { source, event_date, revision, event_count, problem });
    }
    let mut strangers = Vec::new();
    for folder in [EVENT_FOLDER, ROW_FOLDER] {
        let there = lake.storage.list(folder).await?;
        strangers.extend(there.into_iter().filter(|path| !known.contains(path)));
    }
    Ok((verified, strangers.iter().map(|path| lake.storage.shown(path)).collect()))
}

async fn verify_day(lake: &Lake, day: &ArchivedDay, known: &mut BTreeSet<String>) -> Result<()> {
    let folder = revision_folder(&day_folder(&day.source, day.event_date), day.revision);
    known.extend([Lake::manifest_path(day), format!("{folder}/{SUCCESS_FILE}")]);
    // Files of a day that cannot be told are none of a stranger's.
    let there = lake.storage.list(&folder).await?;
    let manifest = lake.manifest(day).await;
    if manifest.is_err() {
        known.extend(there);
    }
    let manifest = manifest?;
    known.extend(manifest.files().map(|file| file.path.clone()));
    let of_rows = manifest.tables.iter().map(|table| revision_folder(&row_folder(&table.table, &day.source, day.event_date), day.revision));
    let folders: Vec<String> = of_rows.chain([folder]).map(|folder| format!("{folder}/")).collect();
    let is_of_the_day = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    ensure!(manifest.files().all(|file| is_of_the_day(&file.path)), "its manifest names files of other days");
    prove(lake, &manifest).await
}
