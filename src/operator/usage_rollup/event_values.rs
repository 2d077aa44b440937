//! What one event adds to each measure (`docs/semantics.md` sections 2 to 4).

use std::collections::HashMap;

use arrow::array::{Array, AsArray, Int64Array};
use chrono::DateTime;

use super::quarantine::Reason;
use crate::fold::groups::Values;
use crate::measure::{
    CACHE_WRITE_TOKENS, CACHED_INPUT_TOKENS, ERROR_COUNT, FIRST_REQUEST_AT, INPUT_COST_NANOS, INPUT_TOKENS, LAST_REQUEST_AT,
    LATENCY_MS_MAX, OUTPUT_COST_NANOS, OUTPUT_TOKENS, PRICED_TOKENS, RATING_COUNT, RATING_SUM, REASONING_TOKENS, REQUEST_COUNT,
    SUCCESS_COST_NANOS, SUCCESS_COUNT, SUCCESS_LATENCY_COUNT, SUCCESS_LATENCY_MS_SUM, SUCCESS_PRICED_COUNT, SUCCESS_TOTAL_TOKENS,
    TOOL_TURNS, TOTAL_COST_NANOS, TOTAL_TOKENS, UNPRICED_COUNT,
};
use crate::price::book::PriceBook;
use crate::price::{Cost, CostRules, Series, Tokens, price_at};
use crate::source::EventColumns;

/// The most tokens, milliseconds or turns of one event: thousands of such add up in 64 bits.
const MAX_NUMBER: u64 = 1_000_000_000_000_000;

/// The most that one event costs: what the log's `NUMERIC(18, 9)` holds.
const MAX_COST_NANOS: u64 = 1_000_000_000_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Error,
    /// Counted as a request, neither as a success nor as an error, as the seed does.
    Other,
}

impl Status {
    pub(super) fn of(text: &str) -> Self {
        match text {
            "success" => Self::Success,
            "error" => Self::Error,
            _ => Self::Other,
        }
    }
}

#[inline]
pub(super) fn integer(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

/// What one event adds to each measure.
pub(super) fn values(
    events: &EventColumns<'_>,
    row: usize,
    rules: CostRules,
    prices: &mut EventPrices<'_>,
    status: Status,
) -> Result<Values, Reason> {
    let input_tokens = integer(events.input_tokens, row);
    let output_tokens = integer(events.output_tokens, row);
    let total_tokens = match integer(events.total_tokens, row) {
        Some(total) => total,
        None => input_tokens.unwrap_or(0).checked_add(output_tokens.unwrap_or(0)).ok_or(Reason::NumberTooLarge)?,
    };
    let cached_input_tokens = integer(events.cached_input_tokens, row);
    let cache_write_tokens = integer(events.cache_write_tokens, row);
    let reasoning_tokens = integer(events.reasoning_tokens, row);
    let tokens = input_tokens.zip(output_tokens).map(|(input, output)| Tokens {
        input,
        cached_input: cached_input_tokens.unwrap_or(0),
        cache_write: cache_write_tokens.unwrap_or(0),
        output,
        reasoning: reasoning_tokens.unwrap_or(0),
    });
    let tokens = tokens.filter(|tokens| tokens.can_be_rated(Some(total_tokens)));
    let cost = cost(events, row, rules, prices, tokens, status)?;
    let latency_ms = integer(events.latency_ms, row);
    let rating = integer(events.rating, row);
    let tool_turns = integer(events.tool_turns, row).unwrap_or(0);
    let parts = [cached_input_tokens, cache_write_tokens, reasoning_tokens];
    let numbers = [input_tokens, output_tokens, Some(total_tokens), latency_ms, rating, Some(tool_turns)];
    require_within(&numbers, MAX_NUMBER)?;
    require_within(&parts, MAX_NUMBER)?;
    require_within(&[cost.input, cost.output, cost.total], MAX_COST_NANOS)?;

    let mut values = Values::NONE;
    let occurred_micros = events.occurred_at.value(row);
    values.of[REQUEST_COUNT] = 1;
    values.of[ERROR_COUNT] = i64::from(status == Status::Error);
    values.of[INPUT_TOKENS] = input_tokens.unwrap_or(0);
    values.of[OUTPUT_TOKENS] = output_tokens.unwrap_or(0);
    values.of[TOTAL_TOKENS] = total_tokens;
    values.of[CACHED_INPUT_TOKENS] = cached_input_tokens.unwrap_or(0);
    values.of[CACHE_WRITE_TOKENS] = cache_write_tokens.unwrap_or(0);
    values.of[REASONING_TOKENS] = reasoning_tokens.unwrap_or(0);
    values.of[TOOL_TURNS] = tool_turns;
    values.of[RATING_SUM] = rating.unwrap_or(0);
    values.of[RATING_COUNT] = i64::from(rating.is_some());
    values.of[FIRST_REQUEST_AT] = occurred_micros;
    values.of[LAST_REQUEST_AT] = occurred_micros;
    set(&mut values, LATENCY_MS_MAX, latency_ms);
    for (measure, nanos) in [(INPUT_COST_NANOS, cost.input), (OUTPUT_COST_NANOS, cost.output), (TOTAL_COST_NANOS, cost.total)] {
        set(&mut values, measure, nanos);
    }
    values.of[UNPRICED_COUNT] = i64::from(cost.total.is_none());
    values.of[PRICED_TOKENS] = if cost.total.is_some() { total_tokens } else { 0 };
    let success_cost = cost.total.filter(|_| status == Status::Success);
    set(&mut values, SUCCESS_COST_NANOS, success_cost);
    values.of[SUCCESS_PRICED_COUNT] = i64::from(success_cost.is_some());
    if status == Status::Success {
        values.of[SUCCESS_COUNT] = 1;
        values.of[SUCCESS_TOTAL_TOKENS] = total_tokens;
        values.of[SUCCESS_LATENCY_MS_SUM] = latency_ms.unwrap_or(0);
        values.of[SUCCESS_LATENCY_COUNT] = i64::from(latency_ms.is_some());
    }
    Ok(values)
}

/// A measure that not every event has.
fn set(values: &mut Values, measure: usize, value: Option<i64>) {
    match value {
        Some(value) => values.of[measure] = value,
        None => values.forget(measure),
    }
}

fn require_within(numbers: &[Option<i64>], limit: u64) -> Result<(), Reason> {
    let is_within = numbers.iter().flatten().all(|number| number.unsigned_abs() <= limit);
    is_within.then_some(()).ok_or(Reason::NumberTooLarge)
}

fn cost(
    events: &EventColumns<'_>,
    row: usize,
    rules: CostRules,
    prices: &mut EventPrices<'_>,
    tokens: Option<Tokens>,
    status: Status,
) -> Result<Cost, Reason> {
    let (input, output) = (integer(events.input_cost_nanos, row), integer(events.output_cost_nanos, row));
    let total = match (integer(events.total_cost_nanos, row), input, output) {
        (None, Some(input), Some(output)) => Some(input.checked_add(output).ok_or(Reason::NumberTooLarge)?),
        (total, _, _) => total,
    };
    rules.cost(status == Status::Error, Cost { input, output, total }, || {
        let Some(tokens) = tokens else { return Ok(None) };
        let occurred_at = DateTime::from_timestamp_micros(events.occurred_at.value(row)).ok_or(Reason::NumberTooLarge)?;
        let Some(price) = price_at(prices.of(events, row), occurred_at, tokens.input) else { return Ok(None) };
        price.rates.rate(&tokens).ok_or(Reason::NumberTooLarge).map(Some)
    })
}

/// The prices that the events of a batch may have, looked up once for each model, provider and tier.
pub(super) struct EventPrices<'b> {
    book: &'b PriceBook,
    known: HashMap<[Option<u32>; 3], Vec<&'b Series>>,
}

impl<'b> EventPrices<'b> {
    pub(super) fn of_batch(book: &'b PriceBook) -> Self {
        Self { book, known: HashMap::new() }
    }

    fn of(&mut self, events: &EventColumns<'_>, row: usize) -> &[&'b Series] {
        if self.book.is_empty() {
            return &[];
        }
        let columns = [events.model, events.provider, events.service_tier];
        let keys = columns.map(|column| column.keys().is_valid(row).then(|| column.keys().value(row)));
        let text = |place: usize| keys[place].map(|key| columns[place].values().as_string::<i32>().value(key as usize));
        self.known.entry(keys).or_insert_with(|| text(0).map(|model| self.book.candidates(model, text(1), text(2))).unwrap_or_default())
    }
}
