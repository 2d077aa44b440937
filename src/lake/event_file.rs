//! Events as the lake keeps them: the fields of an event under their names (`docs/semantics.md` section 3), and `marks`.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringBuilder, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt32Type};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use uuid::Uuid;

use super::digest::{RowDigest, frame};
use super::manifest::{EventSums, LakeFile};
use crate::failure::{self, Failure};
use crate::source::{Batches, lake_schema};

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 65_536;

/// The columns of a file of events.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::new(lake_schema())
}

/// A batch of a source as the lake has it: every id is a text.
///
/// # Errors
/// When it is none.
pub fn of_source(batch: &RecordBatch) -> Result<RecordBatch> {
    let ids = batch.column_by_name("event_id").context("A batch of events has no ids")?;
    let ids: ArrayRef = match ids.data_type() {
        DataType::FixedSizeBinary(_) => {
            let mut texts = StringBuilder::new();
            for bytes in ids.as_fixed_size_binary() {
                texts.append_option(bytes.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string()));
            }
            Arc::new(texts.finish())
        }
        _ => Arc::clone(ids),
    };
    let of_source = batch.schema();
    let named = batch.columns().iter().zip(of_source.fields());
    let columns = named.map(|(column, field)| Arc::clone(if field.name() == "event_id" { &ids } else { column }));
    Ok(RecordBatch::try_new(schema(), columns.collect())?)
}

/// Begins to read a file that a person would know as `shown`, with the columns that it has: one that is older than a field of the event lacks
/// it, which [`completed`] adds. Its last item may be a [`Failure`] of kind bad-data: it is no such file.
#[must_use]
pub fn read(shown: String, bytes: Bytes) -> Batches {
    Batches::of_thread(move |send| {
        let read = || -> Result<()> {
            let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())?;
            let known = lake_schema();
            let fields = metadata.schema().fields().iter().map(|field| {
                let known = known.field_with_name(field.name()).with_context(|| format!("There is no field `{}`", field.name()))?;
                Ok(known.clone())
            });
            let fields: Vec<Field> = fields.collect::<Result<_>>()?;
            let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?.with_batch_size(BATCH_ROWS).build()?;
            for batch in reader {
                if !send(batch?) {
                    break;
                }
            }
            Ok(())
        };
        failure::or_damaged("The file", read).map_err(|error| {
            Failure::bad_data(format!("`{shown}` is no file of archived events")).caused_by(error).hint("restore it from a copy").into()
        })
    })
}

/// A batch with every field of an event: one that its file lacks is NULL, as of a source that leaves it out.
///
/// # Errors
/// When it lacks a field that no source may leave out.
pub fn completed(batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.num_columns() == schema().fields().len() {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    Ok(RecordBatch::try_new(schema(), schema().fields().iter().map(column).collect())?)
}

/// The events of a batch that happened in `[start, end)`.
///
/// # Errors
/// When it is no batch of events.
pub fn within(batch: &RecordBatch, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<RecordBatch> {
    let occurred_at = batch.column_by_name("occurred_at").context("A batch of events has no instants")?;
    let (start, end) = (start.timestamp_micros(), end.timestamp_micros());
    let instants = occurred_at.as_primitive::<TimestampMicrosecondType>().values();
    let is_within = BooleanArray::from(instants.iter().map(|instant| (start..end).contains(instant)).collect::<Vec<_>>());
    Ok(filter_record_batch(batch, &is_within)?)
}

/// What events come to, as they go by.
#[derive(Debug, Default)]
pub struct EventTally {
    digest: RowDigest,
    /// Earliest and latest, in microseconds.
    span: Option<(i64, i64)>,
    total_tokens: i128,
    total_cost_nanos: i128,
}

impl EventTally {
    /// Takes in a batch of the lake's schema.
    ///
    /// # Errors
    /// When it is none.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>>>()?;
        let mut row = Vec::new();
        for index in 0..batch.num_rows() {
            row.clear();
            for column in &columns {
                column.frame(index, &mut row);
            }
            self.digest.add(&row);
        }
        let sum = |name: &str| -> Result<i128> {
            let column = batch.column_by_name(name).with_context(|| format!("A batch of events has no `{name}`"))?;
            Ok(column.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum())
        };
        self.total_tokens += sum("total_tokens")?;
        self.total_cost_nanos += sum("total_cost_nanos")?;
        let occurred_at = batch.column_by_name("occurred_at").context("A batch of events has no instants")?;
        for instant in occurred_at.as_primitive::<TimestampMicrosecondType>().iter().flatten() {
            self.span = Some(self.span.map_or((instant, instant), |(first, last)| (first.min(instant), last.max(instant))));
        }
        Ok(())
    }

    /// What they come to, in the files that hold them; `None` where there were none.
    ///
    /// # Errors
    /// A sum that no file could hold.
    pub fn sums(&self, files: Vec<LakeFile>) -> Result<Option<EventSums>> {
        let Some((first, last)) = self.span else { return Ok(None) };
        let instant = |micros| DateTime::from_timestamp_micros(micros).context("An instant is out of range");
        // Logged numbers of quarantined events may add up to anything: what does not fit is as good as its largest.
        let fit = |sum: i128| i64::try_from(sum).unwrap_or(if sum > 0 { i64::MAX } else { i64::MIN });
        Ok(Some(EventSums {
            row_count: self.digest.row_count,
            digest: self.digest.shown(),
            first_at: instant(first)?,
            last_at: instant(last)?,
            total_tokens: fit(self.total_tokens),
            total_cost_nanos: fit(self.total_cost_nanos),
            files,
        }))
    }
}

/// A column whose cells are framed.
enum Cells<'a> {
    Texts(&'a arrow::array::StringArray),
    Dictionary(&'a arrow::array::DictionaryArray<UInt32Type>, &'a arrow::array::StringArray),
    Ints(&'a arrow::array::Int64Array),
    Instants(&'a arrow::array::TimestampMicrosecondArray),
    Marks(&'a arrow::array::UInt8Array),
}

fn cells(column: &ArrayRef) -> Result<Cells<'_>> {
    Ok(match column.data_type() {
        DataType::Utf8 => Cells::Texts(column.as_string()),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_dictionary::<UInt32Type>();
            Cells::Dictionary(dictionary, dictionary.values().as_string())
        }
        DataType::Int64 => Cells::Ints(column.as_primitive::<Int64Type>()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Cells::Instants(column.as_primitive::<TimestampMicrosecondType>()),
        DataType::UInt8 => Cells::Marks(column.as_primitive::<UInt8Type>()),
        other => bail!("A column of events has type {other}"),
    })
}

impl Cells<'_> {
    fn frame(&self, row: usize, into: &mut Vec<u8>) {
        let mut put = |cell: Option<&[u8]>| frame(into, cell);
        match self {
            Self::Texts(column) => put(column.is_valid(row).then(|| column.value(row).as_bytes())),
            Self::Dictionary(column, texts) => put(column.key(row).map(|key| texts.value(key).as_bytes())),
            Self::Ints(column) if column.is_valid(row) => put(Some(&column.value(row).to_le_bytes())),
            Self::Instants(column) if column.is_valid(row) => put(Some(&column.value(row).to_le_bytes())),
            Self::Marks(column) => put(Some(&[column.value(row)])),
            Self::Ints(_) | Self::Instants(_) => put(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringArray, TimestampMicrosecondArray, UInt8Array};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn batch() -> RecordBatch {
        let column = |field: &Arc<Field>| -> ArrayRef {
            match field.data_type() {
                DataType::Utf8 => Arc::new(StringArray::from(vec!["a", "b"])),
                DataType::Dictionary(_, _) => Arc::new([Some("x"), None].into_iter().collect::<DictionaryArray<UInt32Type>>()),
                DataType::Int64 => Arc::new(Int64Array::from(vec![Some(7), None])),
                DataType::UInt8 => Arc::new(UInt8Array::from(vec![0, 1])),
                _ => Arc::new(TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC")),
            }
        };
        RecordBatch::try_new(schema(), schema().fields().iter().map(column).collect()).unwrap()
    }

    async fn read_back(batch: &RecordBatch) -> Result<RecordBatch> {
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        read("f".to_owned(), writer.into_inner().unwrap().into()).next().await.unwrap()
    }

    /// A file that was archived before there was a field is as it was written, and the field of its events is NULL.
    #[tokio::test]
    async fn a_file_that_is_older_than_a_field_is_read() {
        let whole = batch();
        let without = |gone: &str| {
            let kept: Vec<usize> = (0..whole.num_columns()).filter(|index| whole.schema().field(*index).name() != gone).collect();
            whole.project(&kept).unwrap()
        };
        assert_eq!(completed(&read_back(&whole).await.unwrap()).unwrap(), whole);
        let older = without("reasoning_tokens");
        let read = read_back(&older).await.unwrap();
        let digest = |batch: &RecordBatch| {
            let mut tally = EventTally::default();
            tally.add(batch).unwrap();
            tally.sums(Vec::new()).unwrap().unwrap()
        };
        assert_eq!(digest(&read), digest(&older));
        let read = completed(&read).unwrap();
        assert_eq!(read.schema(), schema());
        assert_eq!(read.column_by_name("reasoning_tokens").unwrap().null_count(), 2);
        assert_eq!(read.column_by_name("marks"), whole.column_by_name("marks"));
        assert!(completed(&read_back(&without("event_id")).await.unwrap()).is_err());
        // One of a later release has a field that nobody here knows.
        let later = RecordBatch::try_from_iter([("carbon_grams", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let refused = read_back(&later).await.unwrap_err();
        assert!(format!("{refused:#}").contains("There is no field `carbon_grams`"), "{refused:#}");
    }
}
