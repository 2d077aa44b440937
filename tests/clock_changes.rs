//! Schedules around the clock changes of twenty zones: each civil slot once.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use tallyroll::scheduler::slot::{Fate, Known, decide};

use crate::support::schedules::{instant, schedules};

/// Zones whose clocks change in 2026, by an hour or half of one, at midnight, 1, 2 or 3 o'clock, south and north.
const ZONES: [&str; 20] = [
    "Europe/London",
    "Europe/Paris",
    "Europe/Helsinki",
    "Europe/Lisbon",
    "Atlantic/Azores",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Asuncion",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Jerusalem",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
];

/// The days of 2026 and 2027 on which a zone's clock changes.
fn changes(zone: Tz) -> Vec<NaiveDate> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let start = instant("2026-01-01T00:00:00Z");
    (0..2 * 365 * 24)
        .map(|hour| start + TimeDelta::hours(hour))
        .filter(|at| offset(*at) != offset(*at + TimeDelta::hours(1)))
        .map(|at| (at + TimeDelta::hours(1)).with_timezone(&zone).date_naive())
        .collect()
}

#[test]
fn every_civil_slot_around_a_clock_change_runs_exactly_once() {
    let mut change_count = 0;
    for name in ZONES {
        let zone: Tz = name.parse().unwrap();
        let days = changes(zone);
        assert!(days.len() >= 2 || name == "America/Asuncion", "{name} {days:?}");
        change_count += days.len();
        for day in days {
            for time in ["0 0", "15 0", "30 0", "0 1", "30 1", "45 1", "0 2", "15 2", "30 2", "0 3", "30 3", "0 12"] {
                let schedules = schedules(&format!("cron = \"{time} * * *\"\ntimezone = \"{name}\"\njitter = \"40s\"\ncatch_up = \"all\""));
                let schedule = &schedules["usage_daily"];
                let start = Utc.from_utc_datetime(&(day - chrono::Days::new(3)).and_hms_opt(12, 0, 0).unwrap());
                let mut known = Known { latest: Some(start), ..Known::default() };
                let mut ran: BTreeMap<NaiveDate, usize> = BTreeMap::new();
                // A tick every 47 minutes for six days.
                for step in 0..6 * 24 * 60 / 47 {
                    let now = start + TimeDelta::minutes(47 * step);
                    for (slot, fate) in decide("usage_daily", schedule, &known, now).slots {
                        assert_eq!(fate, Fate::Run);
                        known.latest = Some(slot);
                        *ran.entry(slot.with_timezone(&zone).date_naive()).or_default() += 1;
                    }
                }
                // The days that lie whole between the ends.
                for offset in 0..=3 {
                    let date = day - chrono::Days::new(1) + chrono::Days::new(offset);
                    assert_eq!(ran.get(&date), Some(&1), "{name}, `{time}`, {date}: {ran:?}");
                }
            }
        }
    }
    assert!(change_count >= 70, "{change_count}");
}

#[test]
fn a_line_that_fires_every_so_often_fires_as_often_as_time_passes() {
    let schedules = schedules("cron = \"*/15 * * * *\"\ntimezone = \"America/New_York\"");
    let slots = schedules["usage_daily"].slots(instant("2026-11-01T04:00:00Z"), instant("2026-11-01T08:00:00Z"));
    assert_eq!(slots.len(), 16);
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(15)), "{slots:?}");
}
