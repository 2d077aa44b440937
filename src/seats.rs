//! Peak seats: what a seat ledger says of each month of a subscription.
//!
//! Pure: counts and months go in, peaks come out. Rules: `docs/semantics.md` section 6. Instants are microseconds since the Unix
//! epoch, UTC.

pub mod calendar;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};

use self::calendar::{MICROS_PER_SECOND, Period, TERM_MONTHS};
use crate::money::div_half_even;

/// The seat type that is the whole org; recorded on its own, never the sum of the others.
pub const TOTAL: &str = "total";

/// The largest count that a ledger row may hold: what an average with six decimals still fits into `DECIMAL(18,6)`.
pub const MAX_SEATS: i64 = 999_999_999_999;

/// One row of the ledger: a count of one seat type of one org, in force from its instant on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerRow {
    pub occurred_at: i64,
    pub id: i64,
    pub seats: i64,
}

/// The counts of one seat type of one org, ordered by (`occurred_at`, `id`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    pub seat_type: String,
    pub rows: Vec<LedgerRow>,
}

/// A subscription, whose months are billed by the seats of its org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: String,
    pub org_id: String,
    pub plan: Option<String>,
    pub license_id: Option<String>,
    pub committed_seats: Option<i64>,
    pub start_at: i64,
    pub end_at: Option<i64>,
}

/// How much of a month the ledger covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The ledger begins at or before the month's start.
    Complete,
    /// It begins inside the month.
    Partial,
    /// It begins at or after the month's end, or there is none: a peak of 0 reads as unknown.
    None,
}

impl Coverage {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }

    /// The coverage of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Complete, Self::Partial, Self::None].into_iter().find(|coverage| coverage.name() == name)
    }
}

impl Serialize for Coverage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What the ledger says of one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthPeak {
    pub period: Period,
    pub coverage: Coverage,
    pub peak_seats: i64,
    /// The earliest instant of the month at which that count holds; none where no ledger row reaches the month.
    pub peak_at: Option<i64>,
    /// The ledger row that set the peak.
    pub peak_event_id: Option<i64>,
    /// Whether that row stands before the month.
    pub peak_carried_in: bool,
    /// Whole seconds of the covered part at that count.
    pub seconds_at_peak: i64,
    /// The count in effect at the month's start.
    pub opening_seats: Option<i64>,
    /// The last count.
    pub closing_seats: Option<i64>,
    pub min_seats: Option<i64>,
    /// The time-weighted average over the covered part, in millionths of a seat, rounded half-even.
    pub avg_seats_micros: Option<i64>,
    /// Ledger rows inside the month.
    pub ledger_rows: i64,
    /// Which year of the subscription the month lies in, from 1.
    pub term_number: i32,
    /// The largest peak of the term's months so far.
    pub term_peak_seats: i64,
}

/// The peaks of `periods`, which follow one another without a gap, from `rows` of one org and seat type.
///
/// `rows` are ordered by (`occurred_at`, `id`); those after `as_of` do not exist yet. One pass over both.
///
/// # Errors
/// When an average does not fit 64 bits, which no count up to [`MAX_SEATS`] can cause.
pub fn peaks(rows: &[LedgerRow], periods: &[Period], as_of: i64) -> Result<Vec<MonthPeak>> {
    let rows = &rows[..rows.partition_point(|row| row.occurred_at <= as_of)];
    let mut next = periods.first().map_or(0, |first| rows.partition_point(|row| row.occurred_at < first.start));
    let mut peaks: Vec<MonthPeak> = Vec::with_capacity(periods.len());
    for period in periods {
        let first = next;
        while rows.get(next).is_some_and(|row| row.occurred_at < period.end) {
            next += 1;
        }
        let carried = first.checked_sub(1).map(|before| rows[before]);
        let mut month = month_peak(carried, &rows[first..next], *period, as_of)?;
        let term_before = peaks.last().filter(|before| before.term_number == month.term_number).map_or(0, |before| before.term_peak_seats);
        month.term_peak_seats = month.peak_seats.max(term_before);
        peaks.push(month);
    }
    Ok(peaks)
}

/// One month: the count carried in from before it, and the rows inside it.
fn month_peak(carried: Option<LedgerRow>, inside: &[LedgerRow], period: Period, as_of: i64) -> Result<MonthPeak> {
    let mut month = MonthPeak {
        period,
        coverage: Coverage::None,
        peak_seats: 0,
        peak_at: None,
        peak_event_id: None,
        peak_carried_in: false,
        seconds_at_peak: 0,
        opening_seats: None,
        closing_seats: None,
        min_seats: None,
        avg_seats_micros: None,
        ledger_rows: i64::try_from(inside.len())?,
        term_number: (period.number - 1) / TERM_MONTHS + 1,
        term_peak_seats: 0,
    };
    // A row exactly at the start replaces the carried-in count: nobody held that one in the month.
    let is_replaced = inside.first().is_some_and(|row| row.occurred_at == period.start);
    let held_from_before = carried.filter(|_| !is_replaced);
    let Some(first) = held_from_before.or_else(|| inside.first().copied()) else { return Ok(month) };

    month.coverage = if carried.is_some() || is_replaced { Coverage::Complete } else { Coverage::Partial };
    let covered_end = period.end.min(as_of);
    let mut opening = held_from_before;
    let (mut peak, mut min) = (first, first.seats);
    let (mut micros_at_peak, mut seat_micros) = (0_i64, 0_i128);
    let counts = held_from_before.iter().chain(inside);
    let followers = inside.iter().skip(usize::from(held_from_before.is_none())).map(|row| row.occurred_at).chain([covered_end]);
    for (row, held_until) in counts.zip(followers) {
        let held_micros = held_until - row.occurred_at.max(period.start);
        if row.occurred_at == period.start {
            opening = Some(*row);
        }
        if row.seats > peak.seats {
            peak = *row;
            micros_at_peak = 0;
        }
        if row.seats == peak.seats {
            micros_at_peak += held_micros;
        }
        min = min.min(row.seats);
        seat_micros += i128::from(row.seats) * i128::from(held_micros);
    }
    let last = inside.last().copied().unwrap_or(first);
    let covered_micros = covered_end - first.occurred_at.max(period.start);
    // A month that has just begun has no length yet: its average is the count in effect.
    let avg = if covered_micros == 0 {
        i128::from(last.seats) * 1_000_000
    } else {
        div_half_even(seat_micros * 1_000_000, covered_micros.into())
    };
    month.peak_seats = peak.seats;
    month.peak_at = Some(peak.occurred_at.max(period.start));
    month.peak_event_id = Some(peak.id);
    month.peak_carried_in = peak.occurred_at < period.start;
    month.seconds_at_peak = micros_at_peak / MICROS_PER_SECOND;
    month.opening_seats = opening.map(|row| row.seats);
    month.closing_seats = Some(last.seats);
    month.min_seats = Some(min);
    month.avg_seats_micros = Some(i64::try_from(avg).context("An average of seats does not fit 64 bits")?);
    Ok(month)
}

/// Seats above what was committed; none without a commitment.
#[must_use]
pub fn overage(peak_seats: i64, committed_seats: Option<i64>) -> Option<i64> {
    committed_seats.map(|committed| (peak_seats - committed).max(0))
}

#[cfg(test)]
mod tests;
