//! Months in memory: what the days of a run come to, so that monthly rollups need not read them again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Result;
use arrow::array::RecordBatch;
use chrono::NaiveDate;

use super::folded::Folded;
use super::shape::Shape;
use crate::fold::KEYS;
use crate::fold::intern::{Labels, NULL_CODE};
use crate::operator::usage_rollup::Rollup as Day;
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
    folded: Folded,
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
            Entry::Vacant(vacant) => vacant.insert(Month { folded: Folded::new(level)?, days: BTreeMap::new() }),
        };
        // A day that comes again has changed since: the table knows.
        if month.days.insert(date, write_count).is_some() {
            self.months.remove(&first_of_month(date));
            return Ok(());
        }
        let folded = &mut month.folded;
        let mut recoded: [Vec<u32>; KEYS.len()] = Default::default();
        for (recoded, key) in recoded.iter_mut().zip(KEYS).filter(|(_, key)| level.contains(key)) {
            *recoded = folded.codes.take_codes(key, codes)?;
        }
        let recode = |position: usize, code: u32| recoded[position].get(code as usize).copied().unwrap_or(NULL_CODE);
        let day_number = (date - NaiveDate::default()).num_days();
        for (position, key) in KEYS.iter().enumerate().filter(|(_, key)| level.contains(key)) {
            for (code, name) in codes.labels(key).into_iter().flat_map(Labels::iter) {
                if let Some(labels) = folded.codes.labels_mut(key) {
                    labels.see_of_day(recode(position, code), day_number, name);
                }
            }
        }
        for (sum, more) in folded.sums.iter_mut().zip(sums) {
            *sum += more;
        }
        folded.groups.take(groups, recode);
        self.keep_few();
        Ok(())
    }

    fn keep_few(&mut self) {
        while self.months.values().map(|month| month.folded.groups.group_count()).sum::<usize>() > MAX_ROWS {
            // The one that has most left to come.
            self.months.pop_last();
        }
    }

    /// The keys that its months are folded by.
    #[must_use]
    pub fn level(&self) -> &[&'static str] {
        &self.level
    }

    /// Takes in a month that was read from its table, whose days were written so often.
    pub fn put(&mut self, window: Window, days: BTreeMap<NaiveDate, i64>, folded: Folded) {
        self.months.insert(window.start_date, Month { folded, days });
        self.keep_few();
    }

    /// The rows of a rollup's month, and what they come to, where exactly these writings of its days were taken in.
    ///
    /// # Errors
    /// A sum that does not fit 64 bits.
    pub fn rows(&self, shape: &Shape, window: Window, days: &BTreeMap<NaiveDate, i64>) -> Result<Option<(RecordBatch, String)>> {
        match self.months.get(&window.start_date) {
            Some(month) if month.days == *days => month.folded.rows(shape, window.start_date).map(Some),
            _ => Ok(None),
        }
    }
}
