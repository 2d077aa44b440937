//! Rows of a result table as columns, by binary COPY.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{ArrayRef, Date32Builder, Int64Builder, RecordBatch, StringDictionaryBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use futures_util::TryStreamExt;

use super::copy_binary::{begin_row, date_days, instant_micros, integer, next_field, skip_header};
use crate::store::{Tx, classify};

/// What a SELECT without parameters gives, as columns of these fields' types: those of [`Tx::insert_batch`] but for Int32 and Boolean.
/// `None` from SQLite, which folds its own file in the time that reading it out takes.
///
/// # Errors
/// What the database says; a column that is not of its field's type.
pub async fn read(tx: &mut Tx, select: &str, fields: Vec<Field>) -> Result<Option<RecordBatch>> {
    let Tx::Postgres(connection) = tx else { return Ok(None) };
    let mut columns = fields.iter().map(Column::of).collect::<Result<Vec<_>>>()?;
    let mut stream = connection.copy_out_raw(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await.map_err(classify)?;
    let mut is_first = true;
    while let Some(message) = stream.try_next().await.map_err(classify)? {
        let mut rows = if std::mem::take(&mut is_first) { skip_header(&message)? } else { &message[..] };
        while begin_row(&mut rows, columns.len())? {
            for column in &mut columns {
                column.push(next_field(&mut rows)?)?;
            }
        }
    }
    drop(stream);
    let arrays = columns.into_iter().map(Column::finish).collect();
    Ok(Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?))
}

enum Column {
    Int(Int64Builder),
    Date(Date32Builder),
    Instant(TimestampMicrosecondBuilder),
    Text(StringDictionaryBuilder<UInt32Type>),
}

impl Column {
    fn of(field: &Field) -> Result<Self> {
        Ok(match field.data_type() {
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(_, _) => Self::Instant(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            DataType::Dictionary(_, _) => Self::Text(StringDictionaryBuilder::new()),
            other => bail!("Column `{}` has type {other}, which is not read", field.name()),
        })
    }

    fn push(&mut self, field: Option<&[u8]>) -> Result<()> {
        match self {
            Self::Int(values) => values.append_option(field.map(integer).transpose()?),
            Self::Date(values) => values.append_option(field.map(date_days).transpose()?),
            Self::Instant(values) => values.append_option(field.map(instant_micros).transpose()?),
            Self::Text(values) => values.append_option(field.map(std::str::from_utf8).transpose().context("A text is not UTF-8")?),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Int(mut values) => Arc::new(values.finish()),
            Self::Date(mut values) => Arc::new(values.finish()),
            Self::Instant(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
        }
    }
}
