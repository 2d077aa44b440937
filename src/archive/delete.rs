//! The rows of an archived day out of their tables: only those that are in the lake, bit by bit.

use anyhow::Result;

use super::copy::Copied;
use crate::abort;
use crate::engine::work::Work;
use crate::failure::Failure;
use crate::lake::digest::RowDigest;
use crate::lake::manifest::ArchivedTable;
use crate::lake::{self, Lake, row_file};
use crate::source::Source;
use crate::source::rows::{Sink, TableRows};
use crate::store::archived::ArchivedDay;

/// A digest of rows, as they go.
#[derive(Default)]
pub(super) struct Digested {
    pub(super) digest: RowDigest,
    row: Vec<u8>,
}

impl Sink for Digested {
    fn row(&mut self, cells: &[Option<&str>]) -> Result<()> {
        row_file::digest_row(&mut self.digest, &mut self.row, cells);
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Deletes a day's rows and notes the day, in one transaction.
///
/// # Errors
/// [`Failure`] of kind bad-data where what was deleted is not what was archived: then nothing is deleted.
pub(super) async fn delete(work: &Work, lake: &Lake, source: &Source, copied: &Copied) -> Result<ArchivedDay> {
    let context = &work.context;
    let (start, end) = lake::instants(copied.manifest.event_date)?;
    let archived = copied.record(true, context.clock.now())?;
    let mut tx = context.store.begin().await?;
    if tx.has_marks(&source.name, start, end).await? {
        return Err(changed(lake, copied, "rows were updated or deleted").into());
    }
    let places = source.archived_tables(&context.store, start, end)?;
    for ((table, places), expected) in places.into_iter().zip(&copied.manifest.tables) {
        let rows = TableRows::of(&mut tx, &table, places).await?;
        let mut deleted = Digested::default();
        rows.delete(&mut tx, &mut deleted).await?;
        if rows.columns != expected.columns || !expected.is_of(&deleted.digest) {
            return Err(changed(lake, copied, &difference(expected, &deleted.digest)).into());
        }
        abort::point("rows_of_table_deleted");
    }
    tx.take_back_marks(&source.name, start, end).await?;
    tx.record_archived_day(&archived).await?;
    work.under_way.lock.assert_held(&context.store, &mut tx).await?;
    abort::point("delete_before_commit");
    tx.commit().await?;
    abort::point("delete_committed");
    Ok(archived)
}

fn difference(expected: &ArchivedTable, found: &RowDigest) -> String {
    if expected.row_count == found.row_count {
        format!("a row of `{}` is another one", expected.table)
    } else {
        format!("`{}` has {} rows, and {} were copied", expected.table, found.row_count, expected.row_count)
    }
}

fn changed(lake: &Lake, copied: &Copied, how: &str) -> Failure {
    let manifest = &copied.manifest;
    let folder = lake::revision_folder(&lake::day_folder(&manifest.source, manifest.event_date), manifest.revision);
    Failure::bad_data(format!("The day changed after it was copied to `{}`: {how}", lake.storage.shown(&folder)))
        .hint("no row was deleted; the next run copies the day again, once a run of `usage_daily` has counted it")
}
