//! What a request asks for: its query and its path, as untrusted text.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Query as Pairs};
use axum::http::request::Parts;
use chrono::{Datelike, NaiveDate};

use super::html::shortened;
use super::problem::Problem;

/// The query of a request, by name. Of a name that comes twice, the last value counts.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

/// Most characters of a value: longer than any name that someone would search for.
const VALUE_CHARS_MAX: usize = 2_000;

impl Query {
    /// The value of a name. An empty one counts as none: that is how a form sends a field that was left out.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A calendar day.
    pub(super) fn day(&self, name: &str) -> Result<Option<NaiveDate>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // Databases and forms have four digits for a year.
        let day = text.parse::<NaiveDate>().ok().filter(|day| text.len() == 10 && (1..=9998).contains(&day.year()));
        day.map(Some)
            .ok_or_else(|| Problem::bad_request(format!("`{name}` is no day: `{}`", shortened(text))).hint("write a day as 2026-03-31"))
    }

    /// A whole number in a range, or its default.
    pub(super) fn number(&self, name: &str, within: std::ops::RangeInclusive<u64>, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse::<u64>().ok().filter(|number| within.contains(number));
        number.ok_or_else(|| {
            Problem::bad_request(format!("`{name}` is `{}`", shortened(text))).hint(format!(
                "it is a whole number from {} to {}",
                within.start(),
                within.end()
            ))
        })
    }

    /// One of several words, or the first.
    pub(super) fn word<'a>(&self, name: &str, words: &[&'a str]) -> Result<&'a str, Problem> {
        let Some(text) = self.text(name) else { return Ok(words.first().copied().unwrap_or_default()) };
        words.iter().find(|word| **word == text).copied().ok_or_else(|| {
            Problem::bad_request(format!("`{name}` is `{}`", shortened(text))).hint(format!("it is one of {}", words.join(", ")))
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| Problem::bad_request("The part of the address after `?` cannot be read"))?;
        for (name, value) in &pairs {
            if value.contains('\0') {
                return Err(Problem::bad_request(format!("`{}` holds a NUL character", shortened(name))));
            }
            if value.chars().count() > VALUE_CHARS_MAX {
                return Err(Problem::bad_request(format!("`{}` has more than {VALUE_CHARS_MAX} characters", shortened(name))));
            }
        }
        Ok(Self(pairs.into_iter().collect()))
    }
}

/// The one part of a path that names something, percent-decoded.
#[derive(Debug)]
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::bad_request("The address is not percent-encoded UTF-8"))?;
        Ok(Self(name))
    }
}
