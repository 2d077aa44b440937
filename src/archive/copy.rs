//! A day into the lake: its events and the rows they were made from, as of one snapshot, and read back.

use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use super::candidates::Candidate;
use super::event_ids::{EventIds, Given};
use crate::abort;
use crate::engine::blocking::blocking;
use crate::engine::env::Context;
use crate::engine::stop::check_stop;
use crate::failure::Failure;
use crate::fingerprint;
use crate::lake::digest::RowDigest;
use crate::lake::event_file::{self, EventTally};
use crate::lake::manifest::{ArchivedTable, EventSums, Manifest, SCHEMA_VERSION};
use crate::lake::part::PartWriter;
use crate::lake::row_file::{self, RowBatches};
use crate::lake::{self, Lake};
use crate::snapshot::{owner, sha256};
use crate::source::Source;
use crate::source::rows::{self, Sink, TableRows};
use crate::store::Tx;
use crate::store::archived::ArchivedDay;

/// The column by whose bloom filter a reader finds a user.
const LOOKED_UP: &str = "user_id";

/// A revision whose files are all there.
pub(super) struct Copied {
    pub(super) manifest: Manifest,
    manifest_sha256: String,
    pub(super) event_ids: EventIds,
}

impl Copied {
    /// What `archived_day` is to say of it.
    pub(super) fn record(&self, is_deleted: bool, now: DateTime<Utc>) -> Result<ArchivedDay> {
        let manifest = &self.manifest;
        Ok(ArchivedDay {
            source: manifest.source.clone(),
            event_date: manifest.event_date,
            revision: manifest.revision,
            is_deleted,
            event_count: manifest.events.row_count,
            row_count: manifest.row_count(),
            size_bytes: i64::try_from(manifest.size_bytes())?,
            first_at: manifest.events.first_at,
            last_at: manifest.events.last_at,
            manifest_sha256: self.manifest_sha256.clone(),
            archived_at: now,
        })
    }
}

/// Copies a day; `None` where it has no event any more.
///
/// # Errors
/// What database and storage say; [`Failure`] of kind try-again where what is read back is not what was written.
pub(super) async fn copy(context: &Context, lake: &Lake, source: &Source, candidate: &Candidate) -> Result<Option<Copied>> {
    let (start, end) = lake::instants(candidate.event_date)?;
    let (mut tx, snapshot) = rows::snapshot(&context.store).await?;
    let (Some(events), mut event_ids) = copy_events(context, lake, source, candidate, snapshot).await? else { return Ok(None) };
    let mut tables = Vec::new();
    for (table, places) in source.archived_tables(&context.store, start, end)? {
        let rows = TableRows::of(&mut tx, &table, places).await?;
        let mut given = Given::default();
        rows.read_event_ids(&mut tx, |id| event_ids.note(id, &mut given)).await?;
        let copied = copy_rows(&mut tx, lake, candidate, rows).await?;
        require_of_events(source, &copied, &given)?;
        tables.push(copied);
        check_stop(&context.stop)?;
    }
    drop(tx);
    event_ids.require_rows(&source.origin)?;
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        project_id: owner::project_id(&context.store).await?.to_string(),
        source: source.name.clone(),
        event_date: candidate.event_date,
        revision: candidate.revision,
        definition: fingerprint::of([source.definition()?]),
        events,
        tables,
    };
    prove(lake, &manifest).await?;
    abort::point("day_read_back");
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    let folder = lake::revision_folder(&lake::day_folder(&source.name, candidate.event_date), candidate.revision);
    let copied = Copied { manifest, manifest_sha256: sha256(&bytes), event_ids };
    // `replace` reads back what it wrote.
    lake.storage.replace(&format!("{folder}/{}", lake::MANIFEST_FILE), bytes.into()).await?;
    abort::point("lake_manifest_put");
    lake.storage.replace(&format!("{folder}/{}", lake::SUCCESS_FILE), Vec::new().into()).await?;
    Ok(Some(copied))
}

async fn copy_events(
    context: &Context,
    lake: &Lake,
    source: &Source,
    candidate: &Candidate,
    snapshot: Option<String>,
) -> Result<(Option<EventSums>, EventIds)> {
    let (start, end) = lake::instants(candidate.event_date)?;
    let folder = lake::revision_folder(&lake::day_folder(&source.name, candidate.event_date), candidate.revision);
    let mut parts = PartWriter::new(&lake.storage, folder, event_file::schema(), Some(LOOKED_UP));
    let (mut tally, mut event_ids) = (EventTally::default(), EventIds::default());
    let mut batches = source.read_by_user(&context.store, start, end, snapshot, usize::try_from(context.config.engine.batch_rows)?);
    while let Some(batch) = batches.next().await {
        check_stop(&context.stop)?;
        let batch = event_file::of_source(&batch?)?;
        let added = batch.clone();
        (tally, event_ids) = blocking(move || {
            tally.add(&added)?;
            event_ids.add(&added)?;
            Ok((tally, event_ids))
        })
        .await?;
        parts.push(batch).await?;
    }
    Ok((tally.sums(parts.finish().await?)?, event_ids))
}

/// Fails where a row is of no event of the day, or is given more than once.
fn require_of_events(source: &Source, copied: &ArchivedTable, given: &Given) -> Result<()> {
    let statement = format!("The statement `archive {}` of `{}`", copied.table, source.origin);
    let failure = if let Some(event_id) = &given.stranger {
        Failure::bad_data(format!("{statement} gives a row of the event `{event_id}`, which `events` does not give for that day"))
            .hint("it must give the rows that the day's events are made from, and no other; no row was deleted")
    } else if given.row_count != copied.row_count {
        Failure::bad_data(format!("{statement} gives {} places, and {} rows stand there", given.row_count, copied.row_count))
            .hint("it must give each row once, and of its own table; no row was deleted")
    } else {
        return Ok(());
    };
    Err(failure.into())
}

/// Rows on their way into their files.
struct RowCopy {
    batches: RowBatches,
    parts: PartWriter,
    ready: Vec<RecordBatch>,
}

impl Sink for RowCopy {
    fn row(&mut self, cells: &[Option<&str>]) -> Result<()> {
        self.ready.extend(self.batches.push(cells)?);
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        for batch in self.ready.drain(..) {
            self.parts.push(batch).await?;
        }
        Ok(())
    }
}

async fn copy_rows(tx: &mut Tx, lake: &Lake, candidate: &Candidate, rows: TableRows) -> Result<ArchivedTable> {
    let folder = lake::revision_folder(&lake::row_folder(&rows.table, &candidate.source, candidate.event_date), candidate.revision);
    let batches = RowBatches::new(&rows.columns);
    let parts = PartWriter::new(&lake.storage, folder, batches.schema(), None);
    let mut copy = RowCopy { batches, parts, ready: Vec::new() };
    rows.read(tx, &mut copy).await?;
    let last = copy.batches.take()?;
    copy.ready.extend(last);
    copy.settle().await?;
    let digest = copy.batches.digest;
    Ok(ArchivedTable {
        table: rows.table,
        columns: rows.columns,
        row_count: digest.row_count,
        digest: digest.shown(),
        files: copy.parts.finish().await?,
    })
}

/// Holds what the storage gives back against what was written, row by row.
///
/// # Errors
/// [`Failure`] of kind bad-data that names the file, or the table.
pub(super) async fn prove(lake: &Lake, manifest: &Manifest) -> Result<()> {
    let mut tally = EventTally::default();
    for file in &manifest.events.files {
        let mut batches = lake.events(file).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            tally = blocking(move || tally.add(&batch).map(|()| tally)).await?;
        }
    }
    let read = tally.sums(manifest.events.files.clone())?;
    if read.as_ref() != Some(&manifest.events) {
        return Err(differs(lake, manifest, "events").into());
    }
    for table in &manifest.tables {
        let mut digest = RowDigest::default();
        for file in &table.files {
            let (bytes, shown) = (lake.file(file).await?, lake.storage.shown(&file.path));
            let columns = table.columns.clone();
            digest = digest.and(
                blocking(move || {
                    row_file::read(&shown, bytes, |batch| {
                        ensure!(batch.schema().fields().iter().map(|field| field.name()).eq(&columns), "it has other columns");
                        Ok(())
                    })
                })
                .await?,
            );
        }
        if !table.is_of(&digest) {
            return Err(differs(lake, manifest, &format!("rows of `{}`", table.table)).into());
        }
    }
    Ok(())
}

fn differs(lake: &Lake, manifest: &Manifest, what: &str) -> Failure {
    let folder = lake::revision_folder(&lake::day_folder(&manifest.source, manifest.event_date), manifest.revision);
    Failure::bad_data(format!("The {what} that `{}` gives back are not those that were archived", lake.storage.shown(&folder)))
        .hint("no row was deleted; a storage that changes what it has acknowledged is broken")
}
