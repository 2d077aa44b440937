//! The CSV beside each Parquet file: the same rows for people with a spreadsheet, in which no text runs as a formula.

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Result, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;

use crate::seats::calendar::instant;

/// A cell: what it prints into.
type Cell = Vec<u8>;

/// The rows as CSV, with a header; NULL is an empty cell.
///
/// # Errors
/// A column type that finance files do not have.
pub fn write(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(schema.fields().iter().map(|field| field.name()))?;
    let mut cell = Cell::new();
    for batch in batches {
        let mut columns: Vec<Column<'_>> = batch.columns().iter().map(|array| Column { array: array.as_ref(), last: None }).collect();
        for row in 0..batch.num_rows() {
            for column in &mut columns {
                cell.clear();
                column.print(row, &mut cell)?;
                writer.write_field(&cell)?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
    }
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

struct Column<'a> {
    array: &'a dyn Array,
    /// The last instant or day, as printed: neighbours are often equal.
    last: Option<(i64, Cell)>,
}

impl Column<'_> {
    fn print(&mut self, row: usize, cell: &mut Cell) -> Result<()> {
        if self.array.is_null(row) {
            return Ok(());
        }
        match self.array.data_type() {
            DataType::Utf8 => cell.extend_from_slice(harmless(self.array.as_string::<i32>().value(row)).as_bytes()),
            DataType::Int32 => write!(cell, "{}", self.array.as_primitive::<Int32Type>().value(row))?,
            DataType::Int64 => write!(cell, "{}", self.array.as_primitive::<Int64Type>().value(row))?,
            DataType::Boolean => write!(cell, "{}", self.array.as_boolean().value(row))?,
            DataType::Decimal128(_, scale) => print_decimal(self.array.as_primitive::<Decimal128Type>().value(row), *scale, cell)?,
            DataType::Date32 => self.print_again(self.array.as_primitive::<Date32Type>().value(row).into(), cell, |days, cell| {
                Ok(write!(cell, "{}", instant(days * 86_400_000_000)?.date_naive())?)
            })?,
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.print_again(self.array.as_primitive::<TimestampMicrosecondType>().value(row), cell, |micros, cell| {
                    let at: DateTime<chrono::Utc> = instant(micros)?;
                    Ok(write!(cell, "{}", crate::store::format_instant(at))?)
                })?;
            }
            other => bail!("A finance file has no column of type {other}"),
        }
        Ok(())
    }

    fn print_again(&mut self, value: i64, cell: &mut Cell, print: fn(i64, &mut Cell) -> Result<()>) -> Result<()> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != value) {
            let mut printed = Cell::new();
            print(value, &mut printed)?;
            self.last = Some((value, printed));
        }
        if let Some((_, printed)) = &self.last {
            cell.extend_from_slice(printed);
        }
        Ok(())
    }
}

fn print_decimal(value: i128, scale: i8, cell: &mut Cell) -> Result<()> {
    let places = usize::from(scale.unsigned_abs());
    let one = 10_u128.pow(scale.unsigned_abs().into());
    let sign = if value < 0 { "-" } else { "" };
    let value = value.unsigned_abs();
    Ok(write!(cell, "{sign}{}.{:0places$}", value / one, value % one)?)
}

/// A text that no spreadsheet takes for a formula: an apostrophe stands before one that a spreadsheet might, also behind
/// spaces and invisible characters. NUL, which ends a cell for some readers, becomes U+FFFD.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_invisible = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}' | '\u{61c}')
    };
    let starts_with_control = text.starts_with(['\t', '\r', '\n']);
    let first = text.chars().find(|character| !is_invisible(*character));
    let is_formula = first.is_some_and(|first| matches!(first, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠'));
    match (starts_with_control || is_formula, text.contains('\0')) {
        (false, false) => text.into(),
        (is_formula, _) => format!("{}{}", if is_formula { "'" } else { "" }, text.replace('\0', "\u{fffd}")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_gets_an_apostrophe() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\u{202e}=1", "\u{feff}=1", "＝1", "\nx", "\0=1"] {
            assert!(harmless(text).starts_with('\''), "{text:?}");
        }
        for text in ["", "a=1", "1-1", "org 7", "\u{202e}abc", "../../x"] {
            assert_eq!(harmless(text), text);
        }
        assert_eq!(harmless("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn decimals_keep_every_digit() {
        let print = |value: i128, scale: i8| {
            let mut cell = Cell::new();
            print_decimal(value, scale, &mut cell).unwrap();
            String::from_utf8(cell).unwrap()
        };
        assert_eq!(print(10_500_000, 6), "10.500000");
        assert_eq!(print(-1, 9), "-0.000000001");
        assert_eq!(print(0, 6), "0.000000");
    }
}
