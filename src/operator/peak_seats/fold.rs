//! One pass over the ledger: every subscription's months, digested by billing month, and where they will be written, collected in
//! a temporary file. Memory holds the subscriptions and a few orgs' ledgers, however long the ledger is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;

use anyhow::{Context, Result};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use parquet::arrow::ArrowWriter;
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;
use uuid::Uuid;

use super::SEALED_MARK;
use crate::engine::request::Request;
use crate::failure::Failure;
use crate::fingerprint::hex;
use crate::seats::calendar::{BillingMonth, Period, State, instant, subscription_months};
use crate::seats::{self, Coverage, Series, Subscription, TOTAL};
use crate::snapshot::manifest::PeakFacts;
use crate::snapshot::parquet_file;
use crate::snapshot::peak_row::{self, BATCH_ROWS, Entry, PeakBatch, PeakRow};
use crate::source::ledger::{BadSubscription, Ledger, OrgLedger, SeatSource};
use crate::store::windows::{WindowRecord, WindowState};
use crate::store::{Store, format_instant};
use crate::window::Window;

/// What every billing month says as of one instant.
#[derive(Debug)]
pub struct Folded {
    pub as_of: DateTime<Utc>,
    /// The months in which subscription months end, and those that were written before.
    pub months: BTreeMap<Window, FoldedMonth>,
    /// Months that are sealed already.
    pub sealed: BTreeSet<Window>,
    /// The first month that had more ledger rows when it was written, and how many: rows that are gone.
    pub vanished: Option<(Window, i64)>,
    /// Subscriptions that cannot be billed: what was sealed of them stays as it is.
    pub isolated: Vec<BadSubscription>,
    files: BTreeMap<Window, Mutex<SpooledTempFile>>,
    made_from: MadeFrom,
    project_id: Uuid,
}

/// What a fold was made for: it serves only a plan that sees the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeFrom {
    as_of: DateTime<Utc>,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    is_forced: bool,
    windows: BTreeMap<Window, (i64, WindowState)>,
}

impl MadeFrom {
    pub(super) fn new(states: &BTreeMap<Window, WindowRecord>, request: &Request) -> Self {
        let windows = states.iter().map(|(window, state)| (*window, (state.write_count, state.state))).collect();
        Self { as_of: request.as_of, from: request.from, to: request.to, is_forced: request.force || request.rebuild, windows }
    }

    pub(super) fn is_asked_for(&self, window: Window) -> bool {
        let end = self.to.unwrap_or(NaiveDate::MAX);
        self.from.is_some_and(|from| window.end_date > from && window.start_date < end)
    }
}

/// One billing month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedMonth {
    pub state: State,
    pub row_count: i64,
    /// The sum of the peaks, of every seat type.
    pub peak_seats: i64,
    /// Rows of the whole ledger that occurred in this calendar month.
    pub ledger_rows: i64,
    /// The smallest and largest id of ledger rows that occurred before the month's end.
    pub ledger_ids: Option<(i64, i64)>,
    /// SHA-256 over the month's rows.
    pub digest: String,
}

impl FoldedMonth {
    /// What `job_window` keeps of it: another one makes the month due.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        if self.state == State::Final { format!("{SEALED_MARK}{}", self.digest) } else { self.digest.clone() }
    }
}

/// Bytes of a month that stay in memory; more go to a temporary file.
const SPOOL_BYTES: usize = 256 << 10;

impl Folded {
    /// # Errors
    /// When the fold does not know the window.
    pub fn month(&self, window: Window) -> Result<&FoldedMonth> {
        self.months.get(&window).with_context(|| format!("Billing month {window} was not folded"))
    }

    #[must_use]
    pub fn as_of_micros(&self) -> i64 {
        self.as_of.timestamp_micros()
    }

    /// Whether the window had ended at `as_of`: then no later `as_of` changes what it says.
    #[must_use]
    pub fn has_ended(&self, window: Window) -> bool {
        self.as_of.date_naive() >= window.end_date
    }

    pub(super) fn is_asked_for(&self, window: Window) -> bool {
        self.made_from.is_asked_for(window)
    }

    /// The ids of what could not be billed.
    pub(super) fn isolated_ids(&self) -> BTreeSet<String> {
        self.isolated.iter().map(|bad| bad.id.clone()).collect()
    }

    pub(super) fn is_from(&self, made_from: &MadeFrom) -> bool {
        self.made_from == *made_from
    }

    pub(super) fn is_collected(&self, window: Window) -> bool {
        self.files.contains_key(&window) || self.months.get(&window).is_some_and(|month| month.row_count == 0)
    }

    /// A month's rows as the file that is published where no revision is there yet.
    ///
    /// # Errors
    /// When the temporary file cannot be read; [`Failure`] of kind try-again where the month's rows were not collected.
    pub fn file(&self, window: Window) -> Result<Bytes> {
        let month = self.month(window)?;
        if month.row_count == 0 {
            let facts = facts(BillingMonth::of(window.start_date), month, self.as_of, self.project_id);
            return parquet_file::write(peak_row::schema(), &[], &facts.to_footer());
        }
        let Some(file) = self.files.get(&window) else {
            // The first look had found it as it should be: the storage lists other files now.
            return Err(Failure::try_again(format!("What the storage holds of {window} changed while it was being looked at"))
                .hint("this command can be repeated as it is")
                .into());
        };
        let mut file = file.lock().map_err(|_| anyhow::anyhow!("A reader of the rows of {window} died"))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes).context("A temporary file cannot be read back")?;
        Ok(bytes.into())
    }
}

fn facts(month: BillingMonth, folded: &FoldedMonth, as_of: DateTime<Utc>, project_id: Uuid) -> PeakFacts {
    PeakFacts {
        billing_month: month.to_string(),
        revision: i32::from(folded.state == State::Final),
        state: folded.state.name(),
        as_of: format_instant(as_of),
        input_fingerprint: folded.digest.clone(),
        ledger_ids: folded.ledger_ids,
        project_id,
    }
}

/// What a fold needs to know beside ledger and subscriptions.
pub(super) struct Order<'a> {
    pub(super) states: &'a BTreeMap<Window, WindowRecord>,
    pub(super) made_from: MadeFrom,
    pub(super) sealed: BTreeSet<Window>,
    /// Nothing is sealed before it.
    pub(super) now: DateTime<Utc>,
    pub(super) grace_hours: u32,
    pub(super) project_id: Uuid,
}

/// Folds the whole ledger; the rows of windows that `keep` names are collected.
pub(super) async fn fold(source: &SeatSource, store: &Store, order: &Order<'_>, keep: impl Fn(Window) -> bool) -> Result<Folded> {
    let as_of = order.made_from.as_of;
    let (subscriptions, isolated) = source.subscriptions(&mut store.begin_read().await?, as_of.max(order.now)).await?;
    let mut ledger = source.read(store, as_of);
    let mut folded = Folded {
        as_of,
        months: BTreeMap::new(),
        sealed: order.sealed.clone(),
        vanished: None,
        isolated,
        files: BTreeMap::new(),
        made_from: order.made_from.clone(),
        project_id: order.project_id,
    };
    let rows_before: BTreeMap<Window, i64> = order.states.iter().map(|(window, state)| (*window, state.rows_in)).collect();
    let written = order.states.keys().map(|window| BillingMonth::of(window.start_date));
    let mut months = BTreeMap::new();
    for month in billing_months(&subscriptions, folded.as_of_micros())?.into_iter().chain(written) {
        let window = month.window()?;
        // A month that was sealed under a shorter grace stays sealed; one in the future of the clock is not sealed, whatever
        // `as_of` says.
        let is_final =
            as_of.min(order.now) >= month.closes_at(order.grace_hours)? || (order.sealed.contains(&window) && folded.has_ended(window));
        months.insert(month.ordinal(), Collector::new(month, is_final, keep(window))?);
    }
    tokio::task::spawn_blocking(move || {
        let mut fold = Fold { as_of: folded.as_of_micros(), months, histogram: Histogram::default() };
        fold.run(&subscriptions, &mut ledger)?;
        fold.finish(&mut folded)?;
        // As of an earlier instant a month that had not ended rightly holds fewer.
        folded.vanished = rows_before.into_iter().find(|(window, before)| {
            folded.has_ended(*window) && folded.months.get(window).is_some_and(|month| month.ledger_rows < *before)
        });
        Ok(folded)
    })
    .await?
}

/// Every billing month in which a subscription month may end.
fn billing_months(subscriptions: &[Subscription], as_of: i64) -> Result<Vec<BillingMonth>> {
    let Some(first) = subscriptions.iter().map(|subscription| subscription.start_at).min().filter(|first| *first <= as_of) else {
        return Ok(Vec::new());
    };
    let mut months = Vec::new();
    let mut month = BillingMonth::of(instant(first)?.date_naive());
    // The subscription month that holds `as_of` may end in the calendar month after it.
    let last = BillingMonth::of(instant(as_of)?.date_naive()).next()?;
    while month <= last {
        months.push(month);
        month = month.next()?;
    }
    Ok(months)
}

struct Fold {
    as_of: i64,
    /// By [`BillingMonth::ordinal`].
    months: BTreeMap<i32, Collector>,
    histogram: Histogram,
}

impl Fold {
    fn run(&mut self, subscriptions: &[Subscription], ledger: &mut Ledger) -> Result<()> {
        let mut waiting = subscriptions.iter().peekable();
        while let Some(chunk) = ledger.blocking_next() {
            for org in chunk? {
                self.histogram.count(&org)?;
                while let Some(subscription) = waiting.next_if(|subscription| subscription.org_id <= org.org_id) {
                    let series: &[Series] = if subscription.org_id == org.org_id { &org.series } else { &[] };
                    self.subscription(subscription, series)?;
                }
            }
        }
        waiting.try_for_each(|subscription| self.subscription(subscription, &[]))
    }

    fn subscription(&mut self, subscription: &Subscription, series: &[Series]) -> Result<()> {
        let mut fold = || -> Result<()> {
            let periods = subscription_months(subscription.start_at, subscription.end_at, self.as_of)?;
            let billing_months =
                periods.iter().map(|period| Ok(BillingMonth::of(period.last_date()?).ordinal())).collect::<Result<Vec<_>>>()?;
            // An org without a total in its ledger has one all the same: unknown.
            let no_total = Series { seat_type: TOTAL.to_owned(), rows: Vec::new() };
            let (before, after) = series.split_at(series.partition_point(|series| series.seat_type.as_str() < TOTAL));
            let missing = after.first().is_none_or(|first| first.seat_type != TOTAL).then_some(&no_total);
            before.iter().chain(missing).chain(after).try_for_each(|series| self.series(subscription, series, &periods, &billing_months))
        };
        fold().map_err(|error| {
            let id: String = subscription.id.chars().take(80).collect();
            Failure::bad_data(format!("Subscription `{id}` cannot be folded"))
                .caused_by(error)
                .hint("fix its row; no month is written before, so that none lacks it")
                .into()
        })
    }

    fn series(&mut self, subscription: &Subscription, series: &Series, periods: &[Period], billing_months: &[i32]) -> Result<()> {
        // What was committed is seats of the whole org: a type of its own has no commitment to go over.
        let committed_seats = subscription.committed_seats.filter(|_| series.seat_type == TOTAL);
        for (month, ordinal) in seats::peaks(&series.rows, periods, self.as_of)?.into_iter().zip(billing_months) {
            // A type that nobody has recorded yet has no months: it would open every closed month of its org when it comes.
            if month.coverage == Coverage::None && series.seat_type != TOTAL {
                continue;
            }
            let collector = self.months.get_mut(ordinal).context("A subscription month ends outside of the billing months")?;
            let state = match collector.is_final {
                true => State::Final,
                false if month.period.end > self.as_of => State::Open,
                false => State::Provisional,
            };
            collector.push(&PeakRow {
                subscription_id: subscription.id.as_str().into(),
                org_id: subscription.org_id.as_str().into(),
                license_id: subscription.license_id.as_deref().map(Into::into),
                plan: subscription.plan.as_deref().map(Into::into),
                seat_type: series.seat_type.as_str().into(),
                month,
                committed_seats,
                state,
                as_of: self.as_of,
                entry: Entry {
                    revision: i32::from(collector.is_final),
                    is_correction: false,
                    peak_seats_delta: month.peak_seats,
                    overage_seats_delta: seats::overage(month.peak_seats, committed_seats),
                    correction_reason: None,
                },
            })?;
        }
        Ok(())
    }

    fn finish(self, folded: &mut Folded) -> Result<()> {
        for (ordinal, collector) in self.months {
            let window = collector.month.window()?;
            // A month in which no subscription month ends, and none did when it was written, is none.
            if collector.row_count == 0 && !folded.made_from.windows.contains_key(&window) {
                continue;
            }
            let month = FoldedMonth {
                state: collector.state(),
                row_count: collector.row_count,
                peak_seats: collector.peak_seats,
                ledger_rows: self.histogram.by_month.get(&ordinal).map_or(0, |month| month.row_count),
                ledger_ids: self.histogram.ids_until(ordinal),
                digest: hex(&collector.digest.finalize()),
            };
            if let Some(spool) = collector.spool.filter(|_| month.row_count > 0) {
                let file = spool.finish(&facts(collector.month, &month, folded.as_of, folded.project_id))?;
                folded.files.insert(window, Mutex::new(file));
            }
            folded.months.insert(window, month);
        }
        Ok(())
    }
}

/// The rows of one billing month on their way.
struct Collector {
    month: BillingMonth,
    is_final: bool,
    has_open: bool,
    row_count: i64,
    peak_seats: i64,
    digest: Sha256,
    spool: Option<Spool>,
}

/// A temporary Parquet file being written.
struct Spool {
    batch: PeakBatch,
    writer: Option<ArrowWriter<SpooledTempFile>>,
}

impl Collector {
    fn new(month: BillingMonth, is_final: bool, is_kept: bool) -> Result<Self> {
        let spool = if is_kept { Some(Spool { batch: PeakBatch::new(month)?, writer: None }) } else { None };
        Ok(Self { month, is_final, has_open: false, row_count: 0, peak_seats: 0, digest: Sha256::new(), spool })
    }

    fn push(&mut self, row: &PeakRow<'_>) -> Result<()> {
        self.row_count += 1;
        self.peak_seats += row.month.peak_seats;
        self.has_open |= row.state == State::Open;
        // Labels of a closed month are those it was sealed with.
        row.digest(&mut self.digest, !self.is_final);
        self.spool.as_mut().map_or(Ok(()), |spool| spool.push(row))
    }

    fn state(&self) -> State {
        match (self.is_final, self.has_open) {
            (true, _) => State::Final,
            (false, true) => State::Open,
            (false, false) => State::Provisional,
        }
    }
}

impl Spool {
    fn push(&mut self, row: &PeakRow<'_>) -> Result<()> {
        self.batch.push(row);
        if self.batch.row_count() >= BATCH_ROWS { self.flush().map(|_| ()) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<&mut ArrowWriter<SpooledTempFile>> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => parquet_file::writer(SpooledTempFile::new(SPOOL_BYTES), peak_row::schema())?,
        };
        let writer = self.writer.insert(writer);
        writer.write(&self.batch.finish()?).context("A temporary file cannot be written")?;
        Ok(writer)
    }

    fn finish(mut self, facts: &PeakFacts) -> Result<SpooledTempFile> {
        self.flush()?;
        let writer = self.writer.context("A temporary file was not begun")?;
        parquet_file::finish(writer, &facts.to_footer()).context("A temporary file cannot be written")
    }
}

/// Ledger rows by the calendar month they occurred in, and the range of their ids.
#[derive(Default)]
struct Histogram {
    by_month: BTreeMap<i32, LedgerMonth>,
}

struct LedgerMonth {
    row_count: i64,
    first_id: i64,
    last_id: i64,
}

impl Histogram {
    fn count(&mut self, org: &OrgLedger) -> Result<()> {
        for series in &org.series {
            let mut rest = series.rows.as_slice();
            while let Some(first) = rest.first() {
                let month = BillingMonth::of(instant(first.occurred_at)?.date_naive());
                let end = month.closes_at(0)?.timestamp_micros();
                let (inside, after) = rest.split_at(rest.partition_point(|row| row.occurred_at < end));
                let known =
                    self.by_month.entry(month.ordinal()).or_insert(LedgerMonth { row_count: 0, first_id: first.id, last_id: first.id });
                known.row_count += i64::try_from(inside.len())?;
                for row in inside {
                    known.first_id = known.first_id.min(row.id);
                    known.last_id = known.last_id.max(row.id);
                }
                rest = after;
            }
        }
        Ok(())
    }

    fn ids_until(&self, ordinal: i32) -> Option<(i64, i64)> {
        let months = || self.by_month.range(..=ordinal).map(|(_, month)| month);
        Some((months().map(|month| month.first_id).min()?, months().map(|month| month.last_id).max()?))
    }
}
