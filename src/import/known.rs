//! Usage events that are in the log already, and what they say there.

use std::collections::BTreeMap;

use anyhow::Result;

use super::target::{Field, Form, USAGE};
use crate::store::{Row, Tx, Value};

/// Events that are asked for at once.
const AT_ONCE: usize = 500;

/// What an event is known by: its source and its id.
pub(super) type Key = (Option<String>, Option<String>);

/// Where the fields of the key stand in a row.
pub(super) const EVENT_ID: usize = 1;

pub(super) fn key_of(values: &[Value]) -> Key {
    (values[0].to_text(), values[EVENT_ID].to_text())
}

/// Whether a stored row says what was sent; of fields that `is_left_open` only that there is one.
pub(super) fn says(stored: &[Value], sent: &[Value], is_left_open: impl Fn(&Field) -> bool) -> bool {
    // The fields of the key found it.
    let mut pairs = USAGE.fields.iter().zip(sent.iter().zip(stored)).skip(EVENT_ID + 1);
    pairs.all(|(field, (sent, stored))| !is_compared(field) || is_left_open(field) || sent == stored)
}

/// A database writes JSON in its own way.
fn is_compared(field: &Field) -> bool {
    field.form != Form::Json
}

/// The rows that are stored under the ids of some events.
pub(super) async fn stored(tx: &mut Tx, events: &[&[Value]]) -> Result<BTreeMap<Key, Vec<Value>>> {
    let cost = tx.dialect().cost_nanos();
    let compared = USAGE.fields.iter().filter(|field| is_compared(field));
    let columns: Vec<&str> = compared.map(|field| if field.form == Form::Usd { cost } else { field.column }).collect();
    let mut rows = BTreeMap::new();
    for events in events.chunks(AT_ONCE) {
        let places: Vec<String> = (0..events.len()).map(|event| format!("(${}, ${})", 2 * event + 1, 2 * event + 2)).collect();
        let parameters: Vec<Value> = events.iter().flat_map(|event| &event[..=EVENT_ID]).map(|value| value.to_text().into()).collect();
        let sql = format!("SELECT {} FROM usage_event WHERE (source_name, event_id) IN (VALUES {})", columns.join(", "), places.join(", "));
        for row in tx.query(&sql, &parameters).await? {
            let values = USAGE.fields.iter().map(|field| of_row(&row, field)).collect::<Result<Vec<_>>>()?;
            rows.insert(key_of(&values), values);
        }
    }
    Ok(rows)
}

/// A field of a stored row, as it is sent.
fn of_row(row: &Row, field: &Field) -> Result<Value> {
    Ok(match field.form {
        Form::Json => Value::Null,
        Form::Instant => row.instant(field.column)?.into(),
        Form::Usd => row.opt_int("cost_nanos")?.map_or(Value::Null, Value::Nanos),
        Form::Int | Form::LedgerId | Form::Seats => row.opt_int(field.column)?.map_or(Value::Null, Value::Int),
        Form::Label(_) => row.opt_text(field.column)?.map_or(Value::Null, Value::Text),
    })
}
