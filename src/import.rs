//! `import`: rows of a file into a source table, once each, however often the file is read.

mod bounded;
mod chunk;
mod file;
pub mod instant;
mod mapping;
mod parquet_pages;
mod parquet_rows;
mod target;

use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use self::chunk::Chunk;
use self::file::Record;
pub use self::instant::parse_instant;
pub use self::mapping::Mapping;
use self::target::{Absent, Field, Form};
pub use self::target::{SEATS, SUBSCRIPTIONS, Target, USAGE};
use crate::abort;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::Failure;
use crate::license::License;
use crate::money;
use crate::seats::MAX_SEATS;
use crate::seats::calendar::implausible;
use crate::source::MAX_TEXT_BYTES;
use crate::source::ledger::INSTANTS;
use crate::store::{Store, Tx, Value, format_instant};
use crate::window::start_of_day;

/// Identities of rows without an id of their own are names in this space (RFC 9562, version 5).
const ROW_NAMESPACE: Uuid = Uuid::from_u128(0x2b1f_5d7e_91c3_4a6b_8e0d_7461_6c6c_7972);

/// Ids that leave room for those that a database gives by itself.
const LEDGER_IDS: std::ops::RangeInclusive<i64> = 1..=1 << 61;

/// Bad rows that an import keeps aside, and bytes of them: past either it gives up.
const MAX_BAD_ROWS: usize = 1_000_000;
const MAX_BAD_BYTES: usize = 256 << 20;

/// What is kept aside of a bad row.
const KEPT_CHARS: usize = 4_000;

/// Bad rows that a report shows.
const SHOWN_BAD_ROWS: usize = 10;

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

/// Imports one file, all of its good rows or none; bad rows go to `quarantined_event` under the source `import:<file>`.
///
/// # Errors
/// [`Failure`] of kind usage for a file that cannot be mapped, of kind bad-data when more than `quarantine.max_ratio` of its
/// rows are bad; what reading the file or the database says.
pub async fn import_file(
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
    let mut bad = BadRows::default();
    let mut chunk = Chunk::new(mapping.target);
    let mut are_headers_checked = false;
    let earliest_at = start_of_day(config.usage.earliest_date, config.reporting.timezone)?;
    let mut tx = store.begin().await?;
    while let Some((line, record)) = reader.next_record(path)? {
        crate::engine::stop::check_stop(stop)?;
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
                let given = mapping.given(&record.headers);
                match row(mapping, &record, &mut seen, earliest_at, clock.now()) {
                    Ok(values) => {
                        if chunk.is_full_for(&given) {
                            report.inserted_count += chunk.insert(&mut tx, &mut bad).await?;
                            abort::point("import_batch");
                        }
                        chunk.push(given, line, values);
                    }
                    Err(reason) => bad.push(line, format!("{reason:#}"), &record.to_json()),
                }
            }
            Err(reason) => bad.push(line, reason, ""),
        }
        if bad.are_too_many() {
            break;
        }
    }
    report.inserted_count += chunk.insert(&mut tx, &mut bad).await?;
    report.bad_count = u64::try_from(bad.rows.len())?;
    report.known_count = report.row_count - report.inserted_count - report.bad_count;
    report.bad_rows = bad.rows.iter().take(SHOWN_BAD_ROWS).map(|(row, _)| row.clone()).collect();

    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
    let ratio = report.bad_count as f64 / report.row_count.max(1) as f64;
    let is_refused = ratio > config.quarantine.max_ratio || bad.are_too_many();
    if is_refused {
        drop(tx);
        tx = store.begin().await?;
    }
    quarantine(&mut tx, clock, path, &bad.rows).await?;
    if mapping.target.table == SEATS.table {
        tx.pass_ledger_ids().await?;
    }
    abort::point("import_before_commit");
    tx.commit().await?;
    abort::point("import_committed");
    if bad.are_too_many() {
        let text =
            format!("{} of the first {} rows of `{}` are bad; nothing was imported", report.bad_count, report.row_count, path.display());
        return Err(Failure::bad_data(text)
            .hint("so many bad rows are rarely the rows' fault: look at the file and the mapping first")
            .into());
    }
    if is_refused {
        let first = report.bad_rows.iter().map(|row| format!("  line {}: {}", row.line, row.reason));
        return Err(Failure::bad_data(format!(
            "{} of the {} rows of `{}` are bad, more than `quarantine.max_ratio` = {} allows; nothing was imported",
            report.bad_count,
            report.row_count,
            path.display(),
            config.quarantine.max_ratio
        ))
        .listing(first)
        .hint("fix the rows or the mapping (`--column field=header`, `--set field=value`) and import the file again")
        .into());
    }
    Ok(report)
}

/// Rows that were not taken in.
#[derive(Debug, Default)]
struct BadRows {
    rows: Vec<(BadRow, String)>,
    bytes: usize,
}

impl BadRows {
    fn push(&mut self, line: u64, reason: String, record: &str) {
        let kept = cut(record, KEPT_CHARS);
        self.bytes += reason.len() + kept.len();
        self.rows.push((BadRow { line, reason }, kept));
    }

    fn are_too_many(&self) -> bool {
        self.rows.len() >= MAX_BAD_ROWS || self.bytes >= MAX_BAD_BYTES
    }
}

/// A constant that no row could use is the command line's fault, not the rows'.
fn check_constants(mapping: &Mapping) -> Result<()> {
    for (name, text) in &mapping.constants {
        let field = mapping.target.field(name).context("a mapped field is known")?;
        value(field, text).map_err(|error| Failure::usage(format!("`--set {name}={text}`: {error:#}")))?;
    }
    Ok(())
}

/// The values of one record, in the order of the target's fields; `earliest_at` is the first instant that an event may be of.
fn row(
    mapping: &Mapping,
    record: &Record,
    seen: &mut HashMap<Uuid, u32>,
    earliest_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Value>> {
    let fields = mapping.target.fields;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        values.push(match mapping.text(record, field) {
            Some(text) => value(field, text).with_context(|| format!("`{}` is `{}`", field.name, shorten(text)))?,
            None => absent(field, mapping, record, seen)?,
        });
    }
    let named = |name: &str| fields.iter().position(|field| field.name == name).and_then(|index| values.get(index));
    match mapping.target.table {
        "ai_usage_log" => {
            check_instants(&values)?;
            if values.iter().any(|value| matches!(value, Value::Instant(at) if *at < earliest_at)) {
                anyhow::bail!("the event is from before `usage.earliest_date`");
            }
            check_tokens(named("input_tokens"), named("output_tokens"), &values)?;
        }
        "seat_usage_event" => check_instants(&values)?,
        "subscription" => {
            for name in ["start_at", "end_at"] {
                let Some(Value::Instant(at)) = named(name) else { continue };
                if let Some(problem) = implausible(at.timestamp_micros(), now.timestamp_micros()) {
                    anyhow::bail!("`{name}` ({}) {problem}", format_instant(*at));
                }
            }
            if let Some(Value::Text(id)) = named("id")
                && seen.insert(Uuid::new_v5(&ROW_NAMESPACE, id.as_bytes()), 1).is_some()
            {
                anyhow::bail!("subscription `{}` stands twice in the file", shorten(id));
            }
            if let (Some(Value::Instant(start)), Some(Value::Instant(end))) = (named("start_at"), named("end_at"))
                && end <= start
            {
                anyhow::bail!("`end_at` is not after `start_at`");
            }
        }
        _ => {}
    }
    Ok(values)
}

/// The years that every database and file can hold.
fn check_instants(values: &[Value]) -> Result<()> {
    let is_outside = |value: &&Value| matches!(value, Value::Instant(at) if !INSTANTS.contains(&at.timestamp_micros()));
    match values.iter().find(is_outside) {
        Some(_) => anyhow::bail!("an instant lies outside of the years 1 to 9999"),
        None => Ok(()),
    }
}

/// The bounds of the table's generated columns (`INTEGER`, `NUMERIC(10, 6)`), so that one absurd row is a bad row and does
/// not stop the file.
fn check_tokens(input: Option<&Value>, output: Option<&Value>, values: &[Value]) -> Result<()> {
    let tokens = |value: Option<&Value>| if let Some(Value::Int(tokens)) = value { *tokens } else { 0 };
    let (input, output) = (tokens(input), tokens(output));
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
    Ok(match field.absent {
        // A row without an id is known again by its text; the second of two equal rows of a file is another event.
        Absent::Identity => {
            let text = format!("{}\u{1e}{:?}", record.identity(), mapping.constants);
            let identity = Uuid::new_v5(&ROW_NAMESPACE, text.as_bytes());
            let count = seen.entry(identity).or_insert(0);
            *count += 1;
            Uuid::new_v5(&identity, &count.to_be_bytes()).into()
        }
        Absent::Refused => anyhow::bail!("`{}` is empty", field.name),
        Absent::Zero => 0.into(),
        Absent::Text(text) => text.into(),
        Absent::Null => Value::Null,
    })
}

fn value(field: &Field, text: &str) -> Result<Value> {
    Ok(match field.form {
        Form::Uuid => Uuid::parse_str(text.trim()).context("not a UUID")?.into(),
        Form::Instant => parse_instant(text)?.into(),
        Form::Int => i64::from(text.trim().parse::<i32>().context("not a whole number of 32 bits")?).into(),
        Form::LedgerId => {
            let id: i64 = text.trim().parse().context("not a whole number")?;
            if !LEDGER_IDS.contains(&id) {
                anyhow::bail!("not between 1 and 2^62");
            }
            id.into()
        }
        Form::Seats => {
            let seats: i64 = text.trim().parse().context("not a whole number")?;
            if !(0..=MAX_SEATS).contains(&seats) {
                anyhow::bail!("not between 0 and {MAX_SEATS}");
            }
            seats.into()
        }
        Form::Usd => Value::Nanos(money::parse_usd_nanos(text)?),
        Form::Text | Form::Label if text.contains('\0') => anyhow::bail!("holds a NUL character"),
        Form::Label if text.len() > MAX_TEXT_BYTES => anyhow::bail!("longer than {MAX_TEXT_BYTES} bytes"),
        Form::Text | Form::Label => text.into(),
    })
}

fn shorten(text: &str) -> String {
    cut(text, 60)
}

fn cut(text: &str, chars: usize) -> String {
    let mut shown: String = text.chars().take(chars).collect();
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

/// Takes a verified licence as a subscription of `org_id`: its start anchors the months, its expiry ends them; whether anything
/// changed.
///
/// # Errors
/// [`Failure`] of kind bad-data for a licence without a start date, or one that has expired at `now`: its months would come as
/// corrections of closed ones, and the file is most likely last year's. What the database says.
pub async fn import_license(store: &Store, license: &License, org_id: &str, now: DateTime<Utc>) -> Result<bool> {
    let term = license.term(now)?;
    let Some(start_at) = term.start_at else {
        return Err(Failure::bad_data(format!("Licence `{}` has no `startDate`, so nothing says when its months begin", license.id))
            .hint("ask for a licence with a start date, or import the subscription from a file with `start_at`")
            .into());
    };
    if term.is_expired(now) {
        return Err(license
            .expired()
            .hint("import the one that follows it; months that have passed come by a file with `start_at` and `end_at`")
            .into());
    }
    let values = vec![
        license.id.as_str().into(),
        org_id.into(),
        Value::Null,
        license.seats.into(),
        start_at.into(),
        term.end_at.into(),
        license.id.as_str().into(),
    ];
    let columns: Vec<&str> = SUBSCRIPTIONS.fields.iter().map(|field| field.column).collect();
    // A licence says nothing of a plan.
    let given: Vec<&str> = columns.iter().copied().filter(|column| *column != "plan").collect();
    let mut tx = store.begin().await?;
    let changed = tx.insert_rows(SUBSCRIPTIONS.table, &columns, &[values], &SUBSCRIPTIONS.on_conflict(&given)).await?;
    tx.commit().await?;
    Ok(changed > 0)
}
