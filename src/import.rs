//! `import`: rows of a file into a source table, once each, however often the file is read.

mod bad_rows;
mod bounded;
mod chunk;
mod file;
mod format;
mod history;
pub mod instant;
mod known;
mod license;
mod mapping;
mod number;
mod parquet_pages;
mod parquet_rows;
pub mod posted;
mod preview;
mod report;
mod row;
mod scan;
mod source;
mod sums;
mod target;

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::bad_rows::{BadRows, quarantine};
use self::chunk::Inserter;
pub use self::format::{AUTO, Format};
pub use self::history::{Import, imports, undo};
pub use self::instant::parse_instant;
pub use self::license::import_license;
pub use self::mapping::Mapping;
pub use self::preview::Preview;
pub use self::report::ImportReport;
pub use self::row::shorten;
use self::scan::Scan;
pub use self::target::{SEATS, SUBSCRIPTIONS, Target, USAGE};
use crate::abort;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::Failure;
use crate::price::book::PriceBook;
use crate::store::Store;

/// How long an import waits for rows that another transaction holds.
const MOST_SECONDS_WAITED: u32 = 60;

/// Chunks of rows read ahead of their insertion.
const CHUNKS_AHEAD: usize = 2;

/// Imports one file, all of its good rows or none; bad rows go to `quarantined_event` under the source `import:<file>`.
///
/// # Errors
/// [`Failure`] of kind usage for a file that cannot be mapped, of kind bad-data when more than `quarantine.max_ratio` of its
/// rows are bad; what reading the file or the database says. Nothing of the file is left behind then.
pub async fn import_file(
    store: &Store,
    config: &Config,
    clock: &Clock,
    stop: &watch::Receiver<Option<i32>>,
    path: &Path,
    mapping: &Mapping,
    replace: Option<&str>,
) -> Result<ImportReport> {
    let mut scan = Scan::open(config, stop, clock.now(), path, mapping)?;
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || scan.send_rows(&sender).map(|()| scan));
    // Before there are rows, nothing is locked.
    let mut next = chunks.recv().await;
    let import_id = (mapping.target.table == USAGE.table).then(new_id);
    let mut inserter = Inserter::new(mapping.target, import_id.clone());
    let mut bad = BadRows::default();
    let mut report = ImportReport::default();
    let mut tx = store.begin().await?;
    tx.wait_at_most(MOST_SECONDS_WAITED).await?;
    if mapping.target.table == SEATS.table {
        // Two imports of one file would each find that the other has brought nothing yet.
        tx.wait_for_others_who("import seats").await?;
    }
    if let Some(replaced) = replace {
        report.replaced_count = Some(undo(&mut tx, replaced, import_id.as_deref(), config.reporting.timezone, clock.now()).await?.1);
    }
    while let Some(chunk) = next {
        report.inserted_count += inserter.insert(&mut tx, chunk, &mut bad).await?;
        abort::point("import_batch");
        next = if bad.are_too_many() { None } else { chunks.recv().await };
    }
    drop(chunks);
    let scan = reading.await.context("The reader of the file died")??;
    let taken_count = bad.rows.len();
    bad.append(scan.bad);
    report = ImportReport { inserted_count: report.inserted_count, replaced_count: report.replaced_count, ..scan.report };
    report.known_count = scan.good_count - report.inserted_count - u64::try_from(taken_count)?;
    bad.refuse_too_many(path, report.row_count, config.quarantine.max_ratio)?;
    if replace.is_some() && report.inserted_count == 0 {
        let nothing = Failure::bad_data(format!("`{}` brings no row that could be put in the place of others", path.display()));
        return Err(nothing.hint("`tallyroll import undo` takes an import out and puts nothing in its place").into());
    }
    quarantine(&mut tx, clock, path, &bad.rows).await?;
    if mapping.target.table == SEATS.table {
        tx.pass_ledger_ids().await?;
    }
    report.bad_count = u64::try_from(bad.rows.len())?;
    (report.differing_count, report.first_differing_line) = (inserter.differing.count, inserter.differing.first_line);
    if let Some(import_id) = import_id.filter(|_| report.inserted_count > 0) {
        history::record(&mut tx, &import_id, &report, file::sha256(path)?, mapping, clock.now()).await?;
        report.import_id = Some(import_id);
    }
    abort::point("import_before_commit");
    tx.commit().await?;
    abort::point("import_committed");
    report.bad_rows = bad.shown();
    Ok(report)
}

/// An id that is short enough to be typed.
fn new_id() -> String {
    Uuid::new_v4().simple().to_string().split_off(20)
}

/// What [`import_file`] would do with a file, as far as the file says; the database is not asked.
///
/// # Errors
/// As [`import_file`], but for bad rows, of which the report tells.
pub fn preview_file(
    config: &Config,
    clock: &Clock,
    stop: &watch::Receiver<Option<i32>>,
    path: &Path,
    mapping: &Mapping,
    prices: &PriceBook,
) -> Result<ImportReport> {
    let mut scan = Scan::open(config, stop, clock.now(), path, mapping)?;
    let mut preview = Preview::default();
    while let Some(good) = scan.next_row()? {
        preview.add(mapping.target, &good.values, config.usage.cost_rules(), prices);
    }
    preview.mapping = mapping.shown(&scan.headers);
    let bad_count = u64::try_from(scan.bad.rows.len())?;
    Ok(ImportReport { preview: Some(preview), bad_count, bad_rows: scan.bad.shown(), ..scan.report })
}
