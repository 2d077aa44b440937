//! Many rows in at once: Arrow batches by binary COPY on PostgreSQL, values by multi-row INSERT on both.
//!
//! Layout of the binary COPY stream: PostgreSQL documentation, COPY, "Binary Format".

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Date32Type, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt32Type};
use chrono::{DateTime, Days, NaiveDate};
use sqlx::postgres::PgConnection;

use super::value::Value;
use super::{Dialect, Tx, classify, postgres};
use crate::sql_text::quote_identifier;

/// Bytes sent to PostgreSQL at once.
const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Rows of one INSERT: enough to be fast, and always as many, so that the statement is prepared once. What is left over goes
/// row by row.
const ROWS_PER_INSERT: usize = 64;

/// Days and microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_DAYS: i32 = 10_957;
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Tx {
    /// Appends the rows of `batch` to `table`, column by name.
    ///
    /// Types: Int64, Int32, Boolean, Date32, Timestamp(µs), and Utf8, plain or behind `UInt32` dictionary keys.
    ///
    /// # Errors
    /// What the database says; a column type that is none of these.
    pub async fn insert_batch(&mut self, table: &str, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let schema = batch.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        match self {
            Self::Postgres(tx) => copy_batch(tx, table, &columns, batch).await,
            Self::Sqlite(_) => {
                let readers = readers(batch)?;
                for start in (0..batch.num_rows()).step_by(ROWS_PER_INSERT) {
                    let end = (start + ROWS_PER_INSERT).min(batch.num_rows());
                    let rows: Vec<Vec<Value>> = (start..end)
                        .map(|row| readers.iter().map(|reader| reader.value(row)).collect::<Result<_>>())
                        .collect::<Result<_>>()?;
                    self.insert_rows(table, &columns, &rows, "").await?;
                }
                Ok(())
            }
        }
    }

    /// Inserts rows of values, `suffix` (such as `ON CONFLICT DO NOTHING`) behind each statement; how many were inserted.
    ///
    /// # Errors
    /// What the database says.
    pub async fn insert_rows(&mut self, table: &str, columns: &[&str], rows: &[Vec<Value>], suffix: &str) -> Result<u64> {
        let mut inserted = 0;
        let chunks = rows.chunks_exact(ROWS_PER_INSERT);
        let left_over = chunks.remainder();
        let sql = |row_count: usize| insert_sql(table, columns, row_count, suffix, matches!(self, Self::Sqlite(_)));
        let (of_many, of_one) = (sql(ROWS_PER_INSERT), sql(1));
        for (chunk, sql) in chunks.map(|chunk| (chunk, &of_many)).chain(left_over.chunks(1).map(|row| (row, &of_one))) {
            let parameters: Vec<Value> = chunk.iter().flatten().cloned().collect();
            inserted += self.execute(sql, &parameters).await?;
        }
        Ok(inserted)
    }

    /// As [`Self::insert_rows`], for thousands at once: PostgreSQL takes them in by COPY, beside the table first, for COPY knows no `suffix`.
    /// In one session always the same columns of the same table.
    ///
    /// # Errors
    /// What the database says.
    pub async fn insert_many_rows(&mut self, table: &str, columns: &[&str], rows: &[Vec<Value>], suffix: &str) -> Result<u64> {
        let Self::Postgres(tx) = self else { return self.insert_rows(table, columns, rows, suffix).await };
        let names = columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        let table = quote_identifier(table);
        // Once for a session: each table that is made and dropped keeps its locks until the end.
        let make = format!("CREATE TEMP TABLE IF NOT EXISTS tallyroll_incoming_rows AS SELECT {names} FROM {table} WITH NO DATA");
        postgres::execute(&mut **tx, &make, &[]).await.map_err(classify)?;
        let mut copy = tx.copy_in_raw(&format!("COPY {INCOMING} ({names}) FROM STDIN")).await.map_err(classify)?;
        let mut buffer = Vec::with_capacity(COPY_CHUNK_BYTES + 4_096);
        for row in rows {
            put_line(&mut buffer, row);
            if buffer.len() >= COPY_CHUNK_BYTES {
                copy.send(buffer.as_slice()).await.map_err(classify)?;
                buffer.clear();
            }
        }
        copy.send(buffer.as_slice()).await.map_err(classify)?;
        copy.finish().await.map_err(classify)?;
        // A column of identity takes what it is given.
        let insert = format!("INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {INCOMING} {suffix}");
        let inserted = postgres::execute(&mut **tx, &insert, &[]).await.map_err(classify)?;
        postgres::execute(&mut **tx, "TRUNCATE pg_temp.tallyroll_incoming_rows", &[]).await.map_err(classify)?;
        Ok(inserted)
    }

    /// Lets [`Self::insert_many_rows`] take rows of another table or other columns.
    ///
    /// # Errors
    /// What the database says.
    pub async fn forget_incoming(&mut self) -> Result<()> {
        let Self::Postgres(tx) = self else { return Ok(()) };
        postgres::execute(&mut **tx, &format!("DROP TABLE IF EXISTS {INCOMING}"), &[]).await.map(|_| ()).map_err(classify)
    }
}

/// Where PostgreSQL keeps rows on their way into a table.
const INCOMING: &str = "pg_temp.tallyroll_incoming_rows";

/// Appends a row as COPY reads it: cells between tabs, `\N` for NULL.
fn put_line(buffer: &mut Vec<u8>, row: &[Value]) {
    for (index, value) in row.iter().enumerate() {
        if index > 0 {
            buffer.push(b'\t');
        }
        let Some(text) = value.to_text() else {
            buffer.extend_from_slice(b"\\N");
            continue;
        };
        for byte in text.bytes() {
            match byte {
                b'\\' => buffer.extend_from_slice(b"\\\\"),
                b'\t' => buffer.extend_from_slice(b"\\t"),
                b'\n' => buffer.extend_from_slice(b"\\n"),
                b'\r' => buffer.extend_from_slice(b"\\r"),
                other => buffer.push(other),
            }
        }
    }
    buffer.push(b'\n');
}

/// The one column of JSON that rows are inserted into.
const JSON_COLUMN: &str = "tags";

fn insert_sql(table: &str, columns: &[&str], row_count: usize, suffix: &str, is_sqlite: bool) -> String {
    let names = columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
    let row = |row: usize| {
        // To SQLite `$1` is a name, looked up among all names for each value: of 2,000 that takes longer than the insert.
        let place = |(column, name): (usize, &&str)| match format!("${}", row * columns.len() + column + 1) {
            _ if is_sqlite => "?".to_owned(),
            place if *name == JSON_COLUMN => Dialect::Postgres.json(&place),
            place => place,
        };
        format!("({})", columns.iter().enumerate().map(place).collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..row_count).map(row).collect();
    format!("INSERT INTO {} ({names}) VALUES {} {suffix}", quote_identifier(table), rows.join(", "))
}

async fn copy_batch(connection: &mut PgConnection, table: &str, columns: &[&str], batch: &RecordBatch) -> Result<()> {
    let names = columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
    let statement = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", quote_identifier(table));
    let readers = readers(batch)?;
    let field_count = i16::try_from(readers.len()).context("A table has too many columns for COPY")?.to_be_bytes();

    let mut copy = connection.copy_in_raw(&statement).await.map_err(classify)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(COPY_CHUNK_BYTES + 4_096);
    buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in 0..batch.num_rows() {
        buffer.extend_from_slice(&field_count);
        for reader in &readers {
            reader.encode(row, &mut buffer)?;
        }
        if buffer.len() >= COPY_CHUNK_BYTES {
            copy.send(buffer.as_slice()).await.map_err(classify)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(buffer.as_slice()).await.map_err(classify)?;
    copy.finish().await.map_err(classify)?;
    Ok(())
}

/// One column of a batch, ready to be read row by row.
struct Reader<'a> {
    nulls: Option<&'a NullBuffer>,
    cells: Cells<'a>,
}

enum Cells<'a> {
    Int(&'a [i64]),
    ShortInt(&'a [i32]),
    Bool(&'a BooleanArray),
    PlainText(&'a StringArray),
    Date(&'a [i32]),
    Instant(&'a [i64]),
    Text { keys: &'a [u32], values: Vec<&'a str> },
}

fn readers(batch: &RecordBatch) -> Result<Vec<Reader<'_>>> {
    let schema = batch.schema();
    batch.columns().iter().zip(schema.fields()).map(|(array, field)| reader(array, field)).collect()
}

fn reader<'a>(array: &'a ArrayRef, field: &Field) -> Result<Reader<'a>> {
    let cells = match array.data_type() {
        DataType::Int64 => Cells::Int(array.as_primitive::<Int64Type>().values()),
        DataType::Int32 => Cells::ShortInt(array.as_primitive::<Int32Type>().values()),
        DataType::Boolean => Cells::Bool(array.as_boolean()),
        DataType::Utf8 => Cells::PlainText(array.as_string::<i32>()),
        DataType::Date32 => Cells::Date(array.as_primitive::<Date32Type>().values()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Cells::Instant(array.as_primitive::<TimestampMicrosecondType>().values()),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_dictionary::<UInt32Type>();
            let keys = dictionary.keys().values();
            let texts = dictionary.values().as_string::<i32>();
            let values: Vec<&str> = (0..texts.len()).map(|index| texts.value(index)).collect();
            Cells::Text { keys, values }
        }
        other => bail!("Column `{}` has type {other}, which cannot be written", field.name()),
    };
    // A dictionary's NULLs are its keys'.
    Ok(Reader { nulls: array.nulls(), cells })
}

impl Reader<'_> {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    fn value(&self, row: usize) -> Result<Value> {
        if self.is_null(row) {
            return Ok(Value::Null);
        }
        Ok(match &self.cells {
            Cells::Int(values) => Value::Int(values[row]),
            Cells::ShortInt(values) => Value::Int(values[row].into()),
            Cells::Bool(values) => Value::Int(values.value(row).into()),
            Cells::PlainText(values) => Value::Text(values.value(row).to_owned()),
            Cells::Date(values) => Value::Date(date_of(values[row])?),
            Cells::Instant(values) => Value::Instant(DateTime::from_timestamp_micros(values[row]).context("An instant is out of range")?),
            Cells::Text { keys, values } => Value::Text(values[keys[row] as usize].to_owned()),
        })
    }

    fn encode(&self, row: usize, buffer: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            buffer.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        match &self.cells {
            Cells::Int(values) => {
                put_eight(buffer, values[row]);
                Ok(())
            }
            Cells::ShortInt(values) => put(buffer, &values[row].to_be_bytes()),
            Cells::Bool(values) => put(buffer, &[values.value(row).into()]),
            Cells::PlainText(values) => put(buffer, values.value(row).as_bytes()),
            Cells::Date(values) => put(buffer, &(values[row] - POSTGRES_EPOCH_DAYS).to_be_bytes()),
            Cells::Instant(values) => {
                put_eight(buffer, values[row] - POSTGRES_EPOCH_MICROS);
                Ok(())
            }
            Cells::Text { keys, values } => put(buffer, values[keys[row] as usize].as_bytes()),
        }
    }
}

/// Most fields are of eight bytes: length and value at once.
#[inline]
fn put_eight(buffer: &mut Vec<u8>, value: i64) {
    let mut field = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    field[4..].copy_from_slice(&value.to_be_bytes());
    buffer.extend_from_slice(&field);
}

#[inline]
fn put(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    // Not by `context`, which is called for every field and not inlined.
    let Ok(length) = i32::try_from(bytes.len()) else { bail!("A value is larger than COPY allows") };
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(bytes);
    Ok(())
}

/// The date that lies `days` after 1970-01-01.
fn date_of(days: i32) -> Result<NaiveDate> {
    let epoch = NaiveDate::default();
    let distance = Days::new(days.unsigned_abs().into());
    let date = if days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) };
    date.context("A date is out of range")
}
