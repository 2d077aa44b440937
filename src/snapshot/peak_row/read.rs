//! Rows of `peak_seats`, back from Arrow.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::{Entry, PeakRow, schema};
use crate::seats::calendar::{Period, State};
use crate::seats::{Coverage, MonthPeak};

/// The rows of a file's batches.
///
/// # Errors
/// When a column is missing, or holds what no row can.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<PeakRow<'static>>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(row_at(&Columns(batch), row)?);
        }
    }
    Ok(rows)
}

struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn column(&self, name: &str, row: usize) -> Result<Option<&ArrayRef>> {
        let column = self.0.column_by_name(name).with_context(|| format!("The file has no column `{name}`"))?;
        Ok((!column.is_null(row)).then_some(column))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<String>> {
        Ok(self.column(name, row)?.map(|column| column.as_string::<i32>().value(row).to_owned()))
    }

    fn int(&self, name: &str, row: usize) -> Result<i32> {
        Ok(self.column(name, row)?.context("An integer is NULL")?.as_primitive::<Int32Type>().value(row))
    }

    fn long(&self, name: &str, row: usize) -> Result<Option<i64>> {
        Ok(self.column(name, row)?.map(|column| column.as_primitive::<Int64Type>().value(row)))
    }

    fn instant(&self, name: &str, row: usize) -> Result<Option<i64>> {
        Ok(self.column(name, row)?.map(|column| column.as_primitive::<TimestampMicrosecondType>().value(row)))
    }
}

fn row_at(columns: &Columns<'_>, row: usize) -> Result<PeakRow<'static>> {
    let schema = schema();
    for (expected, found) in schema.fields().iter().zip(columns.0.schema().fields()) {
        if expected.name() != found.name() || expected.data_type() != found.data_type() {
            bail!("The file's column `{}` should be `{}`, {}", found.name(), expected.name(), expected.data_type());
        }
    }
    let text = |name: &str| columns.text(name, row)?.with_context(|| format!("`{name}` is NULL"));
    let long = |name: &str| columns.long(name, row)?.with_context(|| format!("`{name}` is NULL"));
    let instant = |name: &str| columns.instant(name, row)?.with_context(|| format!("`{name}` is NULL"));
    let avg = columns.column("avg_seats", row)?.map(|column| column.as_primitive::<Decimal128Type>().value(row));
    let carried_in = columns.column("peak_carried_in", row)?.is_some_and(|column| column.as_boolean().value(row));
    let entry = text("entry")?;
    Ok(PeakRow {
        subscription_id: text("subscription_id")?.into(),
        org_id: text("org_id")?.into(),
        license_id: columns.text("license_id", row)?.map(Cow::Owned),
        plan: columns.text("plan", row)?.map(Cow::Owned),
        seat_type: text("seat_type")?.into(),
        month: MonthPeak {
            period: Period { number: columns.int("month_number", row)?, start: instant("period_start")?, end: instant("period_end")? },
            coverage: Coverage::named(&text("coverage")?).context("Unknown coverage")?,
            peak_seats: long("peak_seats")?,
            peak_at: columns.instant("peak_at", row)?,
            peak_event_id: columns.long("peak_event_id", row)?,
            peak_carried_in: carried_in,
            seconds_at_peak: long("seconds_at_peak")?,
            opening_seats: columns.long("opening_seats", row)?,
            closing_seats: columns.long("closing_seats", row)?,
            min_seats: columns.long("min_seats", row)?,
            avg_seats_micros: avg.map(i64::try_from).transpose()?,
            ledger_rows: long("ledger_rows")?,
            term_number: columns.int("term_number", row)?,
            term_peak_seats: long("term_peak_seats")?,
        },
        committed_seats: columns.long("committed_seats", row)?,
        state: State::named(&text("state")?).context("Unknown state")?,
        as_of: instant("as_of")?,
        entry: Entry {
            revision: columns.int("revision", row)?,
            is_correction: entry == "correction",
            peak_seats_delta: long("peak_seats_delta")?,
            overage_seats_delta: columns.long("overage_seats_delta", row)?,
            correction_reason: columns.text("correction_reason", row)?.map(Cow::Owned),
        },
    })
}

/// The columns of table `peak_seats` for the rows of a batch: deltas stand in the journal only, the average is an integer.
///
/// # Errors
/// When a column is missing.
pub fn table_batch(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns: Vec<(String, ArrayRef, bool)> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        match field.name().as_str() {
            "peak_seats_delta" | "overage_seats_delta" => {}
            "avg_seats" => {
                let micros = column.as_primitive::<Decimal128Type>().unary_opt::<_, Int64Type>(|micros| i64::try_from(micros).ok());
                columns.push(("avg_seats_micros".to_owned(), Arc::new(micros), true));
            }
            name => columns.push((name.to_owned(), Arc::clone(column), field.is_nullable())),
        }
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
