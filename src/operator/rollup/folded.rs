//! Rows of `usage_daily` folded in memory: what rollups fall out of.

use anyhow::Result;
use arrow::array::RecordBatch;
use chrono::NaiveDate;

use super::shape::Shape;
use crate::fold::folder::Folder;
use crate::fold::intern::Codes;
use crate::measure::SUM_COUNT;
use crate::operator::content;

/// Groups by some of the keys, with the texts behind their codes.
#[derive(Debug)]
pub struct Folded {
    pub(super) codes: Codes,
    pub(super) groups: Folder,
    /// What each measure that adds up comes to.
    pub(super) sums: [i128; SUM_COUNT],
}

impl Folded {
    /// None yet, by the keys `level`.
    ///
    /// # Errors
    /// A key that groups do not have.
    pub(super) fn new(level: &[&str]) -> Result<Self> {
        Ok(Self { codes: Codes::default(), groups: Folder::new(level)?, sums: [0; SUM_COUNT] })
    }

    /// The rows of a rollup's window, and what they come to ([`content`]).
    ///
    /// # Errors
    /// A sum that does not fit 64 bits.
    pub fn rows(&self, shape: &Shape, window_start: NaiveDate) -> Result<(RecordBatch, String)> {
        Ok((shape.batch(&self.groups, &self.codes, &self.sums, window_start)?, content::of_sums(&self.sums)))
    }
}
