//! Parquet files of the lake, one part after the other, each of a size that fits in memory.

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::manifest::LakeFile;
use crate::abort;
use crate::engine::blocking::blocking;
use crate::failure::Failure;
use crate::snapshot::sha256;
use crate::snapshot::storage::Storage;

/// Bytes from which on a part is ended: it is put, and read, in one piece.
const PART_BYTES: usize = 64 << 20;
/// Rows of a row group, and bytes of one that is being collected.
const ROW_GROUP_ROWS: usize = 131_072;
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Writes a table below a folder as `part-00000.parquet`, `part-00001.parquet`, ….
pub struct PartWriter {
    storage: Storage,
    folder: String,
    schema: SchemaRef,
    /// The column by whose values readers look for rows, if they do.
    looked_up: Option<&'static str>,
    writer: Option<ArrowWriter<Vec<u8>>>,
    row_count: i64,
    files: Vec<LakeFile>,
}

impl PartWriter {
    pub fn new(storage: &Storage, folder: String, schema: SchemaRef, looked_up: Option<&'static str>) -> Self {
        Self { storage: storage.clone(), folder, schema, looked_up, writer: None, row_count: 0, files: Vec::new() }
    }

    /// # Errors
    /// What the storage says.
    pub async fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.row_count += i64::try_from(batch.num_rows())?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin()?,
        };
        let writer = blocking(move || {
            writer.write(&batch)?;
            if writer.in_progress_size() > ROW_GROUP_BYTES {
                writer.flush()?;
            }
            Ok(writer)
        })
        .await?;
        let is_full = writer.bytes_written() + writer.in_progress_size() >= PART_BYTES;
        self.writer = Some(writer);
        if is_full { self.end().await } else { Ok(()) }
    }

    fn begin(&self) -> Result<ArrowWriter<Vec<u8>>> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(format!("tallyroll version {}", env!("CARGO_PKG_VERSION")));
        if let Some(column) = self.looked_up {
            properties = properties.set_column_bloom_filter_enabled(ColumnPath::from(column), true);
        }
        // Dictionaries are how we hold texts, not what they are.
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        Ok(ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)?)
    }

    async fn end(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let bytes = blocking(move || Ok(writer.into_inner()?)).await?;
        let path = format!("{}/part-{:05}.parquet", self.folder, self.files.len());
        let file = LakeFile {
            path: path.clone(),
            sha256: sha256(&bytes),
            size_bytes: bytes.len() as u64,
            row_count: std::mem::take(&mut self.row_count),
        };
        if !self.storage.create(&path, bytes.into()).await? {
            return Err(Failure::try_again(format!("`{}` came up while it was to be written", self.storage.shown(&path)))
                .hint("another run archives the same day: run this command again")
                .into());
        }
        abort::point("part_put");
        self.files.push(file);
        Ok(())
    }

    /// The files that were written.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn finish(mut self) -> Result<Vec<LakeFile>> {
        self.end().await.context("The last part was not written")?;
        Ok(self.files)
    }
}
