//! The price book: what a model's tokens cost from when on.
//!
//! Rule: `docs/semantics.md` section 2. Prices are exact decimals; an event is rated in 128 bits and rounded half-even to
//! one nano-USD, once.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;

use crate::failure::{self, Failure};
use crate::{fingerprint, money};

/// Which cost of an event comes first (`usage.pricing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pricing {
    /// The cost logged with the event, else the price book.
    Log,
    /// The price book, else the cost logged with the event.
    PriceBook,
}

/// Prices of every model, each list sorted by when it takes effect.
#[derive(Debug, Clone, Default)]
pub struct PriceBook {
    models: BTreeMap<String, Vec<Price>>,
}

/// Nano-USD for one million tokens, in force from an instant on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    effective_from: DateTime<Utc>,
    input_nanos_per_million: i64,
    output_nanos_per_million: i64,
}

/// What an event costs, in nano-USD. `input + output = total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatedCost {
    pub input_nanos: i64,
    pub output_nanos: i64,
    pub total_nanos: i64,
}

const TOKENS_PER_PRICE: i128 = 1_000_000;

impl Price {
    /// Rates one event: the total is rounded once; the output part is what the rounded input part leaves of it.
    ///
    /// `None` when the cost does not fit 64 bits.
    #[must_use]
    pub fn rate(&self, input_tokens: i64, output_tokens: i64) -> Option<RatedCost> {
        let input = i128::from(input_tokens) * i128::from(self.input_nanos_per_million);
        let output = i128::from(output_tokens) * i128::from(self.output_nanos_per_million);
        let total_nanos = i64::try_from(money::div_half_even(input + output, TOKENS_PER_PRICE)).ok()?;
        let input_nanos = i64::try_from(money::div_half_even(input, TOKENS_PER_PRICE)).ok()?.min(total_nanos);
        Some(RatedCost { input_nanos, output_nanos: total_nanos - input_nanos, total_nanos })
    }
}

impl PriceBook {
    /// Reads `prices.toml`.
    ///
    /// # Errors
    /// Names the entry and the field: an unknown key, a price that is no exact decimal, a date that is none, two prices of one
    /// model from the same instant.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let file: PriceFile = toml::from_str(text).map_err(|error| {
            Failure::config(format!("`{path}` is not a price book: {}", failure::toml_text(text, &error))).hint(PRICE_EXAMPLE)
        })?;
        let mut models: BTreeMap<String, Vec<Price>> = BTreeMap::new();
        for (index, entry) in file.price.into_iter().enumerate() {
            let place = || format!("`{path}`, price {} (`{}`)", index + 1, entry.model);
            let price = entry.price().map_err(|error| Failure::config(format!("{}: {error:#}", place())).hint(PRICE_EXAMPLE))?;
            let prices = models.entry(entry.model.clone()).or_default();
            if prices.iter().any(|other| other.effective_from == price.effective_from) {
                return Err(Failure::config(format!("{}: a second price from {}", place(), price.effective_from))
                    .hint("keep one of the two")
                    .into());
            }
            prices.push(price);
            prices.sort_by_key(|price| price.effective_from);
        }
        Ok(Self { models })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The prices of one model, oldest first.
    #[must_use]
    pub fn prices_of(&self, model: &str) -> &[Price] {
        self.models.get(model).map_or(&[], Vec::as_slice)
    }

    /// A digest of every price in force at some instant of `[start, end)`: it changes when a rerun could cost otherwise.
    #[must_use]
    pub fn fingerprint(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        let mut in_force = Vec::new();
        for (model, prices) in &self.models {
            for (index, price) in prices.iter().enumerate() {
                let ends_before = prices.get(index + 1).is_some_and(|next| next.effective_from <= start);
                if price.effective_from < end && !ends_before {
                    let from = price.effective_from.max(start).timestamp_micros();
                    in_force.push(format!("{model:?} {from} {} {}", price.input_nanos_per_million, price.output_nanos_per_million));
                }
            }
        }
        fingerprint::of(in_force)
    }
}

/// The price in force at `occurred_at` among the prices of one model.
#[must_use]
pub fn price_at(prices: &[Price], occurred_at: DateTime<Utc>) -> Option<&Price> {
    prices.iter().rev().find(|price| price.effective_from <= occurred_at)
}

const PRICE_EXAMPLE: &str = "an entry looks like this:
  [[price]]
  model = \"gpt-4o\"
  effective_from = \"2026-01-01\"
  input_usd_per_million = \"2.50\"
  output_usd_per_million = \"10\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    #[serde(default)]
    price: Vec<PriceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceEntry {
    model: String,
    effective_from: toml::Value,
    input_usd_per_million: toml::Value,
    output_usd_per_million: toml::Value,
}

impl PriceEntry {
    fn price(&self) -> Result<Price> {
        Ok(Price {
            effective_from: instant_of(&self.effective_from)?,
            input_nanos_per_million: price_of("input_usd_per_million", &self.input_usd_per_million)?,
            output_nanos_per_million: price_of("output_usd_per_million", &self.output_usd_per_million)?,
        })
    }
}

fn price_of(key: &str, value: &toml::Value) -> Result<i64> {
    let nanos = match value {
        toml::Value::String(text) => money::parse_usd_nanos(text).with_context(|| format!("`{key}` is \"{text}\""))?,
        toml::Value::Integer(usd) => usd.checked_mul(money::NANOS_PER_USD).with_context(|| format!("`{key}` is too large"))?,
        toml::Value::Float(usd) => bail!("`{key}` = {usd} is a float, which cannot hold every price: write it in quotes"),
        other => bail!("`{key}` is a {}, not a price", other.type_str()),
    };
    if nanos < 0 {
        bail!("`{key}` is negative");
    }
    Ok(nanos)
}

fn instant_of(value: &toml::Value) -> Result<DateTime<Utc>> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Datetime(datetime) => datetime.to_string(),
        other => bail!("`effective_from` is a {}, not a date", other.type_str()),
    };
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let instant = DateTime::parse_from_rfc3339(&text)
        .with_context(|| format!("`effective_from` = \"{text}\" is neither a date nor an instant with a zone"))?;
    Ok(instant.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(text: &str) -> Result<PriceBook> {
        PriceBook::parse(text, "prices.toml")
    }

    fn instant(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const TWO_PRICES: &str = r#"
        [[price]]
        model = "m"
        effective_from = 2026-02-01
        input_usd_per_million = "2"
        output_usd_per_million = 4
        [[price]]
        model = "m"
        effective_from = "2026-01-01T00:00:00Z"
        input_usd_per_million = "0.0005"
        output_usd_per_million = "0.0015"
    "#;

    #[test]
    fn the_price_in_force_rates_the_event_exactly() {
        let book = book(TWO_PRICES).unwrap();
        let prices = book.prices_of("m");
        assert_eq!(price_at(prices, instant("2025-12-31T23:59:59.999999Z")), None);
        // 1 token at 0.0005 USD per million is half a nano: half-even gives 0, and the total 1 + 1 tokens gives 2 nanos.
        let january = price_at(prices, instant("2026-01-31T23:59:59Z")).unwrap();
        assert_eq!(january.rate(1, 0).unwrap(), RatedCost { input_nanos: 0, output_nanos: 0, total_nanos: 0 });
        assert_eq!(january.rate(3, 0).unwrap(), RatedCost { input_nanos: 2, output_nanos: 0, total_nanos: 2 });
        assert_eq!(january.rate(1, 1).unwrap(), RatedCost { input_nanos: 0, output_nanos: 2, total_nanos: 2 });
        let february = price_at(prices, instant("2026-02-01T00:00:00Z")).unwrap();
        assert_eq!(february.rate(10, 1).unwrap().total_nanos, 24_000);
        assert_eq!(february.rate(i64::MAX, i64::MAX), None);
    }

    #[test]
    fn a_new_price_changes_only_the_windows_it_is_in_force_in() {
        let old = book(TWO_PRICES).unwrap();
        let new = book(&format!(
            "{TWO_PRICES}\n[[price]]\nmodel = \"m\"\neffective_from = 2026-03-05\ninput_usd_per_million = \"9\"\noutput_usd_per_million = \"9\""
        ))
        .unwrap();
        let day = |book: &PriceBook, from: &str, to: &str| book.fingerprint(instant(from), instant(to));
        let before = ("2026-03-04T00:00:00Z", "2026-03-05T00:00:00Z");
        let after = ("2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z");
        assert_eq!(day(&old, before.0, before.1), day(&new, before.0, before.1));
        assert_ne!(day(&old, after.0, after.1), day(&new, after.0, after.1));
        // Either of the two prices counts.
        for (price, dearer) in [("per_million = \"2\"", "per_million = \"3\""), ("per_million = 4", "per_million = 5")] {
            let new = book(&TWO_PRICES.replacen(price, dearer, 1)).unwrap();
            assert_ne!(day(&old, after.0, after.1), day(&new, after.0, after.1), "{price}");
        }
    }

    #[test]
    fn a_bad_price_names_the_entry_and_the_field() {
        let entry = |from: &str, input: &str| {
            format!("[[price]]\nmodel = \"m\"\neffective_from = {from}\ninput_usd_per_million = {input}\noutput_usd_per_million = \"1\"")
        };
        for (text, expected) in [
            (entry("2026-01-01", "2.5"), "float"),
            (entry("2026-01-01", "\"two\""), "not a decimal number"),
            (entry("2026-01-01", "\"-1\""), "negative"),
            (entry("\"soon\"", "\"1\""), "neither a date"),
        ] {
            let error = format!("{:#}", book(&text).unwrap_err());
            assert!(error.contains("price 1 (`m`)") && error.contains(expected), "{error}");
        }
        assert!(book("[[prices]]").is_err());
    }
}
