//! A batch of usage events in Arrow, and the builder that both databases fill.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, BooleanBuilder, DictionaryArray, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt32Type};
use hashbrown::HashMap;
use uuid::Uuid;

use crate::failure::Failure;
use crate::fingerprint;

/// Columns of an events statement that a builder takes, in the order of [`event_schema`].
///
/// A cost comes as `…_usd` (a decimal of USD) or as `…_nanos` (an integer).
pub(super) const FIELDS: &[&str] = &[
    "event_id",
    "occurred_at",
    "user_id",
    "user_email",
    "customer_id",
    "customer_name",
    "request_type",
    "category",
    "model",
    "status",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost",
    "output_cost",
    "total_cost",
    "latency_ms",
    "rating",
    "tool_turns",
];

/// The longest text that an event may hold: so many bytes are no name, address or label any more. Sources hand over no more
/// than tells that a text is longer.
pub const MAX_TEXT_BYTES: usize = 1_000;

/// Texts of a batch, all together: whatever rows hold, a batch stays small.
const MAX_BATCH_TEXT_BYTES: usize = 16 << 20;

/// What is kept of a text that is too long, to show where it came from.
const SHOWN_CHARS: usize = 100;

/// Arrow schema of a batch: texts that repeat are dictionaries, costs are nano-USD. Events are marked whose logged cost is no
/// finite number (`cost_is_bad`), of which a number does not fit 64 bits (`number_is_bad`), or a text is too long (`text_is_bad`).
#[must_use]
pub fn event_schema() -> SchemaRef {
    let text = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("occurred_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ];
    for name in ["user_id", "user_email", "customer_name", "request_type", "category", "model", "status"] {
        fields.push(Field::new(name, text.clone(), true));
    }
    for name in INTEGERS {
        fields.push(Field::new(*name, DataType::Int64, true));
    }
    for name in ["cost_is_bad", "number_is_bad", "text_is_bad"] {
        fields.push(Field::new(name, DataType::Boolean, false));
    }
    Arc::new(Schema::new(fields))
}

const INTEGERS: &[&str] = &[
    "customer_id",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost_nanos",
    "output_cost_nanos",
    "total_cost_nanos",
    "latency_ms",
    "rating",
    "tool_turns",
];

/// Where a column of the statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    EventId,
    OccurredAt,
    Text(usize),
    Int(usize),
    /// USD or nano-USD, by the column's name.
    Cost(usize),
}

/// Maps the columns of a statement to the builder's; fails when one is missing.
pub(super) fn targets(given: &[String], origin: &str) -> Result<Vec<Option<Target>>> {
    require_fields(given, origin)?;
    Ok(given.iter().map(|name| target_of(name)).collect())
}

fn target_of(name: &str) -> Option<Target> {
    let text = ["user_id", "user_email", "customer_name", "request_type", "category", "model", "status"];
    match name {
        "event_id" => Some(Target::EventId),
        "occurred_at" => Some(Target::OccurredAt),
        "input_cost_usd" | "input_cost_nanos" => Some(Target::Cost(4)),
        "output_cost_usd" | "output_cost_nanos" => Some(Target::Cost(5)),
        "total_cost_usd" | "total_cost_nanos" => Some(Target::Cost(6)),
        _ => text
            .iter()
            .position(|known| *known == name)
            .map(Target::Text)
            .or_else(|| INTEGERS.iter().position(|known| *known == name).map(Target::Int)),
    }
}

/// Fails when the columns of an events statement lack a field of the event.
pub(super) fn require_fields(given: &[String], origin: &str) -> Result<()> {
    let has = |field: &str| {
        if field.ends_with("_cost") {
            given.iter().any(|name| *name == format!("{field}_usd") || *name == format!("{field}_nanos"))
        } else {
            given.iter().any(|name| name == field)
        }
    };
    let missing: Vec<String> = FIELDS
        .iter()
        .filter(|field| !has(field))
        .map(|field| if field.ends_with("_cost") { format!("`{field}_usd` or `{field}_nanos`") } else { format!("`{field}`") })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::config(format!("The events statement of `{origin}` lacks {}", missing.join(", ")))
        .hint("a field that your table does not have is written as `NULL AS field`")
        .into())
}

/// Collects events column by column.
pub(super) struct BatchBuilder {
    row_count: usize,
    event_id: StringBuilder,
    occurred_at: TimestampMicrosecondBuilder,
    texts: [TextColumn; 7],
    integers: [Int64Builder; 10],
    text_bytes: usize,
    marks: [BooleanBuilder; 3],
    bad: [bool; 3],
}

/// Which of a row's marks.
const BAD_COST: usize = 0;
const BAD_NUMBER: usize = 1;
const BAD_TEXT: usize = 2;

impl BatchBuilder {
    pub(super) fn new() -> Self {
        Self {
            row_count: 0,
            event_id: StringBuilder::new(),
            occurred_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            texts: std::array::from_fn(|_| TextColumn::default()),
            integers: std::array::from_fn(|_| Int64Builder::new()),
            text_bytes: 0,
            marks: std::array::from_fn(|_| BooleanBuilder::new()),
            bad: [false; 3],
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.row_count
    }

    /// Whether the batch has `batch_rows` rows, or as much text as a batch may hold.
    pub(super) fn is_full(&self, batch_rows: usize) -> bool {
        self.row_count >= batch_rows || self.text_bytes >= MAX_BATCH_TEXT_BYTES
    }

    pub(super) fn put_null(&mut self, target: Target) {
        match target {
            Target::EventId => self.event_id.append_value(""),
            Target::OccurredAt => self.occurred_at.append_null(),
            Target::Text(index) => self.texts[index].keys.push(NULL_KEY),
            Target::Int(index) | Target::Cost(index) => self.integers[index].append_null(),
        }
    }

    pub(super) fn put_text(&mut self, target: Target, text: &str) -> Result<()> {
        if text.len() > MAX_TEXT_BYTES {
            return self.put_long_text(target, text);
        }
        match target {
            Target::EventId => {
                self.text_bytes += text.len();
                self.event_id.append_value(text);
            }
            Target::Text(index) => self.text_bytes += self.texts[index].push(text),
            _ => bail!("a text stands where a number or an instant should"),
        }
        Ok(())
    }

    /// Keeps the start of a text that is too long, and marks its event; an id stays one of its own.
    fn put_long_text(&mut self, target: Target, text: &str) -> Result<()> {
        self.bad[BAD_TEXT] = true;
        let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
        shown.push('…');
        if target == Target::EventId {
            shown.push_str(&fingerprint::of([text.to_owned()]));
        }
        self.put_text(target, &shown)
    }

    /// Marks an event whose text was left out as too long.
    pub(super) fn put_left_out(&mut self, target: Target) {
        self.put_null(target);
        self.bad[BAD_TEXT] = true;
    }

    pub(super) fn put_uuid(&mut self, target: Target, uuid: Uuid) -> Result<()> {
        match target {
            Target::Text(index) => self.texts[index].push_uuid(uuid),
            _ => self.put_text(target, uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))?,
        }
        Ok(())
    }

    pub(super) fn put_int(&mut self, target: Target, value: i64) -> Result<()> {
        match target {
            Target::Int(index) | Target::Cost(index) => self.integers[index].append_value(value),
            Target::EventId => self.event_id.append_value(value.to_string()),
            Target::Text(_) => self.put_text(target, &value.to_string())?,
            Target::OccurredAt => bail!("an integer stands where an instant should"),
        }
        Ok(())
    }

    pub(super) fn put_instant(&mut self, target: Target, micros: i64) -> Result<()> {
        match target {
            Target::OccurredAt => self.occurred_at.append_value(micros),
            _ => bail!("an instant stands where none should"),
        }
        Ok(())
    }

    /// A cost in nano-USD; `None` for one that is no finite number or does not fit.
    pub(super) fn put_cost(&mut self, target: Target, nanos: Option<i64>) -> Result<()> {
        match target {
            Target::Cost(index) => self.integers[index].append_option(nanos),
            _ => bail!("a decimal stands where none should"),
        }
        self.bad[BAD_COST] |= nanos.is_none();
        Ok(())
    }

    /// Marks an event one of whose numbers is no 64-bit integer.
    pub(super) fn put_bad_number(&mut self, target: Target) {
        self.put_null(target);
        self.bad[BAD_NUMBER] = true;
    }

    pub(super) fn end_row(&mut self) {
        for (mark, bad) in self.marks.iter_mut().zip(&mut self.bad) {
            mark.append_value(std::mem::take(bad));
        }
        self.row_count += 1;
    }

    /// The batch, leaving the builder empty.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.event_id.finish()), Arc::new(self.occurred_at.finish())];
        for text in &mut self.texts {
            columns.push(text.finish()?);
        }
        for integer in &mut self.integers {
            columns.push(Arc::new(integer.finish()));
        }
        for mark in &mut self.marks {
            columns.push(Arc::new(mark.finish()));
        }
        self.row_count = 0;
        self.text_bytes = 0;
        Ok(RecordBatch::try_new(event_schema(), columns)?)
    }
}

/// A column of texts that repeat, as a dictionary of this batch.
#[derive(Default)]
struct TextColumn {
    keys: Vec<u32>,
    texts: Vec<String>,
    codes: HashMap<String, u32>,
    /// UUIDs by their bytes: each is written out once a batch, not once a row.
    uuid_codes: HashMap<Uuid, u32>,
}

const NULL_KEY: u32 = u32::MAX;

impl TextColumn {
    /// Takes in a text; the bytes that it adds to the dictionary.
    fn push(&mut self, text: &str) -> usize {
        // Neighbours are often alike, and comparing is cheaper than looking up.
        if let Some(last) = self.keys.last().copied().filter(|key| self.texts.get(*key as usize).is_some_and(|last| last == text)) {
            self.keys.push(last);
            return 0;
        }
        let known = self.codes.get(text).copied();
        let code = known.unwrap_or_else(|| self.add(text.to_owned()));
        self.keys.push(code);
        if known.is_none() { text.len() } else { 0 }
    }

    fn push_uuid(&mut self, uuid: Uuid) {
        let known = self.uuid_codes.get(&uuid).copied();
        let code = known.unwrap_or_else(|| self.add(uuid.to_string()));
        if known.is_none() {
            self.uuid_codes.insert(uuid, code);
        }
        self.keys.push(code);
    }

    fn add(&mut self, text: String) -> u32 {
        // A batch has far fewer rows than there are keys.
        let code = u32::try_from(self.texts.len()).unwrap_or(NULL_KEY);
        self.codes.insert(text.clone(), code);
        self.texts.push(text);
        code
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let keys = std::mem::take(&mut self.keys);
        let nulls: NullBuffer = keys.iter().map(|key| *key != NULL_KEY).collect();
        // The key of a NULL is not looked at, but it must be one of the dictionary's.
        let keys: Vec<u32> = keys.into_iter().map(|key| if key == NULL_KEY { 0 } else { key }).collect();
        let texts = StringArray::from_iter_values(std::mem::take(&mut self.texts));
        self.codes.clear();
        self.uuid_codes.clear();
        Ok(Arc::new(DictionaryArray::try_new(UInt32Array::new(keys.into(), Some(nulls)), Arc::new(texts))?))
    }
}

/// The columns of a batch of usage events, typed.
pub struct EventColumns<'a> {
    pub event_id: &'a StringArray,
    pub occurred_at: &'a TimestampMicrosecondArray,
    pub user_id: &'a DictionaryArray<UInt32Type>,
    pub user_email: &'a DictionaryArray<UInt32Type>,
    pub customer_name: &'a DictionaryArray<UInt32Type>,
    pub request_type: &'a DictionaryArray<UInt32Type>,
    pub category: &'a DictionaryArray<UInt32Type>,
    pub model: &'a DictionaryArray<UInt32Type>,
    pub status: &'a DictionaryArray<UInt32Type>,
    pub customer_id: &'a Int64Array,
    pub input_tokens: &'a Int64Array,
    pub output_tokens: &'a Int64Array,
    pub total_tokens: &'a Int64Array,
    pub input_cost_nanos: &'a Int64Array,
    pub output_cost_nanos: &'a Int64Array,
    pub total_cost_nanos: &'a Int64Array,
    pub latency_ms: &'a Int64Array,
    pub rating: &'a Int64Array,
    pub tool_turns: &'a Int64Array,
    pub cost_is_bad: &'a BooleanArray,
    pub number_is_bad: &'a BooleanArray,
    pub text_is_bad: &'a BooleanArray,
}

impl<'a> EventColumns<'a> {
    /// Views a batch of [`event_schema`].
    #[must_use]
    pub fn of(batch: &'a RecordBatch) -> Self {
        let text = |index: usize| batch.column(index).as_dictionary::<UInt32Type>();
        let int = |index: usize| batch.column(9 + index).as_primitive::<Int64Type>();
        Self {
            event_id: batch.column(0).as_string(),
            occurred_at: batch.column(1).as_primitive::<TimestampMicrosecondType>(),
            user_id: text(2),
            user_email: text(3),
            customer_name: text(4),
            request_type: text(5),
            category: text(6),
            model: text(7),
            status: text(8),
            customer_id: int(0),
            input_tokens: int(1),
            output_tokens: int(2),
            total_tokens: int(3),
            input_cost_nanos: int(4),
            output_cost_nanos: int(5),
            total_cost_nanos: int(6),
            latency_ms: int(7),
            rating: int(8),
            tool_turns: int(9),
            cost_is_bad: batch.column(19).as_boolean(),
            number_is_bad: batch.column(20).as_boolean(),
            text_is_bad: batch.column(21).as_boolean(),
        }
    }
}
