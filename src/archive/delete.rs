//! The rows of an archived day out of their tables: only those that are in the lake, bit by bit.

use anyhow::Result;
use chrono::{NaiveDate, TimeDelta};

use super::copy::Copied;
use crate::abort;
use crate::engine::env::Context;
use crate::engine::work::Work;
use crate::failure::Failure;
use crate::lake::digest::RowDigest;
use crate::lake::manifest::ArchivedTable;
use crate::lake::{self, Lake, row_file};
use crate::source::Source;
use crate::source::rows::{self, Sink, TableRows};
use crate::store::Tx;
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
    let neighbours = neighbours(context, source, copied.manifest.event_date)?;
    let before = match &neighbours {
        Some(events) => digest_of(&mut tx, events).await?,
        None => RowDigest::default(),
    };
    for ((table, places), expected) in places.into_iter().zip(&copied.manifest.tables) {
        let rows = TableRows::of(&mut tx, &table, places).await?;
        if let Some(other) = rows.takes_along(&mut tx).await? {
            return Err(taken_along(source, &table, &other).into());
        }
        let mut deleted = Digested::default();
        rows.delete(&mut tx, &mut deleted).await?;
        if rows.columns != expected.columns || !expected.is_of(&deleted.digest) {
            return Err(changed(lake, copied, &difference(expected, &deleted.digest)).into());
        }
        abort::point("rows_of_table_deleted");
    }
    let mut left = None;
    rows::read_event_ids(&mut tx, &source.events_sql(&context.store, start, end)?, |id| {
        // Of our own sources others may have come meanwhile, which the next revision has.
        if left.is_none() && (!source.is_built_in || copied.event_ids.holds(id)) {
            left = Some(id.chars().take(80).collect::<String>());
        }
    })
    .await?;
    if let Some(event_id) = left {
        return Err(still_there(source, &event_id).into());
    }
    if let Some(events) = neighbours
        && digest_of(&mut tx, &events).await? != before
    {
        return Err(changes_others(source).into());
    }
    tx.take_back_marks(&source.name, start, end).await?;
    tx.record_archived_day(&archived).await?;
    work.under_way.lock.assert_held(&context.store, &mut tx).await?;
    abort::point("delete_before_commit");
    tx.commit().await?;
    abort::point("delete_committed");
    Ok(archived)
}

/// What the days beside a day are made from, of a source whose events may follow from other rows than their own.
fn neighbours(context: &Context, source: &Source, event_date: NaiveDate) -> Result<Option<String>> {
    if source.is_built_in {
        return Ok(None);
    }
    let (start, end) = lake::instants(event_date)?;
    let before = source.events_sql(&context.store, start - TimeDelta::days(1), start)?;
    let after = source.events_sql(&context.store, end, end + TimeDelta::days(1))?;
    Ok(Some(format!("SELECT * FROM (\n{before}\n) AS before UNION ALL SELECT * FROM (\n{after}\n) AS after")))
}

async fn digest_of(tx: &mut Tx, events: &str) -> Result<RowDigest> {
    let mut found = Digested::default();
    rows::read_all(tx, events, &mut found).await?;
    Ok(found.digest)
}

fn changes_others(source: &Source) -> Failure {
    let what = format!("With its rows deleted, `events` of `{}` gives other events of the days beside it", source.origin);
    Failure::bad_data(what).hint("an event must follow from rows of its own, not from those of other events; no row was deleted")
}

fn taken_along(source: &Source, table: &str, other: &str) -> Failure {
    Failure::bad_data(format!("Rows of `{other}` refer to the rows of `{table}` and would go with them"))
        .hint(format!("give `{}` a statement `-- name: archive {other}` before that of `{table}`; no row was deleted", source.origin))
}

fn still_there(source: &Source, event_id: &str) -> Failure {
    let what =
        format!("With its rows deleted, `events` of `{}` gives the event `{event_id}`: it would count twice, or is new", source.origin);
    Failure::bad_data(what).hint("the `archive` statements must give every row that an event is made from; no row was deleted")
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
