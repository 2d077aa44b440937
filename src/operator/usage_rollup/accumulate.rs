//! Events into groups, batch by batch.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, AsArray, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::UInt32Type;
use chrono::DateTime;
use uuid::Uuid;

use super::event_values::{EventPrices, Status, values};
use super::quarantine::{self, QuarantinedEvent};
use super::{Repeated, Rollup, SeenIds, UsageRollup};
use crate::failure::Failure;
use crate::fold::groups::Groups;
use crate::fold::intern::{Codes, NULL_CODE};
use crate::source::{EventColumns, Source};
use crate::store::format_instant;

/// Most quarantined events that one window records, and most bytes of them: past either the window fails, whatever its ratio.
const MAX_QUARANTINED: usize = 200_000;
const MAX_QUARANTINED_BYTES: usize = 256 << 20;

/// Everything known of a window while its events come in.
pub(super) struct Accumulator {
    rollup: Arc<UsageRollup>,
    /// The instants, in microseconds, that an event may be of.
    plausible: RangeInclusive<i64>,
    /// The instants, in microseconds, of the window.
    within: Range<i64>,
    codes: Codes,
    groups: Groups,
    rows_in_by_source: Vec<(String, i64)>,
    quarantined: Vec<QuarantinedEvent>,
    quarantined_bytes: usize,
    /// Digests of the ids of this source so far, where each is to be given once.
    seen: Option<SeenIds>,
    repeated: BTreeMap<String, Repeated>,
}

impl Accumulator {
    pub(super) fn new(rollup: &Arc<UsageRollup>, plausible: RangeInclusive<i64>, within: Range<i64>) -> Self {
        Self {
            rollup: Arc::clone(rollup),
            plausible,
            within,
            codes: Codes::default(),
            groups: Groups::default(),
            rows_in_by_source: Vec::new(),
            quarantined: Vec::new(),
            quarantined_bytes: 0,
            seen: None,
            repeated: BTreeMap::new(),
        }
    }

    /// What comes from now on is of this source; of one that `is_archived`, an event may be in the lake and, recorded again, in its table.
    pub(super) fn begin_source(&mut self, source: &Source, is_archived: bool) {
        self.rows_in_by_source.push((source.name.clone(), 0));
        let looks = self.rollup.seen_ids.is_some() || !source.is_built_in || is_archived;
        let of_other_days = self.rollup.seen_ids.as_ref().and_then(|seen| seen.get(&source.name));
        self.seen = looks.then(|| of_other_days.cloned().unwrap_or_default());
    }

    pub(super) fn finish(self) -> Rollup {
        Rollup {
            sums: self.groups.sums(),
            groups: self.groups,
            codes: self.codes,
            rows_in_by_source: self.rows_in_by_source,
            quarantined: self.quarantined,
            repeated: self.repeated,
        }
    }

    /// Notes the events whose ids this source has given before.
    fn note_repeated(&mut self, events: &EventColumns<'_>, row_count: usize, source: &str) {
        let Some(mut seen) = self.seen.as_ref().and_then(|seen| seen.lock().ok()) else { return };
        for row in 0..row_count {
            let event_id = events.event_id.value(row).to_text();
            if !seen.insert(Uuid::new_v5(&Uuid::nil(), event_id.as_bytes())) {
                self.repeated.entry(source.to_owned()).or_insert(Repeated { event_id, count: 0 }).count += 1;
            }
        }
    }

    /// Takes in a batch.
    pub(super) fn take(mut self, batch: &RecordBatch) -> Result<Self> {
        let events = EventColumns::of(batch)?;
        let Some((source, rows_in)) = self.rows_in_by_source.last_mut() else { return Ok(self) };
        *rows_in += i64::try_from(batch.num_rows())?;
        let source = source.clone();
        self.note_repeated(&events, batch.num_rows(), &source);
        let codes = &mut self.codes;
        let source_code = codes.sources.code(&source);
        let unknown_type = codes.request_types.code("unknown");
        let users = codes.users.codes(events.user_id);
        let customers = codes.customers.codes(events.customer_id);
        let request_types = codes.request_types.codes(events.request_type);
        let categories = codes.categories.codes(events.category);
        let models = codes.models.codes(events.model);
        let mut prices = EventPrices::of_batch(&self.rollup.prices);
        let statuses = Texts::of(events.status);
        let statuses: Vec<Status> = statuses.values.iter().map(|status| Status::of(status.unwrap_or_default())).collect();
        let status_keys = events.status.keys();
        let (emails, customer_names) = (Texts::of(events.user_email), Texts::of(events.customer_name));
        let rules = self.rollup.cost_rules;

        for row in 0..batch.num_rows() {
            if events.occurred_at.is_valid(row) && !self.within.contains(&events.occurred_at.value(row)) {
                return Err(outside(&source, events.occurred_at.value(row)));
            }
            let user_id = if users[row] == NULL_CODE { "" } else { codes.users.text(users[row]) };
            let status = if status_keys.is_valid(row) { statuses[status_keys.value(row) as usize] } else { Status::Other };
            let measured = match quarantine::reason(&events, row, user_id, &self.plausible) {
                Some(reason) => Err(reason),
                None => values(&events, row, rules, &mut prices, status),
            };
            let values = match measured {
                Ok(values) => values,
                Err(reason) => {
                    let event = quarantine::record(&source, &events, row, reason)?;
                    self.quarantined_bytes += event.payload.len();
                    if self.quarantined.len() >= MAX_QUARANTINED || self.quarantined_bytes > MAX_QUARANTINED_BYTES {
                        return Err(too_many(self.quarantined.len()));
                    }
                    self.quarantined.push(event);
                    continue;
                }
            };
            let occurred_micros = events.occurred_at.value(row);
            let event_id = || events.event_id.value(row).into_owned();
            // An empty text is no customer.
            let customer = if codes.customers.text(customers[row]).is_empty() { NULL_CODE } else { customers[row] };
            if let Some(email) = emails.get(row) {
                codes.user_labels.see(users[row], occurred_micros, event_id, email);
            }
            if let (Some(name), false) = (customer_names.get(row), customer == NULL_CODE) {
                codes.customer_labels.see(customer, occurred_micros, event_id, name);
            }
            let request_type = if request_types[row] == NULL_CODE { unknown_type } else { request_types[row] };
            self.groups.add([source_code, users[row], customer, request_type, categories[row], models[row]], &values);
        }
        Ok(self)
    }
}

/// Taken in, it would be counted in its own window, too.
fn outside(source: &str, occurred_micros: i64) -> anyhow::Error {
    let at = DateTime::from_timestamp_micros(occurred_micros).map(format_instant).unwrap_or_default();
    Failure::bad_data(format!("The `events` statement of source `{source}` gives an event of {at}, which is of another window"))
        .hint("it must give the rows of one window: those at or after `:window_start` and before `:window_end`")
        .into()
}

fn too_many(count: usize) -> anyhow::Error {
    Failure::bad_data(format!("More than {count} events of one window are quarantined"))
        .hint("look at the source's SQL file first: so many bad rows are rarely the rows' fault")
        .into()
}

/// A dictionary column's texts by row.
struct Texts<'a> {
    array: &'a DictionaryArray<UInt32Type>,
    values: &'a StringArray,
}

impl<'a> Texts<'a> {
    fn of(array: &'a DictionaryArray<UInt32Type>) -> Self {
        Self { array, values: array.values().as_string() }
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        let keys = self.array.keys();
        keys.is_valid(row).then(|| self.values.value(keys.value(row) as usize))
    }
}
