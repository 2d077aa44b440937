//! Parquet as finance tools read it: flat, Snappy, format version 1.0, and the same bytes for the same rows.

use std::io::Write;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};

use crate::failure::{self, Failure};

/// Rows of a row group: what a writer holds in memory, and a run writes many files at once.
const ROW_GROUP_ROWS: usize = 8_192;

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 16_384;

/// Facts about a file, in its footer: key and value, in this order.
pub type Facts = Vec<(&'static str, String)>;

/// The fact that names the version of Tallyroll that wrote the file.
pub const TOOL_VERSION: &str = "tool_version";

/// Starts a file.
///
/// # Errors
/// When the target cannot be written.
pub fn writer<W: Write + Send>(target: W, schema: SchemaRef) -> Result<ArrowWriter<W>> {
    writer_of(env!("CARGO_PKG_VERSION"), target, schema)
}

fn writer_of<W: Write + Send>(version: &str, target: W, schema: SchemaRef) -> Result<ArrowWriter<W>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_dictionary_enabled(true)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(format!("tallyroll version {version}"))
        .build();
    Ok(ArrowWriter::try_new(target, schema, Some(properties))?)
}

/// Ends a file with its facts; what it was written to.
///
/// # Errors
/// When the target cannot be written.
pub fn finish<W: Write + Send>(mut writer: ArrowWriter<W>, facts: &Facts) -> Result<W> {
    for (key, value) in facts {
        writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
    }
    Ok(writer.into_inner()?)
}

/// A whole file in memory, by the version that its facts name.
///
/// # Errors
/// As [`writer`].
pub fn write(schema: SchemaRef, batches: &[RecordBatch], facts: &Facts) -> Result<Bytes> {
    let version = facts.iter().find(|(key, _)| *key == TOOL_VERSION).map_or(env!("CARGO_PKG_VERSION"), |(_, version)| version);
    let mut writer = writer_of(version, Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(finish(writer, facts)?.into())
}

/// A file read back: its facts and its rows.
#[derive(Debug, Clone)]
pub struct ReadBack {
    pub facts: Vec<(String, String)>,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

impl ReadBack {
    /// # Errors
    /// When the footer lacks that fact.
    pub fn fact(&self, key: &str) -> Result<&str> {
        let fact = self.facts.iter().find(|(name, _)| name == key);
        fact.map(|(_, value)| value.as_str()).with_context(|| format!("The file's footer lacks `{key}`"))
    }

    #[must_use]
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Reads a file that a person would know as `shown`.
///
/// # Errors
/// [`Failure`] of kind bad-data when it is no Parquet file, or broken.
pub fn read_named(shown: &str, bytes: Bytes) -> Result<ReadBack> {
    let broken =
        |error: anyhow::Error| Failure::bad_data(format!("`{shown}` cannot be read")).caused_by(error).hint("restore it from a copy");
    Ok(read(bytes).map_err(broken)?)
}

/// Reads a file whole.
///
/// # Errors
/// When it is no Parquet file, or broken.
pub fn read(bytes: Bytes) -> Result<ReadBack> {
    failure::or_damaged("The file", || read_whole(bytes))
}

fn read_whole(bytes: Bytes) -> Result<ReadBack> {
    let metadata = ArrowReaderMetadata::load(&bytes, parquet::arrow::arrow_reader::ArrowReaderOptions::default())?;
    let pairs = metadata.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let facts = pairs.into_iter().filter_map(|pair| Some((pair.key, pair.value?))).collect();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata).with_batch_size(BATCH_ROWS);
    let schema = reader.schema().clone();
    let batches = reader.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(ReadBack { facts, schema, batches })
}
