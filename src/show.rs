//! Numbers and texts as people read them, in the terminal and on the pages. Pure.

use chrono::{DateTime, Utc};

/// A text that cannot steer a terminal: control characters and those that turn the reading direction are shown as such.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character != '\n' && is_hidden(character) { '\u{fffd}' } else { character }).collect()
}

/// A text on one line that cannot steer a terminal: what could is shown as in Rust's literals, `\u{1b}`, `\n`.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

/// Control characters, separators of lines, and what turns the reading direction.
fn is_hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// `1 row`, `2,000 rows`.
pub(crate) fn counted(count: impl TryInto<i64>, name: &str) -> String {
    let count = count.try_into().unwrap_or(i64::MAX);
    format!("{} {name}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// How long ago something was, as people say it; a day where it was long ago.
pub(crate) fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (now - then).num_seconds() {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h ago", seconds / 3_600),
        seconds @ 172_800..5_184_000 => format!("{} days ago", seconds / 86_400),
        _ => then.date_naive().to_string(),
    }
}

/// Milliseconds as seconds.
pub(crate) fn seconds(duration_ms: i64) -> String {
    format!("{}.{:01} s", duration_ms / 1_000, duration_ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
    }

    #[test]
    fn counts_and_times_read_as_people_say_them() {
        assert_eq!([0_i64, 1, 2_000].map(|count| counted(count, "row")), ["0 rows", "1 row", "2,000 rows"]);
        let now: DateTime<Utc> = "2026-03-10T12:00:00Z".parse().unwrap();
        let before = |seconds: i64| ago(now - chrono::TimeDelta::seconds(seconds), now);
        assert_eq!([0, 59, 60, 3_599].map(before), ["0 s ago", "59 s ago", "1 min ago", "59 min ago"]);
        assert_eq!([3_600, 172_799, 172_800].map(before), ["1 h ago", "47 h ago", "2 days ago"]);
        assert_eq!([5_184_000, -1].map(before), ["2026-01-09", "2026-03-10"]);
    }

    #[test]
    fn a_hostile_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2J\u{202e}b\0"), "a\u{fffd}[2J\u{fffd}b\u{fffd}");
    }
}
