//! `usage_rollup`: the raw usage log, aggregated one day at a time. The only reader of the raw log.

mod accumulate;
mod compute;
pub mod due;
mod event_values;
pub mod quarantine;
pub mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use hashbrown::HashSet;
use uuid::Uuid;

use self::quarantine::{QuarantinedEvent, Reason};
use crate::abort;
use crate::engine::window_rows;
use crate::failure::Failure;
use crate::fingerprint;
use crate::fold::columns::{measure_columns, measure_fields};
use crate::fold::groups::Groups;
use crate::fold::intern::Codes;
use crate::fold::{KEYS, key_field, label_of};
use crate::job::Job;
use crate::lake::Lake;
use crate::measure::SUM_COUNT;
use crate::price::book::PriceBook;
use crate::price::{CostRules, FailedRequests};
use crate::show::counted;
use crate::source::{Source, USAGE_EVENT};
use crate::store::Tx;
use crate::window::Window;

/// What the rollup needs beside the window.
#[derive(Debug, Clone)]
pub struct UsageRollup {
    pub sources: Vec<Source>,
    pub cost_rules: CostRules,
    pub prices: PriceBook,
    pub timezone: Tz,
    /// `usage.earliest_date`: what happened before it did not happen then.
    pub earliest_date: NaiveDate,
    pub max_quarantined_ratio: f64,
    pub batch_rows: usize,
    /// Where the ids of built-in sources, whose tables hold each once, are looked at as well: of the sources named here an id is to be given
    /// once over all windows.
    pub seen_ids: Option<BTreeMap<String, SeenIds>>,
    /// Where days are whose rows are in the tables no more.
    pub lake: Lake,
}

/// Digests of ids that a source has given.
pub type SeenIds = Arc<Mutex<HashSet<Uuid>>>;

/// Events that a source gives again, and the id of the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    pub event_id: String,
    pub count: i64,
}

/// What one window comes to, ready to be written.
#[derive(Debug)]
pub struct Rollup {
    pub groups: Groups,
    /// What each measure that adds up comes to.
    pub sums: [i128; SUM_COUNT],
    pub codes: Codes,
    pub rows_in_by_source: Vec<(String, i64)>,
    pub quarantined: Vec<QuarantinedEvent>,
    /// By source, where it was looked for.
    pub repeated: BTreeMap<String, Repeated>,
}

impl Rollup {
    /// Raw rows read, quarantined ones included.
    #[must_use]
    pub fn rows_in(&self) -> i64 {
        self.rows_in_by_source.iter().map(|(_, rows)| rows).sum()
    }

    /// The rows of `usage_daily`, customer by customer: written so, those of one lie together.
    ///
    /// # Errors
    /// A sum that does not fit 64 bits.
    pub fn batches(&self, usage_date: NaiveDate) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        self.groups.check_sums()?;
        let epoch_days = i32::try_from((usage_date - NaiveDate::default()).num_days())?;
        let customer = KEYS.iter().position(|key| *key == "customer_id").context("Groups have no customer")?;
        let mut order: Vec<u32> = (0..u32::try_from(self.groups.len())?).collect();
        order.sort_by_key(|group| self.groups.key(*group as usize)[customer]);
        let starts = (0..order.len()).step_by(GROUPS_PER_BATCH);
        Ok(starts.map(move |start| self.batch(&order[start..order.len().min(start + GROUPS_PER_BATCH)], epoch_days)))
    }

    fn batch(&self, groups: &[u32], epoch_days: i32) -> Result<RecordBatch> {
        let mut fields = vec![Field::new("usage_date", DataType::Date32, false)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from(vec![epoch_days; groups.len()]))];
        let codes = |key: usize| groups.iter().map(move |group| self.groups.key(*group as usize)[key]);
        for (index, key) in KEYS.iter().enumerate() {
            fields.push(key_field(key, matches!(*key, "customer_id" | "category" | "model")));
            columns.push(self.codes.column(key, codes(index))?);
            if let Some(label) = label_of(key) {
                fields.push(key_field(label, true));
                columns.push(self.codes.column(label, codes(index))?);
            }
        }
        fields.extend(measure_fields());
        columns.extend(measure_columns(groups.iter().map(|group| self.groups.values(*group as usize))));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Whether no event has come to its time yet, or there is none.
    #[must_use]
    pub fn holds_only_the_future(&self) -> bool {
        let future_count = self.quarantined.iter().filter(|event| event.reason == Reason::OccurredInFuture).count();
        i64::try_from(future_count).is_ok_and(|count| count == self.rows_in())
    }
}

/// Groups that are written at once.
const GROUPS_PER_BATCH: usize = 262_144;

impl UsageRollup {
    /// A digest of what a window's rows follow from beside the raw log: sources, pricing, and the prices in force.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn rules_fingerprint(&self, window: Window) -> Result<String> {
        let (start, end) = window.instants(self.timezone)?;
        Ok(self.fingerprint(window, self.prices.fingerprint(start, end), self.sources.iter()))
    }

    /// The sources but for `usage_event`.
    pub fn first_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.name != USAGE_EVENT)
    }

    fn fingerprint<'a>(&self, window: Window, prices: String, sources: impl Iterator<Item = &'a Source>) -> String {
        let mut parts = vec![format!("{:?}", self.cost_rules.pricing), prices];
        parts.extend(sources.map(|source| source.name.clone()));
        if self.is_implausible(window) {
            parts.push(format!("before {}", self.earliest_date));
        }
        if self.cost_rules.failed == FailedRequests::Free {
            parts.push("failed requests are free".to_owned());
        }
        fingerprint::of(parts)
    }

    /// Whether a day lies before the first that events may be of.
    #[must_use]
    pub fn is_implausible(&self, window: Window) -> bool {
        window.end_date <= self.earliest_date
    }

    /// Fails where a source gives an event more than once: it would be counted so often.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data.
    fn require_each_once(&self, window: Window, rollup: &Rollup) -> Result<()> {
        let Some((name, Repeated { event_id, count })) = rollup.repeated.first_key_value() else { return Ok(()) };
        let origin = self.sources.iter().find(|source| source.name == *name).map_or(name.as_str(), |source| &source.origin);
        let event_id: String = event_id.chars().take(80).collect();
        Err(Failure::bad_data(format!(
            "`{origin}` gives {} of {window} again, the first with the id `{event_id}`; the old result stays",
            counted(*count, "event")
        ))
        .hint(
            "the statement must give one row for each id (a JOIN may give more); of an archived day, an event may have been recorded once \
             more: take it out of the table",
        )
        .into())
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
        .hint("see them with `tallyroll quarantine list`, fix the rows, and run the job again; the old result stays until then")
        .into())
    }

    /// Replaces the rows of a window.
    ///
    /// # Errors
    /// What the database says.
    async fn replace_rows(&self, tx: &mut Tx, job: &Job, window: Window, rollup: &Rollup, run_id: &str, now: DateTime<Utc>) -> Result<()> {
        window_rows::delete(tx, job, window).await?;
        abort::point("rows_deleted");
        for batch in rollup.batches(window.start_date)? {
            tx.insert_batch(&job.writes, &batch?).await?;
        }
        abort::point("rows_written");
        quarantine::replace(tx, window, &rollup.quarantined, run_id, now).await?;
        abort::point("quarantine_written");
        Ok(())
    }
}
