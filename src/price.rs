//! The price book: what a model's tokens cost from when on.
//!
//! Rule: `docs/semantics.md` section 2. Prices are exact decimals; an event is rated in 128 bits and rounded half-even to
//! one nano-USD, once.

pub mod book;
pub mod file;
mod fingerprint;
pub mod litellm;

#[cfg(test)]
mod tests;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::money;

/// Which cost of an event comes first (`usage.pricing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pricing {
    /// The cost logged with the event, else the price book.
    Log,
    /// The price book, else the cost logged with the event.
    PriceBook,
}

/// Whether failed requests cost (`usage.failed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedRequests {
    /// As any other.
    Bill,
    /// Nothing, whatever was logged with them.
    Free,
}

/// An event's cost in nano-USD, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub total: Option<i64>,
}

impl Cost {
    pub const NOTHING: Self = Self { input: Some(0), output: Some(0), total: Some(0) };
}

/// What decides an event's cost beside the event and the prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostRules {
    pub pricing: Pricing,
    pub failed: FailedRequests,
}

impl CostRules {
    /// What an event costs, of the cost logged with it and the one that the price book gives.
    ///
    /// # Errors
    /// What rating it fails with; it is rated only where that counts.
    pub fn cost<E>(self, has_failed: bool, logged: Cost, rate: impl FnOnce() -> Result<Option<Cost>, E>) -> Result<Cost, E> {
        if has_failed && self.failed == FailedRequests::Free {
            return Ok(Cost::NOTHING);
        }
        if self.pricing == Pricing::Log && logged.total.is_some() {
            return Ok(logged);
        }
        Ok(rate()?.unwrap_or(logged))
    }
}

/// An event's tokens. They nest: cached and written ones are part of the input, reasoning of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    pub input: i64,
    pub cached_input: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
}

impl Tokens {
    /// Whether a price can be put on them: of an event that logged a total alone nobody knows what was in and what out.
    #[must_use]
    pub fn can_be_rated(&self, total: Option<i64>) -> bool {
        self.input != 0 || self.output != 0 || total.unwrap_or(0) == 0
    }
}

/// Nano-USD for one million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rates {
    pub input: i64,
    pub cached_input: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
}

const TOKENS_PER_PRICE: i128 = 1_000_000;

impl Rates {
    /// Where every token of the input costs the same, and every one of the output.
    #[must_use]
    pub const fn plain(input: i64, output: i64) -> Self {
        Self { input, cached_input: input, cache_write: input, output, reasoning: output }
    }

    /// Rates one event: the total is rounded once; the output part is what the rounded input part leaves of it.
    ///
    /// `None` when the cost does not fit 64 bits. The tokens must nest.
    #[must_use]
    pub fn rate(&self, tokens: &Tokens) -> Option<Cost> {
        let of = |tokens: i64, rate: i64| i128::from(tokens) * i128::from(rate);
        let plain_input = tokens.input.checked_sub(tokens.cached_input)?.checked_sub(tokens.cache_write)?;
        let plain_output = tokens.output.checked_sub(tokens.reasoning)?;
        let input = of(plain_input, self.input) + of(tokens.cached_input, self.cached_input) + of(tokens.cache_write, self.cache_write);
        let output = of(plain_output, self.output) + of(tokens.reasoning, self.reasoning);
        let total_nanos = i64::try_from(money::div_half_even(input + output, TOKENS_PER_PRICE)).ok()?;
        let input_nanos = i64::try_from(money::div_half_even(input, TOKENS_PER_PRICE)).ok()?.min(total_nanos);
        Some(Cost { input: Some(input_nanos), output: Some(total_nanos - input_nanos), total: Some(total_nanos) })
    }
}

/// What a price is of. Of two that are of an event, the one that says more counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PriceKey {
    /// A model's whole name, or how names begin and a `*`; `provider/model` for one of a provider.
    pub model: String,
    pub service_tier: Option<String>,
    /// Events of more input tokens than that, whole.
    pub above_input_tokens: Option<i64>,
}

impl PriceKey {
    /// Whether it is of all events of a model, of whatever provider, tier and size.
    #[must_use]
    pub fn is_of_every(&self, model: &str) -> bool {
        self.service_tier.is_none() && self.above_input_tokens.is_none() && named(&self.model, model).is_some()
    }
}

impl fmt::Display for PriceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`", self.model)?;
        if let Some(tier) = &self.service_tier {
            write!(formatter, ", tier `{tier}`")?;
        }
        match self.above_input_tokens {
            Some(above) => write!(formatter, ", above {above} input tokens"),
            None => Ok(()),
        }
    }
}

/// The tier of an event that names none, and what providers call it beside.
const STANDARD: &str = "standard";
const ALSO_STANDARD: [&str; 4] = ["", "auto", "default", "on_demand"];

/// A tier by its one name.
fn tier_of(text: &str) -> String {
    let tier = text.trim().to_ascii_lowercase();
    if ALSO_STANDARD.contains(&tier.as_str()) { STANDARD.to_owned() } else { tier }
}

/// How much a price says: characters of the model's name (all that there can be, where it is the whole name), whether it names the
/// provider, whether the tier, and the size.
type Specificity = (usize, bool, bool, Option<i64>);

impl PriceKey {
    /// How much a price says of an event's model, provider and tier, as far as it is a price of it: more is more specific.
    fn specificity(&self, model: &str, provider: Option<&str>, service_tier: Option<&str>) -> Option<Specificity> {
        if self.service_tier.as_deref().is_some_and(|own| own != tier_of(service_tier.unwrap_or_default())) {
            return None;
        }
        let of_provider = || self.model.strip_prefix(provider?)?.strip_prefix('/');
        let (named, is_of_provider) = named(&self.model, model)
            .map(|named| (named, false))
            .or_else(|| of_provider().and_then(|own| named(own, model)).map(|named| (named, true)))?;
        Some((named, is_of_provider, self.service_tier.is_some(), self.above_input_tokens))
    }
}

/// How many characters of a model's name a price gives; all that there can be where it is the whole name.
fn named(price: &str, model: &str) -> Option<usize> {
    match price.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning).then_some(beginning.len()),
        None => (price == model).then_some(usize::MAX),
    }
}

/// The prices of one key, sorted by when they take effect.
#[derive(Debug, Clone)]
pub struct Series {
    pub key: PriceKey,
    pub prices: Vec<Price>,
}

/// Prices in force from an instant on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub effective_from: DateTime<Utc>,
    pub rates: Rates,
}

impl Series {
    /// The price in force at an instant.
    #[must_use]
    pub fn at(&self, at: DateTime<Utc>) -> Option<&Price> {
        self.prices.iter().rev().find(|price| price.effective_from <= at)
    }
}

/// The price of an event among those that it may have, the most specific first.
#[must_use]
pub fn price_at<'b>(candidates: &[&'b Series], occurred_at: DateTime<Utc>, input_tokens: i64) -> Option<&'b Price> {
    candidates
        .iter()
        .filter(|series| series.key.above_input_tokens.is_none_or(|above| input_tokens > above))
        .find_map(|series| series.at(occurred_at))
}
