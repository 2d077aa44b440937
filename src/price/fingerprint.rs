//! What of a price book a window depends on.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};

use super::{Price, Rates, Series};
use crate::fingerprint::{self, Fingerprint};

/// The instants at which prices change, each with the digest of what is in force from it on. A book of thousands of prices has few of
/// them, and every window between two has the same digest, made once.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Vec<(DateTime<Utc>, OnceLock<String>)>);

impl Changes {
    pub(super) fn of(series: &[Series]) -> Self {
        let mut at: Vec<DateTime<Utc>> = series.iter().flat_map(|series| &series.prices).map(|price| price.effective_from).collect();
        at.sort_unstable();
        at.dedup();
        Self(at.into_iter().map(|at| (at, OnceLock::new())).collect())
    }

    pub(super) fn fingerprint(&self, series: &[Series], start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        let (before, within) = self.0.split_at(self.0.partition_point(|(at, _)| *at <= start));
        let within: Vec<DateTime<Utc>> = within.iter().map(|(at, _)| *at).take_while(|at| *at < end).collect();
        let in_force_before = before.last().map(|(at, digest)| digest.get_or_init(|| in_force(series, *at)).as_str());
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(in_force_before.unwrap_or_default().as_bytes());
        for at in within {
            fingerprint.add(&at.timestamp_micros().to_le_bytes());
            fingerprint.add(in_force(series, at).as_bytes());
        }
        fingerprint.finish()
    }
}

fn in_force(series: &[Series], at: DateTime<Utc>) -> String {
    fingerprint::of(series.iter().filter_map(|series| Some(format!("{:?} {:?}", series.key, series.at(at)?.rates))))
}

/// The digest as it was made before prices had a provider, a tier or more than two rates. Windows that were written then are held
/// against it, so that they are not due.
pub(super) fn first(series: &[Series], start: DateTime<Utc>, end: DateTime<Utc>) -> String {
    let mut in_force = Vec::new();
    for Series { key, prices } in series {
        for (index, Price { effective_from, rates }) in prices.iter().enumerate() {
            let ends_before = prices.get(index + 1).is_some_and(|next| next.effective_from <= start);
            if *effective_from < end && !ends_before {
                let from = (*effective_from).max(start).timestamp_micros();
                // A `/` was only a part of a name.
                let is_of_a_model = key.service_tier.is_none() && key.above_input_tokens.is_none() && !key.model.contains('/');
                let is_of_that_kind = is_of_a_model && !key.model.ends_with('*') && *rates == Rates::plain(rates.input, rates.output);
                let text = format!("{:?} {from} {} {}", key.model, rates.input, rates.output);
                in_force.push(if is_of_that_kind { text } else { format!("{text} {key:?} {rates:?}") });
            }
        }
    }
    fingerprint::of(in_force)
}
