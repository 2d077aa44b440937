//! Files as records of texts: CSV by comma, semicolon or tab, JSON Lines, Parquet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::bounded::{self, BoundedRead, MAX_RECORD_BYTES};
use super::parquet_rows::ParquetRows;
use super::source::{self, Source, Stoppable, refuse_kernel_file};
use crate::failure::Failure;

/// In place of a file: standard input.
pub(super) const STDIN: &str = "-";

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

    /// Gives a cell that is not there, or is empty.
    pub(super) fn set_missing(&mut self, header: &str, text: impl FnOnce() -> String) {
        match self.headers.iter().position(|name| name == header) {
            Some(index) if self.cells[index].as_deref().is_none_or(str::is_empty) => self.cells[index] = Some(text()),
            Some(_) => {}
            None => {
                self.headers = self.headers.iter().cloned().chain([header.to_owned()]).collect();
                self.cells.push(Some(text()));
            }
        }
    }

    /// A cell, or what a way into a cell of JSON leads to: `usage.input_tokens`.
    pub(super) fn find(&self, way: &str) -> Option<Cow<'_, str>> {
        if let Some(cell) = self.get(way) {
            return Some(cell.into());
        }
        match self.inside(way)? {
            Value::Null => None,
            Value::String(text) => Some(text.into()),
            other => Some(other.to_string().into()),
        }
    }

    /// Whether there is such a column, or such a way.
    pub(super) fn has(&self, way: &str) -> bool {
        self.headers.iter().any(|header| header == way) || self.inside(way).is_some()
    }

    fn inside(&self, way: &str) -> Option<Value> {
        let (header, rest) = way.split_once('.')?;
        let json: Value = serde_json::from_str(self.get(header)?).ok()?;
        json.pointer(&format!("/{}", rest.replace('.', "/"))).cloned()
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

    /// The cells of these headers alone.
    pub(super) fn to_json(&self, is_kept: impl Fn(&str) -> bool) -> String {
        let cells = self.headers.iter().zip(&self.cells).filter(|(header, _)| is_kept(header));
        let object: serde_json::Map<String, Value> =
            cells.map(|(header, cell)| (header.clone(), cell.clone().map_or(Value::Null, Value::String))).collect();
        Value::Object(object).to_string()
    }
}

/// A file being read.
pub(super) enum Reader {
    Csv { headers: Arc<[String]>, records: csv::StringRecordsIntoIter<BoundedRead<Source>>, has_cr: bool },
    JsonLines { file: BufReader<Source>, line: u64 },
    Parquet { headers: Arc<[String]>, rows: ParquetRows, line: u64 },
}

/// Opens a file by its extension, unpacked where that is `.gz`; `-` is what comes in by standard input.
pub(super) fn open(path: &Path, stop: &watch::Receiver<Option<i32>>) -> Result<Reader> {
    let shown = path.display();
    if path.as_os_str() == STDIN {
        return by_content(Source::begin(Box::new(io::stdin())).map_err(|error| unreadable(path, error))?, path);
    }
    let cannot_open = |error: std::io::Error| Failure::usage(format!("Failed to open `{shown}`")).caused_by(error);
    // Before it is opened: a pipe without a writer would be waited for.
    if !fs::metadata(path).map_err(cannot_open)?.is_file() {
        return Err(Failure::usage(format!("`{shown}` is no regular file"))
            .hint("a folder or a device cannot be imported; rows from a pipe can, with `-` in place of the file")
            .into());
    }
    let file = File::open(path).map_err(cannot_open)?;
    refuse_kernel_file(&file, path)?;
    let extension = |path: &Path| path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_packed = extension(path) == "gz";
    let kind = if is_packed { extension(&path.with_extension("")) } else { extension(path) };
    let unpacked = |file: File| {
        let file = Stoppable { inner: file, stop: stop.clone() };
        let bytes: Box<dyn Read + Send> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Source::begin(bytes).map_err(|error| unreadable(path, error))
    };
    match kind.as_str() {
        "csv" | "tsv" => csv_rows(unpacked(file)?, path),
        "jsonl" | "ndjson" => Ok(json_lines(unpacked(file)?)),
        "parquet" if !is_packed => {
            let rows = ParquetRows::open(file, path)?;
            Ok(Reader::Parquet { headers: rows.headers(), rows, line: 0 })
        }
        _ => Err(Failure::usage(format!("`{shown}` has no extension that tells its format"))
            .hint("name it .csv, .tsv, .jsonl (one JSON object per line) or .parquet; all but the last also with .gz")
            .into()),
    }
}

/// The SHA-256 of a file's bytes; none of standard input, which is gone.
pub(super) fn sha256(path: &Path) -> Result<Option<String>> {
    if path.as_os_str() == STDIN {
        return Ok(None);
    }
    File::open(path).and_then(source::sha256).map(Some).map_err(|error| unreadable(path, error))
}

fn by_content(source: Source, path: &Path) -> Result<Reader> {
    match source.first_bytes().iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Failure::usage("Nothing came in by standard input").into()),
        Some(b'{') => Ok(json_lines(source)),
        _ if source.first_bytes().starts_with(b"PAR1") => {
            Err(Failure::usage("Parquet is read from its end, so it cannot come by standard input").hint("name the file").into())
        }
        Some(_) => csv_rows(source, path),
    }
}

fn json_lines(source: Source) -> Reader {
    Reader::JsonLines { file: BufReader::new(source), line: 0 }
}

/// The header says what separates cells; a line may end in either way.
fn csv_rows(source: Source, path: &Path) -> Result<Reader> {
    let (mut is_quoted, mut has_cr) = (false, false);
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for byte in source.first_bytes().iter().skip_while(|byte| b"\r\n".contains(byte)) {
        if *byte == b'\n' && !is_quoted {
            break;
        }
        is_quoted ^= *byte == b'"';
        has_cr = *byte == b'\r';
        counts.iter_mut().filter(|(separator, _)| !is_quoted && separator == byte).for_each(|(_, count)| *count += 1);
    }
    // Of equals the first.
    let separator = counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| *separator);
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(BoundedRead::new(source));
    let headers = match reader.headers() {
        Err(error) if is_too_long(&error) => return Err(too_long(path, 1)),
        Err(error) => {
            let problem = csv_problem(error).map_err(|error| unreadable(path, error))?;
            return Err(Failure::usage(format!("The header of `{}` cannot be read: {problem}", path.display())).into());
        }
        Ok(headers) => headers.iter().map(|header| header.trim().to_owned()).collect(),
    };
    Ok(Reader::Csv { headers, records: reader.into_records(), has_cr })
}

impl Reader {
    /// The columns that every row has; a JSON object brings its own.
    pub(super) fn headers(&self) -> Option<&[String]> {
        match self {
            Self::Csv { headers, .. } | Self::Parquet { headers, .. } => Some(headers),
            Self::JsonLines { .. } => None,
        }
    }

    /// The next row with its line, or why it cannot be read; `None` at the end.
    pub(super) fn next_record(&mut self, path: &Path) -> Result<Option<(u64, Result<Record, String>)>> {
        match self {
            Self::Csv { headers, records, has_cr } => {
                // The reader of CSV counts the LF of CRLF to the next row.
                let line_of = |position: Option<&csv::Position>| position.map_or(0, |at| at.line() + u64::from(*has_cr));
                records.reader_mut().get_mut().begin_record();
                let begins_at = line_of(Some(records.reader().position()));
                Ok(match records.next() {
                    None => None,
                    Some(Ok(record)) => {
                        let line = line_of(record.position());
                        let cells = record.iter().map(|cell| Some(cell.to_owned())).collect();
                        Some((line, Ok(Record::new(headers, cells))))
                    }
                    Some(Err(error)) if is_too_long(&error) => return Err(too_long(path, begins_at)),
                    Some(Err(error)) => {
                        let line = line_of(error.position());
                        Some((line, Err(csv_problem(error).map_err(|error| unreadable(path, error))?)))
                    }
                })
            }
            Self::JsonLines { file, line } => {
                let (begins_at, mut blank) = (*line + 1, 0);
                loop {
                    *line += 1;
                    let Some(bytes) = bounded::read_line(file).map_err(|error| unreadable(path, error))? else { return Ok(None) };
                    if bytes.len() > MAX_RECORD_BYTES {
                        return Err(too_long(path, *line));
                    }
                    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(Some((*line, Err("not UTF-8".to_owned())))) };
                    if !text.trim().is_empty() {
                        return Ok(Some((*line, json_record(text))));
                    }
                    blank += bytes.len();
                    if blank > MAX_RECORD_BYTES {
                        return Err(too_long(path, begins_at));
                    }
                }
            }
            Self::Parquet { headers, rows, line } => {
                *line += 1;
                let row = rows.next_row()?;
                Ok(row.map(|cells| (*line, cells.map(|cells| Record::new(headers, cells)))))
            }
        }
    }
}

/// Why a row is none, in words; an error where it is the file that cannot be read.
fn csv_problem(error: csv::Error) -> io::Result<String> {
    let said = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("{len} cells, where the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    if let csv::ErrorKind::Io(error) = error.into_kind() { Err(error) } else { Ok(said) }
}

fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    let shown = path.display();
    // What unpacking says of a damaged file, and our own look at its first bytes.
    if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
        return Failure::bad_data(format!("`{shown}` cannot be read")).caused_by(error).hint("nothing of it was imported").into();
    }
    anyhow::Error::new(error).context(format!("Failed to read `{shown}`"))
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

/// A JSON object as a row.
pub(super) fn json_record(text: &str) -> Result<Record, String> {
    let object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text)
        .map_err(|error| if text.trim_start().starts_with('{') { error.to_string() } else { "not a JSON object".to_owned() })?;
    let mut headers = Vec::with_capacity(object.len());
    let mut cells = Vec::with_capacity(object.len());
    for (name, raw) in object {
        headers.push(name);
        let value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        cells.push(match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            // A float may have lost digits of what is written.
            Value::Number(number) if number.is_f64() && raw.get().len() > EXACT_DIGITS => Some(raw.get().to_owned()),
            other => Some(other.to_string()),
        });
    }
    Ok(Record { headers: headers.into(), cells })
}

/// Decimal digits that a float keeps.
const EXACT_DIGITS: usize = 15;
