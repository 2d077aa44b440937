//! `import`: rows of a file into a source table, once each, however often the file is read.

mod bad_rows;
mod bounded;
mod chunk;
mod file;
mod format;
mod history;
pub mod instant;
mod license;
mod mapping;
mod parquet_pages;
mod parquet_rows;
pub mod posted;
mod preview;
mod report;
mod row;
mod source;
mod target;

use std::path::Path;

use anyhow::Result;
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use tokio::sync::watch;
use uuid::Uuid;

use self::bad_rows::{BadRows, quarantine};
use self::chunk::Chunk;
pub use self::format::{AUTO, Format};
pub use self::history::{Import, imports, undo};
pub use self::instant::parse_instant;
pub use self::license::import_license;
pub use self::mapping::Mapping;
pub use self::preview::Preview;
pub use self::report::ImportReport;
pub use self::row::shorten;
pub use self::target::{SEATS, SUBSCRIPTIONS, Target, USAGE};
use crate::abort;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::Failure;
use crate::price::book::PriceBook;
use crate::store::{Store, Value};
use crate::window::start_of_day;

/// Bad rows that a report shows.
const SHOWN_BAD_ROWS: usize = 10;

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
    let mut scan = Scan::open(config, stop, path, mapping)?;
    let import_id = (mapping.target.table == USAGE.table).then(new_id);
    let mut chunk = Chunk::new(mapping.target, import_id.clone());
    let mut tx = store.begin().await?;
    if let Some(replaced) = replace {
        scan.report.replaced_count = Some(undo(&mut tx, replaced, import_id.as_deref(), config.reporting.timezone, clock.now()).await?.1);
    }
    while let Some(Good { given, line, values }) = scan.next(stop, clock.now())? {
        if chunk.is_full_for(&given) {
            scan.report.inserted_count += chunk.insert(&mut tx, &mut scan.bad).await?;
            abort::point("import_batch");
        }
        chunk.push(given, line, values);
    }
    scan.report.inserted_count += chunk.insert(&mut tx, &mut scan.bad).await?;
    scan.refuse_too_many(config.quarantine.max_ratio)?;
    if replace.is_some() && scan.report.inserted_count == 0 {
        let nothing = Failure::bad_data(format!("`{}` brings no row that could be put in the place of others", path.display()));
        return Err(nothing.hint("`tallyroll import undo` takes an import out and puts nothing in its place").into());
    }
    quarantine(&mut tx, clock, path, &scan.bad.rows).await?;
    if mapping.target.table == SEATS.table {
        tx.pass_ledger_ids().await?;
    }
    if let Some(import_id) = import_id.filter(|_| scan.report.inserted_count > 0) {
        scan.report.bad_count = u64::try_from(scan.bad.rows.len())?;
        history::record(&mut tx, &import_id, &scan.report, file::sha256(path)?, mapping, clock.now()).await?;
        scan.report.import_id = Some(import_id);
    }
    abort::point("import_before_commit");
    tx.commit().await?;
    abort::point("import_committed");
    let mut report = scan.end()?;
    report.known_count = report.row_count - report.inserted_count - report.bad_count - report.skipped_count;
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
    let mut scan = Scan::open(config, stop, path, mapping)?;
    let mut preview = Preview::default();
    while let Some(good) = scan.next(stop, clock.now())? {
        preview.add(mapping.target, &good.values, config.usage.cost_rules(), prices);
    }
    preview.mapping = mapping.shown(&scan.headers);
    scan.report.preview = Some(preview);
    scan.end()
}

/// What was read, or that a signal has come: reading ends with an error then.
fn or_stop<T>(read: Result<T>, stop: &watch::Receiver<Option<i32>>) -> Result<T> {
    crate::engine::stop::check_stop(stop)?;
    read
}

/// A row that can be taken in, the columns that its file gives, and its line.
struct Good {
    given: Vec<&'static str>,
    line: u64,
    values: Vec<Value>,
}

/// A file on its way through, with what is to be told of it.
struct Scan<'a> {
    path: &'a Path,
    mapping: &'a Mapping,
    reader: file::Reader,
    /// Of the file, or of its first JSON object.
    headers: Vec<String>,
    gives_figures: bool,
    seen: HashMap<Uuid, u32>,
    earliest_at: DateTime<Utc>,
    bad: BadRows,
    report: ImportReport,
}

impl<'a> Scan<'a> {
    fn open(config: &Config, stop: &watch::Receiver<Option<i32>>, path: &'a Path, mapping: &'a Mapping) -> Result<Self> {
        let reader = or_stop(file::open(path, stop), stop)?;
        row::check_constants(mapping)?;
        let mut scan = Self {
            path,
            mapping,
            headers: reader.headers().map_or_else(Vec::new, <[String]>::to_vec),
            reader,
            gives_figures: false,
            seen: HashMap::new(),
            earliest_at: start_of_day(config.usage.earliest_date, config.reporting.timezone)?,
            bad: BadRows::default(),
            report: ImportReport { file: path.display().to_string(), ..ImportReport::default() },
        };
        if !scan.headers.is_empty() {
            mapping.check_headers(&scan.headers, path)?;
            mapping.refuse_twice(&scan.headers, path)?;
            scan.report.ignored_columns = mapping.ignored(&scan.headers);
            scan.gives_figures = mapping.gives_figures(&scan.headers);
            scan.refuse_no_figures()?;
        }
        Ok(scan)
    }

    /// The next good row; `None` at the end, and where too many are bad.
    fn next(&mut self, stop: &watch::Receiver<Option<i32>>, now: DateTime<Utc>) -> Result<Option<Good>> {
        while !self.bad.are_too_many() {
            let Some((line, record)) = or_stop(self.reader.next_record(self.path), stop)? else {
                self.refuse_no_figures()?;
                break;
            };
            self.report.row_count += 1;
            let record = match record {
                Ok(record) => record,
                Err(reason) => {
                    self.bad.push(line, reason, "");
                    continue;
                }
            };
            self.look_at_keys(&record.headers);
            if self.mapping.format.as_ref().is_some_and(|format| !format.is_meant(&record)) {
                self.report.skipped_count += 1;
                continue;
            }
            match row::row(self.mapping, &record, &mut self.seen, self.earliest_at, now) {
                Ok(values) => return Ok(Some(Good { given: self.mapping.given(&record.headers), line, values })),
                Err(reason) => self.bad.push(line, format!("{reason:#}"), &record.to_json()),
            }
        }
        Ok(None)
    }

    /// Of JSON objects, each of which brings its own.
    fn look_at_keys(&mut self, keys: &[String]) {
        if self.headers.is_empty() {
            self.headers = keys.to_vec();
            self.report.ignored_columns = self.mapping.ignored(keys);
        }
        self.gives_figures = self.gives_figures || self.mapping.gives_figures(keys);
    }

    /// Events of nothing would be counted as such, and never priced.
    fn refuse_no_figures(&self) -> Result<()> {
        if self.gives_figures || self.headers.is_empty() { Ok(()) } else { Err(Mapping::no_figures(&self.headers, self.path)) }
    }

    fn refuse_too_many(&self, max_ratio: f64) -> Result<()> {
        let (bad_count, row_count, shown) = (self.bad.rows.len(), self.report.row_count, self.path.display());
        if self.bad.are_too_many() {
            return Err(Failure::bad_data(format!("{bad_count} of the first {row_count} rows of `{shown}` are bad; nothing was imported"))
                .hint("so many bad rows are rarely the rows' fault: look at the file and the mapping first")
                .into());
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
        let ratio = bad_count as f64 / row_count.max(1) as f64;
        if ratio <= max_ratio {
            return Ok(());
        }
        let first = self.bad.rows.iter().take(SHOWN_BAD_ROWS).map(|(row, _)| format!("  line {}: {}", row.line, row.reason));
        Err(Failure::bad_data(format!(
            "{bad_count} of the {row_count} rows of `{shown}` are bad, more than `quarantine.max_ratio` = {max_ratio} allows; nothing was imported"
        ))
        .listing(first)
        .hint("fix the rows or the mapping (`--column field=header`, `--set field=value`) and import the file again; `--dry-run` shows both")
        .into())
    }

    fn end(mut self) -> Result<ImportReport> {
        self.report.bad_count = u64::try_from(self.bad.rows.len())?;
        self.report.bad_rows = self.bad.rows.into_iter().take(SHOWN_BAD_ROWS).map(|(row, _)| row).collect();
        Ok(self.report)
    }
}
