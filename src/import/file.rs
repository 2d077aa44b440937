//! Files as records of texts: CSV, JSON Lines, Parquet.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::failure::Failure;

/// One row of a file, every cell as text.
pub(super) struct Record {
    pub(super) headers: Arc<[String]>,
    cells: Vec<Option<String>>,
}

impl Record {
    pub(super) fn get(&self, header: &str) -> Option<&str> {
        let index = self.headers.iter().position(|name| name == header)?;
        self.cells.get(index)?.as_deref()
    }

    /// What tells this row from others: every cell, with its header.
    pub(super) fn identity(&self) -> String {
        let mut identity = String::new();
        for (header, cell) in self.headers.iter().zip(&self.cells) {
            identity.push_str(header);
            identity.push('\u{1f}');
            identity.push_str(cell.as_deref().unwrap_or("\u{0}"));
            identity.push('\u{1f}');
        }
        identity
    }

    pub(super) fn to_json(&self) -> String {
        let cells = self.headers.iter().zip(&self.cells);
        let object: serde_json::Map<String, Value> =
            cells.map(|(header, cell)| (header.clone(), cell.clone().map_or(Value::Null, Value::String))).collect();
        Value::Object(object).to_string()
    }
}

/// A file being read.
pub(super) enum Reader {
    Csv { headers: Arc<[String]>, records: csv::StringRecordsIntoIter<File> },
    JsonLines { lines: Lines<BufReader<File>>, line: u64 },
    Parquet { headers: Arc<[String]>, batches: ParquetRecordBatchReader, batch: Option<RecordBatch>, row: usize, line: u64 },
}

/// Opens a file by its extension.
pub(super) fn open(path: &Path) -> Result<Reader> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| Failure::usage(format!("Failed to open `{shown}`")).caused_by(error))?;
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => {
            let mut reader = csv::ReaderBuilder::new().from_reader(file);
            let headers = reader.headers().with_context(|| format!("Failed to read the header of `{shown}`"))?;
            let headers: Arc<[String]> = headers.iter().map(|header| header.trim_start_matches('\u{feff}').trim().to_owned()).collect();
            Ok(Reader::Csv { headers, records: reader.into_records() })
        }
        Some("jsonl" | "ndjson") => Ok(Reader::JsonLines { lines: BufReader::new(file).lines(), line: 0 }),
        Some("parquet") => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|error| Failure::usage(format!("`{shown}` is not a Parquet file")).caused_by(error))?;
            let headers = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
            Ok(Reader::Parquet { headers, batches: builder.build()?, batch: None, row: 0, line: 0 })
        }
        _ => Err(Failure::usage(format!("`{shown}` has no extension that tells its format"))
            .hint("name it .csv, .jsonl (one JSON object per line) or .parquet")
            .into()),
    }
}

impl Reader {
    /// Whether every row has the same columns; a JSON object brings its own.
    pub(super) fn has_header(&self) -> bool {
        !matches!(self, Self::JsonLines { .. })
    }

    /// The next row with its line, or why it cannot be read; `None` at the end.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, Result<Record, String>)>> {
        match self {
            Self::Csv { headers, records } => Ok(match records.next() {
                None => None,
                Some(Ok(record)) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    let cells = record.iter().map(|cell| Some(cell.to_owned())).collect();
                    Some((line, Ok(Record { headers: Arc::clone(headers), cells })))
                }
                Some(Err(error)) if matches!(error.kind(), csv::ErrorKind::Io(_)) => return Err(error).context("Failed to read the file"),
                Some(Err(error)) => Some((error.position().map_or(0, csv::Position::line), Err(error.to_string()))),
            }),
            Self::JsonLines { lines, line } => loop {
                let Some(text) = lines.next() else { return Ok(None) };
                *line += 1;
                let text = match text {
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(Some((*line, Err("not UTF-8".to_owned())))),
                    other => other.context("Failed to read the file")?,
                };
                if !text.trim().is_empty() {
                    return Ok(Some((*line, json_record(&text))));
                }
            },
            Self::Parquet { headers, batches, batch, row, line } => loop {
                if let Some(current) = batch.as_ref().filter(|current| *row < current.num_rows()) {
                    let cells = parquet_cells(current, *row)?;
                    *row += 1;
                    *line += 1;
                    return Ok(Some((*line, Ok(Record { headers: Arc::clone(headers), cells }))));
                }
                match batches.next() {
                    None => return Ok(None),
                    Some(next) => *batch = Some(next.context("Failed to read the Parquet file")?),
                }
                *row = 0;
            },
        }
    }
}

fn json_record(text: &str) -> Result<Record, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Object(object) = value else { return Err("not a JSON object".to_owned()) };
    let headers = object.keys().cloned().collect();
    let cells = object
        .into_iter()
        .map(|(_, value)| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        })
        .collect();
    Ok(Record { headers, cells })
}

fn parquet_cells(batch: &RecordBatch, row: usize) -> Result<Vec<Option<String>>> {
    let options = FormatOptions::new();
    batch
        .columns()
        .iter()
        .map(|column| {
            if column.is_null(row) {
                return Ok(None);
            }
            Ok(Some(ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).try_to_string()?))
        })
        .collect()
}
