//! What is wrong with the value of a setting, as a person would say it.

use crate::failure::did_you_mean;

/// Settings whose value is one of few words.
const CHOICES: [(&str, &[&str]); 4] = [
    ("log.format", &["text", "json"]),
    ("usage.change_tracking", &["ingest", "lookback"]),
    ("usage.failed", &["bill", "free"]),
    ("usage.pricing", &["log", "price_book"]),
];

/// What the parser says of the value of `key`, in place of its own names for types and variants.
pub(super) fn in_words(key: &str, said: String) -> String {
    if let Some((_, words)) = CHOICES.iter().find(|(name, _)| *name == key) {
        return format!("`{key}` is one of `{}`", words.join("`, `"));
    }
    match said.split_once("failed to parse timezone: '").and_then(|(_, rest)| rest.split_once('\'')) {
        Some((zone, _)) => {
            let nearest = did_you_mean(zone, chrono_tz::TZ_VARIANTS.iter().map(|known| known.name()));
            format!("`{key}`: there is no time zone `{zone}`{nearest}")
        }
        None => said,
    }
}
