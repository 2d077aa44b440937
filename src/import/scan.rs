//! The rows of one file, each in the form of its table, or why it is bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::bad_rows::BadRows;
use super::chunk::{Chunk, GoodRow};
use super::mapping::Mapping;
use super::report::ImportReport;
use super::sums::{self, Shares};
use super::{file, row};
use crate::config::Config;
use crate::engine::stop::check_stop;
use crate::window::start_of_day;

/// A file on its way through, with what is to be told of it.
pub(super) struct Scan {
    path: PathBuf,
    mapping: Mapping,
    stop: watch::Receiver<Option<i32>>,
    now: DateTime<Utc>,
    reader: file::Reader,
    /// Of the file, or of its first JSON object.
    pub(super) headers: Vec<String>,
    gives_figures: bool,
    /// Headers, and the columns that rows with them give.
    given: (Arc<[String]>, Arc<[&'static str]>),
    seen: HashMap<Uuid, u32>,
    earliest_at: DateTime<Utc>,
    /// What is left of a row that is the sum of many.
    shares: Option<Shares>,
    pub(super) good_count: u64,
    pub(super) bad: BadRows,
    pub(super) report: ImportReport,
}

impl Scan {
    pub(super) fn open(
        config: &Config,
        stop: &watch::Receiver<Option<i32>>,
        now: DateTime<Utc>,
        path: &Path,
        mapping: &Mapping,
    ) -> Result<Self> {
        let reader = or_stop(file::open(path, stop), stop)?;
        row::check_constants(mapping)?;
        let mut scan = Self {
            path: path.to_owned(),
            mapping: mapping.clone(),
            stop: stop.clone(),
            now,
            headers: reader.headers().map_or_else(Vec::new, <[String]>::to_vec),
            reader,
            gives_figures: false,
            given: (Arc::new([]), Arc::new([])),
            seen: HashMap::new(),
            earliest_at: start_of_day(config.usage.earliest_date, config.reporting.timezone)?,
            shares: None,
            good_count: 0,
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

    /// Sends the good rows away, chunk by chunk, until nobody takes them any more.
    pub(super) fn send_rows(&mut self, sender: &mpsc::Sender<Chunk>) -> Result<()> {
        let mut chunk = Chunk::new(self.mapping.target);
        while let Some(good) = self.next_row()? {
            if chunk.is_full_for(&good.given) {
                let full = std::mem::replace(&mut chunk, Chunk::new(self.mapping.target));
                if sender.blocking_send(full).is_err() {
                    return Ok(());
                }
            }
            chunk.push(good);
        }
        // Whoever takes no more has its own reason.
        let _ = sender.blocking_send(chunk);
        Ok(())
    }

    /// The next good row; `None` at the end, and where too many are bad.
    pub(super) fn next_row(&mut self) -> Result<Option<GoodRow>> {
        loop {
            if let Some(good) = self.shares.as_mut().and_then(Iterator::next) {
                check_stop(&self.stop)?;
                self.good_count += 1;
                return Ok(Some(good));
            }
            if self.bad.are_too_many() {
                return Ok(None);
            }
            let Some((line, record)) = or_stop(self.reader.next_record(&self.path), &self.stop)? else {
                self.refuse_no_figures()?;
                return Ok(None);
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
            match self.shares_of(&record, line) {
                Ok(Some(shares)) => self.shares = Some(shares),
                Ok(None) => self.report.skipped_count += 1,
                Err(reason) => {
                    // Prompts, answers and keys are no field, and whoever reads results reads this.
                    self.bad.push(line, format!("{reason:#}"), &record.to_json(|header| self.mapping.takes(header)));
                }
            }
        }
    }

    /// The events that a row stands for: itself, if it is not the sum of many; none for a row that is no request.
    fn shares_of(&mut self, record: &file::Record, line: u64) -> Result<Option<Shares>> {
        let format = self.mapping.format.as_ref();
        if let Some(format) = format
            && !format.is_meant(record)?
        {
            return Ok(None);
        }
        let count = match format.map_or(Ok(Some(1)), |format| format.request_count(record, self.now))? {
            Some(0) => {
                let row = row::row(&self.mapping, record, &mut self.seen, self.earliest_at, self.now);
                // A span without requests lacks what an event needs.
                if row.is_ok_and(|values| sums::has_figures(self.mapping.target, &values)) {
                    anyhow::bail!("it has tokens or a cost, and no request");
                }
                return Ok(None);
            }
            Some(count) => count,
            None => {
                self.report.unfinished_count += 1;
                return Ok(None);
            }
        };
        let values = row::row(&self.mapping, record, &mut self.seen, self.earliest_at, self.now)?;
        if !Arc::ptr_eq(&self.given.0, &record.headers) {
            self.given = (Arc::clone(&record.headers), self.mapping.given(&record.headers).into());
        }
        let good = GoodRow { given: Arc::clone(&self.given.1), line, values };
        Shares::of(self.mapping.target, good, count).map(Some)
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
        if self.gives_figures || self.headers.is_empty() { Ok(()) } else { Err(Mapping::no_figures(&self.headers, &self.path)) }
    }
}

/// What was read, or that a signal has come: reading ends with an error then.
fn or_stop<T>(read: Result<T>, stop: &watch::Receiver<Option<i32>>) -> Result<T> {
    check_stop(stop)?;
    read
}
