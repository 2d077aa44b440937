//! Lines of cron against croner, over whole years, and names that do not fit.

use std::collections::BTreeSet;
use std::fs;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};
use croner::Cron;
use proptest::prelude::*;

use super::cron_line::CronLine;
use super::*;
use crate::failure;
use crate::jobs::Jobs;
use crate::project::Project;
use crate::schedule;

const LINES: [&str; 26] = [
    "*/15 * * * *",
    "0 0 * * *",
    "20 3 * * *",
    "59 23 31 12 *",
    "0,30 9-17 * * 1-5",
    "0 */2 * * *",
    "5-50/15 1,2,3,22 * * *",
    "0 12 * * MON",
    "0 12 * * sun",
    "0 12 * * 7",
    "0 12 * * 0,6",
    "0 12 * * 5-7",
    "0 12 * * FRI,MON-TUE",
    "0 12 * JAN,MAR-MAY *",
    "0 12 * */3 *",
    "0 12 1 * *",
    "0 12 1,15 * *",
    "0 12 29 2 *",
    "0 12 31 * *",
    "0 12 13 * FRI",
    "0 12 */2 * MON",
    "0 12 1-7 * */2",
    "0 12 */1 * MON",
    "0 12 13 * +FRI",
    "7 4 1-31 * 0-6",
    "0 0 ? * WED",
];

fn parsed(text: &str) -> Cron {
    croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Disallowed).build().parse(text).unwrap()
}

/// The year has a 29 February and no change of clocks.
fn year() -> (DateTime<Utc>, DateTime<Utc>) {
    ("2028-01-01T00:00:00Z".parse().unwrap(), "2029-01-01T00:00:00Z".parse().unwrap())
}

fn croner_fires(cron: &Cron) -> Vec<DateTime<Utc>> {
    let (start, end) = year();
    cron.iter_after(start - TimeDelta::seconds(1)).take_while(|fire| *fire < end).collect()
}

/// A second reading of systemd.time(7), as far as this module writes it.
struct Calendar {
    weekdays: BTreeSet<u32>,
    months: BTreeSet<u32>,
    days: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    minutes: BTreeSet<u32>,
}

impl Calendar {
    fn read(expression: &str) -> Self {
        let mut words: Vec<&str> = expression.split(' ').collect();
        assert_eq!(words.pop(), Some("UTC"));
        let names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let position = |name: &str| u32::try_from(names.iter().position(|known| *known == name).unwrap()).unwrap();
        let weekdays = if words.len() == 3 {
            let part = |part: &str| match part.split_once("..") {
                Some((first, last)) => position(first)..=position(last),
                None => position(part)..=position(part),
            };
            words.remove(0).split(',').flat_map(part).collect()
        } else {
            (0..7).collect()
        };
        let [date, time] = words[..] else { panic!("{expression}") };
        let [year, months, days] = date.split('-').collect::<Vec<_>>()[..] else { panic!("{expression}") };
        let [hours, minutes, seconds] = time.split(':').collect::<Vec<_>>()[..] else { panic!("{expression}") };
        assert_eq!((year, seconds), ("*", "00"));
        let set = |text, last| text_set(text, last);
        Self { weekdays, months: set(months, 12), days: set(days, 31), hours: set(hours, 23), minutes: set(minutes, 59) }
    }

    fn holds(&self, at: NaiveDateTime) -> bool {
        self.weekdays.contains(&at.weekday().num_days_from_monday())
            && self.months.contains(&at.month())
            && self.days.contains(&at.day())
            && self.hours.contains(&at.hour())
            && self.minutes.contains(&at.minute())
    }
}

fn text_set(text: &str, last: u32) -> BTreeSet<u32> {
    let part = |part: &str| -> Vec<u32> {
        if part == "*" {
            return (0..=last).collect();
        }
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step.parse::<usize>().unwrap())));
        let (first, end) = match range.split_once("..") {
            Some((first, end)) => (first.parse().unwrap(), end.parse().unwrap()),
            None => (range.parse::<u32>().unwrap(), if step.is_some() { last } else { range.parse().unwrap() }),
        };
        (first..=end).step_by(step.unwrap_or(1)).collect()
    };
    text.split(',').flat_map(part).collect()
}

fn calendar_fires(expressions: &[String]) -> Vec<DateTime<Utc>> {
    let calendars: Vec<Calendar> = expressions.iter().map(|expression| Calendar::read(expression)).collect();
    let mut fires = Vec::new();
    let mut day = NaiveDate::from_ymd_opt(2028, 1, 1).unwrap();
    while day.year() == 2028 {
        for minute in 0..1_440 {
            let at = day.and_hms_opt(minute / 60, minute % 60, 0).unwrap();
            if calendars.iter().any(|calendar| calendar.holds(at)) {
                fires.push(at.and_utc());
            }
        }
        day = day.succ_opt().unwrap();
    }
    fires
}

/// Everything that is said of a line, in every scheduler's words, comes at the same instants.
fn assert_same_fires(text: &str) {
    let cron = parsed(text);
    let line = CronLine::of(&cron).unwrap();
    let expected = croner_fires(&cron);
    assert!(!expected.is_empty(), "{text}");
    let expressions = on_calendar::expressions(&line, "UTC");
    assert!(calendar_fires(&expressions) == expected, "{text}: {expressions:?}");
    if let Ok(plain) = line.to_text() {
        assert!(croner_fires(&parsed(&plain)) == expected, "{text}: {plain}");
        // What begins with a star and is more than one, cronie and Kubernetes do not read alike in these two fields.
        let fields: Vec<&str> = plain.split(' ').collect();
        for field in [fields[2], fields[4]] {
            assert!(field == "*" || !field.contains('*'), "{text}: {plain}");
        }
        assert!(plain.chars().all(|character| character.is_ascii_digit() || " *,-/".contains(character)), "{plain}");
        assert!(!fields[4].contains('7'), "{text}: {plain}");
    } else {
        assert!(text.contains('+'), "{text}");
    }
}

#[test]
fn a_year_of_fires_is_the_same_in_every_scheduler_s_words() {
    for text in LINES {
        assert_same_fires(text);
    }
}

#[test]
fn lines_read_well() {
    for (text, plain, expressions) in [
        ("*/15 * * * *", "*/15 * * * *", &["*-*-* *:00/15:00 UTC"][..]),
        ("20 3 * * *", "20 3 * * *", &["*-*-* 03:20:00 UTC"]),
        ("0 9-17 * * MON-FRI", "0 9-17 * * 1-5", &["Mon..Fri *-*-* 09..17:00:00 UTC"]),
        ("0 0 * * 5-7", "0 0 * * 0,5,6", &["Fri..Sun *-*-* 00:00:00 UTC"]),
        ("0 0 13 * FRI", "0 0 13 * 5", &["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
        ("0 0 */2 1-12/3 MON", "0 0 1-31/2 */3 1", &["*-01/3-01/2 00:00:00 UTC", "Mon *-01/3-* 00:00:00 UTC"]),
    ] {
        let line = CronLine::of(&parsed(text)).unwrap();
        assert_eq!(line.to_text().unwrap(), plain);
        assert_eq!(on_calendar::expressions(&line, "UTC"), expressions);
    }
}

prop_compose! {
    fn field(first: u16, last: u16)(kind in 0..4, a in first..=last, b in first..=last, step in 1..=last) -> String {
        let (low, high) = (a.min(b), a.max(b));
        match kind {
            0 => "*".to_owned(),
            1 => format!("*/{step}"),
            2 => format!("{a},{b}"),
            _ => format!("{low}-{high}/{step}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_line_comes_at_the_same_instants(minute in 0..60_u16, hours in field(0, 23), days in field(1, 28), months in field(1, 12), weekdays in field(0, 7)) {
        assert_same_fires(&format!("{minute} {hours} {days} {months} {weekdays}"));
    }

    #[test]
    fn any_minutes_and_hours_are_the_same_sets(minutes in field(0, 59), hours in field(0, 23)) {
        let line = CronLine::of(&parsed(&format!("{minutes} {hours} * * *"))).unwrap();
        let calendar = Calendar::read(&on_calendar::expressions(&line, "UTC")[0]);
        prop_assert_eq!(calendar.minutes, line.minutes.iter().map(|minute| u32::from(*minute)).collect());
        prop_assert_eq!(calendar.hours, line.hours.iter().map(|hour| u32::from(*hour)).collect());
        prop_assert_eq!(CronLine::of(&parsed(&line.to_text().unwrap())).unwrap(), line);
    }
}

fn planned_of(text: &str) -> Result<Vec<Planned>> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("schedules.toml"), text).unwrap();
    let project = Project::new(dir.path());
    let (schedules, problems) = schedule::read(&project, &Jobs::load(&project).unwrap()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    planned(&schedules)
}

#[test]
fn what_cannot_be_said_exactly_is_refused_with_every_name() {
    let error =
        planned_of("[usage_daily]\ncron = \"0 0 L * *\"\n[peak_seats]\ncron = \"0 0 * * 1#2\"\n[reconcile]\ncron = \"0 0 15W * *\"\n")
            .unwrap_err();
    for job in ["[usage_daily]", "[peak_seats]", "[reconcile]"] {
        assert!(error.to_string().contains(job), "{error}");
    }
    assert_eq!(failure::exit_code(&error), 78);
    assert_eq!(failure::exit_code(&planned_of("").unwrap_err()), 78);
    let both = planned_of("[usage_daily]\ncron = \"0 0 13 * +FRI\"\n").unwrap();
    let options = crontab::Options { project: "/srv/usage".to_owned(), user: None };
    assert_eq!(failure::exit_code(&crontab::render(&both, &options).unwrap_err()), 78);
    let units = systemd::units(&both, &systemd::Options { binary: "/bin/tallyroll".to_owned(), project: "/srv".to_owned() }).unwrap();
    assert!(units[1].text.contains("OnCalendar=Fri *-*-13 00:00:00 UTC\n"), "{}", units[1].text);
}

#[test]
fn settings_reach_the_units() {
    let text = "[usage_daily]\ncron = \"*/15 * * * *\"\ntimezone = \"Europe/Paris\"\ndownstream = true\njitter = \"30s\"\ntimeout = \"10m\"\n\
                retries = { max = 3, backoff = \"10s\" }\noverlap = \"queue\"\ncatch_up = \"none\"\n";
    let options = systemd::Options { binary: "/opt/tally roll".to_owned(), project: "/srv/50% of $HOME".to_owned() };
    let units = systemd::units(&planned_of(text).unwrap(), &options).unwrap();
    for expected in [
        "ExecStart=\"/opt/tally roll\" --project \"/srv/50%% of $$HOME\" run-job usage_daily --downstream --lock-wait 600\n",
        "TimeoutStartSec=1200\n",
        "RestartSec=10\n",
        // Four attempts of 1,210 s; the timer starts eight in that time, and three more are retries.
        "StartLimitIntervalSec=4840\nStartLimitBurst=11\n",
    ] {
        assert!(units[0].text.contains(expected), "{expected}{}", units[0].text);
    }
    for expected in ["OnCalendar=*-*-* *:00/15:00 Europe/Paris\n", "Persistent=no\n", "RandomizedDelaySec=30\n"] {
        assert!(units[1].text.contains(expected), "{expected}{}", units[1].text);
    }
    let relative = systemd::Options { binary: "tallyroll".to_owned(), project: "/srv".to_owned() };
    assert!(systemd::units(&planned_of(text).unwrap(), &relative).is_err());
}
