//! The peak fold over a ledger as Parquet: `peak_fold DIR` reads `ledger.parquet` and `subscription.parquet`, in any order, and
//! writes `fold.parquet`. Its peer is `seats_duckdb.sql`; `scripts/bench-seats.sh` times both and compares their answers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tallyroll::seats::calendar::subscription_months;
use tallyroll::seats::{LedgerRow, peaks};

fn main() {
    // Cargo passes `--bench` of its own.
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap();
    let dir = Path::new(&dir);
    let as_of = "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp_micros();

    let mut orgs: HashMap<String, u32> = HashMap::new();
    let mut subscriptions = Vec::new();
    read(&dir.join("subscription.parquet"), &["id", "org_id", "start_at"], |columns| {
        let (ids, org_ids, starts) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>(), instants(&columns[2]));
        for row in 0..ids.len() {
            let next = u32::try_from(orgs.len()).unwrap();
            let org = *orgs.entry(org_ids.value(row).to_owned()).or_insert(next);
            subscriptions.push((ids.value(row).to_owned(), org, starts.as_primitive::<TimestampMicrosecondType>().value(row)));
        }
    });

    // Rows of orgs that have a subscription, brought together org by org.
    let mut rows: Vec<(u32, LedgerRow)> = Vec::new();
    read(&dir.join("ledger.parquet"), &["org_id", "occurred_at", "id", "seats"], |columns| {
        let (org_ids, at) = (columns[0].as_string::<i32>(), instants(&columns[1]));
        let at = at.as_primitive::<TimestampMicrosecondType>().values();
        let (ids, seats) = (columns[2].as_primitive::<Int64Type>().values(), columns[3].as_primitive::<Int64Type>().values());
        for row in 0..org_ids.len() {
            if let Some(org) = orgs.get(org_ids.value(row)) {
                rows.push((*org, LedgerRow { occurred_at: at[row], id: ids[row], seats: seats[row] }));
            }
        }
    });
    let mut ends = vec![0_usize; orgs.len() + 1];
    for (org, _) in &rows {
        ends[*org as usize + 1] += 1;
    }
    for index in 1..ends.len() {
        ends[index] += ends[index - 1];
    }
    let mut places = ends.clone();
    let mut ledger = vec![LedgerRow { occurred_at: 0, id: 0, seats: 0 }; rows.len()];
    for (org, row) in rows {
        ledger[places[org as usize]] = row;
        places[org as usize] += 1;
    }

    let (mut ids, mut numbers, mut peak_seats, mut ledger_rows, mut closing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, org, start) in &subscriptions {
        let series = &mut ledger[ends[*org as usize]..ends[*org as usize + 1]];
        series.sort_unstable();
        for month in peaks(series, &subscription_months(*start, None, as_of).unwrap(), as_of).unwrap() {
            ids.push(id.as_str());
            numbers.push(month.period.number);
            peak_seats.push(month.peak_seats);
            ledger_rows.push(month.ledger_rows);
            closing.push(month.closing_seats);
        }
    }
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("subscription_id", Arc::new(StringArray::from(ids)) as ArrayRef, false),
        ("month_number", Arc::new(Int32Array::from(numbers)), false),
        ("peak_seats", Arc::new(Int64Array::from(peak_seats)), false),
        ("ledger_rows", Arc::new(Int64Array::from(ledger_rows)), false),
        ("closing_seats", Arc::new(Int64Array::from(closing)), true),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(File::create(dir.join("fold.parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    println!("{} ledger rows, {} subscription months", ledger.len(), batch.num_rows());
}

fn instants(column: &ArrayRef) -> ArrayRef {
    cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap()
}

fn read(path: &Path, names: &[&str], mut each: impl FnMut(&[ArrayRef])) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    for batch in builder.with_projection(mask).with_batch_size(65_536).build().unwrap() {
        let batch = batch.unwrap();
        let columns: Vec<ArrayRef> = names.iter().map(|name| Arc::clone(batch.column_by_name(name).unwrap())).collect();
        each(&columns);
    }
}
