//! One record of a file as the values of a table's row, or why it is none. Pure.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use uuid::Uuid;

use super::file::Record;
use super::format::Format;
use super::instant::parse_instant;
use super::mapping::Mapping;
use super::number::whole;
use super::target::{Absent, Field, Form};
use crate::failure::Failure;
use crate::money;
use crate::seats::MAX_SEATS;
use crate::seats::calendar::implausible;
use crate::source::ledger::INSTANTS;
use crate::source::not_nested;
use crate::store::{Value, format_instant};

/// Identities of rows without an id of their own are names in this space (RFC 9562, version 5).
const ROW_NAMESPACE: Uuid = Uuid::from_u128(0x2b1f_5d7e_91c3_4a6b_8e0d_7461_6c6c_7972);

/// What the table holds of tags; a database may write them with more blanks.
const MAX_JSON_BYTES: usize = 8_000;

/// Ids that leave room for those that a database gives by itself.
const LEDGER_IDS: std::ops::RangeInclusive<i64> = 1..=1 << 61;

/// A constant that no row could use is the command line's fault, not the rows'.
pub(super) fn check_constants(mapping: &Mapping) -> Result<()> {
    for (name, text) in &mapping.constants {
        let field = mapping.target.field(name).context("a mapped field is known")?;
        value(field, text).map_err(|error| Failure::usage(format!("`--set {name}={text}`: {error:#}")))?;
    }
    Ok(())
}

/// The values of one record, in the order of the target's fields; `earliest_at` is the first instant that an event may be of.
pub(super) fn row(
    mapping: &Mapping,
    record: &Record,
    seen: &mut HashMap<Uuid, u32>,
    earliest_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Value>> {
    let fields = mapping.target.fields;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let within = || format!("`{}`", field.name);
        values.push(match mapping.text(record, field).with_context(within)? {
            Some(text) => value(field, &text).with_context(|| format!("`{}` is `{}`", field.name, shorten(&text)))?,
            None => absent(field, mapping, record, seen)?,
        });
    }
    if let Some(format) = &mapping.format {
        finish(format, mapping, &mut values, record)?;
    }
    let named = |name: &str| fields.iter().position(|field| field.name == name).and_then(|index| values.get(index));
    match mapping.target.table {
        "usage_event" => {
            check_instants(&values)?;
            if values.iter().any(|value| matches!(value, Value::Instant(at) if *at < earliest_at)) {
                anyhow::bail!("the event is from before `usage.earliest_date`");
            }
            let tokens = |name: &str| if let Some(Value::Int(tokens)) = named(name) { *tokens } else { 0 };
            let parts = [tokens("cached_input_tokens"), tokens("cache_write_tokens"), tokens("reasoning_tokens")];
            if let Some(problem) = not_nested(tokens("input_tokens"), parts[0], parts[1], tokens("output_tokens"), parts[2]) {
                anyhow::bail!(problem);
            }
            if matches!(named("source_name"), Some(Value::Text(name)) if name.contains('/')) {
                anyhow::bail!("`source_name` has a `/`, which stands between it and an event's id");
            }
            if values.iter().any(|value| matches!(value, Value::Nanos(nanos) if nanos.unsigned_abs() >= 1_000_000_000_000_000_000)) {
                anyhow::bail!("the cost is more than the table's NUMERIC(18, 9) holds");
            }
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

/// What follows from other fields: tokens that stand beside one another in the file are parts of a whole here, and a duration lies
/// between two instants.
fn finish(format: &Format, mapping: &Mapping, values: &mut [Value], record: &Record) -> Result<()> {
    let place = |name: &str| mapping.target.fields.iter().position(|field| field.name == name);
    // What the command line names is the whole already.
    for (whole, parts) in format.adds.iter().filter(|(whole, _)| !mapping.is_named(whole)) {
        let mut sum = 0_i64;
        for name in std::iter::once(whole).chain(parts) {
            if let Some(Value::Int(tokens)) = place(name).and_then(|place| values.get(place)) {
                sum = sum.checked_add(*tokens).context("its tokens are more than 64 bits hold")?;
            }
        }
        if let Some(value) = place(whole).and_then(|place| values.get_mut(place)) {
            *value = sum.into();
        }
    }
    if let Some(latency @ Value::Null) = place("latency_ms").and_then(|place| values.get_mut(place))
        && let Some(duration) = format.duration_ms(record)?
    {
        *latency = duration.into();
    }
    Ok(())
}

/// The years that every database and file can hold.
fn check_instants(values: &[Value]) -> Result<()> {
    let is_outside = |value: &&Value| matches!(value, Value::Instant(at) if !INSTANTS.contains(&at.timestamp_micros()));
    match values.iter().find(is_outside) {
        Some(_) => anyhow::bail!("an instant lies outside of the years 1 to 9999"),
        None => Ok(()),
    }
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
        Absent::Numbered if mapping.given(&record.headers).contains(&field.column) => anyhow::bail!("`{}` is empty", field.name),
        Absent::Null | Absent::Numbered => Value::Null,
    })
}

fn value(field: &Field, text: &str) -> Result<Value> {
    Ok(match field.form {
        Form::Instant => parse_instant(text)?.into(),
        Form::Int => whole(text)?.into(),
        Form::LedgerId => {
            let id = whole(text)?;
            if !LEDGER_IDS.contains(&id) {
                anyhow::bail!("not between 1 and 2^61");
            }
            id.into()
        }
        Form::Seats => {
            let seats = whole(text)?;
            if !(0..=MAX_SEATS).contains(&seats) {
                anyhow::bail!("not between 0 and {MAX_SEATS}");
            }
            seats.into()
        }
        Form::Usd => Value::Nanos(money::parse_usd_nanos(text)?),
        Form::Json => {
            let json: serde_json::Value = serde_json::from_str(text).context("not JSON")?;
            let text = json.to_string();
            if text.len() > MAX_JSON_BYTES || text.contains("\\u0000") {
                anyhow::bail!("longer than {MAX_JSON_BYTES} bytes, or with a NUL character");
            }
            text.into()
        }
        Form::Label(_) if text.contains('\0') => anyhow::bail!("holds a NUL character"),
        Form::Label(bytes_max) if text.len() > bytes_max => anyhow::bail!("longer than {bytes_max} bytes"),
        Form::Label(_) => text.into(),
    })
}

/// As much of a text as an error or a table shows.
#[must_use]
pub fn shorten(text: &str) -> String {
    cut(text, 60)
}

pub(super) fn cut(text: &str, chars: usize) -> String {
    let mut shown: String = text.chars().take(chars).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
