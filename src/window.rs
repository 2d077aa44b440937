//! Calendars: which half-open interval of instants a day or a month is.
//!
//! Pure: a date, an instant and a time zone go in, intervals come out. Rule: `docs/semantics.md` section 1.

use std::fmt;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

/// The piece of time that a job writes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// One calendar day of `reporting.timezone`.
    Day,
    /// One calendar month of `reporting.timezone`.
    Month,
    /// One calendar month, UTC, of billing (`docs/semantics.md` section 7).
    BillingMonth,
    /// Everything there is, as one window.
    All,
}

impl fmt::Display for WindowKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::BillingMonth => "billing_month",
            Self::All => "all",
        })
    }
}

/// A half-open range of calendar days, `[start_date, end_date)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    pub start_date: NaiveDate,
    pub end_date: NaiveDate,
}

impl Window {
    /// The window of `kind` that `date` lies in.
    ///
    /// # Errors
    /// Only at the end of the calendar that chrono can count.
    pub fn containing(kind: WindowKind, date: NaiveDate) -> Result<Self> {
        match kind {
            WindowKind::Day => Ok(Self { start_date: date, end_date: next_day(date)? }),
            WindowKind::Month | WindowKind::BillingMonth => {
                let start_date = first_of_month(date);
                let end_date =
                    start_date.checked_add_months(Months::new(1)).with_context(|| format!("The month after {date} is out of range"))?;
                Ok(Self { start_date, end_date })
            }
            WindowKind::All => Ok(Self { start_date: NaiveDate::default(), end_date: end_of_time() }),
        }
    }

    /// The windows of `kind` that touch the days `[from, to)`, in order.
    ///
    /// # Errors
    /// When the range holds more than [`MAX_WINDOWS`] windows.
    pub fn covering(kind: WindowKind, from: NaiveDate, to: NaiveDate) -> Result<Vec<Self>> {
        let mut windows = Vec::new();
        let mut date = from;
        while date < to {
            let window = Self::containing(kind, date)?;
            date = window.end_date;
            windows.push(window);
            if windows.len() > MAX_WINDOWS {
                bail!("{from} to {to} is more than {MAX_WINDOWS} windows of one {kind} each: name a shorter range");
            }
        }
        Ok(windows)
    }

    /// Whether every day of `other` lies in this window.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.start_date <= other.start_date && other.end_date <= self.end_date
    }

    /// The instants `[start, end)` of this window in `timezone`.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn instants(&self, timezone: Tz) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
        Ok((start_of_day(self.start_date, timezone)?, start_of_day(self.end_date, timezone)?))
    }

    /// Whether this window has not begun at `as_of`.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn begins_after(&self, as_of: DateTime<Utc>, timezone: Tz) -> Result<bool> {
        Ok(start_of_day(self.start_date, timezone)? > as_of)
    }
}

impl fmt::Display for Window {
    /// A day as `2026-03-29`, a calendar month as `2026-03`, all else as both sides.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end_date == end_of_time() {
            formatter.write_str("all")
        } else if self.start_date.succ_opt() == Some(self.end_date) {
            write!(formatter, "{}", self.start_date)
        } else if self.start_date.day() == 1 && self.start_date.checked_add_months(Months::new(1)) == Some(self.end_date) {
            write!(formatter, "{}", self.start_date.format("%Y-%m"))
        } else {
            write!(formatter, "{}..{}", self.start_date, self.end_date)
        }
    }
}

/// Most windows that one run may be asked for: 100 years of days.
pub const MAX_WINDOWS: usize = 36_600;

/// The day after the last one that a window may hold; what [`WindowKind::All`] ends at.
#[must_use]
pub fn end_of_time() -> NaiveDate {
    NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or(NaiveDate::MAX)
}

#[must_use]
pub fn first_of_month(date: NaiveDate) -> NaiveDate {
    date.with_day(1).unwrap_or(date)
}

/// The first instant of `date` in `timezone`.
///
/// Where a clock change skips midnight, the day starts with the first instant that exists; where it repeats midnight, with
/// the earlier of the two. So days tile the time line: `start_of_day(d + 1)` is where `d` ends.
///
/// # Errors
/// Only at the end of the calendar.
pub fn start_of_day(date: NaiveDate, timezone: Tz) -> Result<DateTime<Utc>> {
    let midnight = date.and_hms_opt(0, 0, 0).context("A day has no midnight")?;
    if let Some(start) = timezone.from_local_datetime(&midnight).earliest() {
        return Ok(start.with_timezone(&Utc));
    }
    // Midnight falls into a gap: the day starts at the transition, which is midnight read with the offset in force before.
    let before = midnight
        .checked_sub_signed(TimeDelta::days(1))
        .and_then(|day_before| timezone.from_local_datetime(&day_before).latest())
        .with_context(|| format!("{date} has no start in {timezone}"))?;
    Ok(Utc.from_utc_datetime(&(midnight - before.offset().fix())))
}

/// The calendar day of `instant` in `timezone`, as [`start_of_day`] tiles them.
///
/// # Errors
/// Only at the end of the calendar.
pub fn day_of(instant: DateTime<Utc>, timezone: Tz) -> Result<NaiveDate> {
    let date = instant.with_timezone(&timezone).date_naive();
    // A fall back across midnight shows a date twice; the tiling gives those minutes to the later day.
    let next = next_day(date)?;
    Ok(if start_of_day(next, timezone)? <= instant { next } else { date })
}

/// The day after `date`.
///
/// # Errors
/// At the end of the calendar.
pub fn next_day(date: NaiveDate) -> Result<NaiveDate> {
    date.checked_add_days(Days::new(1)).with_context(|| format!("The day after {date} is out of range"))
}

#[cfg(test)]
mod tests {
    use chrono::Timelike;
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_across_a_clock_change_is_23_or_25_hours_long() {
        for (zone, day, hours) in [
            (Tz::America__New_York, "2026-03-08", 23),
            (Tz::America__New_York, "2026-11-01", 25),
            (Tz::Asia__Kathmandu, "2026-03-08", 24),
            (Tz::UTC, "2026-03-08", 24),
        ] {
            let window = Window::containing(WindowKind::Day, date(day)).unwrap();
            let (start, end) = window.instants(zone).unwrap();
            assert_eq!((end - start).num_hours(), hours, "{zone} {day}");
        }
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_starts_where_the_clock_goes_on() {
        let start = start_of_day(date("2018-11-04"), Tz::America__Sao_Paulo).unwrap();
        assert_eq!(start.with_timezone(&Tz::America__Sao_Paulo).hour(), 1);
        // Samoa skipped 30 December 2011 whole: that day is empty, not negative.
        let skipped = start_of_day(date("2011-12-30"), Tz::Pacific__Apia).unwrap();
        assert_eq!(skipped, start_of_day(date("2011-12-31"), Tz::Pacific__Apia).unwrap());
    }

    #[test]
    fn a_day_whose_midnight_comes_twice_starts_with_the_earlier_one() {
        // Havana goes from 01:00 back to 00:00; St. John's went from 00:01 back to 23:01 of the day before.
        for (zone, day, start) in
            [(Tz::America__Havana, "2026-11-01", "2026-11-01T04:00:00Z"), (Tz::America__St_Johns, "2010-11-07", "2010-11-07T02:30:00Z")]
        {
            assert_eq!(start_of_day(date(day), zone).unwrap(), start.parse::<DateTime<Utc>>().unwrap(), "{zone}");
        }
        let repeated = "2010-11-07T02:45:00Z".parse::<DateTime<Utc>>().unwrap();
        assert_eq!(repeated.with_timezone(&Tz::America__St_Johns).date_naive(), date("2010-11-06"));
        assert_eq!(day_of(repeated, Tz::America__St_Johns).unwrap(), date("2010-11-07"));
    }

    #[test]
    fn windows_print_as_people_write_them() {
        assert_eq!(Window::containing(WindowKind::Day, date("2026-03-29")).unwrap().to_string(), "2026-03-29");
        assert_eq!(Window::containing(WindowKind::Month, date("2026-02-28")).unwrap().to_string(), "2026-02");
        assert_eq!(Window::containing(WindowKind::All, date("2026-02-28")).unwrap().to_string(), "all");
    }

    #[test]
    fn a_range_that_would_never_end_is_refused() {
        let error = Window::covering(WindowKind::Day, date("1000-01-01"), date("2026-01-01")).unwrap_err();
        assert!(error.to_string().contains("shorter range"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn days_tile_in_every_zone(zone in 0..chrono_tz::TZ_VARIANTS.len(), day in 0_u64..40_000) {
            let zone = chrono_tz::TZ_VARIANTS[zone];
            let today = date("1970-01-02") + Days::new(day);
            let (start, end) = Window::containing(WindowKind::Day, today).unwrap().instants(zone).unwrap();
            prop_assert!(start <= end);
            if start < end {
                prop_assert_eq!(day_of(start, zone).unwrap(), today);
                prop_assert_eq!(day_of(end - TimeDelta::microseconds(1), zone).unwrap(), today);
                prop_assert_ne!(day_of(end, zone).unwrap(), today);
            }
        }
    }
}
