//! A cron line as systemd's calendar expressions (systemd.time(7)).
//!
//! cron starts a job when the day of the month or the weekday fits, if both are given; systemd wants both. So such a line becomes
//! two expressions, and a timer elapses at either.

use super::cron_line::{CronLine, runs, stepped};

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The expressions of a line, in a zone; a timer has one `OnCalendar=` for each.
#[must_use]
pub fn expressions(line: &CronLine, timezone: &str) -> Vec<String> {
    let months = component(&line.months, 1, 12);
    let time = format!("{}:{}:00 {timezone}", component(&line.hours, 0, 23), component(&line.minutes, 0, 59));
    let by_day = format!("*-{months}-{} {time}", component(&line.days, 1, 31));
    let by_weekday = format!("{} *-{months}-* {time}", weekdays(&line.weekdays));
    match (line.is_any_day, line.is_any_weekday) {
        (_, true) => vec![by_day],
        (true, false) => vec![by_weekday],
        (false, false) if line.needs_both => vec![format!("{} {by_day}", weekdays(&line.weekdays))],
        (false, false) => vec![by_day, by_weekday],
    }
}

fn component(values: &[u16], first: u16, last: u16) -> String {
    if values.len() == usize::from(last - first) + 1 {
        return "*".to_owned();
    }
    match stepped(values) {
        // Without an end, systemd repeats up to the largest value that the component has.
        Some((from, to, step)) if to + step > last => format!("{from:02}/{step}"),
        Some((from, to, step)) => format!("{from:02}..{to:02}/{step}"),
        None => {
            let part = |(from, to): (u16, u16)| if from == to { format!("{from:02}") } else { format!("{from:02}..{to:02}") };
            runs(values).into_iter().map(part).collect::<Vec<_>>().join(",")
        }
    }
}

/// systemd's week begins on Monday, cron's on Sunday.
fn weekdays(values: &[u16]) -> String {
    let mut from_monday: Vec<u16> = values.iter().map(|day| (day + 6) % 7).collect();
    from_monday.sort_unstable();
    let name = |day: u16| WEEKDAYS[usize::from(day)];
    let part = |(first, last): (u16, u16)| if first == last { name(first).to_owned() } else { format!("{}..{}", name(first), name(last)) };
    runs(&from_monday).into_iter().map(part).collect::<Vec<_>>().join(",")
}
