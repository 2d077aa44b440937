//! The CSV beside each Parquet file: the same rows for people with a spreadsheet, in which no text runs as a formula.

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Result, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};

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
        let mut columns: Vec<Column<'_>> = batch.columns().iter().map(|array| Column { array: array.as_ref(), last_day: None }).collect();
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
    /// The last day that was printed, as days since 1970 and as text: neighbours are often equal.
    last_day: Option<(i64, String)>,
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
            DataType::Date32 => self.print_day(self.array.as_primitive::<Date32Type>().value(row).into(), cell)?,
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let micros = self.array.as_primitive::<TimestampMicrosecondType>().value(row);
                self.print_day(micros.div_euclid(MICROS_PER_DAY), cell)?;
                print_time(micros.rem_euclid(MICROS_PER_DAY), cell);
            }
            other => bail!("A finance file has no column of type {other}"),
        }
        Ok(())
    }

    fn print_day(&mut self, days: i64, cell: &mut Cell) -> Result<()> {
        if self.last_day.as_ref().is_none_or(|(last, _)| *last != days) {
            self.last_day = Some((days, instant(days * MICROS_PER_DAY)?.date_naive().to_string()));
        }
        if let Some((_, text)) = &self.last_day {
            cell.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `T12:34:56.789012Z`, by hand: a file has millions of instants, and a format that is read each time takes longer than all else.
fn print_time(micros: i64, cell: &mut Cell) {
    let second = micros / 1_000_000;
    let mut digits = |separator: u8, number: i64, places: u32| {
        cell.push(separator);
        for place in (0..places).rev() {
            cell.push(b'0' + u8::try_from(number / 10_i64.pow(place) % 10).unwrap_or_default());
        }
    };
    digits(b'T', second / 3_600, 2);
    digits(b':', second % 3_600 / 60, 2);
    digits(b':', second % 60, 2);
    digits(b'.', micros % 1_000_000, 6);
    cell.push(b'Z');
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
    use arrow::array::TimestampMicrosecondArray;

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
    fn instants_print_as_everywhere() {
        let micros = [0, -1, 1_767_225_599_999_999, 86_399_000_000, -62_135_596_800_000_000];
        let column = TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC");
        let mut column = Column { array: &column, last_day: None };
        for (row, micros) in micros.into_iter().enumerate() {
            let mut cell = Cell::new();
            column.print(row, &mut cell).unwrap();
            assert_eq!(String::from_utf8(cell).unwrap(), crate::store::format_instant(instant(micros).unwrap()));
        }
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
