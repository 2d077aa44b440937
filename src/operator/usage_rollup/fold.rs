//! The measures of `usage_daily`, folded by polars: the same fold takes events to groups, and groups to fewer groups.
//!
//! polars wraps a sum of Int64 without a word. So the folder adds up the magnitudes of everything pushed, in 128 bits: while
//! these totals fit 64 bits, no group's sum can wrap and 64 bits are summed; past that every sum is taken in 128 bits and
//! checked when it is stored.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::NaiveDate;
use polars::prelude::{
    ChunkedArray, Column, DataFrame, DataType as PolarsType, Expr, Int64Type, Int128Type, IntoLazy, SortMultipleOptions, UInt32Type, col,
};

use super::intern::{Ids, Interner, Labels};
use crate::money::fit_stored;
use crate::store::bulk::uuid_field;

/// What polars groups by, as codes.
pub(super) const KEYS: [&str; 6] = ["source", "user_id", "customer_id", "request_type", "category", "model"];

/// How a measure of several rows becomes one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    Sum,
    /// A sum that is NULL where the count beside it, in the named measure, is 0.
    SumUnlessNone(&'static str),
    Min,
    Max,
}

/// A measure: its column in `usage_daily`, and its fold. Those that end in `_known` are not stored.
struct Measure {
    name: &'static str,
    fold: Fold,
}

const fn measure(name: &'static str, fold: Fold) -> Measure {
    Measure { name, fold }
}

/// In the order of the table (`docs/semantics.md` section 4).
const MEASURES: [Measure; MEASURE_COUNT] = [
    measure("request_count", Fold::Sum),
    measure("success_count", Fold::Sum),
    measure("error_count", Fold::Sum),
    measure("unpriced_count", Fold::Sum),
    measure("input_tokens", Fold::Sum),
    measure("output_tokens", Fold::Sum),
    measure("total_tokens", Fold::Sum),
    measure("input_cost_nanos", Fold::SumUnlessNone("input_cost_known")),
    measure("output_cost_nanos", Fold::SumUnlessNone("output_cost_known")),
    measure("total_cost_nanos", Fold::SumUnlessNone("total_cost_known")),
    measure("success_total_tokens", Fold::Sum),
    measure("success_cost_nanos", Fold::SumUnlessNone("success_priced_count")),
    measure("success_latency_ms_sum", Fold::Sum),
    measure("success_latency_count", Fold::Sum),
    measure("latency_ms_max", Fold::Max),
    measure("tool_turns", Fold::Sum),
    measure("rating_sum", Fold::Sum),
    measure("rating_count", Fold::Sum),
    measure("first_request_at", Fold::Min),
    measure("last_request_at", Fold::Max),
    measure("success_priced_count", Fold::Sum),
    measure("priced_tokens", Fold::Sum),
    measure("input_cost_known", Fold::Sum),
    measure("output_cost_known", Fold::Sum),
    measure("total_cost_known", Fold::Sum),
];

pub(super) const MEASURE_COUNT: usize = 25;

/// A `latency_ms_max` of no latency at all.
pub(super) const NO_LATENCY: i64 = i64::MIN;

/// Rows held back before they are folded: large enough for polars to shine, small enough for a few windows at once.
const ROWS_PER_FOLD: usize = 131_072;

/// Groups held back before partial results are folded together.
const GROUPS_PER_FOLD: usize = 1_048_576;

/// Rows and partial groups of one window.
pub(super) struct Folder {
    keys: [Vec<u32>; KEYS.len()],
    values: [Vec<i64>; MEASURE_COUNT],
    /// Sum of the magnitudes of all values pushed, by measure.
    totals: [u128; MEASURE_COUNT],
    partial: Option<DataFrame>,
    /// Whether `partial` holds a group more than once.
    is_folded: bool,
}

impl Folder {
    pub(super) fn new() -> Self {
        Self {
            keys: Default::default(),
            values: std::array::from_fn(|_| Vec::new()),
            totals: [0; MEASURE_COUNT],
            partial: None,
            is_folded: true,
        }
    }

    pub(super) fn push(&mut self, keys: [u32; KEYS.len()], values: [i64; MEASURE_COUNT]) {
        for (column, key) in self.keys.iter_mut().zip(keys) {
            column.push(key);
        }
        for (column, value) in self.values.iter_mut().zip(values) {
            column.push(value);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys[0].len() >= ROWS_PER_FOLD
    }

    /// Folds the rows held back into groups.
    pub(super) fn fold_rows(&mut self) -> Result<()> {
        if self.keys[0].is_empty() {
            return Ok(());
        }
        for (total, values) in self.totals.iter_mut().zip(&self.values) {
            *total += values.iter().map(|value| u128::from(value.unsigned_abs())).sum::<u128>();
        }
        let height = self.keys[0].len();
        let mut columns: Vec<Column> = Vec::with_capacity(KEYS.len() + MEASURE_COUNT);
        for (name, codes) in KEYS.iter().zip(&mut self.keys) {
            columns.push(Column::new((*name).into(), std::mem::take(codes)));
        }
        for (measure, values) in MEASURES.iter().zip(&mut self.values) {
            columns.push(Column::new(measure.name.into(), std::mem::take(values)));
        }
        let folded = self.fold(DataFrame::new(height, columns)?)?;
        self.partial = Some(match self.partial.take() {
            None => folded,
            Some(partial) => {
                // One part may be of 64 bits and the other of 128: both become what the totals ask for now.
                let mut partial = self.widen(partial)?;
                partial.vstack_mut_owned(self.widen(folded)?)?;
                self.is_folded = partial.height() >= GROUPS_PER_FOLD;
                if self.is_folded { self.fold(partial)? } else { partial }
            }
        });
        Ok(())
    }

    /// The groups of everything pushed, customer by customer: written so, those of one lie together.
    pub(super) fn finish(mut self) -> Result<Option<DataFrame>> {
        self.fold_rows()?;
        let groups = match self.partial.take() {
            Some(partial) if !self.is_folded => Some(self.fold(partial)?),
            other => other,
        };
        groups.map(|groups| Ok(groups.sort(["customer_id"], SortMultipleOptions::default())?)).transpose()
    }

    fn fold(&self, frame: DataFrame) -> Result<DataFrame> {
        let aggregates: Vec<Expr> = MEASURES
            .iter()
            .zip(self.sum_types())
            .map(|(measure, sum_type)| match measure.fold {
                Fold::Sum | Fold::SumUnlessNone(_) => col(measure.name).cast(sum_type).sum(),
                Fold::Min => col(measure.name).min(),
                Fold::Max => col(measure.name).max(),
            })
            .collect();
        Ok(frame.lazy().group_by(KEYS.map(col)).agg(aggregates).collect()?)
    }

    fn widen(&self, frame: DataFrame) -> Result<DataFrame> {
        let casts = MEASURES.iter().zip(self.sum_types()).filter(|(measure, _)| !matches!(measure.fold, Fold::Min | Fold::Max));
        let casts: Vec<Expr> = casts.map(|(measure, sum_type)| col(measure.name).cast(sum_type)).collect();
        Ok(frame.lazy().with_columns(casts).collect()?)
    }

    fn sum_types(&self) -> impl Iterator<Item = PolarsType> {
        self.totals.iter().map(|total| if i64::try_from(*total).is_ok() { PolarsType::Int64 } else { PolarsType::Int128 })
    }
}

/// The texts behind the codes of a window.
#[derive(Default)]
pub(super) struct Codes {
    pub(super) sources: Interner,
    pub(super) users: Interner,
    pub(super) customers: Ids,
    pub(super) request_types: Interner,
    pub(super) categories: Interner,
    pub(super) models: Interner,
    pub(super) user_labels: Labels,
    pub(super) customer_labels: Labels,
}

/// Turns groups into rows of `usage_daily`.
pub(super) fn rows_of(groups: &DataFrame, codes: &Codes, usage_date: NaiveDate) -> Result<RecordBatch> {
    let height = groups.height();
    let key = |name: &str| -> Result<Vec<u32>> { Ok(chunked::<UInt32Type>(groups, name)?.into_no_null_iter().collect()) };
    let text = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let epoch_days = i32::try_from((usage_date - NaiveDate::default()).num_days())?;
    let (users, customers) = (key("user_id")?, key("customer_id")?);

    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut add = |field: Field, column: ArrayRef| {
        fields.push(field);
        columns.push(column);
    };
    add(Field::new("usage_date", DataType::Date32, false), Arc::new(Date32Array::from(vec![epoch_days; height])));
    add(Field::new("source", text.clone(), false), codes.sources.column(key("source")?.into_iter())?);
    add(uuid_field("user_id", text.clone(), false), codes.users.column(users.iter().copied())?);
    add(Field::new("customer_id", DataType::Int64, true), codes.customers.column(customers.iter().copied()));
    add(Field::new("request_type", text.clone(), false), codes.request_types.column(key("request_type")?.into_iter())?);
    add(Field::new("category", text.clone(), true), codes.categories.column(key("category")?.into_iter())?);
    add(Field::new("model", text.clone(), true), codes.models.column(key("model")?.into_iter())?);
    add(Field::new("user_email", text.clone(), true), codes.user_labels.column(users.into_iter())?);
    add(Field::new("customer_name", text, true), codes.customer_labels.column(customers.into_iter())?);

    for measure in MEASURES.iter().filter(|measure| !measure.name.ends_with("_known")) {
        let values = stored_values(groups, measure)?;
        if measure.name.ends_with("_at") {
            let instants: TimestampMicrosecondArray = values.into_iter().collect();
            let instants = instants.with_timezone("UTC");
            add(Field::new(measure.name, arrow::array::Array::data_type(&instants).clone(), false), Arc::new(instants));
        } else {
            add(Field::new(measure.name, DataType::Int64, true), Arc::new(Int64Array::from(values)));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn stored_values(groups: &DataFrame, measure: &Measure) -> Result<Vec<Option<i64>>> {
    let sums = |name: &'static str| -> Result<Vec<i128>> {
        match chunked::<Int64Type>(groups, name) {
            Ok(sums) => Ok(sums.into_no_null_iter().map(i128::from).collect()),
            Err(_) => Ok(chunked::<Int128Type>(groups, name)?.into_no_null_iter().collect()),
        }
    };
    match measure.fold {
        Fold::Sum => sums(measure.name)?.into_iter().map(|sum| fit_stored(sum, measure.name).map(Some)).collect(),
        Fold::SumUnlessNone(known) => {
            let known = sums(known)?;
            let stored = |(sum, known)| if known == 0 { Ok(None) } else { fit_stored(sum, measure.name).map(Some) };
            sums(measure.name)?.into_iter().zip(known).map(stored).collect()
        }
        Fold::Min | Fold::Max => {
            let values = chunked::<Int64Type>(groups, measure.name)?;
            Ok(values.into_no_null_iter().map(|value| (value != NO_LATENCY).then_some(value)).collect())
        }
    }
}

fn chunked<'a, T: polars::prelude::PolarsDataType>(frame: &'a DataFrame, name: &str) -> Result<&'a ChunkedArray<T>> {
    let series = frame.column(name)?.as_materialized_series();
    let array = series.as_any().downcast_ref::<ChunkedArray<T>>();
    array.with_context(|| format!("Column `{name}` came back from polars as {}", series.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(rows: &[(u32, i64)]) -> Result<RecordBatch> {
        let mut folder = Folder::new();
        let mut codes = Codes::default();
        codes.sources.code("log");
        codes.users.code("00000000-0000-4000-8000-000000000001");
        codes.users.code("00000000-0000-4000-8000-000000000002");
        codes.request_types.code("report");
        for (user, tokens) in rows {
            let mut values = [1; MEASURE_COUNT];
            values[4] = *tokens;
            folder.push(
                [0, *user, super::super::intern::NULL_CODE, 0, super::super::intern::NULL_CODE, super::super::intern::NULL_CODE],
                values,
            );
            // A fold for each row: parts of 64 and of 128 bits meet.
            folder.fold_rows()?;
        }
        let groups = folder.finish()?.context("no groups")?;
        rows_of(&groups, &codes, NaiveDate::default())
    }

    #[test]
    fn sums_past_64_bits_in_all_but_not_in_any_group_are_exact() {
        let batch = folded(&[(0, i64::MAX), (1, 7), (1, i64::MAX - 7)]).unwrap();
        let tokens = batch.column_by_name("input_tokens").unwrap();
        let tokens: Vec<i64> = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(tokens).values().to_vec();
        assert_eq!(tokens, [i64::MAX, i64::MAX]);
    }

    #[test]
    fn a_sum_past_64_bits_is_an_error_never_a_wrap() {
        let error = folded(&[(0, i64::MAX), (0, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "The sum of `input_tokens` is 9223372036854775808, which does not fit the stored 64 bits");
    }
}
