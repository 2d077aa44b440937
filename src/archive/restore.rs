//! Rows of an archived day back into their tables.

use anyhow::Result;
use arrow::array::{Array as _, AsArray, RecordBatch};
use chrono::{Days, NaiveDate};
use serde::Serialize;

use super::candidates::{Summary, sweep};
use super::copy::prove;
use super::delete::Digested;
use crate::abort;
use crate::engine::env::Context;
use crate::engine::under_way::UnderWay;
use crate::failure::Failure;
use crate::lake::manifest::{ArchivedTable, Manifest};
use crate::lake::{self, Lake, row_file};
use crate::source::rows::{self, TableRows};
use crate::source::{Batches, Source};
use crate::store::Tx;

/// What came back of a source's day.
#[derive(Debug, Serialize)]
pub struct Restored {
    pub source: String,
    pub event_date: NaiveDate,
    pub row_count: i64,
}

/// Puts the rows of a day back, of every source or of one; the day is in the lake no more. Of one that is not in the lake alone there is
/// nothing to put back.
///
/// # Errors
/// [`Failure`] of kind bad-data where the lake or what came back is not what was archived:
/// then nothing came back.
pub async fn restore(context: &Context, under_way: &UnderWay, event_date: NaiveDate, only: Option<&str>) -> Result<Vec<Restored>> {
    let lake = Lake::open(&context.project, &context.config, &context.storage)?;
    let summary = Summary::load(context).await?;
    let mut days = context.store.archived_days(Some(event_date), Some(event_date + Days::new(1))).await?;
    days.retain(|day| day.is_deleted && only.is_none_or(|only| day.source == only));
    let sources = &summary.rollup()?.sources;
    if let Some(day) = days.iter().find(|day| sources.iter().all(|source| source.name != day.source)) {
        return Err(Failure::config(format!("A source `{}` was archived, and `usage.sources` has none of that name", day.source))
            .hint("put it there, and its SQL file back, under the name that it had; nothing was changed")
            .into());
    }
    let mut restored = Vec::new();
    for source in sources {
        let mut manifests = Vec::new();
        for day in days.iter().filter(|day| day.source == source.name) {
            let manifest = lake.manifest(day).await?;
            prove(&lake, &manifest).await?;
            manifests.push(manifest);
        }
        if manifests.is_empty() {
            // What is left of a run that was killed once the rows were back.
            if only.is_none_or(|only| source.name == only) {
                sweep(context, &under_way.lock, &lake, source, event_date, &[]).await?;
            }
            continue;
        }
        let mut tx = context.store.begin().await?;
        put_back(context, &mut tx, &lake, source, event_date, &manifests).await?;
        tx.forget_archived_day(&source.name, event_date).await?;
        under_way.lock.assert_held(&context.store, &mut tx).await?;
        abort::point("restore_before_commit");
        tx.commit().await?;
        abort::point("restore_committed");
        let tables = manifests.iter().flat_map(|manifest| &manifest.tables).map(|archived| archived.table.clone()).collect::<Vec<_>>();
        sweep(context, &under_way.lock, &lake, source, event_date, &tables).await?;
        let row_count = manifests.iter().map(Manifest::row_count).sum();
        restored.push(Restored { source: source.name.clone(), event_date, row_count });
    }
    Ok(restored)
}

/// Inserts the rows of a day's revisions, and holds what the tables have more by then against what was archived.
async fn put_back(
    context: &Context,
    tx: &mut Tx,
    lake: &Lake,
    source: &Source,
    event_date: NaiveDate,
    manifests: &[Manifest],
) -> Result<()> {
    let (start, end) = lake::instants(event_date)?;
    let now = source.archived_tables(&context.store, start, end)?;
    let mut tables: Vec<&String> = Vec::new();
    for archived in manifests.iter().flat_map(|manifest| &manifest.tables) {
        if !tables.contains(&&archived.table) {
            tables.push(&archived.table);
        }
    }
    let mut before = Vec::new();
    // A table that others refer to comes first here.
    for table in tables.into_iter().rev() {
        let Some((_, places)) = now.iter().find(|(known, _)| known == table) else {
            return Err(Failure::config(format!(
                "`{}` has no statement `-- name: archive {table}`, and rows of it were archived",
                source.origin
            ))
            .hint("put it back as it was: it says what the table has of the day already; nothing was changed")
            .into());
        };
        let rows = TableRows::of(tx, table, places.clone()).await?;
        let mut there = Digested::default();
        rows.read(tx, &mut there).await?;
        before.push((rows, there.digest));
        for archived in manifests.iter().flat_map(|manifest| &manifest.tables).filter(|archived| archived.table == *table) {
            insert(tx, lake, archived).await?;
            abort::point("rows_put_back");
        }
        tx.forget_incoming().await?;
    }
    // Once all are there: which rows of one table are of the day may follow from another.
    for (rows, there) in before {
        let mut now = Digested::default();
        rows.read(tx, &mut now).await?;
        let archived = manifests.iter().flat_map(|manifest| &manifest.tables).filter(|archived| archived.table == rows.table);
        let expected = archived.map(ArchivedTable::rows).try_fold(there, |sum, rows| rows.map(|rows| sum.and(rows)))?;
        if now.digest != expected {
            return Err(Failure::bad_data(format!("The rows of `{}` that came back are not those that were archived", rows.table))
                .hint("nothing was changed: look at what the table's triggers and defaults make of a row, and at columns that it lacks")
                .into());
        }
    }
    Ok(())
}

async fn insert(tx: &mut Tx, lake: &Lake, archived: &ArchivedTable) -> Result<()> {
    for file in &archived.files {
        let (bytes, shown) = (lake.file(file).await?, lake.storage.shown(&file.path));
        let mut batches = Batches::of_thread(move |send| {
            let read = row_file::read(&shown, bytes, |batch| {
                send(batch.clone());
                Ok(())
            });
            read.map(|_| ())
        });
        while let Some(batch) = batches.next().await {
            rows::insert(tx, &archived.table, &archived.columns, cells(&batch?)).await?;
        }
    }
    Ok(())
}

fn cells(batch: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let columns: Vec<_> = batch.columns().iter().map(AsArray::as_string::<i32>).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.is_valid(row).then(|| column.value(row).to_owned())).collect())
        .collect()
}
