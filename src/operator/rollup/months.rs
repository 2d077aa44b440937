//! Months in memory: what the days of a run come to, so that monthly rollups need not read them again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Result;
use arrow::array::RecordBatch;
use chrono::NaiveDate;

use super::shape::Shape;
use crate::fold::KEYS;
use crate::fold::folder::Folder;
use crate::fold::intern::{Codes, Labels, NULL_CODE};
use crate::measure::SUM_COUNT;
use crate::operator::content;
use crate::operator::usage_rollup::Rollup as Day;
use crate::source::EventId;
use crate::window::{Window, first_of_month};

/// Rows that all months together hold back, some 200 bytes each: past that a month is read from its table.
const MAX_ROWS: usize = 2_000_000;

/// The months of a run.
#[derive(Debug)]
pub struct Months {
    /// The keys that some monthly rollup needs.
    level: Vec<&'static str>,
    months: BTreeMap<NaiveDate, Month>,
}

#[derive(Debug)]
struct Month {
    codes: Codes,
    folder: Folder,
    sums: [i128; SUM_COUNT],
    /// The days taken in, each with which writing of it that was.
    days: BTreeMap<NaiveDate, i64>,
}

impl Months {
    /// For rollups of these shapes.
    #[must_use]
    pub fn new(shapes: &[Shape]) -> Self {
        let is_needed = |key: &&'static str| shapes.iter().any(|shape| shape.level().contains(key));
        Self { level: KEYS.into_iter().filter(is_needed).collect(), months: BTreeMap::new() }
    }

    /// Takes in a day that was written for the `write_count`th time.
    ///
    /// # Errors
    /// A key that groups do not have; then the month is given up.
    pub fn take(&mut self, date: NaiveDate, write_count: i64, day: &Day) -> Result<()> {
        let taken = self.take_in(date, write_count, day);
        if taken.is_err() {
            self.months.remove(&first_of_month(date));
        }
        taken
    }

    fn take_in(&mut self, date: NaiveDate, write_count: i64, day: &Day) -> Result<()> {
        let Day { groups, codes, sums, .. } = day;
        let level = &self.level;
        let month = match self.months.entry(first_of_month(date)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                vacant.insert(Month { codes: Codes::default(), folder: Folder::new(level)?, sums: [0; SUM_COUNT], days: BTreeMap::new() })
            }
        };
        // A day that comes again has changed since: the table knows.
        if month.days.insert(date, write_count).is_some() {
            self.months.remove(&first_of_month(date));
            return Ok(());
        }
        let recoded = KEYS.map(|key| if level.contains(&key) { month.codes.take_codes(key, codes) } else { Vec::new() });
        let recode = |position: usize, code: u32| recoded[position].get(code as usize).copied().unwrap_or(NULL_CODE);
        let day_number = (date - NaiveDate::default()).num_days();
        for (position, key) in KEYS.iter().enumerate().filter(|(_, key)| level.contains(key)) {
            for (code, name) in codes.labels(key).into_iter().flat_map(Labels::iter) {
                if let Some(labels) = month.codes.labels_mut(key) {
                    labels.see(recode(position, code), day_number, || EventId::Text("".into()), name);
                }
            }
        }
        for (sum, more) in month.sums.iter_mut().zip(sums) {
            *sum += more;
        }
        month.folder.take(groups, recode);
        while self.months.values().map(|month| month.folder.group_count()).sum::<usize>() > MAX_ROWS {
            // The one that has most left to come.
            self.months.pop_last();
        }
        Ok(())
    }

    /// The rows of a rollup's month, and what they come to ([`content`]), where exactly these writings of its days were taken in.
    ///
    /// # Errors
    /// A sum that does not fit 64 bits.
    pub fn batch(&self, shape: &Shape, window: Window, days: &BTreeMap<NaiveDate, i64>) -> Result<Option<(RecordBatch, String)>> {
        match self.months.get(&window.start_date) {
            Some(month) if month.days == *days => {
                let batch = shape.batch(&month.folder, &month.codes, &month.sums, window.start_date)?;
                Ok(Some((batch, content::of_sums(&month.sums))))
            }
            _ => Ok(None),
        }
    }
}
