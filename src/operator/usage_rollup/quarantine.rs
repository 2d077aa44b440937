//! Which events may not enter any total (`docs/semantics.md` section 3, "Quarantine").

use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use arrow::array::{Array, Int64Array};
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::source::{BAD_COST, BAD_NUMBER, BAD_TEXT, EventColumns, not_nested};
use crate::store::{Tx, Value, format_instant};
use crate::window::Window;

/// An event kept out, and why.
#[derive(Debug, Clone)]
pub struct QuarantinedEvent {
    pub source: String,
    pub event_id: String,
    pub occurred_at: DateTime<Utc>,
    pub reason: Reason,
    /// The event's fields as JSON.
    pub payload: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoUser,
    NegativeTokens,
    TokensNotNested,
    NegativeLatency,
    CostNotFinite,
    NegativeCost,
    NumberTooLarge,
    TextTooLong,
    ImplausibleInstant,
    OccurredInFuture,
}

impl Reason {
    /// The word in `quarantined_event.reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoUser => "no_user",
            Self::NegativeTokens => "negative_tokens",
            Self::TokensNotNested => "tokens_not_nested",
            Self::NegativeLatency => "negative_latency",
            Self::CostNotFinite => "cost_not_finite",
            Self::NegativeCost => "negative_cost",
            Self::NumberTooLarge => "number_too_large",
            Self::TextTooLong => "text_too_long",
            Self::ImplausibleInstant => "implausible_instant",
            Self::OccurredInFuture => OCCURRED_IN_FUTURE,
        }
    }
}

/// The one reason that time alone fixes: see `plan`.
pub const OCCURRED_IN_FUTURE: &str = "occurred_in_future";

/// How far behind the writers' clocks `as_of` may be.
#[must_use]
pub fn latest_occurred_at(as_of: DateTime<Utc>) -> DateTime<Utc> {
    as_of + chrono::TimeDelta::hours(24)
}

/// Why row `row` may not enter a total, from its own fields alone. `plausible` are the instants, in microseconds, that may.
pub(super) fn reason(events: &EventColumns<'_>, row: usize, user_id: &str, plausible: &RangeInclusive<i64>) -> Option<Reason> {
    let negative = |array: &Int64Array| array.is_valid(row) && array.value(row) < 0;
    let marks = events.marks.value(row);
    if marks & BAD_TEXT != 0 {
        Some(Reason::TextTooLong)
    } else if user_id.is_empty() {
        Some(Reason::NoUser)
    } else if [
        events.input_tokens,
        events.output_tokens,
        events.total_tokens,
        events.cached_input_tokens,
        events.cache_write_tokens,
        events.reasoning_tokens,
    ]
    .into_iter()
    .any(negative)
    {
        Some(Reason::NegativeTokens)
    } else if !are_nested(events, row) {
        Some(Reason::TokensNotNested)
    } else if negative(events.latency_ms) {
        Some(Reason::NegativeLatency)
    } else if marks & BAD_COST != 0 {
        Some(Reason::CostNotFinite)
    } else if [events.input_cost_nanos, events.output_cost_nanos, events.total_cost_nanos].into_iter().any(negative) {
        Some(Reason::NegativeCost)
    } else if marks & BAD_NUMBER != 0 {
        Some(Reason::NumberTooLarge)
    } else if events.occurred_at.value(row) < *plausible.start() {
        Some(Reason::ImplausibleInstant)
    } else if events.occurred_at.value(row) > *plausible.end() {
        Some(Reason::OccurredInFuture)
    } else {
        None
    }
}

/// Whether the parts of its tokens fit their wholes.
fn are_nested(events: &EventColumns<'_>, row: usize) -> bool {
    let tokens = |array: &Int64Array| if array.is_valid(row) { array.value(row) } else { 0 };
    let (cached, written) = (tokens(events.cached_input_tokens), tokens(events.cache_write_tokens));
    not_nested(tokens(events.input_tokens), cached, written, tokens(events.output_tokens), tokens(events.reasoning_tokens)).is_none()
}

/// The record of a row that stays out.
pub(super) fn record(source: &str, events: &EventColumns<'_>, row: usize, reason: Reason) -> Result<QuarantinedEvent> {
    let int = |array: &Int64Array| array.is_valid(row).then(|| array.value(row));
    let text = |array: &arrow::array::DictionaryArray<arrow::datatypes::UInt32Type>| {
        let values = arrow::array::AsArray::as_string::<i32>(array.values());
        array.key(row).map(|key| values.value(key).to_owned())
    };
    let occurred_at = DateTime::from_timestamp_micros(events.occurred_at.value(row)).context("`occurred_at` is out of range")?;
    let event_id = events.event_id.value(row).to_text();
    let mut payload = json!({
        "event_id": event_id,
        "occurred_at": format_instant(occurred_at),
        "user_id": text(events.user_id),
        "user_email": text(events.user_email),
        "customer_id": text(events.customer_id),
        "customer_name": text(events.customer_name),
        "request_type": text(events.request_type),
        "category": text(events.category),
        "model": text(events.model),
        "status": text(events.status),
        "input_tokens": int(events.input_tokens),
        "output_tokens": int(events.output_tokens),
        "total_tokens": int(events.total_tokens),
        "input_cost_nanos": int(events.input_cost_nanos),
        "output_cost_nanos": int(events.output_cost_nanos),
        "total_cost_nanos": int(events.total_cost_nanos),
        "latency_ms": int(events.latency_ms),
        "rating": int(events.rating),
        "tool_turns": int(events.tool_turns),
    });
    // What only one source has.
    for (name, array) in [("provider", events.provider), ("service_tier", events.service_tier)] {
        if let Some(text) = text(array) {
            payload[name] = text.into();
        }
    }
    for (name, array) in [
        ("cached_input_tokens", events.cached_input_tokens),
        ("cache_write_tokens", events.cache_write_tokens),
        ("reasoning_tokens", events.reasoning_tokens),
    ] {
        if let Some(tokens) = int(array) {
            payload[name] = tokens.into();
        }
    }
    Ok(QuarantinedEvent { source: source.to_owned(), event_id, occurred_at, reason, payload: payload.to_string() })
}

/// Makes the quarantine of a window hold exactly `events`; those seen before keep the instant they were first seen at.
pub async fn replace(tx: &mut Tx, window: Window, events: &[QuarantinedEvent], run_id: &str, now: DateTime<Utc>) -> Result<()> {
    let sql = "SELECT source, event_id FROM quarantined_event WHERE usage_date = $1";
    if events.is_empty() && tx.query(sql, &[window.start_date.into()]).await?.is_empty() {
        return Ok(());
    }
    // Events that moved between two days are taken from one and given to the other: both at once would wait for each other.
    tx.lock_table("quarantined_event").await?;
    let known = tx.query(sql, &[window.start_date.into()]).await?;
    let present: std::collections::BTreeSet<(&str, &str)> =
        events.iter().map(|event| (event.source.as_str(), event.event_id.as_str())).collect();
    for row in known {
        let (source, event_id) = (row.text("source")?, row.text("event_id")?);
        if !present.contains(&(source.as_str(), event_id.as_str())) {
            // Another window may have taken the record over meanwhile.
            let sql = "DELETE FROM quarantined_event WHERE source = $1 AND event_id = $2 AND usage_date = $3";
            tx.execute(sql, &[source.into(), event_id.into(), window.start_date.into()]).await?;
        }
    }
    let columns = ["source", "event_id", "usage_date", "occurred_at", "reason", "payload", "first_seen_at", "run_id"];
    let rows: Vec<Vec<Value>> = events
        .iter()
        .map(|event| {
            vec![
                event.source.as_str().into(),
                event.event_id.as_str().into(),
                window.start_date.into(),
                event.occurred_at.into(),
                event.reason.name().into(),
                event.payload.as_str().into(),
                now.into(),
                run_id.into(),
            ]
        })
        .collect();
    let suffix = "ON CONFLICT (source, event_id) DO UPDATE SET usage_date = excluded.usage_date, \
         occurred_at = excluded.occurred_at, reason = excluded.reason, payload = excluded.payload";
    tx.insert_rows("quarantined_event", &columns, &rows, suffix).await?;
    Ok(())
}
