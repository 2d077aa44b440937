//! Files as records of texts: CSV, JSON Lines, Parquet.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::bounded::{self, BoundedRead, MAX_RECORD_BYTES};
use super::parquet_rows::ParquetRows;
use crate::failure::Failure;

/// One row of a file, every cell as text.
pub(super) struct Record {
    pub(super) headers: Arc<[String]>,
    cells: Vec<Option<String>>,
}

impl Record {
    fn new(headers: &Arc<[String]>, cells: Vec<Option<String>>) -> Self {
        Self { headers: Arc::clone(headers), cells }
    }

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
    Csv { headers: Arc<[String]>, records: csv::StringRecordsIntoIter<BoundedRead<File>> },
    JsonLines { file: BufReader<File>, line: u64 },
    Parquet { headers: Arc<[String]>, rows: ParquetRows, line: u64 },
}

/// Opens a file by its extension.
pub(super) fn open(path: &Path) -> Result<Reader> {
    let shown = path.display();
    let cannot_open = |error: std::io::Error| Failure::usage(format!("Failed to open `{shown}`")).caused_by(error);
    // Before it is opened: a pipe without a writer would be waited for.
    if !fs::metadata(path).map_err(cannot_open)?.is_file() {
        return Err(Failure::usage(format!("`{shown}` is no regular file"))
            .hint("a pipe, a folder or a device cannot be imported: write the rows to a file first")
            .into());
    }
    let file = File::open(path).map_err(cannot_open)?;
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => {
            let mut reader = csv::ReaderBuilder::new().from_reader(BoundedRead::new(file));
            let headers = match reader.headers() {
                Err(error) if is_too_long(&error) => return Err(too_long(path, 1)),
                headers => headers.with_context(|| format!("Failed to read the header of `{shown}`"))?,
            };
            let headers: Arc<[String]> = headers.iter().map(|header| header.trim_start_matches('\u{feff}').trim().to_owned()).collect();
            Ok(Reader::Csv { headers, records: reader.into_records() })
        }
        Some("jsonl" | "ndjson") => Ok(Reader::JsonLines { file: BufReader::new(file), line: 0 }),
        Some("parquet") => {
            let rows = ParquetRows::open(file, path)?;
            Ok(Reader::Parquet { headers: rows.headers(), rows, line: 0 })
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
    pub(super) fn next_record(&mut self, path: &Path) -> Result<Option<(u64, Result<Record, String>)>> {
        match self {
            Self::Csv { headers, records } => {
                records.reader_mut().get_mut().begin_record();
                let begins_at = records.reader().position().line();
                Ok(match records.next() {
                    None => None,
                    Some(Ok(record)) => {
                        let line = record.position().map_or(0, csv::Position::line);
                        let cells = record.iter().map(|cell| Some(cell.to_owned())).collect();
                        Some((line, Ok(Record::new(headers, cells))))
                    }
                    Some(Err(error)) if is_too_long(&error) => return Err(too_long(path, begins_at)),
                    Some(Err(error)) if error.is_io_error() => return Err(error).context("Failed to read the file"),
                    Some(Err(error)) => Some((error.position().map_or(0, csv::Position::line), Err(error.to_string()))),
                })
            }
            Self::JsonLines { file, line } => loop {
                *line += 1;
                let Some(bytes) = bounded::read_line(file).context("Failed to read the file")? else { return Ok(None) };
                if bytes.len() > MAX_RECORD_BYTES {
                    return Err(too_long(path, *line));
                }
                let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(Some((*line, Err("not UTF-8".to_owned())))) };
                if !text.trim().is_empty() {
                    return Ok(Some((*line, json_record(text))));
                }
            },
            Self::Parquet { headers, rows, line } => {
                *line += 1;
                let row = rows.next_row()?;
                Ok(row.map(|cells| (*line, cells.map(|cells| Record::new(headers, cells)))))
            }
        }
    }
}

fn is_too_long(error: &csv::Error) -> bool {
    matches!(error.kind(), csv::ErrorKind::Io(error) if bounded::is_too_long(error))
}

fn too_long(path: &Path, line: u64) -> anyhow::Error {
    Failure::bad_data(format!(
        "The row from line {line} of `{}` on is longer than {} MiB; nothing was imported",
        path.display(),
        MAX_RECORD_BYTES >> 20
    ))
    .hint("is it the right file? In CSV a quote that is never closed makes one row of all that follows")
    .into()
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
