//! `import usage`: rows of a file into `ai_usage_log`, once each, however often the file is read.

mod file;
mod instant;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use hashbrown::HashMap;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use self::file::Record;
pub use self::instant::parse_instant;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{self, Failure};
use crate::money;
use crate::store::{Store, Tx, Value};

/// A field of a usage event that a file may give, and the table's own name for it.
struct Field {
    name: &'static str,
    column: &'static str,
}

const fn field(name: &'static str, column: &'static str) -> Field {
    Field { name, column }
}

const FIELDS: [Field; 16] = [
    field("event_id", "id"),
    field("occurred_at", "created_at"),
    field("user_id", "user_id"),
    field("user_email", "user_email"),
    field("customer_id", "customer_id"),
    field("customer_name", "customer_name"),
    field("request_type", "request_type"),
    field("session_id", "session_id"),
    field("model", "model_used"),
    field("input_tokens", "input_tokens"),
    field("output_tokens", "output_tokens"),
    field("total_cost_usd", "logged_cost_usd"),
    field("latency_ms", "latency_ms"),
    field("tool_turns", "tool_turns"),
    field("status", "status"),
    field("error_message", "error_message"),
];

/// Identities of rows without an id of their own are names in this space (RFC 9562, version 5).
const ROW_NAMESPACE: Uuid = Uuid::from_u128(0x2b1f_5d7e_91c3_4a6b_8e0d_7461_6c6c_7972);

/// Rows sent at once.
const CHUNK_ROWS: usize = 1_000;

/// Bad rows that a report shows.
const SHOWN_BAD_ROWS: usize = 10;

/// How a file's columns become fields.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    /// Field → header of the file.
    pub columns: BTreeMap<String, String>,
    /// Field → the same value for every row.
    pub constants: BTreeMap<String, String>,
}

/// What an import of one file did.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    pub file: String,
    pub row_count: u64,
    pub inserted_count: u64,
    /// Rows that were there before.
    pub known_count: u64,
    pub bad_count: u64,
    pub bad_rows: Vec<BadRow>,
    /// Columns of the file that no field takes.
    pub ignored_columns: Vec<String>,
}

/// A row that was not taken in.
#[derive(Debug, Clone, Serialize)]
pub struct BadRow {
    pub line: u64,
    pub reason: String,
}

impl Mapping {
    /// Reads `field=header` and `field=value` arguments.
    ///
    /// # Errors
    /// [`Failure`] of kind usage for an unknown field, with the nearest one.
    pub fn parse(columns: &[String], constants: &[String]) -> Result<Self> {
        let pairs = |arguments: &[String], flag: &str| -> Result<BTreeMap<String, String>> {
            arguments
                .iter()
                .map(|argument| {
                    let (name, value) = argument
                        .split_once('=')
                        .ok_or_else(|| Failure::usage(format!("`{flag} {argument}` has no `=`")).hint(format!("write `{flag} field=…`")))?;
                    let field = known_field(name).ok_or_else(|| {
                        let failure = Failure::usage(format!("`{flag} {argument}`: there is no field `{name}`"));
                        match failure::nearest(name, FIELDS.iter().map(|field| field.name)) {
                            Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
                            None => failure.hint(format!("the fields are {}", FIELDS.map(|field| field.name).join(", "))),
                        }
                    })?;
                    Ok((field.name.to_owned(), value.to_owned()))
                })
                .collect()
        };
        Ok(Self { columns: pairs(columns, "--column")?, constants: pairs(constants, "--set")? })
    }

    /// The text of a field in a record; an empty cell is none.
    fn text<'a>(&'a self, record: &'a Record, field: &Field) -> Option<&'a str> {
        let text = match (self.columns.get(field.name), self.constants.get(field.name)) {
            (Some(header), _) => record.get(header),
            (None, Some(constant)) => Some(constant.as_str()),
            (None, None) => record.get(field.name).or_else(|| record.get(field.column)),
        };
        text.filter(|text| !text.is_empty())
    }

    /// Fails when the file cannot give what every event needs.
    fn check_headers(&self, headers: &[String], path: &Path) -> Result<()> {
        let has = |name: &str| headers.iter().any(|header| header == name);
        if let Some((field, header)) = self.columns.iter().find(|(_, header)| !has(header)) {
            return Err(Failure::usage(format!("`{}` has no column `{header}`, which `--column {field}={header}` names", path.display()))
                .hint(format!("its columns are {}", headers.join(", ")))
                .into());
        }
        for needed in ["occurred_at", "user_id"] {
            let given = self.columns.contains_key(needed)
                || self.constants.contains_key(needed)
                || known_field(needed).is_some_and(|field| has(field.name) || has(field.column));
            if !given {
                return Err(Failure::usage(format!("No column of `{}` gives `{needed}`", path.display()))
                    .hint(format!(
                        "name it with `--column {needed}=HEADER`, or one value for all rows with `--set {needed}=VALUE`; its columns are {}",
                        headers.join(", ")
                    ))
                    .into());
            }
        }
        Ok(())
    }

    fn ignored(&self, headers: &[String]) -> Vec<String> {
        let used = |header: &String| self.columns.values().any(|used| used == header) || known_field(header).is_some();
        headers.iter().filter(|header| !used(header)).cloned().collect()
    }
}

fn known_field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name || field.column == name)
}

/// Imports one file, all of its good rows or none; bad rows go to `quarantined_event` under the source `import:<file>`.
///
/// # Errors
/// [`Failure`] of kind usage for a file that cannot be mapped, of kind bad-data when more than `quarantine.max_ratio` of its
/// rows are bad; what reading the file or the database says.
pub async fn import_usage(
    store: &Store,
    config: &Config,
    clock: &Clock,
    stop: &watch::Receiver<Option<i32>>,
    path: &Path,
    mapping: &Mapping,
) -> Result<ImportReport> {
    let mut reader = file::open(path)?;
    let mut report = ImportReport { file: path.display().to_string(), ..ImportReport::default() };
    let mut seen: HashMap<Uuid, u32> = HashMap::new();
    let mut bad: Vec<(BadRow, String)> = Vec::new();
    let mut chunk: Vec<Vec<Value>> = Vec::with_capacity(CHUNK_ROWS);
    let mut are_headers_checked = false;
    let mut tx = store.begin().await?;
    while let Some((line, record)) = reader.next_record()? {
        report.row_count += 1;
        match record {
            Ok(record) => {
                if !std::mem::replace(&mut are_headers_checked, true) {
                    if reader.has_header() {
                        mapping.check_headers(&record.headers, path)?;
                    }
                    check_constants(mapping)?;
                    report.ignored_columns = mapping.ignored(&record.headers);
                }
                match row(mapping, &record, &mut seen) {
                    Ok(values) => chunk.push(values),
                    Err(reason) => bad.push((BadRow { line, reason: format!("{reason:#}") }, record.to_json())),
                }
            }
            Err(reason) => bad.push((BadRow { line, reason }, String::new())),
        }
        if chunk.len() == CHUNK_ROWS {
            crate::run::check_stop(stop)?;
            report.inserted_count += insert(&mut tx, store, &mut chunk).await?;
        }
    }
    report.inserted_count += insert(&mut tx, store, &mut chunk).await?;
    report.bad_count = u64::try_from(bad.len())?;
    report.known_count = report.row_count - report.inserted_count - report.bad_count;
    report.bad_rows = bad.iter().take(SHOWN_BAD_ROWS).map(|(row, _)| row.clone()).collect();

    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
    let ratio = report.bad_count as f64 / report.row_count.max(1) as f64;
    let is_refused = ratio > config.quarantine.max_ratio;
    if is_refused {
        drop(tx);
        tx = store.begin().await?;
    }
    quarantine(&mut tx, clock, path, &bad).await?;
    tx.commit().await?;
    if is_refused {
        let first = report.bad_rows.iter().map(|row| format!("  line {}: {}", row.line, row.reason)).collect::<Vec<_>>().join("\n");
        return Err(Failure::bad_data(format!(
            "{} of the {} rows of `{}` are bad, more than `quarantine.max_ratio` = {} allows; nothing was imported\n{first}",
            report.bad_count,
            report.row_count,
            path.display(),
            config.quarantine.max_ratio
        ))
        .hint("mend the rows or the mapping (`--column field=header`, `--set field=value`) and import the file again")
        .into());
    }
    Ok(report)
}

/// A constant that no row could use is the command line's fault, not the rows'.
fn check_constants(mapping: &Mapping) -> Result<()> {
    for (name, text) in &mapping.constants {
        let field = known_field(name).context("a mapped field is known")?;
        value(field, text).map_err(|error| Failure::usage(format!("`--set {name}={text}`: {error:#}")))?;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, store: &Store, chunk: &mut Vec<Vec<Value>>) -> Result<u64> {
    let mut columns: Vec<&str> = FIELDS.iter().map(|field| column(store, field)).collect();
    columns.push("cost_basis");
    let inserted = tx.insert_rows("ai_usage_log", &columns, chunk, "ON CONFLICT (id) DO NOTHING").await?;
    chunk.clear();
    Ok(inserted)
}

fn column(store: &Store, field: &Field) -> &'static str {
    if field.name == "total_cost_usd" { store.pick("logged_cost_usd", "logged_cost_nanos") } else { field.column }
}

/// The values of one record, in the order of [`FIELDS`] and `cost_basis`.
fn row(mapping: &Mapping, record: &Record, seen: &mut HashMap<Uuid, u32>) -> Result<Vec<Value>> {
    let mut values = Vec::with_capacity(FIELDS.len() + 1);
    for field in &FIELDS {
        values.push(match mapping.text(record, field) {
            Some(text) => value(field, text).with_context(|| format!("`{}` is `{}`", field.name, shorten(text)))?,
            None => absent(field, mapping, record, seen)?,
        });
    }
    check_fits_table(&values)?;
    values.push("logged".into());
    Ok(values)
}

/// The bounds of the table's generated columns (`INTEGER`, `NUMERIC(10, 6)`), so that one absurd row is a bad row and does
/// not stop the file.
fn check_fits_table(values: &[Value]) -> Result<()> {
    let tokens = |name: &str| match FIELDS.iter().position(|field| field.name == name).map(|index| &values[index]) {
        Some(Value::Int(tokens)) => *tokens,
        _ => 0,
    };
    let (input, output) = (tokens("input_tokens"), tokens("output_tokens"));
    let costs_micros = [input * 3, output * 15, input * 3 + output * 15];
    if i32::try_from(input + output).is_err() || costs_micros.iter().any(|cost| cost.abs() >= 10_000_000_000) {
        anyhow::bail!("{input} and {output} tokens are more than the table's total and cost columns hold");
    }
    if values.iter().any(|value| matches!(value, Value::Nanos(nanos) if nanos.unsigned_abs() >= 1_000_000_000_000_000_000)) {
        anyhow::bail!("the cost is more than the table's NUMERIC(18, 9) holds");
    }
    Ok(())
}

fn absent(field: &Field, mapping: &Mapping, record: &Record, seen: &mut HashMap<Uuid, u32>) -> Result<Value> {
    match field.name {
        // A row without an id is known again by its text; the second of two equal rows of a file is another event.
        "event_id" => {
            let text = format!("{}\u{1e}{:?}", record.identity(), mapping.constants);
            let identity = Uuid::new_v5(&ROW_NAMESPACE, text.as_bytes());
            let count = seen.entry(identity).or_insert(0);
            *count += 1;
            Ok(Uuid::new_v5(&identity, &count.to_be_bytes()).into())
        }
        "occurred_at" | "user_id" => anyhow::bail!("`{}` is empty", field.name),
        "input_tokens" | "output_tokens" | "tool_turns" => Ok(0.into()),
        "request_type" => Ok("report".into()),
        "status" => Ok("success".into()),
        _ => Ok(Value::Null),
    }
}

fn value(field: &Field, text: &str) -> Result<Value> {
    Ok(match field.name {
        "event_id" | "user_id" => Uuid::parse_str(text.trim()).context("not a UUID")?.into(),
        "occurred_at" => parse_instant(text)?.into(),
        // The table's columns are 32 bits wide, as the seed's.
        "customer_id" | "input_tokens" | "output_tokens" | "latency_ms" | "tool_turns" => {
            i64::from(text.trim().parse::<i32>().context("not a whole number of 32 bits")?).into()
        }
        "total_cost_usd" => Value::Nanos(money::parse_usd_nanos(text)?),
        _ if text.contains('\0') => anyhow::bail!("holds a NUL character"),
        _ => text.into(),
    })
}

fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

async fn quarantine(tx: &mut Tx, clock: &Clock, path: &Path, bad: &[(BadRow, String)]) -> Result<()> {
    let source = format!("import:{}", path.file_name().unwrap_or_default().to_string_lossy());
    let now = clock.now();
    tx.execute("DELETE FROM quarantined_event WHERE source = $1", &[source.as_str().into()]).await?;
    let columns = ["source", "event_id", "reason", "payload", "first_seen_at"];
    let rows: Vec<Vec<Value>> = bad
        .iter()
        .map(|(row, record)| {
            let payload = json!({ "line": row.line, "record": record }).to_string().replace("\\u0000", "\\ufffd");
            vec![
                source.as_str().into(),
                format!("line {}", row.line).into(),
                row.reason.replace('\0', "\u{fffd}").into(),
                payload.into(),
                now.into(),
            ]
        })
        .collect();
    tx.insert_rows("quarantined_event", &columns, &rows, "").await?;
    Ok(())
}
