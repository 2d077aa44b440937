//! Properties of months and peaks over random ledgers. The reference cases are in `tests/peak_seats.rs`.

use chrono::{DateTime, Datelike, Timelike, Utc};
use proptest::prelude::*;

use super::calendar::{EARLIEST, implausible, instant, subscription_months};
use super::*;

/// The largest count of a month, asked at every instant that matters: the start, and each row. At an instant that has rows, every
/// one of them counts.
fn brute_force_peak(rows: &[LedgerRow], period: Period, as_of: i64) -> i64 {
    let instants = rows.iter().map(|row| row.occurred_at).chain([period.start]);
    instants
        .filter(|at| (period.start..period.end).contains(at) && *at <= as_of)
        .flat_map(|at| {
            let recorded: Vec<i64> = rows.iter().filter(|row| row.occurred_at == at).map(|row| row.seats).collect();
            if recorded.is_empty() { count_at(rows, at).into_iter().collect() } else { recorded }
        })
        .max()
        .unwrap_or(0)
}

fn count_at(rows: &[LedgerRow], at: i64) -> Option<i64> {
    rows.iter().filter(|row| row.occurred_at <= at).max().map(|row| row.seats)
}

const HOUR: i64 = 3_600 * MICROS_PER_SECOND;

/// Instants on the hour over two years, so that rows meet each other, boundaries and `as_of`.
fn ledger() -> impl Strategy<Value = Vec<LedgerRow>> {
    prop::collection::vec((prop_oneof![0_i64..17_520, (0_i64..24).prop_map(|month| month * 730)], 0_i64..30), 0..40).prop_map(|rows| {
        let rows = rows.into_iter().enumerate();
        rows.map(|(id, (hour, seats))| LedgerRow { occurred_at: hour * HOUR, id: i64::try_from(id).unwrap(), seats }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn months_tile_for_ten_years(day in 0_i64..146_097, micros in 0_i64..86_400_000_000) {
        let start = day * 24 * HOUR + micros;
        let ten_years = start + 3_653 * 24 * HOUR;
        let months = subscription_months(start, None, ten_years).unwrap();
        let anchor = instant(start).unwrap();
        prop_assert!((120..=121).contains(&months.len()));
        prop_assert_eq!(months[0].start, start);
        for (index, month) in months.iter().enumerate() {
            prop_assert_eq!(month.number, i32::try_from(index + 1).unwrap());
            prop_assert!(month.start < month.end);
            prop_assert!(index == 0 || months[index - 1].end == month.start);
            let begins = instant(month.start).unwrap();
            prop_assert_eq!(begins.time(), anchor.time());
            let months_on = begins.year() * 12 + begins.month().cast_signed() - anchor.year() * 12 - anchor.month().cast_signed();
            prop_assert_eq!(months_on, month.number - 1);
            // The anchor's day, or the last one of a shorter month.
            prop_assert!(begins.day() == anchor.day() || (begins.day() < anchor.day() && (begins + chrono::Days::new(1)).day() == 1));
            prop_assert_eq!(begins.nanosecond(), anchor.nanosecond());
        }
        prop_assert!(months.last().unwrap().start <= ten_years && ten_years < months.last().unwrap().end);
    }

    #[test]
    fn the_peak_is_the_largest_count_at_any_instant(mut rows in ledger(), start in 0_i64..17_520, length in 0_i64..17_520, end in prop::option::of(1_i64..17_520)) {
        rows.sort_unstable();
        let (start, as_of) = (start * HOUR, (start + length) * HOUR);
        let end = end.map(|hours| start + hours * HOUR);
        let periods = subscription_months(start, end, as_of).unwrap();
        let mut term = (0, 0);
        for month in peaks(&rows, &periods, as_of).unwrap() {
            let period = month.period;
            prop_assert_eq!(month.peak_seats, brute_force_peak(&rows, period, as_of));
            let covered_end = period.end.min(as_of);
            let first_known = rows.first().map(|row| row.occurred_at.max(period.start)).filter(|at| *at < period.end && *at <= as_of);
            prop_assert_eq!(month.coverage == Coverage::None, first_known.is_none());
            prop_assert_eq!(month.coverage == Coverage::Complete, first_known.is_some_and(|at| at == period.start));
            prop_assert_eq!(month.opening_seats, count_at(&rows, period.start).filter(|_| first_known.is_some()));
            prop_assert_eq!(month.closing_seats, count_at(&rows, (period.end - 1).min(as_of)).filter(|_| first_known.is_some()));
            // Hour by hour: time at the peak, and the average.
            let hours: Vec<i64> = first_known.map_or(Vec::new(), |from| (from / HOUR..covered_end / HOUR).collect());
            let counts: Vec<i64> = hours.iter().map(|hour| count_at(&rows, hour * HOUR).unwrap()).collect();
            let at_peak = counts.iter().filter(|count| **count == month.peak_seats).count();
            prop_assert_eq!(month.seconds_at_peak, i64::try_from(at_peak).unwrap() * 3_600);
            if let (Some(avg), false) = (month.avg_seats_micros, counts.is_empty()) {
                let sum: i64 = counts.iter().sum();
                prop_assert_eq!(i128::from(avg), div_half_even(i128::from(sum) * 1_000_000, counts.len() as i128));
            }
            if let Some(at) = month.peak_at {
                prop_assert!((period.start..period.end).contains(&at));
                let row = rows.iter().find(|row| Some(row.id) == month.peak_event_id).unwrap();
                prop_assert_eq!(row.seats, month.peak_seats);
                prop_assert_eq!(month.peak_carried_in, row.occurred_at < period.start);
                prop_assert_eq!(at, row.occurred_at.max(period.start));
            }
            prop_assert!(month.min_seats.is_none_or(|min| min <= month.peak_seats && counts.iter().all(|count| min <= *count)));
            term = if term.0 == month.term_number { (term.0, term.1.max(month.peak_seats)) } else { (month.term_number, month.peak_seats) };
            prop_assert_eq!(month.term_peak_seats, term.1);
        }
    }

    #[test]
    fn the_order_in_which_rows_came_changes_nothing((mut rows, mut shuffled) in ledger().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())), start in 0_i64..17_520) {
        rows.sort_unstable();
        shuffled.sort_unstable();
        let as_of = 17_520 * HOUR;
        let periods = subscription_months(start * HOUR, None, as_of).unwrap();
        prop_assert_eq!(peaks(&rows, &periods, as_of).unwrap(), peaks(&shuffled, &periods, as_of).unwrap());
    }

    /// Memberships change; every change records the total and the two types in force then.
    #[test]
    fn the_total_lies_between_each_type_and_their_sum(changes in prop::collection::vec((0_i64..9_000, 0_i64..20, 0_i64..20), 1..30), start in 0_i64..2_000) {
        let mut changes = changes;
        changes.sort_unstable();
        changes.dedup_by_key(|change| change.0);
        let series = |count: fn(&(i64, i64, i64)) -> i64| -> Vec<LedgerRow> {
            changes.iter().zip(0..).map(|(change, id)| LedgerRow { occurred_at: change.0 * HOUR, id, seats: count(change) }).collect()
        };
        let as_of = 9_000 * HOUR;
        let periods = subscription_months(start * HOUR, None, as_of).unwrap();
        let total = peaks(&series(|change| change.1 + change.2), &periods, as_of).unwrap();
        let base = peaks(&series(|change| change.1), &periods, as_of).unwrap();
        let free = peaks(&series(|change| change.2), &periods, as_of).unwrap();
        for ((total, base), free) in total.iter().zip(&base).zip(&free) {
            prop_assert!(total.peak_seats <= base.peak_seats + free.peak_seats);
            prop_assert!(total.peak_seats >= base.peak_seats && total.peak_seats >= free.peak_seats);
        }
    }
}

#[test]
fn two_hundred_years_are_refused_and_an_end_cuts_the_last_month() {
    let start = "2026-01-31T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
    let end = "2026-03-15T00:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp_micros();
    let months = subscription_months(start.timestamp_micros(), Some(end), i64::MAX).unwrap();
    assert_eq!(months.len(), 2);
    assert_eq!(months[1].end, end);
    assert_eq!(months[1].last_date().unwrap().to_string(), "2026-03-14");
    assert!(subscription_months(start.timestamp_micros() - 201 * 366 * 24 * HOUR, None, end).is_err());
}

#[test]
fn a_subscription_begins_and_ends_between_1970_and_ten_years_ahead() {
    let micros = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp_micros();
    let now = micros("2026-02-28T12:00:00Z");
    for at in [EARLIEST, now, micros("2036-02-28T12:00:00Z")] {
        assert_eq!(implausible(at, now), None, "{at}");
    }
    for at in [i64::MIN, micros("0001-01-01T00:00:00Z"), micros("1027-05-05T00:00:00Z"), EARLIEST - 1] {
        assert_eq!(implausible(at, now).unwrap(), "lies before 1970", "{at}");
    }
    for at in [micros("2036-02-28T12:00:00.000001Z"), micros("9999-12-31T00:00:00Z"), i64::MAX] {
        assert_eq!(implausible(at, now).unwrap(), "lies more than 10 years ahead", "{at}");
    }
}

proptest! {
    /// What passes the bounds never keeps a run busy: at most twelve months a year since 1970, and none fails.
    #[test]
    fn a_plausible_start_has_few_months(start in any::<i64>(), now in 0_i64..2_000_000_000_000_000) {
        if implausible(start, now).is_none() {
            let months = subscription_months(start, None, now).unwrap();
            prop_assert!(months.len() <= 12 * 64);
        }
    }
}
