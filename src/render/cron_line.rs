//! A cron line as sets of numbers, and back as text that cron(8), cronie and Kubernetes all read alike.
//!
//! They differ in the details: Kubernetes has no weekday 7, cronie takes `*/2` for a star where a day is given twice, names have
//! rules of their own. Numbers, lists, ranges and steps are common ground.

use croner::Cron;

/// The values of the five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronLine {
    pub minutes: Vec<u16>,
    pub hours: Vec<u16>,
    pub days: Vec<u16>,
    pub months: Vec<u16>,
    /// 0 is Sunday.
    pub weekdays: Vec<u16>,
    pub is_any_day: bool,
    pub is_any_weekday: bool,
    /// Day and weekday must both hold; cron's rule is that either does.
    pub needs_both: bool,
}

impl CronLine {
    /// Reads what croner parsed.
    ///
    /// # Errors
    /// What stands in the line that only croner knows.
    pub fn of(cron: &Cron) -> Result<Self, String> {
        let pattern = &cron.pattern;
        if pattern.days.has_modifiers() || pattern.days_of_week.has_modifiers() {
            return Err("holds `L`, `W` or `#`, which this scheduler does not know".to_owned());
        }
        let line = Self {
            minutes: pattern.minutes.values(),
            hours: pattern.hours.values(),
            days: pattern.days.values(),
            months: pattern.months.values(),
            weekdays: pattern.days_of_week.values(),
            is_any_day: pattern.is_dom_wildcard(),
            is_any_weekday: pattern.is_dow_wildcard(),
            needs_both: pattern.matches_dom_and_dow() && !pattern.is_dom_wildcard() && !pattern.is_dow_wildcard(),
        };
        if [&line.minutes, &line.hours, &line.days, &line.months, &line.weekdays].iter().any(|values| values.is_empty()) {
            return Err("has a field without a value, so it never comes".to_owned());
        }
        Ok(line)
    }

    /// The five fields.
    ///
    /// # Errors
    /// When day and weekday must both hold, which no cron but croner can say.
    pub fn to_text(&self) -> Result<String, String> {
        if self.needs_both {
            return Err("wants day and weekday at once (`+`), which cron cannot say".to_owned());
        }
        let starred = |values: &[u16], first: u16, last: u16| {
            if values.len() == usize::from(last - first) + 1 { "*".to_owned() } else { field(values, Some((first, last))) }
        };
        Ok([
            starred(&self.minutes, 0, 59),
            starred(&self.hours, 0, 23),
            if self.is_any_day { "*".to_owned() } else { field(&self.days, None) },
            starred(&self.months, 1, 12),
            if self.is_any_weekday { "*".to_owned() } else { field(&self.weekdays, None) },
        ]
        .join(" "))
    }
}

/// `0,30`, `9-17`, `*/15`: the star only where `whole` allows one.
fn field(values: &[u16], whole: Option<(u16, u16)>) -> String {
    match (stepped(values), whole) {
        (Some((first, last, step)), Some((from, to))) if first == from && last + step > to => format!("*/{step}"),
        (Some((first, last, step)), _) => format!("{first}-{last}/{step}"),
        (None, _) => {
            let part = |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
            runs(values).into_iter().map(part).collect::<Vec<_>>().join(",")
        }
    }
}

/// First, last and step of three or more values that lie equally far apart, more than one.
pub(super) fn stepped(values: &[u16]) -> Option<(u16, u16, u16)> {
    let [first, second, .., last] = *values else { return None };
    let step = second - first;
    (values.len() > 2 && step > 1 && values.windows(2).all(|pair| pair[1] - pair[0] == step)).then_some((first, last, step))
}

/// Ascending values as ranges; two neighbours stay single.
pub(super) fn runs(values: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &value in values {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == value => run.1 = value,
            _ => runs.push((value, value)),
        }
    }
    let split = |(first, last): (u16, u16)| if last == first + 1 { vec![(first, first), (last, last)] } else { vec![(first, last)] };
    runs.into_iter().flat_map(split).collect()
}
