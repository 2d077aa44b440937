//! The demo's subscriptions and seat ledger.

use anyhow::Result;
use chrono::{DateTime, Datelike as _, Days, TimeDelta, Utc};

use super::made_up::{CUSTOMERS, SplitMix64};
use crate::store::{Tx, Value};

/// Days before the demo's end on which the first subscription starts.
const FIRST_START_DAYS: u64 = 270;

/// Writes a subscription for each customer, and a ledger of its seats.
///
/// # Errors
/// What the database says.
pub(super) async fn write(tx: &mut Tx, seed: u64, as_of: DateTime<Utc>) -> Result<()> {
    // A sequence of its own: the usage log stays what it is for a seed.
    let mut random = SplitMix64(seed ^ 0x5ea7);
    let mut subscriptions = Vec::new();
    let mut events: Vec<(DateTime<Utc>, Vec<Value>)> = Vec::new();
    for (index, customer) in CUSTOMERS.iter().enumerate() {
        let index = index as u64;
        // The first starts on a 31st at noon: its months end on the last days of the short ones.
        let start_at = as_of - Days::new(FIRST_START_DAYS - 9 * index) + TimeDelta::hours(12);
        let start_at = if index == 0 { on_a_31st(start_at + Days::new(26)) } else { start_at };
        let org_id = (100 + index).to_string();
        let committed = 10 + 5 * random.small(8);
        let slug = customer.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        subscriptions.push(vec![
            slug.as_str().into(),
            org_id.as_str().into(),
            ["team", "business", "enterprise"][random.index(3)].into(),
            committed.into(),
            start_at.into(),
            Value::Null,
            format!("lic-{}", 1_000 + index).into(),
        ]);
        // One org began to record late: its first months are not covered.
        let mut at = if index == 5 { start_at + Days::new(75) } else { start_at - Days::new(3) };
        let (mut base, mut free) = (committed - random.small(8), random.small(4));
        while at < as_of {
            for (seat_type, seats) in [("base", base), ("free", free), ("total", base + free)] {
                events.push((at, vec![org_id.as_str().into(), seat_type.into(), seats.into(), at.into(), at.into(), "seat_change".into()]));
            }
            at += TimeDelta::minutes(600 + random.small(20_000));
            base = (base + random.below(8).cast_signed() - 3).clamp(1, committed + 6);
            free = (free + random.below(5).cast_signed() - 2).clamp(0, 9);
        }
    }
    let columns = ["id", "org_id", "plan", "committed_seats", "start_at", "end_at", "license_id"];
    tx.insert_rows("subscription", &columns, &subscriptions, "ON CONFLICT DO NOTHING").await?;
    // As they would have come in: by time, so that ids grow with it.
    events.sort_by_key(|(at, _)| *at);
    let rows: Vec<Vec<Value>> = events.into_iter().zip(1_i64..).map(|((_, row), id)| [vec![id.into()], row].concat()).collect();
    let columns = ["id", "org_id", "seat_type", "seats", "occurred_at", "recorded_at", "reason"];
    tx.insert_rows("seat_usage_event", &columns, &rows, "ON CONFLICT DO NOTHING").await?;
    Ok(())
}

/// The last 31st of a month up to an instant.
fn on_a_31st(mut at: DateTime<Utc>) -> DateTime<Utc> {
    while at.day() != 31 {
        at = at - Days::new(1);
    }
    at
}
