//! The price book, and what of it an event may have.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::fingerprint::{self, Changes};
use super::{Price, PriceKey, Series, named};

/// Every price that there is.
#[derive(Debug, Clone, Default)]
pub struct PriceBook {
    /// In the order of their keys.
    series: Vec<Series>,
    /// The series of each whole name.
    exact: HashMap<String, Vec<usize>>,
    /// The series whose names end in `*`.
    patterns: Vec<usize>,
    changes: Changes,
}

impl PriceBook {
    /// A book of prices, each list sorted.
    pub(super) fn of(prices: BTreeMap<PriceKey, Vec<Price>>) -> Self {
        let series: Vec<Series> = prices.into_iter().map(|(key, prices)| Series { key, prices }).collect();
        let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
        let mut patterns = Vec::new();
        for (index, Series { key, .. }) in series.iter().enumerate() {
            if key.model.ends_with('*') {
                patterns.push(index);
            } else {
                exact.entry(key.model.clone()).or_default().push(index);
            }
        }
        let changes = Changes::of(&series);
        Self { series, exact, patterns, changes }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// All prices, in the order of their keys.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// The prices that an event of a model, provider and tier may have, the most specific first.
    #[must_use]
    pub fn candidates(&self, model: &str, provider: Option<&str>, service_tier: Option<&str>) -> Vec<&Series> {
        let exact = |name: &str| self.exact.get(name).map_or(&[] as &[usize], Vec::as_slice);
        let of_provider = provider.map(|provider| format!("{provider}/{model}"));
        let of_whole_name = exact(model).iter().chain(of_provider.as_deref().map_or(&[] as &[usize], exact));
        let mut found: Vec<_> = of_whole_name
            .chain(&self.patterns)
            .map(|index| &self.series[*index])
            .filter_map(|series| Some((series.key.specificity(model, provider, service_tier)?, series)))
            .collect();
        found.sort_by_key(|(specificity, _)| Reverse(*specificity));
        found.into_iter().map(|(_, series)| series).collect()
    }

    /// The prices of exactly one key.
    #[must_use]
    pub fn series_of(&self, key: &PriceKey) -> Option<&Series> {
        self.series.binary_search_by_key(&key, |series| &series.key).ok().map(|index| &self.series[index])
    }

    /// The prices that events of a model may have, of whatever provider and tier.
    #[must_use]
    pub fn of_model(&self, model: &str) -> Vec<&Series> {
        let is_named = |price: &str| named(price, model).is_some();
        let is_of = |key: &PriceKey| is_named(&key.model) || key.model.split_once('/').is_some_and(|(_, own)| is_named(own));
        self.series.iter().filter(|series| is_of(&series.key)).collect()
    }

    /// A digest of every price in force at some instant of `[start, end)`: it changes when a rerun could cost otherwise.
    #[must_use]
    pub fn fingerprint(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        self.changes.fingerprint(&self.series, start, end)
    }

    /// What [`Self::fingerprint`] was as long as a price was of a model alone.
    #[must_use]
    pub fn first_fingerprint(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        fingerprint::first(&self.series, start, end)
    }
}
