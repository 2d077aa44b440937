//! The months of a subscription, and the billing month and state that each belongs to.
//!
//! Pure. Rules: `docs/semantics.md` sections 6 and 7.

use std::fmt;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};
use serde::{Serialize, Serializer};

use crate::window::{Window, WindowKind};

pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Months of a yearly term.
pub const TERM_MONTHS: i32 = 12;

/// The first instant at which a subscription or a licence may begin or end, 1970-01-01: an earlier one is a mistake.
pub const EARLIEST: i64 = 0;

/// Years ahead of the present in which one may begin or end: a later one is a mistake.
pub const YEARS_AHEAD: u32 = 10;

/// Most months that a subscription may have run: two hundred years.
const MAX_MONTHS: u32 = 2_400;

/// One month of a subscription, `[start, end)` in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From 1.
    pub number: i32,
    pub start: i64,
    pub end: i64,
}

impl Period {
    /// The day of the month's last microsecond: what decides its billing month.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn last_date(&self) -> Result<NaiveDate> {
        Ok(instant(self.end - 1)?.date_naive())
    }
}

/// The subscription months of `[start, end)` up to the one that holds `as_of`.
///
/// Months are added to `start` itself, in UTC, keeping its time of day; a day that a month lacks becomes its last day. `end`
/// cuts the last one short.
///
/// # Errors
/// When there are more than two hundred years of them.
pub fn subscription_months(start: i64, end: Option<i64>, as_of: i64) -> Result<Vec<Period>> {
    let anchor = instant(start)?;
    let mut months = Vec::new();
    let mut month_start = start;
    for number in 1.. {
        if month_start > as_of || end.is_some_and(|end| month_start >= end) {
            break;
        }
        ensure!(number <= MAX_MONTHS, "A subscription that starts at {anchor} has more than {MAX_MONTHS} months");
        let next = anchor.checked_add_months(Months::new(number)).context("A subscription month ends after the end of the calendar")?;
        let next = next.timestamp_micros();
        months.push(Period { number: i32::try_from(number)?, start: month_start, end: end.map_or(next, |end| end.min(next)) });
        month_start = next;
    }
    Ok(months)
}

/// Why no subscription or licence begins or ends at an instant, if so, as of `now`.
#[must_use]
pub fn implausible(at: i64, now: i64) -> Option<String> {
    let latest = instant(now).ok().and_then(|now| now.checked_add_months(Months::new(12 * YEARS_AHEAD)));
    if at < EARLIEST {
        Some("lies before 1970".to_owned())
    } else if latest.is_some_and(|latest| at > latest.timestamp_micros()) {
        Some(format!("lies more than {YEARS_AHEAD} years ahead"))
    } else {
        None
    }
}

/// How far the billing of a month is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The subscription month has not ended.
    Open,
    /// It has ended; the grace after its billing month is not over.
    Provisional,
    /// Sealed.
    Final,
}

impl State {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Provisional => "provisional",
            Self::Final => "final",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Open, Self::Provisional, Self::Final].into_iter().find(|state| state.name() == name)
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A calendar month, UTC, in which subscription months end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BillingMonth(NaiveDate);

impl BillingMonth {
    /// The billing month that `date` lies in.
    #[must_use]
    pub fn of(date: NaiveDate) -> Self {
        Self(crate::window::first_of_month(date))
    }

    /// Reads `2026-03`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date: NaiveDate = format!("{text}-01").parse().ok()?;
        (text.len() == 7).then_some(Self(date))
    }

    /// # Errors
    /// Only at the end of the calendar.
    pub fn window(self) -> Result<Window> {
        Window::containing(WindowKind::BillingMonth, self.0)
    }

    /// The month before the one after.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn next(self) -> Result<Self> {
        Ok(Self(self.window()?.end_date))
    }

    /// The instant from which the month may be sealed: its end and the grace.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn closes_at(self, grace_hours: u32) -> Result<DateTime<Utc>> {
        let (_, end) = self.window()?.instants(chrono_tz::Tz::UTC)?;
        end.checked_add_signed(TimeDelta::hours(grace_hours.into())).context("A billing month closes after the end of the calendar")
    }

    /// Months since year 0: neighbours differ by one.
    #[must_use]
    pub fn ordinal(self) -> i32 {
        self.0.year() * 12 + self.0.month0().cast_signed()
    }
}

impl fmt::Display for BillingMonth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.format("%Y-%m"))
    }
}

/// The instant of so many microseconds since the Unix epoch.
///
/// # Errors
/// When no calendar reaches it.
pub fn instant(micros: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros).with_context(|| format!("{micros} µs after 1970 is out of range"))
}
