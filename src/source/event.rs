//! The fields of a usage event (`docs/semantics.md` section 3), and the columns of a batch of them.

use std::borrow::Cow;

use anyhow::{Context, Result};
use arrow::array::{
    Array, AsArray, DictionaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt32Type};
use uuid::Uuid;

use crate::failure::Failure;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    EventId,
    Instant,
    Text,
    Int,
    /// A statement gives it as `…_usd` (a decimal of USD) or as `…_nanos` (an integer); a batch holds nano-USD.
    Cost,
}

/// Every field of an event, in the order of a batch's columns.
const FIELDS: [(&str, Kind); 24] = [
    ("event_id", Kind::EventId),
    ("occurred_at", Kind::Instant),
    ("user_id", Kind::Text),
    ("user_email", Kind::Text),
    ("customer_id", Kind::Text),
    ("customer_name", Kind::Text),
    ("request_type", Kind::Text),
    ("category", Kind::Text),
    ("model", Kind::Text),
    ("status", Kind::Text),
    ("input_tokens", Kind::Int),
    ("output_tokens", Kind::Int),
    ("total_tokens", Kind::Int),
    ("input_cost", Kind::Cost),
    ("output_cost", Kind::Cost),
    ("total_cost", Kind::Cost),
    ("latency_ms", Kind::Int),
    ("rating", Kind::Int),
    ("tool_turns", Kind::Int),
    ("provider", Kind::Text),
    ("service_tier", Kind::Text),
    ("cached_input_tokens", Kind::Int),
    ("cache_write_tokens", Kind::Int),
    ("reasoning_tokens", Kind::Int),
];

/// Fields that a statement may leave out: they are NULL then.
const OPTIONAL: [&str; 5] = ["provider", "service_tier", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"];

/// How many fields are texts, and how many are integers or costs.
pub(super) const TEXT_COUNT: usize = 10;
pub(super) const INT_COUNT: usize = 12;

/// Why the parts of an event's tokens are more than the wholes that they are parts of (`docs/semantics.md` section 3), if they are.
#[must_use]
pub fn not_nested(input: i64, cached: i64, written: i64, output: i64, reasoning: i64) -> Option<&'static str> {
    if cached.saturating_add(written) > input.max(0) {
        Some("cached and cache-write tokens are a part of the input, and more than it")
    } else if reasoning > output.max(0) {
        Some("reasoning tokens are a part of the output, and more than it")
    } else {
        None
    }
}

/// What may be wrong with an event that no field shows: bits of the column `marks`.
pub const BAD_COST: u8 = 1;
pub const BAD_NUMBER: u8 = 2;
pub const BAD_TEXT: u8 = 4;

/// Where a column of an events statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    EventId,
    OccurredAt,
    Text(usize),
    Int(usize),
    /// USD or nano-USD, by the column's name; it is one of the integers.
    Cost(usize),
}

impl Target {
    fn of(name: &str) -> Option<Self> {
        let (mut texts, mut ints) = (0, 0);
        for (field, kind) in FIELDS {
            let is_it = match kind {
                Kind::Cost => name.strip_prefix(field).is_some_and(|unit| unit == "_usd" || unit == "_nanos"),
                _ => name == field,
            };
            match (is_it, kind) {
                (true, Kind::EventId) => return Some(Self::EventId),
                (true, Kind::Instant) => return Some(Self::OccurredAt),
                (true, Kind::Text) => return Some(Self::Text(texts)),
                (true, Kind::Int) => return Some(Self::Int(ints)),
                (true, Kind::Cost) => return Some(Self::Cost(ints)),
                (false, Kind::Text) => texts += 1,
                (false, Kind::Int | Kind::Cost) => ints += 1,
                (false, Kind::EventId | Kind::Instant) => {}
            }
        }
        None
    }
}

/// Where each column of a statement goes; a column that is no field of an event goes nowhere.
///
/// # Errors
/// As [`require_fields`].
pub(super) fn targets(given: &[String], origin: &str) -> Result<Vec<Option<Target>>> {
    require_fields(given, origin)?;
    Ok(given.iter().map(|name| Target::of(name)).collect())
}

/// Fails when the columns of an events statement lack a field of the event.
pub(super) fn require_fields(given: &[String], origin: &str) -> Result<()> {
    let found: Vec<Target> = given.iter().filter_map(|name| Target::of(name)).collect();
    let missing: Vec<String> = FIELDS
        .iter()
        .filter(|(field, _)| !OPTIONAL.contains(field))
        .map(|(field, kind)| match kind {
            Kind::Cost => (format!("{field}_nanos"), format!("`{field}_usd` or `{field}_nanos`")),
            _ => ((*field).to_owned(), format!("`{field}`")),
        })
        .filter(|(name, _)| Target::of(name).is_some_and(|target| !found.contains(&target)))
        .map(|(_, shown)| shown)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::config(format!("The events statement of `{origin}` lacks {}", missing.join(", ")))
        .hint("a field that your table does not have is written as `NULL AS field`")
        .into())
}

/// The Arrow schema of a batch: texts that repeat are dictionaries, costs are nano-USD, ids are UUIDs where all of the batch are.
pub(super) fn schema(event_id: &DataType) -> Schema {
    let text = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |(name, kind): &(&str, Kind)| match kind {
        Kind::EventId => Field::new(*name, event_id.clone(), false),
        Kind::Instant => Field::new(*name, instant.clone(), true),
        Kind::Text => Field::new(*name, text.clone(), true),
        Kind::Int => Field::new(*name, DataType::Int64, true),
        Kind::Cost => Field::new(format!("{name}_nanos"), DataType::Int64, true),
    };
    Schema::new(FIELDS.iter().map(field).chain([Field::new("marks", DataType::UInt8, false)]).collect::<Vec<_>>())
}

/// The Arrow schema of a batch out of the lake, where every id is a text.
#[must_use]
pub fn lake_schema() -> Schema {
    schema(&DataType::Utf8)
}

/// An event's id. Ids are ordered as their texts are.
#[derive(Debug, Clone)]
pub enum EventId<'a> {
    Uuid(Uuid),
    Text(Cow<'a, str>),
}

impl EventId<'_> {
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Uuid(uuid) => uuid.to_string(),
            Self::Text(text) => text.clone().into_owned(),
        }
    }

    #[must_use]
    pub fn into_owned(self) -> EventId<'static> {
        match self {
            Self::Uuid(uuid) => EventId::Uuid(uuid),
            Self::Text(text) => EventId::Text(Cow::Owned(text.into_owned())),
        }
    }

    /// Whether this id comes after another.
    #[must_use]
    pub fn is_after(&self, other: &EventId<'_>) -> bool {
        match (self, other) {
            // The text of a UUID is its bytes in hexadecimal.
            (Self::Uuid(uuid), EventId::Uuid(other)) => uuid > other,
            _ => self.to_text() > other.to_text(),
        }
    }
}

/// A column of event ids.
pub enum EventIds<'a> {
    Uuids(&'a FixedSizeBinaryArray),
    Texts(&'a StringArray),
}

impl EventIds<'_> {
    #[must_use]
    pub fn value(&self, row: usize) -> EventId<'_> {
        match self {
            Self::Uuids(uuids) => EventId::Uuid(Uuid::from_slice(uuids.value(row)).unwrap_or_default()),
            Self::Texts(texts) => EventId::Text(Cow::Borrowed(texts.value(row))),
        }
    }
}

/// The columns of a batch of usage events, typed.
pub struct EventColumns<'a> {
    pub event_id: EventIds<'a>,
    pub occurred_at: &'a TimestampMicrosecondArray,
    pub user_id: &'a DictionaryArray<UInt32Type>,
    pub user_email: &'a DictionaryArray<UInt32Type>,
    pub customer_id: &'a DictionaryArray<UInt32Type>,
    pub customer_name: &'a DictionaryArray<UInt32Type>,
    pub request_type: &'a DictionaryArray<UInt32Type>,
    pub category: &'a DictionaryArray<UInt32Type>,
    pub model: &'a DictionaryArray<UInt32Type>,
    pub status: &'a DictionaryArray<UInt32Type>,
    pub input_tokens: &'a Int64Array,
    pub output_tokens: &'a Int64Array,
    pub total_tokens: &'a Int64Array,
    pub input_cost_nanos: &'a Int64Array,
    pub output_cost_nanos: &'a Int64Array,
    pub total_cost_nanos: &'a Int64Array,
    pub latency_ms: &'a Int64Array,
    pub rating: &'a Int64Array,
    pub tool_turns: &'a Int64Array,
    pub provider: &'a DictionaryArray<UInt32Type>,
    pub service_tier: &'a DictionaryArray<UInt32Type>,
    pub cached_input_tokens: &'a Int64Array,
    pub cache_write_tokens: &'a Int64Array,
    pub reasoning_tokens: &'a Int64Array,
    /// [`BAD_COST`], [`BAD_NUMBER`], [`BAD_TEXT`].
    pub marks: &'a UInt8Array,
}

impl<'a> EventColumns<'a> {
    /// Views a batch as [`super::Batches`] gives it.
    ///
    /// # Errors
    /// When it is no such batch.
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| batch.column_by_name(name).with_context(|| format!("A batch of events has no column `{name}`"));
        let text = |name: &str| column(name).map(AsArray::as_dictionary::<UInt32Type>);
        let int = |name: &str| column(name).map(AsArray::as_primitive::<Int64Type>);
        let event_id = column("event_id")?;
        Ok(Self {
            event_id: match event_id.data_type() {
                DataType::FixedSizeBinary(_) => EventIds::Uuids(event_id.as_fixed_size_binary()),
                _ => EventIds::Texts(event_id.as_string()),
            },
            occurred_at: column("occurred_at")?.as_primitive::<TimestampMicrosecondType>(),
            user_id: text("user_id")?,
            user_email: text("user_email")?,
            customer_id: text("customer_id")?,
            customer_name: text("customer_name")?,
            request_type: text("request_type")?,
            category: text("category")?,
            model: text("model")?,
            status: text("status")?,
            input_tokens: int("input_tokens")?,
            output_tokens: int("output_tokens")?,
            total_tokens: int("total_tokens")?,
            input_cost_nanos: int("input_cost_nanos")?,
            output_cost_nanos: int("output_cost_nanos")?,
            total_cost_nanos: int("total_cost_nanos")?,
            latency_ms: int("latency_ms")?,
            rating: int("rating")?,
            tool_turns: int("tool_turns")?,
            provider: text("provider")?,
            service_tier: text("service_tier")?,
            cached_input_tokens: int("cached_input_tokens")?,
            cache_write_tokens: int("cache_write_tokens")?,
            reasoning_tokens: int("reasoning_tokens")?,
            marks: column("marks")?.as_primitive::<UInt8Type>(),
        })
    }
}
