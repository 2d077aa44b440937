//! Numbers of the dashboards' JSON: rounded half-even, once, to the places that the seed's functions show.

use anyhow::Result;
use serde_json::value::RawValue;

use crate::money::{NANOS_PER_USD, div_half_even};

/// A decimal of USD, in JSON a number with all its places.
pub type Usd = Box<RawValue>;

/// A whole average, rounded half-even; none of nothing.
pub(super) fn average(sum: i64, count: i64) -> Result<Option<i64>> {
    if count == 0 { Ok(None) } else { Ok(Some(i64::try_from(div_half_even(sum.into(), count.into()))?)) }
}

/// Nano-USD for each of `count`, in USD with so many places; 0 for each of nothing.
pub(super) fn usd(nanos: i64, count: i64, places: u32) -> Result<Usd> {
    usd_per(nanos.into(), count.into(), places)
}

/// What so many requests cost: none where there are some and no cost is known, so that nothing unknown reads as 0.
pub(super) fn cost(nanos: Option<i64>, request_count: i64, places: u32) -> Result<Option<Usd>> {
    nanos.or((request_count == 0).then_some(0)).map(|nanos| usd(nanos, 1, places)).transpose()
}

/// What each of the `priced` among `all` costs; none where there are some and no cost is known.
pub(super) fn cost_of_each(nanos: i128, priced: i64, all: i64, places: u32) -> Result<Option<Usd>> {
    (priced > 0 || all == 0).then(|| usd_per(nanos, priced.into(), places)).transpose()
}

fn usd_per(nanos: i128, count: i128, places: u32) -> Result<Usd> {
    let unit = 10_i128.pow(places);
    let scaled = if count == 0 { 0 } else { div_half_even(nanos * unit, count * i128::from(NANOS_PER_USD)) };
    let sign = if scaled < 0 { "-" } else { "" };
    let (whole, part) = (scaled.unsigned_abs() / unit.unsigned_abs(), scaled.unsigned_abs() % unit.unsigned_abs());
    Ok(RawValue::from_string(format!("{sign}{whole}.{part:0places$}", places = places as usize))?)
}
