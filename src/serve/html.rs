//! Pieces of HTML that several pages share: instants, numbers, links, texts that strangers wrote.

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};
use serde_json::value::RawValue;

use crate::money::format_usd;
pub(super) use crate::show::{grouped, printable};

/// An instant to the second, UTC, with all its digits in an attribute for programs.
pub(super) fn instant(at: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(at.to_rfc3339_opts(SecondsFormat::Micros, true)) title=(at.to_rfc3339_opts(SecondsFormat::Micros, true)) {
            (at.format("%Y-%m-%d %H:%M:%S"))
        }
    }
}

/// An instant, or a dash.
pub(super) fn opt_instant(at: Option<DateTime<Utc>>) -> Markup {
    at.map_or_else(none, instant)
}

/// What stands where there is nothing.
pub(super) fn none() -> Markup {
    html! { span class="soft" { "-" } }
}

/// A text that somebody else wrote: escaped, with no effect on the direction of the text around it, and no invisible characters.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

pub(super) fn opt_text(value: Option<&str>) -> Markup {
    value.map_or_else(none, text)
}

/// Letters of a name that a table shows; its title has the whole name.
const NAME_CHARS: usize = 48;

/// A name in a table.
pub(super) fn name(full: &str) -> Markup {
    if full.chars().count() <= NAME_CHARS {
        return text(full);
    }
    html! { bdi title=(cut(full, 1_000)) { (cut(full, NAME_CHARS)) } }
}

/// The first characters of a text.
pub(super) fn cut(text: &str, chars: usize) -> String {
    let mut shown: String = printable(text).chars().take(chars).collect();
    if text.chars().count() > chars {
        shown.push('…');
    }
    shown
}

/// The beginning of a text that somebody sent, for a message.
pub(super) fn shortened(text: &str) -> String {
    cut(text, 60)
}

/// Milliseconds as people say them.
pub(super) fn duration(ms: i64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        ..1 => format!("{ms} ms"),
        1..60 => crate::show::seconds(ms),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Percent-encodes a text for a query, except for the characters that are safe everywhere.
pub(super) fn encode(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A job's name, linked to its runs.
pub(super) fn job_link(job: &str) -> Markup {
    html! { a href={ "/runs?job=" (encode(job)) } { (cut(job, NAME_CHARS)) } }
}

/// A run, linked to its page.
pub(super) fn run_link(run_id: &str) -> Markup {
    linked("/runs/", run_id, &html! { code { (cut(run_id, NAME_CHARS)) } })
}

/// The longest address, in bytes, that servers on the way accept.
const ADDRESS_MAX: usize = 8_000;

/// A link to the page of a name below a path. There is no link if the address would be too long, or if a browser would read the name
/// as a folder.
pub(super) fn linked(path: &str, name: &str, content: &Markup) -> Markup {
    let address = format!("{path}{}", encode(name));
    let is_address = address.len() <= ADDRESS_MAX && !["", ".", ".."].contains(&name);
    html! { @if is_address { a href=(address) { (content) } } @else { (content) } }
}

/// Dollars for a person: two digits after the point, four below a dollar; unknown is not 0.
pub(super) fn usd(nanos: Option<i128>) -> String {
    let Some(nanos) = nanos else { return "unknown".to_owned() };
    let places = if nanos == 0 || nanos.abs() >= i128::from(crate::money::NANOS_PER_USD) { 2 } else { 4 };
    let text = format_usd(nanos, places);
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let sign = if whole.starts_with('-') { "-" } else { "" };
    let whole = whole.trim_start_matches('-').parse::<i64>().map_or_else(|_| whole.trim_start_matches('-').to_owned(), grouped);
    format!("{sign}${whole}.{part}")
}

/// Dollars for a program: a number with all its places.
pub(super) fn usd_json(nanos: Option<i128>) -> Option<Box<RawValue>> {
    nanos.and_then(|nanos| RawValue::from_string(format_usd(nanos, 9)).ok())
}

/// A count, or a dash where it is not known.
pub(super) fn opt_number(number: Option<i64>) -> Markup {
    number.map_or_else(none, |number| html! { (grouped(number)) })
}

/// One figure of a page with its name.
pub(super) fn figure(label: &str, value: &Markup) -> Markup {
    html! { div { dt { (label) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_have_the_digits_that_matter() {
        assert_eq!(usd(Some(1_234_567_890_000_000)), "$1,234,567.89");
        assert_eq!(usd(Some(-12_345_678)), "-$0.0123");
        assert_eq!(usd(Some(0)), "$0.00");
        assert_eq!(usd(None), "unknown");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let shown: Vec<String> = [999, 1_500, 61_000, 3_660_000, 90_000_000].into_iter().map(duration).collect();
        assert_eq!(shown, ["999 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
