//! The rows of a Parquet file, some at a time, however much it unpacks to.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::ParquetMetaData;

use super::bounded::MAX_RECORD_BYTES;
use super::parquet_pages::{self, Largest};
use crate::failure::{self, Failure};

/// What the pages that are held at once may unpack to.
const MAX_PAGES_BYTES: u64 = 512 << 20;

/// What the texts of a batch may come to: an encoding by common beginnings may repeat a page's first text for each row.
const MAX_BATCH_BYTES: u64 = 256 << 20;

const MAX_BATCH_ROWS: u64 = 1_024;

/// The longest value of a column whose values are of one length: more than any UUID or decimal.
const MAX_FIXED_BYTES: i32 = 64;

const NOTHING_IMPORTED: &str = "write it anew; nothing was imported";

/// A row's cells as texts, or why it has none.
type Cells = Result<Vec<Option<String>>, String>;

pub(super) struct ParquetRows {
    headers: Arc<[String]>,
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    row: usize,
}

impl ParquetRows {
    /// Opens a file of flat columns whose pages fit into memory.
    pub(super) fn open(file: File, path: &Path) -> Result<Self> {
        failure::or_damaged(format_args!("`{}`", path.display()), || Self::try_open(file, path))
    }

    fn try_open(file: File, path: &Path) -> Result<Self> {
        let shown = path.display();
        let no_parquet = |error| Failure::usage(format!("`{shown}` is not a Parquet file")).caused_by(error);
        let inferred = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(no_parquet)?;
        let schema = inferred.schema();
        if let Some(field) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
            return Err(Failure::usage(format!(
                "Column `{}` of `{shown}` holds lists or records, and a field of an event is one value",
                field.name()
            ))
            .hint("write the file without it, or with its parts as columns of their own")
            .into());
        }
        let batch_rows = batch_rows(&file, inferred.metadata())
            .map_err(|error| Failure::bad_data(format!("`{shown}` is damaged")).caused_by(error).hint(NOTHING_IMPORTED))?;
        let Some(batch_rows) = batch_rows else {
            return Err(Failure::bad_data(format!("The pages of `{shown}` unpack to more than {} MiB at once", MAX_PAGES_BYTES >> 20))
                .hint("write it with smaller pages (data_page_size), or split it; nothing was imported")
                .into());
        };
        let options = ArrowReaderOptions::new()
            .with_schema(Arc::new(Schema::new(schema.fields().iter().map(|field| viewed(field)).collect::<Vec<_>>())));
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(no_parquet)?;
        let headers = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self { headers, batches: builder.with_batch_size(batch_rows).build()?, batch: None, row: 0 })
    }

    pub(super) fn headers(&self) -> Arc<[String]> {
        Arc::clone(&self.headers)
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Cells>> {
        loop {
            if let Some(current) = self.batch.as_ref().filter(|current| self.row < current.num_rows()) {
                self.row += 1;
                return Ok(Some(cells(current, self.row - 1)));
            }
            let next = failure::or_damaged("The file", || Ok(self.batches.next().transpose()?));
            self.batch = next.map_err(|error| Failure::bad_data("The Parquet file is damaged").caused_by(error).hint(NOTHING_IMPORTED))?;
            if self.batch.is_none() {
                return Ok(None);
            }
            self.row = 0;
        }
    }
}

/// Texts as views of their page: one of a dictionary is not copied for each row.
fn viewed(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

/// How many rows may be unpacked at once; none where even one would be too much.
fn batch_rows(file: &File, metadata: &ParquetMetaData) -> Result<Option<usize>> {
    let mut row_bytes = 1;
    for row_group in metadata.row_groups() {
        let (mut held, mut texts) = (0_u64, 0_u64);
        for chunk in row_group.columns() {
            let Largest { dictionary_bytes, data_bytes } = parquet_pages::largest(file, chunk)?;
            held = held.saturating_add(dictionary_bytes).saturating_add(data_bytes);
            match chunk.column_type() {
                PhysicalType::BYTE_ARRAY => texts = texts.saturating_add(data_bytes),
                PhysicalType::FIXED_LEN_BYTE_ARRAY if chunk.column_descr().type_length() > MAX_FIXED_BYTES => return Ok(None),
                _ => {}
            }
        }
        if held > MAX_PAGES_BYTES {
            return Ok(None);
        }
        row_bytes = row_bytes.max(texts);
    }
    Ok(Some(usize::try_from((MAX_BATCH_BYTES / row_bytes).clamp(1, MAX_BATCH_ROWS))?))
}

fn cells(batch: &RecordBatch, row: usize) -> Cells {
    let options = FormatOptions::new();
    let mut cells = Vec::with_capacity(batch.num_columns());
    let mut bytes = 0;
    for (column, field) in batch.columns().iter().zip(batch.schema_ref().fields()) {
        if column.is_null(row) {
            cells.push(None);
            continue;
        }
        let text = ArrayFormatter::try_new(column.as_ref(), &options).and_then(|formatter| formatter.value(row).try_to_string());
        let text = text.map_err(|error| format!("`{}`: {error}", field.name()))?;
        bytes += text.len();
        if bytes > MAX_RECORD_BYTES {
            return Err(format!("the row is longer than {} MiB", MAX_RECORD_BYTES >> 20));
        }
        cells.push(Some(text));
    }
    Ok(cells)
}
