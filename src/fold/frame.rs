//! Groups as columns, which polars folds into fewer groups.
//!
//! polars wraps a sum of Int64 without a word. So a [`Folder`] adds up the magnitudes of everything that it takes in, in 128 bits:
//! while these totals fit 64 bits, no group's sum can wrap and 64 bits are summed; past that every sum is taken in 128 bits and
//! checked when it is read.

use anyhow::{Context, Result};
use hashbrown::{HashMap, HashSet};
use polars::prelude::{
    ChunkedArray, Column, DataFrame, DataType as PolarsType, Expr, Int64Type, Int128Type, IntoLazy, NULL, PolarsDataType, UInt32Type, col,
    lit, when,
};

use super::KEYS;
use super::columns::columns_of;
use super::groups::{Groups, Values};
use super::intern::NULL_CODE;
use crate::measure::{Fold, MEASURES, Measure, SUM_COUNT, sums};
use crate::money::fit_stored;

/// Groups that become columns at once.
const GROUPS_PER_SLICE: usize = 131_072;
/// Rows held back, beside twice those that were left by the last fold, before partial results are folded together.
const ROWS_PER_FOLD: usize = 131_072;

/// Groups folded by some of their keys.
#[derive(Debug)]
pub struct Folder {
    keys: Vec<&'static str>,
    /// Sum of the magnitudes of all values taken in, by measure.
    totals: [u128; SUM_COUNT],
    partial: Option<DataFrame>,
    /// Whether `partial` holds a group at most once, and how many rows the last fold left.
    is_folded: bool,
    folded_rows: usize,
}

impl Folder {
    /// Folds by `keys`, which are some of [`KEYS`].
    #[must_use]
    pub fn new(keys: Vec<&'static str>) -> Self {
        Self { keys, totals: [0; SUM_COUNT], partial: None, is_folded: true, folded_rows: 0 }
    }

    /// Rows held back.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.partial.as_ref().map_or(0, DataFrame::height)
    }

    /// Takes in groups, a key's code in place of each that `recode` gives for it.
    ///
    /// # Errors
    /// What polars says.
    pub fn take(&mut self, groups: &Groups, mut recode: impl FnMut(&'static str, u32) -> u32) -> Result<()> {
        for start in (0..groups.len()).step_by(GROUPS_PER_SLICE) {
            let slice = start..groups.len().min(start + GROUPS_PER_SLICE);
            let height = slice.len();
            let mut columns: Vec<Column> = Vec::with_capacity(self.keys.len() + MEASURES.len());
            for key in &self.keys {
                let position = KEYS.iter().position(|known| known == key).context("A key that groups do not have")?;
                let codes: Vec<u32> = slice.clone().map(|group| recode(key, groups.key(group)[position])).collect();
                columns.push(Column::new((*key).into(), codes));
            }
            let (of, known) = columns_of(slice.map(|group| groups.values(group)));
            for ((index, measure), values) in MEASURES.iter().enumerate().zip(of) {
                if let Some(total) = self.totals.get_mut(index) {
                    *total += values.iter().map(|value| u128::from(value.unsigned_abs())).sum::<u128>();
                }
                columns.push(if measure.is_nullable() {
                    let is_known = known.iter().map(|known| known & (1 << index) != 0);
                    let values: Vec<Option<i64>> =
                        values.iter().zip(is_known).map(|(value, is_known)| is_known.then_some(*value)).collect();
                    Column::new(measure.name.into(), values)
                } else {
                    Column::new(measure.name.into(), values)
                });
            }
            let folded = self.fold(DataFrame::new(height, columns)?, &self.keys)?;
            self.push(folded)?;
        }
        Ok(())
    }

    fn push(&mut self, folded: DataFrame) -> Result<()> {
        self.partial = Some(match self.partial.take() {
            None => folded,
            Some(partial) => {
                // One part may be of 64 bits and the other of 128: both become what the totals ask for now.
                let mut partial = self.widen(partial)?;
                partial.vstack_mut_owned(self.widen(folded)?)?;
                self.is_folded = partial.height() >= self.folded_rows * 2 + ROWS_PER_FOLD;
                if self.is_folded {
                    let folded = self.fold(partial, &self.keys)?;
                    self.folded_rows = folded.height();
                    folded
                } else {
                    partial
                }
            }
        });
        Ok(())
    }

    /// What everything taken in comes to by `grain`, some of the keys, with how many codes that are not NULL each of `unique` has.
    ///
    /// # Errors
    /// What polars says; a sum that does not fit 64 bits.
    pub fn rows(&mut self, grain: &[&'static str], unique: &[&'static str]) -> Result<Rows> {
        if let (Some(partial), false) = (self.partial.take_if(|_| !self.is_folded), self.is_folded) {
            self.partial = Some(self.fold(partial, &self.keys)?);
            self.is_folded = true;
        }
        let Some(partial) = self.partial.clone() else { return Ok(Rows::default()) };
        let counts = unique.iter().map(|key| distinct(&partial, grain, key)).collect::<Result<Vec<_>>>()?;
        let mut rows = Rows::of(&self.fold(partial, grain)?, grain)?;
        let key = |row: usize| packed(rows.keys.iter().map(|codes| codes[row]));
        let count = |counts: &HashMap<Packed, i64>| (0..rows.values.len()).map(|row| counts.get(&key(row)).copied().unwrap_or(0)).collect();
        rows.unique = counts.iter().map(count).collect();
        Ok(rows)
    }

    fn fold(&self, frame: DataFrame, keys: &[&'static str]) -> Result<DataFrame> {
        let aggregates: Vec<Expr> = MEASURES.iter().enumerate().map(|(index, measure)| self.aggregate(index, measure)).collect();
        let lazy = frame.lazy();
        let folded = if keys.is_empty() {
            lazy.select(aggregates)
        } else {
            lazy.group_by(keys.iter().map(|key| col(*key)).collect::<Vec<_>>()).agg(aggregates)
        };
        Ok(folded.collect()?)
    }

    fn aggregate(&self, index: usize, measure: &Measure) -> Expr {
        let column = col(measure.name);
        match measure.fold {
            Fold::Sum => column.cast(self.sum_type(index)).sum(),
            Fold::SumOfKnown => {
                let sum = column.clone().cast(self.sum_type(index)).sum();
                when(column.count().gt(lit(0_u32))).then(sum).otherwise(lit(NULL)).alias(measure.name)
            }
            Fold::Min => column.min(),
            Fold::Max => column.max(),
        }
    }

    fn widen(&self, frame: DataFrame) -> Result<DataFrame> {
        let casts: Vec<Expr> = sums().iter().enumerate().map(|(index, measure)| col(measure.name).cast(self.sum_type(index))).collect();
        Ok(frame.lazy().with_columns(casts).collect()?)
    }

    fn sum_type(&self, index: usize) -> PolarsType {
        let fits = self.totals.get(index).is_none_or(|total| i64::try_from(*total).is_ok());
        if fits { PolarsType::Int64 } else { PolarsType::Int128 }
    }
}

/// Codes of some keys, as one value.
type Packed = [u32; KEYS.len()];

fn packed(codes: impl Iterator<Item = u32>) -> Packed {
    let mut packed = [NULL_CODE; KEYS.len()];
    packed.iter_mut().zip(codes).for_each(|(place, code)| *place = code);
    packed
}

/// How many codes of `key` that are not NULL each group of `grain` has.
fn distinct(frame: &DataFrame, grain: &[&'static str], key: &'static str) -> Result<HashMap<Packed, i64>> {
    let codes = |key: &str| -> Result<Vec<u32>> { Ok(chunked::<UInt32Type>(frame, key)?.into_no_null_iter().collect()) };
    let (grain, codes) = (grain.iter().map(|key| codes(key)).collect::<Result<Vec<_>>>()?, codes(key)?);
    let mut seen: HashSet<(Packed, u32)> = HashSet::new();
    let mut counts: HashMap<Packed, i64> = HashMap::new();
    for (row, code) in codes.into_iter().enumerate().filter(|(_, code)| *code != NULL_CODE) {
        let group = packed(grain.iter().map(|codes| codes[row]));
        if seen.insert((group, code)) {
            *counts.entry(group).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The rows of a rollup: the codes of its grain, its measures, and its unique counts.
#[derive(Debug, Default)]
pub struct Rows {
    pub keys: Vec<Vec<u32>>,
    pub values: Vec<Values>,
    pub unique: Vec<Vec<i64>>,
}

impl Rows {
    fn of(frame: &DataFrame, grain: &[&'static str]) -> Result<Self> {
        let keys = grain.iter().map(|key| Ok(chunked::<UInt32Type>(frame, key)?.into_no_null_iter().collect())).collect::<Result<_>>()?;
        let mut values = vec![Values::NONE; frame.height()];
        for (index, measure) in MEASURES.iter().enumerate() {
            for (values, value) in values.iter_mut().zip(numbers(frame, measure.name)?) {
                match value {
                    Some(value) => values.of[index] = fit_stored(value, measure.name)?,
                    None => values.forget(index),
                }
            }
        }
        Ok(Self { keys, values, unique: Vec::new() })
    }
}

fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<Option<i128>>> {
    match chunked::<Int64Type>(frame, name) {
        Ok(numbers) => Ok(numbers.iter().map(|number| number.map(i128::from)).collect()),
        Err(_) => Ok(chunked::<Int128Type>(frame, name)?.iter().collect()),
    }
}

fn chunked<'a, T: PolarsDataType>(frame: &'a DataFrame, name: &str) -> Result<&'a ChunkedArray<T>> {
    let series = frame.column(name)?.as_materialized_series();
    let array = series.as_any().downcast_ref::<ChunkedArray<T>>();
    array.with_context(|| format!("Column `{name}` came back from polars as {}", series.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{INPUT_COST_NANOS, INPUT_TOKENS, LATENCY_MS_MAX};

    fn groups(rows: &[(u32, u32, i64)]) -> Groups {
        let mut groups = Groups::default();
        for (user, customer, tokens) in rows {
            let mut values = Values::NONE;
            values.of[INPUT_TOKENS] = *tokens;
            values.forget(LATENCY_MS_MAX);
            if *tokens % 2 == 0 {
                values.of[INPUT_COST_NANOS] = 7;
            } else {
                values.forget(INPUT_COST_NANOS);
            }
            groups.add([0, *user, *customer, 0, NULL_CODE, NULL_CODE], &values);
        }
        groups
    }

    #[test]
    fn groups_fold_by_fewer_keys_and_count_what_is_unique() {
        let mut folder = Folder::new(vec!["user_id", "customer_id"]);
        // Taken in twice: parts are folded together.
        for rows in [[(1, 4, 3), (1, 5, 5), (1, NULL_CODE, 1)], [(2, NULL_CODE, 2), (1, 4, 4), (2, NULL_CODE, 1)]] {
            folder.take(&groups(&rows), |_, code| code).unwrap();
        }
        let rows = folder.rows(&["user_id"], &["customer_id"]).unwrap();
        let mut read: Vec<_> = (0..2).map(|row| (rows.keys[0][row], rows.values[row].of[INPUT_TOKENS], rows.unique[0][row])).collect();
        read.sort_unstable();
        assert_eq!(read, [(1, 13, 2), (2, 3, 0)]);
        let all = folder.rows(&[], &["user_id", "customer_id"]).unwrap();
        assert_eq!((all.values[0].of[INPUT_TOKENS], &all.unique[0], &all.unique[1]), (16, &vec![2], &vec![2]));
        assert_eq!((all.values[0].is_known(INPUT_COST_NANOS), all.values[0].of[INPUT_COST_NANOS]), (true, 14));
        assert!(!all.values[0].is_known(LATENCY_MS_MAX));
    }

    #[test]
    fn sums_past_64_bits_in_all_but_not_in_any_group_are_exact() {
        let mut folder = Folder::new(vec!["user_id"]);
        for row in [(0, 0, i64::MAX), (1, 0, 7), (1, 0, i64::MAX - 7)] {
            folder.take(&groups(&[row]), |_, code| code).unwrap();
        }
        let rows = folder.rows(&["user_id"], &[]).unwrap();
        assert_eq!([rows.values[0].of[INPUT_TOKENS], rows.values[1].of[INPUT_TOKENS]], [i64::MAX; 2]);
        let error = folder.rows(&[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "The sum of `input_tokens` is 18446744073709551614, which does not fit the stored 64 bits");
    }
}
