//! Usage events that an application sends, each recorded once, however often it is sent.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use serde::Serialize;
use uuid::Uuid;

use super::chunk::column;
use super::file::{Record, json_record};
use super::known::{EVENT_ID, key_of, says, stored};
use super::mapping::Mapping;
use super::row;
use super::target::{Form, USAGE};
use crate::clock::Clock;
use crate::config::Config;
use crate::failure;
use crate::store::{Store, Tx, Value, format_instant};
use crate::window::start_of_day;

/// What became of one event.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    pub index: usize,
    /// In HTTP's words: 200 for one that is in the log now, 409 for one whose id another event has, 422 for one that cannot be recorded,
    /// 424 for one that was left out because of another.
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of all of them, in their order.
#[derive(Debug, Default, Serialize)]
pub struct Posted {
    /// Events that were not in the log before.
    pub recorded_count: u64,
    /// Those that were, as they were sent.
    pub known_count: u64,
    pub events: Vec<Answer>,
}

pub const RECORDED: u16 = 200;
pub const CONFLICT: u16 = 409;
pub const UNPROCESSABLE: u16 = 422;
pub const LEFT_OUT: u16 = 424;

/// Rows that are inserted, and looked up, at once.
const AT_ONCE: usize = 500;

/// Ids of events that were sent without one are names in this space (RFC 9562, version 5): of an idempotency key and a place.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x6f3b_8a52_0d17_4c9e_b7a4_5e2c_91d8_3f60);

/// The source of an event that names none.
const SOURCE_NAME: &str = "application";

/// An event that can be recorded.
struct Good {
    index: usize,
    /// Columns that the sender gave.
    given: BTreeSet<&'static str>,
    values: Vec<Value>,
}

/// Records events, each a JSON object: the good ones, or, where `is_atomic`, all or none. An event without an id is known by
/// `idempotency_key` and its place, or is a new one each time.
///
/// # Errors
/// What the database says; nothing is recorded then.
pub async fn record_events(
    store: &Store,
    config: &Config,
    clock: &Clock,
    events: &[&str],
    idempotency_key: Option<&str>,
    is_atomic: bool,
) -> Result<Posted> {
    let mapping = Mapping { target: &USAGE, columns: BTreeMap::new(), constants: BTreeMap::new(), format: None };
    let earliest_at = start_of_day(config.usage.earliest_date, config.reporting.timezone)?;
    let mut posted = Posted::default();
    let mut good = Vec::new();
    let read = |(index, text): (usize, &&str)| (index, read_event(&mapping, text, idempotency_key, index, earliest_at, clock.now()));
    // 10,000 events take a while to read.
    let read: Vec<_> = tokio::task::block_in_place(|| events.iter().enumerate().map(read).collect());
    for (index, event) in read {
        let (status, event_id, error) = match event {
            Ok(event) => {
                let event_id = event.values[EVENT_ID].to_text();
                good.push(event);
                (RECORDED, event_id, None)
            }
            Err(error) => (UNPROCESSABLE, None, Some(format!("{error:#}"))),
        };
        posted.events.push(Answer { index, status, event_id, error });
    }
    let is_whole = good.len() == events.len();
    if good.is_empty() || (is_atomic && !is_whole) {
        return Ok(posted.without_others());
    }
    // Two requests that hold some of the same ids take them in one order, or each would wait for the other.
    good.sort_by_cached_key(|event| key_of(&event.values));
    let mut tx = store.begin().await?;
    // Another writer's open transaction may hold an id for ever, and so would this request its place.
    tx.wait_at_most(MOST_SECONDS_WAITED).await?;
    for events in good.chunks(AT_ONCE) {
        posted.recorded_count += insert(&mut tx, events).await?;
        let sent: Vec<&[Value]> = events.iter().map(|event| event.values.as_slice()).collect();
        let known = stored(&mut tx, &sent).await?;
        for event in events {
            let answer = &mut posted.events[event.index];
            if !known.get(&key_of(&event.values)).is_some_and(|known| event.is(known)) {
                answer.status = CONFLICT;
                answer.error = Some("another event has this id".to_owned());
            }
        }
    }
    if is_atomic && posted.events.iter().any(|answer| answer.status != RECORDED) {
        // Dropped, the transaction is rolled back.
        return Ok(Posted { recorded_count: 0, ..posted }.without_others());
    }
    tx.commit().await?;
    let in_the_log = posted.events.iter().filter(|answer| answer.status == RECORDED).count() as u64;
    // Of two with one id in one request, the second was there already.
    posted.known_count = in_the_log.saturating_sub(posted.recorded_count);
    Ok(posted)
}

fn read_event(
    mapping: &Mapping,
    text: &str,
    idempotency_key: Option<&str>,
    index: usize,
    earliest_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Good> {
    let mut record = json_record(text).map_err(anyhow::Error::msg)?;
    require_known(&record)?;
    // A field that is null or empty is not given, whatever it is called.
    let mut given = BTreeSet::new();
    for field in USAGE.fields {
        if mapping.text(&record, field)?.is_some() {
            given.insert(field.column);
        }
    }
    let defaults: [(&str, &dyn Fn() -> String); 3] = [
        ("source_name", &|| SOURCE_NAME.to_owned()),
        ("event_id", &|| event_id(idempotency_key, index)),
        ("occurred_at", &|| format_instant(now)),
    ];
    for (field, default) in defaults.into_iter().filter(|(field, _)| !given.contains(field)) {
        record.set_missing(field, default);
    }
    let values = row::row(mapping, &record, &mut HashMap::new(), earliest_at, now)?;
    Ok(Good { index, given, values })
}

impl Posted {
    /// Where nothing is recorded, the good ones were left out because of the others.
    fn without_others(mut self) -> Self {
        for answer in self.events.iter_mut().filter(|answer| answer.status == RECORDED) {
            answer.status = LEFT_OUT;
        }
        self
    }
}

impl Good {
    /// Whether the row that is stored under this event's id says what was sent.
    fn is(&self, stored: &[Value]) -> bool {
        // The instant of an event that was sent without one is when it was first sent.
        says(stored, &self.values, |field| field.form == Form::Instant && !self.given.contains(field.column))
    }
}

/// Longer than any field's name.
const NAME_BYTES_MAX: usize = 100;

fn event_id(idempotency_key: Option<&str>, index: usize) -> String {
    match idempotency_key {
        Some(key) => Uuid::new_v5(&KEY_NAMESPACE, format!("{index} {key}").as_bytes()),
        None => Uuid::new_v4(),
    }
    .to_string()
}

/// A field that nobody knows is a mistake: of a file it is a column that is not used, here it is what the sender meant to record.
fn require_known(record: &Record) -> Result<()> {
    let Some(unknown) = record.headers.iter().find(|name| USAGE.field(name).is_none()) else { return Ok(()) };
    // No name is nearest to a text without end, and looking for one would take as long.
    let known = USAGE.fields.iter().map(|field| field.name).filter(|_| unknown.len() <= NAME_BYTES_MAX);
    let nearest = failure::did_you_mean(unknown, known);
    anyhow::bail!("there is no field `{}`{nearest}", row::shorten(unknown))
}

async fn insert(tx: &mut Tx, events: &[Good]) -> Result<u64> {
    let columns: Vec<String> = USAGE.fields.iter().map(|field| column(tx, field)).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<Value>> = events.iter().map(|event| event.values.clone()).collect();
    tx.insert_rows(USAGE.table, &columns, &rows, &USAGE.on_conflict(&[])).await
}

/// How long a request waits for a row that another transaction holds.
const MOST_SECONDS_WAITED: u32 = 10;
