//! Rows of the table that rollups read, folded in memory: the columns come out at once, and polars folds them on all cores.
//!
//! polars wraps a sum of Int64 without a word: where the magnitudes of a measure do not fit 64 bits together, it is summed in 128 bits, and
//! checked when it is read. What it makes must add up to what was read.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Date32Type, Field, TimestampMicrosecondType, UInt32Type};
use polars::prelude::{
    ChunkedArray, Column, DataFrame, DataType as PolarsType, Expr, Int64Type as PolarsInt64, Int128Type, IntoLazy, NULL, PolarsDataType,
    UInt32Type as PolarsUInt32, col, lit, when,
};

use super::folded::Folded;
use super::shape::Reads;
use crate::engine::blocking::blocking;
use crate::fold::columns::measure_fields;
use crate::fold::groups::Values;
use crate::fold::intern::NULL_CODE;
use crate::fold::{KEYS, key_field, label_of};
use crate::measure::{Fold, MEASURES, Measure, SUM_COUNT};
use crate::money::fit_stored;
use crate::source::result_table;
use crate::sql_text::quote_identifier;
use crate::store::Tx;
use crate::window::Window;

/// Most rows that are folded in memory, some 500 bytes each. Of more, the database makes the rollup itself.
const MAX_ROWS: i64 = 1_000_000;

/// The `row_count` rows of a window, folded by the keys `level`. `None` where the database is to make what is asked for.
///
/// # Errors
/// What the database says; a sum that does not fit 64 bits.
pub async fn read(tx: &mut Tx, reads: &Reads, level: &[&'static str], window: Window, row_count: i64) -> Result<Option<Folded>> {
    if row_count > MAX_ROWS {
        return Ok(None);
    }
    let Reads { table, day_column } = reads;
    let mut fields = vec![Field::new(day_column, DataType::Date32, false)];
    fields.extend(level.iter().copied().chain(labels(level)).map(|name| key_field(name, true)));
    fields.extend(measure_fields());
    let names: Vec<String> = fields.iter().map(|field| quote_identifier(field.name())).collect();
    let (table, day) = (quote_identifier(table), quote_identifier(day_column));
    let (from, until) = (window.start_date, window.end_date);
    let select = format!("SELECT {} FROM {table} WHERE {day} >= DATE '{from}' AND {day} < DATE '{until}'", names.join(", "));
    let Some(read) = result_table::read(tx, &select, fields).await? else { return Ok(None) };
    let level = level.to_vec();
    blocking(move || Ok(Some(fold(&level, &read)?))).await
}

fn labels(level: &[&'static str]) -> impl Iterator<Item = &'static str> {
    level.iter().filter_map(|key| label_of(key))
}

/// Folds rows whose first column is their day.
fn fold(level: &[&'static str], read: &RecordBatch) -> Result<Folded> {
    let frame = frame(level, read)?;
    let mut aggregates = Vec::new();
    for measure in &MEASURES {
        aggregates.push(aggregate(measure, &numbers(read, measure)?));
    }
    aggregates.extend(labels(level).map(|label| col(label).max()));
    let frame = if read.num_rows() == 0 {
        frame
    } else if level.is_empty() {
        frame.lazy().select(aggregates).collect()?
    } else {
        frame.lazy().group_by(level.iter().map(|key| col(*key)).collect::<Vec<_>>()).agg(aggregates).collect()?
    };
    let mut values = vec![Values::NONE; frame.height()];
    for (index, measure) in MEASURES.iter().enumerate() {
        for (values, value) in values.iter_mut().zip(wide_numbers(&frame, measure.name)?) {
            match value {
                Some(value) => values.of[index] = fit_stored(value, measure.name)?,
                None => values.forget(index),
            }
        }
    }
    let mut folded = Folded::new(level)?;
    let mut keys = vec![[NULL_CODE; KEYS.len()]; values.len()];
    for (position, key) in KEYS.iter().enumerate().filter(|(_, key)| level.contains(key)) {
        let codes = folded.codes.of_column(key, &column(&frame, read, key)?)?;
        let label = label_of(key).map(|label| Ok::<_, anyhow::Error>((chunked::<PolarsInt64>(&frame, label)?, texts(read, label)?)));
        if let (Some((dated, names)), Some(labels)) = (label.transpose()?, folded.codes.labels_mut(key)) {
            for (code, dated) in codes.iter().zip(dated.iter()) {
                let Some(dated) = dated else { continue };
                labels.see_of_day(*code, dated >> 32, names.as_string::<i32>().value(usize::try_from(dated & CODE)?));
            }
        }
        keys.iter_mut().zip(codes).for_each(|(key, code)| key[position] = code);
    }
    for (key, values) in keys.into_iter().zip(&values) {
        folded.groups.add(key, values);
    }
    folded.sums = sums_of(read)?;
    if folded.groups.sums() != folded.sums {
        bail!("What polars folded comes to other sums than what was read");
    }
    Ok(folded)
}

fn sums_of(read: &RecordBatch) -> Result<[i128; SUM_COUNT]> {
    let mut sums = [0; SUM_COUNT];
    for (sum, measure) in sums.iter_mut().zip(&MEASURES) {
        *sum = numbers(read, measure)?.iter().flatten().map(i128::from).sum();
    }
    Ok(sums)
}

/// The half of a label's number that says which name it is, below that of its day.
const CODE: i64 = u32::MAX as i64;

/// Keys as codes of their dictionaries, a label behind its day, and the measures.
fn frame(level: &[&'static str], read: &RecordBatch) -> Result<DataFrame> {
    let mut columns: Vec<Column> = Vec::new();
    for key in level {
        let codes = array(read, key)?.as_dictionary::<UInt32Type>().keys();
        columns.push(Column::new((*key).into(), codes.iter().collect::<Vec<_>>()));
    }
    let days = read.column(0).as_primitive::<Date32Type>();
    for label in labels(level) {
        let names = array(read, label)?.as_dictionary::<UInt32Type>().keys();
        // The label of the latest day is the largest; all rows of a day carry the day's.
        let dated = days.values().iter().zip(names).map(|(day, name)| name.map(|name| (i64::from(*day) << 32) | i64::from(name)));
        columns.push(Column::new(label.into(), dated.collect::<Vec<_>>()));
    }
    for measure in &MEASURES {
        let numbers = numbers(read, measure)?;
        columns.push(if numbers.null_count() == 0 {
            Column::new(measure.name.into(), &numbers.values()[..])
        } else {
            Column::new(measure.name.into(), numbers.iter().collect::<Vec<_>>())
        });
    }
    Ok(DataFrame::new(read.num_rows(), columns)?)
}

fn aggregate(measure: &Measure, values: &Int64Array) -> Expr {
    let magnitude: u128 = values.iter().flatten().map(|value| u128::from(value.unsigned_abs())).sum();
    let column = col(measure.name);
    let sum = column.clone().cast(if i64::try_from(magnitude).is_ok() { PolarsType::Int64 } else { PolarsType::Int128 }).sum();
    match measure.fold {
        Fold::Sum => sum,
        Fold::SumOfKnown => when(column.count().gt(lit(0_u32))).then(sum).otherwise(lit(NULL)).alias(measure.name),
        Fold::Min => column.min(),
        Fold::Max => column.max(),
    }
}

/// A key of the folded rows.
fn column(folded: &DataFrame, read: &RecordBatch, key: &str) -> Result<ArrayRef> {
    let codes: UInt32Array = chunked::<PolarsUInt32>(folded, key)?.iter().collect();
    Ok(Arc::new(DictionaryArray::try_new(codes, Arc::clone(texts(read, key)?))?))
}

fn array<'a>(read: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    read.column_by_name(name).with_context(|| format!("Column `{name}` was not read"))
}

fn texts<'a>(read: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    Ok(array(read, name)?.as_dictionary::<UInt32Type>().values())
}

fn numbers(read: &RecordBatch, measure: &Measure) -> Result<Int64Array> {
    let array = array(read, measure.name)?;
    Ok(if measure.is_instant { array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast() } else { array.as_primitive().clone() })
}

fn wide_numbers(frame: &DataFrame, name: &str) -> Result<Vec<Option<i128>>> {
    match chunked::<PolarsInt64>(frame, name) {
        Ok(numbers) => Ok(numbers.iter().map(|number| number.map(i128::from)).collect()),
        Err(_) => Ok(chunked::<Int128Type>(frame, name)?.iter().collect()),
    }
}

fn chunked<'a, T: PolarsDataType>(frame: &'a DataFrame, name: &str) -> Result<&'a ChunkedArray<T>> {
    let series = frame.column(name)?.as_materialized_series();
    match series.as_any().downcast_ref::<ChunkedArray<T>>() {
        Some(array) => Ok(array),
        None => bail!("Column `{name}` came back from polars as {}", series.dtype()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::columns::measure_columns;
    use crate::job::Job;
    use crate::measure::INPUT_TOKENS;
    use crate::operator::rollup::shape::Shape;
    use arrow::array::{Date32Array, StringArray};
    use arrow::datatypes::Schema;
    use chrono::NaiveDate;

    fn job(text: &str) -> Job {
        toml::from_str(text).unwrap()
    }

    fn shape() -> Shape {
        let daily = job(
            "description = \"d\"\noperator = \"usage_rollup\"\nreads = []\nwrites = \"usage_daily\"\nwindow_column = \"usage_date\"\ngrain = [\"usage_date\"]\nwindow = \"day\"",
        );
        let monthly = "description = \"d\"\noperator = \"rollup\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_month\", \"customer_id\"]\n\
             labels = [\"customer_name\"]\nunique = { models = \"model\" }\nwindow_column = \"usage_month\"\nwindow = \"month\"";
        Shape::of(&job(monthly), &daily).unwrap()
    }

    /// Day, customer, its name, model, input tokens.
    type Read = (i32, Option<&'static str>, Option<&'static str>, Option<&'static str>, i64);

    fn read(rows: &[Read]) -> RecordBatch {
        let text = |texts: Vec<Option<&str>>| -> ArrayRef { Arc::new(texts.into_iter().collect::<DictionaryArray<UInt32Type>>()) };
        let values: Vec<Values> = rows
            .iter()
            .map(|row| {
                let mut values = Values::NONE;
                values.of[INPUT_TOKENS] = row.4;
                values
            })
            .collect();
        let mut fields = vec![Field::new("usage_date", DataType::Date32, false)];
        fields.extend(["customer_id", "model", "customer_name"].map(|name| key_field(name, true)));
        fields.extend(measure_fields());
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Date32Array>()),
            text(rows.iter().map(|row| row.1).collect()),
            text(rows.iter().map(|row| row.3).collect()),
            text(rows.iter().map(|row| row.2).collect()),
        ];
        columns.extend(measure_columns(values.iter()));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn monthly(read: &RecordBatch) -> Result<RecordBatch> {
        let shape = shape();
        Ok(fold(&shape.level(), read)?.rows(&shape, NaiveDate::default())?.0)
    }

    #[test]
    fn the_label_is_that_of_the_latest_day_and_null_is_not_counted() {
        let rows = [
            (-2, Some("7"), Some("new"), Some("a"), 1),
            (-3, Some("7"), Some("old"), Some("b"), 2),
            (-1, Some("7"), None, None, 4),
            (-1, None, None, None, 8),
        ];
        let folded = monthly(&read(&rows)).unwrap();
        let customers = folded["customer_id"].as_dictionary::<UInt32Type>().downcast_dict::<StringArray>().unwrap();
        let of_seven = folded.slice(customers.into_iter().position(|id| id == Some("7")).unwrap(), 1);
        let text = |name: &str| arrow::util::display::array_value_to_string(&of_seven[name], 0).unwrap();
        assert_eq!(["customer_name", "models", "input_tokens"].map(text), ["new", "2", "7"]);
        assert_eq!((folded.num_rows(), text("usage_month").as_str()), (2, "1970-01-01"));
    }

    #[test]
    fn a_sum_past_64_bits_is_an_error_never_a_wrap() {
        let fits = [(1, Some("1"), None, None, i64::MAX), (1, Some("2"), None, None, i64::MAX), (1, Some("2"), None, None, -5)];
        let folded = monthly(&read(&fits)).unwrap();
        let sums: i128 = folded["input_tokens"].as_primitive::<arrow::datatypes::Int64Type>().iter().flatten().map(i128::from).sum();
        assert_eq!(sums, i128::from(i64::MAX) * 2 - 5);
        let error = monthly(&read(&[fits[0], fits[0]])).unwrap_err();
        assert_eq!(error.to_string(), "The sum of `input_tokens` is 18446744073709551614, which does not fit the stored 64 bits");
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(monthly(&read(&[])).unwrap().num_rows(), 0);
    }
}
