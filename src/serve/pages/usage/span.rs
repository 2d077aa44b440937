//! The days that a usage page covers, and the tables from which a sum over them is cheapest. Pure.

use anyhow::{Context, Result};
use chrono::{Days, Months, NaiveDate};
use serde::Serialize;

use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::window::first_of_month;

/// Whole days, both sides included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Span {
    pub(super) from: NaiveDate,
    pub(super) to: NaiveDate,
}

/// Days that are shown unless others are asked for.
const DEFAULT_DAYS: u64 = 30;

/// Ten years.
const DAYS_MAX: i64 = 3_660;

impl Span {
    /// The last days up to today.
    pub(super) fn last(days: u64, today: NaiveDate) -> Self {
        Self { from: today - Days::new(days.saturating_sub(1)), to: today }
    }

    /// The days that a request asks for. If it names only one end, the span has the usual number of days.
    pub(super) fn asked(query: &Query, today: NaiveDate) -> Result<Self, Problem> {
        let usual = Days::new(DEFAULT_DAYS - 1);
        let (from, to) = match (query.day("from")?, query.day("to")?) {
            (Some(from), Some(to)) => (from, to),
            (Some(from), None) => (from, today.max(from)),
            (None, to) => {
                let to = to.unwrap_or(today);
                (to.checked_sub_days(usual).unwrap_or(to), to)
            }
        };
        if from > to {
            return Err(Problem::bad_request(format!("`from` = {from} is after `to` = {to}")).hint("both days belong to the span"));
        }
        let days = (to - from).num_days() + 1;
        if days > DAYS_MAX {
            return Err(Problem::bad_request(format!("{from} to {to} are {days} days")).hint(format!("a page covers up to {DAYS_MAX}")));
        }
        Ok(Self { from, to })
    }

    pub(super) fn days(self) -> i64 {
        (self.to - self.from).num_days() + 1
    }

    /// The day after the last one.
    pub(super) fn end(self) -> Result<NaiveDate> {
        self.to.checked_add_days(Days::new(1)).context("The day after the last one is out of range")
    }

    /// The days that both have.
    pub(super) fn within(self, other: Self) -> Option<Self> {
        let both = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from <= both.to).then_some(both)
    }
}

/// Rows that are added to a sum, or subtracted from it: days or months of `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) is_monthly: bool,
    pub(super) is_taken_off: bool,
    pub(super) from: NaiveDate,
    pub(super) to: NaiveDate,
}

/// The pieces whose sum is that of `span`, when only the days of `known` have rows. A month that is mostly inside is read whole, and
/// its other days are subtracted: one row in place of up to thirty.
pub(super) fn pieces(span: Span, known: Span) -> Result<Vec<Piece>> {
    let Some(both) = span.within(known) else { return Ok(Vec::new()) };
    // A month is whole if nothing is known before or after it.
    let from = if both.from == known.from { first_of_month(both.from) } else { both.from };
    let to = if both.to == known.to { month_after(both.to)? } else { both.end()? };
    let (first, last) = (first_of_month(from), first_of_month(to));
    let days = |is_taken_off: bool, from: NaiveDate, to: NaiveDate| Piece { is_monthly: false, is_taken_off, from, to };
    let mut pieces = Vec::new();
    if first == last {
        let end = month_after(from)?;
        if (to - from) * 2 <= end - first {
            return Ok(vec![days(false, from, to)]);
        }
        pieces.extend([
            Piece { is_monthly: true, is_taken_off: false, from: first, to: end },
            days(true, first, from),
            days(true, to, end),
        ]);
    } else {
        let (mut months_from, mut months_to) = (first, last);
        let second = month_after(from)?;
        if (second - from) * 2 < second - first {
            months_from = second;
            pieces.push(days(false, from, second));
        } else {
            pieces.push(days(true, first, from));
        }
        let end = month_after(to)?;
        if (to - last) * 2 > end - last {
            months_to = end;
            pieces.push(days(true, to, end));
        } else {
            pieces.push(days(false, last, to));
        }
        pieces.push(Piece { is_monthly: true, is_taken_off: false, from: months_from, to: months_to });
    }
    pieces.retain(|piece| piece.from < piece.to);
    Ok(pieces)
}

fn month_after(date: NaiveDate) -> Result<NaiveDate> {
    first_of_month(date).checked_add_months(Months::new(1)).context("The month after the last one is out of range")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn pieces_of(from: &str, to: &str) -> Vec<Piece> {
        let known = Span { from: date("2025-12-10"), to: date("2026-04-05") };
        pieces(Span { from: date(from), to: date(to) }, known).unwrap()
    }

    #[test]
    fn whole_months_are_read_as_months() {
        let months = Piece { is_monthly: true, is_taken_off: false, from: date("2026-01-01"), to: date("2026-04-01") };
        assert_eq!(pieces_of("2026-01-01", "2026-03-31"), [months]);
        // Nothing is known before and after.
        let all = Piece { from: date("2025-12-01"), to: date("2026-05-01"), ..months };
        assert_eq!(pieces_of("2025-01-15", "2026-04-20"), [all]);
        assert_eq!(pieces_of("2027-01-01", "2027-02-01"), []);
    }

    #[test]
    fn at_most_half_a_month_of_days_is_read_on_each_side() {
        let day = |is_taken_off, from, to| Piece { is_monthly: false, is_taken_off, from: date(from), to: date(to) };
        assert_eq!(pieces_of("2026-01-05", "2026-03-31")[0], day(true, "2026-01-01", "2026-01-05"));
        assert_eq!(pieces_of("2026-01-25", "2026-03-31")[0], day(false, "2026-01-25", "2026-02-01"));
        assert_eq!(pieces_of("2026-02-03", "2026-02-04"), [day(false, "2026-02-03", "2026-02-05")]);
    }

    proptest! {
        #[test]
        fn pieces_hold_each_day_of_the_span_once(from in 0_u64..200, days in 1_u64..150, known_from in 0_u64..200, known_days in 1_u64..200) {
            let start = date("2025-11-20");
            let span = Span::last(days, start + Days::new(from + days));
            let known = Span::last(known_days, start + Days::new(known_from + known_days));
            let pieces = pieces(span, known).unwrap();
            let mut day = start - Days::new(60);
            while day < start + Days::new(500) {
                let in_piece = |piece: &&Piece| if piece.is_monthly {
                    piece.from <= first_of_month(day) && first_of_month(day) < piece.to
                } else {
                    piece.from <= day && day < piece.to
                };
                let sum: i32 = pieces.iter().filter(in_piece).map(|piece| if piece.is_taken_off { -1 } else { 1 }).sum();
                let is_known = known.from <= day && day <= known.to;
                if is_known {
                    prop_assert_eq!(sum, i32::from(span.from <= day && day <= span.to), "{} of {:?} in {:?}: {:?}", day, span, known, pieces);
                }
                day = day + Days::new(1);
            }
            let day_rows: i64 = pieces.iter().filter(|piece| !piece.is_monthly).map(|piece| (piece.to - piece.from).num_days()).sum();
            prop_assert!(day_rows <= 32);
        }
    }
}
