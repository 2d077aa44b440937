//! One pass over the ledger: every subscription's months, digested by billing month, and where they will be written, collected in
//! a temporary file. Memory holds the subscriptions and a few orgs' ledgers, however long the ledger is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use sha2::Digest;
use uuid::Uuid;

use super::collect::{Collector, Histogram};
use super::folded::{Folded, FoldedMonth, MadeFrom, facts};
use crate::failure::Failure;
use crate::fingerprint::hex;
use crate::seats::calendar::{BillingMonth, Period, State, instant, subscription_months};
use crate::seats::{self, Coverage, Series, Subscription, TOTAL};
use crate::snapshot::peak_row::{Entry, PeakRow};
use crate::source::ledger::{Ledger, SeatSource};
use crate::store::Store;
use crate::store::windows::WindowRecord;
use crate::window::Window;

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
