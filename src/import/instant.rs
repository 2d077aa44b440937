//! Instants as files write them: with a zone, or in UTC. Pure.

use anyhow::{Result, bail};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SubsecRound, Timelike, Utc};

/// Reads an instant; digits past the microsecond are cut, never rounded, so that no event moves to the next day.
///
/// Takes RFC 3339, the same with a space for the `T`, without seconds or without a zone (then UTC), a day (its first instant, UTC), and
/// seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their digits (2001 to 2286).
///
/// # Errors
/// For anything else.
pub fn parse_instant(text: &str) -> Result<DateTime<Utc>> {
    let text = text.trim();
    let with_zone =
        ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];
    let without_zone = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let plain = text.strip_suffix("UTC").map_or(text, str::trim_end);
    let instant = DateTime::parse_from_rfc3339(text)
        .ok()
        .or_else(|| with_zone.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()))
        .map(|instant| instant.with_timezone(&Utc))
        .or_else(|| without_zone.iter().find_map(|format| NaiveDateTime::parse_from_str(plain, format).ok()).map(|local| local.and_utc()))
        .or_else(|| Some(text.parse::<NaiveDate>().ok()?.and_time(chrono::NaiveTime::MIN).and_utc()))
        .or_else(|| since_1970(text));
    match instant {
        Some(instant) if instant.nanosecond() >= 1_000_000_000 => bail!("a second 60, which no calendar of a database has"),
        Some(instant) => Ok(instant.trunc_subsecs(6)),
        None => bail!("not an instant: write it as `2026-03-01T12:00:00.123456Z`"),
    }
}

fn since_1970(text: &str) -> Option<DateTime<Utc>> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if ![10, 13, 16, 19].contains(&whole.len())
        || !are_digits(whole)
        || !are_digits(places)
        || text.ends_with('.')
        || whole.starts_with('0')
    {
        return None;
    }
    // To the microsecond, past which digits are cut.
    let digits: String = format!("{whole}{places}").chars().chain("000000".chars()).take(16).collect();
    DateTime::from_timestamp_micros(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format_instant;

    #[test]
    fn instants_are_read_in_the_forms_that_files_use() {
        for (text, expected) in [
            ("2023-11-16 18:17:03.9799600", "2023-11-16T18:17:03.979960Z"),
            ("2023-11-16 23:59:59.9999999", "2023-11-16T23:59:59.999999Z"),
            ("2023-11-16T18:17:03Z", "2023-11-16T18:17:03.000000Z"),
            ("2023-11-16T18:17:03+05:45", "2023-11-16T12:32:03.000000Z"),
            ("2023-11-16 18:17:03+00", "2023-11-16T18:17:03.000000Z"),
            ("2023-11-16 18:17:03.5 UTC", "2023-11-16T18:17:03.500000Z"),
            ("2023-11-16", "2023-11-16T00:00:00.000000Z"),
            ("2026-07-10 09:00", "2026-07-10T09:00:00.000000Z"),
            ("2026-07-10T09:00+02:00", "2026-07-10T07:00:00.000000Z"),
            ("1700158623", "2023-11-16T18:17:03.000000Z"),
            ("1700158623.97996049", "2023-11-16T18:17:03.979960Z"),
            ("1700158623979", "2023-11-16T18:17:03.979000Z"),
            ("1700158623979.96", "2023-11-16T18:17:03.979960Z"),
            ("1700158623979960", "2023-11-16T18:17:03.979960Z"),
            ("1700158623979960999", "2023-11-16T18:17:03.979960Z"),
        ] {
            assert_eq!(format_instant(parse_instant(text).unwrap()), expected, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2023-13-01",
            "2023-11-16 25:00:00",
            "16/11/2023",
            "20231116",
            "170015862397",
            "-1700158623",
            "0700158623",
            "1700158623.",
            "1700158623.5.5",
            "1.700158623e9",
            "2016-12-31T23:59:60Z",
            "2016-12-31 23:59:60.5",
        ] {
            assert!(parse_instant(text).is_err(), "{text}");
        }
    }
}
