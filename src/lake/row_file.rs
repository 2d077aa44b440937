//! Rows of a source's tables as the lake keeps them: a column of texts for each column of the table.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array as _, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::digest::{RowDigest, frame};
use crate::failure::{self, Failure};

/// Rows of a batch, and bytes of its texts: whatever rows hold, a batch stays small.
const BATCH_ROWS: usize = 16_384;
const BATCH_BYTES: usize = 8 << 20;

/// Collects rows into batches, and digests them.
pub struct RowBatches {
    schema: SchemaRef,
    builders: Vec<StringBuilder>,
    row_count: usize,
    bytes: usize,
    row: Vec<u8>,
    pub digest: RowDigest,
}

impl RowBatches {
    #[must_use]
    pub fn new(columns: &[String]) -> Self {
        let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            builders: columns.iter().map(|_| StringBuilder::new()).collect(),
            row_count: 0,
            bytes: 0,
            row: Vec::new(),
            digest: RowDigest::default(),
        }
    }

    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Takes in a row; a batch, once there are enough.
    ///
    /// # Errors
    /// Only where the cells are not as many as the columns.
    pub fn push(&mut self, cells: &[Option<&str>]) -> Result<Option<RecordBatch>> {
        digest_row(&mut self.digest, &mut self.row, cells);
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.append_option(*cell);
            self.bytes += cell.map_or(0, str::len);
        }
        self.row_count += 1;
        if self.row_count >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.take() } else { Ok(None) }
    }

    /// The rows that are left.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        if std::mem::take(&mut self.row_count) == 0 {
            return Ok(None);
        }
        self.bytes = 0;
        let columns = self.builders.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
        Ok(Some(RecordBatch::try_new(self.schema(), columns)?))
    }
}

/// Adds a row to a digest; `row` is room for it.
pub fn digest_row(digest: &mut RowDigest, row: &mut Vec<u8>, cells: &[Option<&str>]) {
    row.clear();
    for cell in cells {
        frame(row, cell.map(str::as_bytes));
    }
    digest.add(row);
}

/// The rows of a file, with the digest of them.
///
/// # Errors
/// [`Failure`] of kind bad-data for one that is no such file.
pub fn read(shown: &str, bytes: Bytes, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<RowDigest> {
    let mut digest = RowDigest::default();
    let mut row = Vec::new();
    failure::or_damaged("The file", || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH_ROWS).build()?;
        for batch in reader {
            let batch = batch?;
            let columns: Vec<_> = batch.columns().iter().map(AsArray::as_string::<i32>).collect();
            for index in 0..batch.num_rows() {
                let cells: Vec<Option<&str>> = columns.iter().map(|column| column.is_valid(index).then(|| column.value(index))).collect();
                digest_row(&mut digest, &mut row, &cells);
            }
            each(&batch)?;
        }
        Ok(())
    })
    .map_err(|error: anyhow::Error| {
        anyhow::Error::from(
            Failure::bad_data(format!("`{shown}` is no file of archived rows")).caused_by(error).hint("restore it from a copy"),
        )
    })?;
    Ok(digest)
}
