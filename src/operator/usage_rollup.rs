//! `usage_rollup`: the raw usage log, aggregated by polars, one day at a time. The only reader of the raw log.

mod fold;
mod intern;
pub mod quarantine;

use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use tokio::sync::watch;

use self::fold::{Codes, Folder, MEASURE_COUNT, NO_LATENCY};
use self::intern::NULL_CODE;
use self::quarantine::{QuarantinedEvent, Reason};
use crate::abort;
use crate::failure::Failure;
use crate::fingerprint;
use crate::job::Job;
use crate::price::{Price, PriceBook, Pricing, RatedCost, price_at};
use crate::source::{EventColumns, Source};
use crate::sql_text::quote_identifier;
use crate::store::{Store, Tx};
use crate::window::{Window, start_of_day};

/// What the rollup needs beside the window.
#[derive(Debug, Clone)]
pub struct UsageRollup {
    pub sources: Vec<Source>,
    pub pricing: Pricing,
    pub prices: PriceBook,
    pub timezone: Tz,
    /// `usage.earliest_date`: what happened before it did not happen then.
    pub earliest_date: NaiveDate,
    pub max_quarantined_ratio: f64,
    pub batch_rows: usize,
    /// PostgreSQL keeps a user as a UUID: another id cannot be written.
    pub requires_uuid: bool,
}

/// The rows of one window, ready to be written.
#[derive(Debug)]
pub struct Rollup {
    pub rows: RecordBatch,
    pub rows_in_by_source: Vec<(String, i64)>,
    pub quarantined: Vec<QuarantinedEvent>,
}

impl Rollup {
    /// Raw rows read, quarantined ones included.
    #[must_use]
    pub fn rows_in(&self) -> i64 {
        self.rows_in_by_source.iter().map(|(_, rows)| rows).sum()
    }

    /// Whether no event has come to its time yet, or there is none.
    #[must_use]
    pub fn holds_only_the_future(&self) -> bool {
        let future_count = self.quarantined.iter().filter(|event| event.reason == Reason::OccurredInFuture).count();
        i64::try_from(future_count).is_ok_and(|count| count == self.rows_in())
    }
}

/// Most quarantined events that one window records, and most bytes of them: past either the window fails, whatever its ratio.
const MAX_QUARANTINED: usize = 200_000;
const MAX_QUARANTINED_BYTES: usize = 256 << 20;

/// The most tokens, milliseconds or turns of one event: thousands of such add up in 64 bits.
const MAX_NUMBER: u64 = 1_000_000_000_000_000;

/// The most that one event costs: what the log's `NUMERIC(18, 9)` holds.
const MAX_COST_NANOS: u64 = 1_000_000_000_000_000_000;

impl UsageRollup {
    /// A digest of what a window's rows follow from beside the raw log: sources, pricing, and the prices in force.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn rules_fingerprint(&self, window: Window) -> Result<String> {
        let (start, end) = window.instants(self.timezone)?;
        let mut parts = vec![format!("{:?}", self.pricing), self.prices.fingerprint(start, end)];
        parts.extend(self.sources.iter().map(|source| source.name.clone()));
        if self.is_implausible(window) {
            parts.push(format!("before {}", self.earliest_date));
        }
        Ok(fingerprint::of(parts))
    }

    /// Whether a day lies before the first that events may be of.
    #[must_use]
    pub fn is_implausible(&self, window: Window) -> bool {
        window.end_date <= self.earliest_date
    }

    /// Reads a window's events and aggregates them; nothing is written.
    ///
    /// # Errors
    /// What reading gives; a sum that does not fit; `interrupted` turning true.
    pub async fn compute(
        &self,
        store: &Store,
        window: Window,
        as_of: DateTime<Utc>,
        stop: &watch::Receiver<Option<i32>>,
    ) -> Result<Rollup> {
        let (start, end) = window.instants(self.timezone)?;
        let earliest_micros = start_of_day(self.earliest_date, self.timezone)?.timestamp_micros();
        let plausible = earliest_micros..=quarantine::latest_occurred_at(as_of).timestamp_micros();
        let mut state = Accumulator::new();
        for source in &self.sources {
            state.rows_in_by_source.push((source.name.clone(), 0));
            let mut batches = source.read(store, start, end, self.batch_rows);
            while let Some(batch) = batches.next().await {
                crate::run::check_stop(stop)?;
                let batch = batch?;
                state.take(&source.name, &batch, self, &plausible)?;
                if state.folder.is_full() {
                    state = blocking(move || {
                        state.folder.fold_rows()?;
                        Ok(state)
                    })
                    .await?;
                }
            }
        }
        blocking(move || state.finish(window)).await
    }

    /// Fails when too many of a window's events are quarantined.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data.
    pub fn check_quarantine(&self, window: Window, rollup: &Rollup) -> Result<()> {
        // An event of the future waits, and one of a day that none can be of has no result to spoil.
        let is_bad = |event: &&QuarantinedEvent| !matches!(event.reason, Reason::OccurredInFuture | Reason::ImplausibleInstant);
        let count = rollup.quarantined.iter().filter(is_bad).count();
        let judged = rollup.rows_in() - i64::try_from(rollup.quarantined.len() - count)?;
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts; 2^52 events do not fit a window")]
        let ratio = count as f64 / judged.max(1) as f64;
        if ratio <= self.max_quarantined_ratio {
            return Ok(());
        }
        let mut reasons: Vec<&str> = rollup.quarantined.iter().filter(is_bad).map(|event| event.reason.name()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        Err(Failure::bad_data(format!(
            "{count} of the {judged} events of {window} are quarantined ({}), more than `quarantine.max_ratio` = {} allows",
            reasons.join(", "),
            self.max_quarantined_ratio
        ))
        .hint("see them in `quarantined_event`, mend the rows, and run the job again; the old result stays until then")
        .into())
    }

    /// Replaces the rows of a window.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&self, tx: &mut Tx, job: &Job, window: Window, rollup: &Rollup, run_id: &str, now: DateTime<Utc>) -> Result<()> {
        let sql = format!(
            "DELETE FROM {table} WHERE {column} >= $1 AND {column} < $2",
            table = quote_identifier(&job.writes),
            column = quote_identifier(&job.window_column)
        );
        tx.execute(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
        abort::point("rows_deleted");
        tx.insert_batch(&job.writes, &rollup.rows).await?;
        abort::point("rows_written");
        quarantine::replace(tx, window, &rollup.quarantined, run_id, now).await?;
        abort::point("quarantine_written");
        Ok(())
    }
}

/// Runs CPU-bound work off the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("A worker thread died")?
}

/// Everything known of a window while its events come in.
struct Accumulator {
    codes: Codes,
    folder: Folder,
    rows_in_by_source: Vec<(String, i64)>,
    quarantined: Vec<QuarantinedEvent>,
    quarantined_bytes: usize,
}

impl Accumulator {
    fn new() -> Self {
        Self {
            codes: Codes::default(),
            folder: Folder::new(),
            rows_in_by_source: Vec::new(),
            quarantined: Vec::new(),
            quarantined_bytes: 0,
        }
    }

    fn finish(self, window: Window) -> Result<Rollup> {
        let groups = self.folder.finish()?;
        let rows = match groups {
            Some(groups) => fold::rows_of(&groups, &self.codes, window.start_date)?,
            None => RecordBatch::new_empty(arrow::datatypes::Schema::empty().into()),
        };
        Ok(Rollup { rows, rows_in_by_source: self.rows_in_by_source, quarantined: self.quarantined })
    }

    fn take(&mut self, source: &str, batch: &RecordBatch, rollup: &UsageRollup, plausible: &RangeInclusive<i64>) -> Result<()> {
        let events = EventColumns::of(batch);
        let codes = &mut self.codes;
        let source_code = codes.sources.code(source);
        let unknown_type = codes.request_types.code("unknown");
        let users = codes.users.codes(events.user_id);
        let uuids: Vec<bool> = codes.users.texts().map(|user| uuid::Uuid::try_parse(user).is_ok()).collect();
        let request_types = codes.request_types.codes(events.request_type);
        let categories = codes.categories.codes(events.category);
        let models = codes.models.codes(events.model);
        let prices = prices_of(&rollup.prices, &events);
        let statuses = statuses_of(&events);
        let (emails, customer_names) = (Texts::of(events.user_email), Texts::of(events.customer_name));
        if let Some((_, rows)) = self.rows_in_by_source.last_mut() {
            *rows += i64::try_from(batch.num_rows())?;
        }

        for row in 0..batch.num_rows() {
            let user_id = if users[row] == NULL_CODE { "" } else { codes.users.text(users[row]) };
            let is_uuid = !rollup.requires_uuid || uuids.get(users[row] as usize).copied().unwrap_or(true);
            let measured = match quarantine::reason(&events, row, user_id, is_uuid, plausible) {
                Some(reason) => Err(reason),
                None => measures(&events, row, rollup.pricing, prices[row], statuses[row]),
            };
            let values = match measured {
                Ok(values) => values,
                Err(reason) => {
                    let event = quarantine::record(source, &events, row, reason)?;
                    self.quarantined_bytes += event.payload.len();
                    if self.quarantined.len() >= MAX_QUARANTINED || self.quarantined_bytes > MAX_QUARANTINED_BYTES {
                        return Err(Failure::bad_data(format!(
                            "More than {} events of one window are quarantined",
                            self.quarantined.len()
                        ))
                        .hint("look at the source's SQL file first: so many bad rows are rarely the rows' fault")
                        .into());
                    }
                    self.quarantined.push(event);
                    continue;
                }
            };
            let occurred_micros = events.occurred_at.value(row);
            let event_id = events.event_id.value(row);
            let customer = codes.customers.code(integer(events.customer_id, row));
            if let Some(email) = emails.get(row) {
                codes.user_labels.see(users[row], occurred_micros, event_id, email);
            }
            if let (Some(name), false) = (customer_names.get(row), customer == NULL_CODE) {
                codes.customer_labels.see(customer, occurred_micros, event_id, name);
            }
            let request_type = if request_types[row] == NULL_CODE { unknown_type } else { request_types[row] };
            self.folder.push([source_code, users[row], customer, request_type, categories[row], models[row]], values);
        }
        Ok(())
    }
}

/// A dictionary column's texts by row.
struct Texts<'a> {
    array: &'a arrow::array::DictionaryArray<arrow::datatypes::UInt32Type>,
    values: &'a arrow::array::StringArray,
}

impl<'a> Texts<'a> {
    fn of(array: &'a arrow::array::DictionaryArray<arrow::datatypes::UInt32Type>) -> Self {
        Self { array, values: array.values().as_string() }
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        let keys = self.array.keys();
        keys.is_valid(row).then(|| self.values.value(keys.value(row) as usize))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Success,
    Error,
    /// Counted as a request, neither as a success nor as an error, as the seed does.
    Other,
}

fn statuses_of(events: &EventColumns<'_>) -> Vec<Status> {
    let texts = Texts::of(events.status);
    (0..events.status.len())
        .map(|row| match texts.get(row) {
            Some("success") => Status::Success,
            Some("error") => Status::Error,
            _ => Status::Other,
        })
        .collect()
}

fn prices_of<'b>(book: &'b PriceBook, events: &EventColumns<'_>) -> Vec<&'b [Price]> {
    if book.is_empty() {
        return vec![&[]; events.model.len()];
    }
    let models = events.model.values().as_string::<i32>();
    let of_value: Vec<&[Price]> = (0..models.len()).map(|index| book.prices_of(models.value(index))).collect();
    let keys = events.model.keys();
    (0..events.model.len()).map(|row| if keys.is_valid(row) { of_value[keys.value(row) as usize] } else { &[] }).collect()
}

fn integer(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

/// What one event adds to each measure, in the order of `fold::MEASURES`.
fn measures(
    events: &EventColumns<'_>,
    row: usize,
    pricing: Pricing,
    prices: &[Price],
    status: Status,
) -> Result<[i64; MEASURE_COUNT], Reason> {
    let input_tokens = integer(events.input_tokens, row);
    let output_tokens = integer(events.output_tokens, row);
    let total_tokens = match integer(events.total_tokens, row) {
        Some(total) => total,
        None => input_tokens.unwrap_or(0).checked_add(output_tokens.unwrap_or(0)).ok_or(Reason::NumberTooLarge)?,
    };
    let cost = cost(events, row, pricing, prices, input_tokens.zip(output_tokens))?;
    let latency_ms = integer(events.latency_ms, row);
    let rating = integer(events.rating, row);
    let tool_turns = integer(events.tool_turns, row).unwrap_or(0);
    let numbers = [input_tokens, output_tokens, Some(total_tokens), latency_ms, rating, Some(tool_turns)];
    let exceeds = |numbers: &[Option<i64>], limit: u64| numbers.iter().flatten().any(|number| number.unsigned_abs() > limit);
    if exceeds(&numbers, MAX_NUMBER) || exceeds(&[cost.input, cost.output, cost.total], MAX_COST_NANOS) {
        return Err(Reason::NumberTooLarge);
    }
    let occurred_micros = events.occurred_at.value(row);
    let success = status == Status::Success;
    let count = i64::from;
    let if_success = |value: i64| if success { value } else { 0 };
    Ok([
        1,
        count(success),
        count(status == Status::Error),
        count(cost.total.is_none()),
        input_tokens.unwrap_or(0),
        output_tokens.unwrap_or(0),
        total_tokens,
        cost.input.unwrap_or(0),
        cost.output.unwrap_or(0),
        cost.total.unwrap_or(0),
        if_success(total_tokens),
        if_success(cost.total.unwrap_or(0)),
        if_success(latency_ms.unwrap_or(0)),
        if_success(count(latency_ms.is_some())),
        latency_ms.unwrap_or(NO_LATENCY),
        tool_turns,
        rating.unwrap_or(0),
        count(rating.is_some()),
        occurred_micros,
        occurred_micros,
        if_success(count(cost.total.is_some())),
        if cost.total.is_some() { total_tokens } else { 0 },
        count(cost.input.is_some()),
        count(cost.output.is_some()),
        count(cost.total.is_some()),
    ])
}

/// An event's cost in nano-USD, as far as it is known.
struct Cost {
    input: Option<i64>,
    output: Option<i64>,
    total: Option<i64>,
}

fn cost(events: &EventColumns<'_>, row: usize, pricing: Pricing, prices: &[Price], tokens: Option<(i64, i64)>) -> Result<Cost, Reason> {
    let (input, output) = (integer(events.input_cost_nanos, row), integer(events.output_cost_nanos, row));
    let total = match (integer(events.total_cost_nanos, row), input, output) {
        (None, Some(input), Some(output)) => Some(input.checked_add(output).ok_or(Reason::NumberTooLarge)?),
        (total, _, _) => total,
    };
    let logged = Cost { input, output, total };
    if pricing == Pricing::Log && logged.total.is_some() {
        return Ok(logged);
    }
    let occurred_at = DateTime::from_timestamp_micros(events.occurred_at.value(row)).ok_or(Reason::NumberTooLarge)?;
    match price_at(prices, occurred_at).zip(tokens) {
        Some((price, (input_tokens, output_tokens))) => {
            let RatedCost { input_nanos, output_nanos, total_nanos } =
                price.rate(input_tokens, output_tokens).ok_or(Reason::NumberTooLarge)?;
            Ok(Cost { input: Some(input_nanos), output: Some(output_nanos), total: Some(total_nanos) })
        }
        None => Ok(logged),
    }
}
