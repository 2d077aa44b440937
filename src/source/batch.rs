//! Usage events collected into Arrow batches, by the builder that both databases fill.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{
    Array as _, ArrayBuilder as _, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int64Builder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondBuilder, UInt8Array, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use hashbrown::HashMap;
use uuid::Uuid;

use super::event::{self, BAD_COST, BAD_NUMBER, BAD_TEXT, INT_COUNT, TEXT_COUNT, Target};
use crate::fingerprint;

/// The longest text that an event may hold: so many bytes are no name, address or label any more. Sources hand over no more
/// than tells that a text is longer.
pub const MAX_TEXT_BYTES: usize = 1_000;

/// Texts of a batch, all together: whatever rows hold, a batch stays small.
const MAX_BATCH_TEXT_BYTES: usize = 16 << 20;

/// What is kept of a text that is too long, to show where it came from.
const SHOWN_CHARS: usize = 100;

/// Collects events column by column.
pub(super) struct BatchBuilder {
    row_count: usize,
    event_ids: Ids,
    occurred_at: TimestampMicrosecondBuilder,
    texts: [TextColumn; TEXT_COUNT],
    integers: [Int64Builder; INT_COUNT],
    text_bytes: usize,
    marks: Vec<u8>,
    /// The marks of the row at hand.
    bad: u8,
}

/// The ids of a batch: as texts from the first one on that is no UUID.
enum Ids {
    Uuids(Vec<u8>),
    Texts(StringBuilder),
}

impl Ids {
    fn push_text(&mut self, text: &str) {
        if let Self::Uuids(bytes) = self {
            let mut texts = StringBuilder::new();
            for uuid in bytes.as_chunks::<16>().0 {
                texts.append_value(Uuid::from_bytes(*uuid).hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            }
            *self = Self::Texts(texts);
        }
        if let Self::Texts(texts) = self {
            texts.append_value(text);
        }
    }

    fn push_uuid(&mut self, uuid: Uuid) {
        match self {
            Self::Uuids(bytes) => bytes.extend_from_slice(uuid.as_bytes()),
            Self::Texts(texts) => texts.append_value(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match std::mem::replace(self, Self::Uuids(Vec::new())) {
            Self::Uuids(bytes) => Arc::new(FixedSizeBinaryArray::try_new(16, bytes.into(), None)?),
            Self::Texts(mut texts) => Arc::new(texts.finish()),
        })
    }
}

fn start_of(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).chain(['…']).collect()
}

/// An event's id as it is kept: one that is too long by its start and a digest of it.
#[must_use]
pub fn kept_event_id(id: &str) -> Cow<'_, str> {
    if id.len() > MAX_TEXT_BYTES { Cow::Owned(start_of(id) + &fingerprint::of([id.to_owned()])) } else { Cow::Borrowed(id) }
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        Self {
            row_count: 0,
            event_ids: Ids::Uuids(Vec::new()),
            occurred_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            texts: std::array::from_fn(|_| TextColumn::default()),
            integers: std::array::from_fn(|_| Int64Builder::new()),
            text_bytes: 0,
            marks: Vec::new(),
            bad: 0,
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
            Target::EventId => self.event_ids.push_text(""),
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
                self.event_ids.push_text(text);
            }
            Target::Text(index) => self.text_bytes += self.texts[index].push(text),
            _ => bail!("a text stands where a number or an instant should"),
        }
        Ok(())
    }

    /// Keeps the start of a text that is too long, and marks its event; an id stays one of its own.
    fn put_long_text(&mut self, target: Target, text: &str) -> Result<()> {
        self.bad |= BAD_TEXT;
        if target == Target::EventId {
            return self.put_text(target, &kept_event_id(text));
        }
        self.put_text(target, &start_of(text))
    }

    /// Marks an event whose text was left out as too long.
    pub(super) fn put_left_out(&mut self, target: Target) {
        self.put_null(target);
        self.bad |= BAD_TEXT;
    }

    pub(super) fn put_uuid(&mut self, target: Target, uuid: Uuid) -> Result<()> {
        match target {
            Target::EventId => self.event_ids.push_uuid(uuid),
            Target::Text(index) => self.texts[index].push_uuid(uuid),
            _ => bail!("a UUID stands where a number or an instant should"),
        }
        Ok(())
    }

    pub(super) fn put_int(&mut self, target: Target, value: i64) -> Result<()> {
        match target {
            Target::Int(index) | Target::Cost(index) => self.integers[index].append_value(value),
            Target::EventId => self.event_ids.push_text(&value.to_string()),
            Target::Text(index) => self.texts[index].push_int(value),
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
        if nanos.is_none() {
            self.bad |= BAD_COST;
        }
        Ok(())
    }

    /// Marks an event one of whose numbers is no 64-bit integer.
    pub(super) fn put_bad_number(&mut self, target: Target) {
        self.put_null(target);
        self.bad |= BAD_NUMBER;
    }

    pub(super) fn end_row(&mut self) {
        self.marks.push(std::mem::take(&mut self.bad));
        self.row_count += 1;
    }

    /// The batch, leaving the builder empty.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        // Columns that the statement leaves out are NULL.
        for integers in self.integers.iter_mut().filter(|integers| integers.is_empty()) {
            integers.append_nulls(self.row_count);
        }
        for texts in self.texts.iter_mut().filter(|texts| texts.keys.is_empty()) {
            texts.keys.resize(self.row_count, NULL_KEY);
        }
        let event_ids = self.event_ids.finish()?;
        let schema = event::schema(event_ids.data_type());
        let mut columns: Vec<ArrayRef> = vec![event_ids, Arc::new(self.occurred_at.finish())];
        let (mut texts, mut integers) = (self.texts.iter_mut(), self.integers.iter_mut());
        for field in schema.fields() {
            match field.data_type() {
                DataType::Dictionary(_, _) => columns.extend(texts.next().map(TextColumn::finish).transpose()?),
                DataType::Int64 => columns.extend(integers.next().map(|integers| Arc::new(integers.finish()) as ArrayRef)),
                _ => {}
            }
        }
        columns.push(Arc::new(UInt8Array::from(std::mem::take(&mut self.marks))));
        self.row_count = 0;
        self.text_bytes = 0;
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
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
    /// And whole numbers by themselves.
    int_codes: HashMap<i64, u32>,
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
        let code = known.unwrap_or_else(|| self.code_of(uuid.to_string()));
        if known.is_none() {
            self.uuid_codes.insert(uuid, code);
        }
        self.keys.push(code);
    }

    fn push_int(&mut self, value: i64) {
        let known = self.int_codes.get(&value).copied();
        let code = known.unwrap_or_else(|| self.code_of(value.to_string()));
        if known.is_none() {
            self.int_codes.insert(value, code);
        }
        self.keys.push(code);
    }

    fn code_of(&mut self, text: String) -> u32 {
        self.codes.get(&text).copied().unwrap_or_else(|| self.add(text))
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
        self.int_codes.clear();
        Ok(Arc::new(DictionaryArray::try_new(UInt32Array::new(keys.into(), Some(nulls)), Arc::new(texts))?))
    }
}
