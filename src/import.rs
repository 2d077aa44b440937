//! `import`: rows of a file into a source table, once each, however often the file is read.

mod chunk;
mod file;
mod instant;
mod target;

use std::collections::BTreeMap;
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
use self::target::{Absent, Field, Form};
pub use self::target::{SEATS, SUBSCRIPTIONS, Target, USAGE};
use crate::abort;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{self, Failure};
use crate::license::License;
use crate::money;
use crate::seats::MAX_SEATS;
use crate::seats::calendar::implausible;
use crate::source::ledger::INSTANTS;
use crate::store::{Store, Tx, Value, format_instant};

/// Identities of rows without an id of their own are names in this space (RFC 9562, version 5).
const ROW_NAMESPACE: Uuid = Uuid::from_u128(0x2b1f_5d7e_91c3_4a6b_8e0d_7461_6c6c_7972);

/// Ids that leave room for those that a database gives by itself.
const LEDGER_IDS: std::ops::RangeInclusive<i64> = 1..=1 << 62;

/// Bad rows that a report shows.
const SHOWN_BAD_ROWS: usize = 10;

/// How a file's columns become fields.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub target: &'static Target,
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
    pub fn parse(target: &'static Target, columns: &[String], constants: &[String]) -> Result<Self> {
        let pairs = |arguments: &[String], flag: &str| -> Result<BTreeMap<String, String>> {
            arguments
                .iter()
                .map(|argument| {
                    let (name, value) = argument
                        .split_once('=')
                        .ok_or_else(|| Failure::usage(format!("`{flag} {argument}` has no `=`")).hint(format!("write `{flag} field=…`")))?;
                    let field = target.field(name).ok_or_else(|| {
                        let failure = Failure::usage(format!("`{flag} {argument}`: there is no field `{name}`"));
                        let known = target.fields.iter().map(|field| field.name);
                        match failure::nearest(name, known.clone()) {
                            Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
                            None => failure.hint(format!("the fields are {}", known.collect::<Vec<_>>().join(", "))),
                        }
                    })?;
                    Ok((field.name.to_owned(), value.to_owned()))
                })
                .collect()
        };
        Ok(Self { target, columns: pairs(columns, "--column")?, constants: pairs(constants, "--set")? })
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
        for field in self.target.fields.iter().filter(|field| field.absent == Absent::Refused) {
            let needed = field.name;
            let given = self.columns.contains_key(needed) || self.constants.contains_key(needed) || has(needed) || has(field.column);
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

    /// The table's columns that a row with these headers gives.
    fn given(&self, headers: &[String]) -> Vec<&'static str> {
        let is_given = |field: &&Field| {
            let named = headers.iter().any(|header| header == field.name || header == field.column);
            named || self.columns.contains_key(field.name) || self.constants.contains_key(field.name)
        };
        self.target.fields.iter().filter(is_given).map(|field| field.column).collect()
    }

    fn ignored(&self, headers: &[String]) -> Vec<String> {
        let used = |header: &String| self.columns.values().any(|used| used == header) || self.target.field(header).is_some();
        headers.iter().filter(|header| !used(header)).cloned().collect()
    }
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
    let mut bad: Vec<(BadRow, String)> = Vec::new();
    let mut chunk = Chunk::new(mapping.target);
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
                let given = mapping.given(&record.headers);
                match row(mapping, &record, &mut seen, clock.now()) {
                    Ok(values) => {
                        if chunk.is_full_for(&given) {
                            crate::run::check_stop(stop)?;
                            report.inserted_count += chunk.insert(&mut tx, store, &mut bad).await?;
                            abort::point("import_batch");
                        }
                        chunk.push(given, line, values);
                    }
                    Err(reason) => bad.push((BadRow { line, reason: format!("{reason:#}") }, record.to_json())),
                }
            }
            Err(reason) => bad.push((BadRow { line, reason }, String::new())),
        }
    }
    report.inserted_count += chunk.insert(&mut tx, store, &mut bad).await?;
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
    if mapping.target.table == SEATS.table && store.pick(true, false) {
        // Rows that came with their ids: what is recorded next gets a larger one.
        let sql = "SELECT setval(pg_get_serial_sequence('seat_usage_event', 'id'), GREATEST((SELECT MAX(id) FROM seat_usage_event), \
             nextval(pg_get_serial_sequence('seat_usage_event', 'id')))) AS last_id";
        tx.query(sql, &[]).await?;
    }
    abort::point("import_before_commit");
    tx.commit().await?;
    abort::point("import_committed");
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
        .hint("mend the rows or the mapping (`--column field=header`, `--set field=value`) and import the file again")
        .into());
    }
    Ok(report)
}

/// A constant that no row could use is the command line's fault, not the rows'.
fn check_constants(mapping: &Mapping) -> Result<()> {
    for (name, text) in &mapping.constants {
        let field = mapping.target.field(name).context("a mapped field is known")?;
        value(field, text).map_err(|error| Failure::usage(format!("`--set {name}={text}`: {error:#}")))?;
    }
    Ok(())
}

/// The values of one record, in the order of the target's fields.
fn row(mapping: &Mapping, record: &Record, seen: &mut HashMap<Uuid, u32>, now: DateTime<Utc>) -> Result<Vec<Value>> {
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
        "ai_usage_log" => check_tokens(named("input_tokens"), named("output_tokens"), &values)?,
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
        Form::Text if text.contains('\0') => anyhow::bail!("holds a NUL character"),
        Form::Text => text.into(),
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
