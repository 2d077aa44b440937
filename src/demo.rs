//! The demo's usage and seats: made up, realistic in shape, the same for the same seed and day.

mod made_up;
mod seats;

use anyhow::Result;
use chrono::{DateTime, Datelike as _, Days, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use self::made_up::{CUSTOMERS, SplitMix64};
use crate::store::{Store, Value};

/// Days that the demo's log covers, from its first on.
pub const DAYS: u64 = 90;

/// The instant at which a day begins, in UTC: a demo's runs are as of one, and its log ends there.
#[must_use]
pub fn start_of(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

/// The demo's price book: chat requests of one model log no cost and are priced by it, at another price from the 32nd day on; those of
/// another model stay unpriced.
#[must_use]
pub fn prices(as_of: NaiveDate) -> String {
    PRICES.replace("{32nd day}", &(as_of - Days::new(DAYS - 31)).to_string())
}

const PRICES: &str = r#"# USD for one million tokens. A new price is a new entry; old days keep theirs.
[[price]]
model = "gpt-4o-mini"
effective_from = "2000-01-01"
input_usd_per_million = "0.15"
output_usd_per_million = "0.60"

[[price]]
model = "gpt-4o-mini"
effective_from = "{32nd day}"
input_usd_per_million = "0.12"
output_usd_per_million = "0.48"
"#;

const USERS: u64 = 180;
const CHAT_USERS: u64 = 40;
const ROWS_PER_STATEMENT: usize = 1_000;

/// Writes `event_count` events of the days before `as_of`; those that are there already stay.
///
/// # Errors
/// What the database says.
pub async fn write(store: &Store, event_count: u64, seed: u64, as_of: NaiveDate) -> Result<()> {
    let mut random = SplitMix64(seed);
    let users: Vec<Uuid> = (0..USERS).map(|_| random.uuid()).collect();
    let mut tx = store.begin().await?;
    let user_rows: Vec<Vec<Value>> = users
        .iter()
        .enumerate()
        .map(|(index, user)| vec![(*user).into(), email(index as u64).into(), format!("User {index}").into()])
        .collect();
    tx.insert_rows("users", &["id", "email", "name"], &user_rows, "ON CONFLICT DO NOTHING").await?;

    let mut log = Vec::new();
    let mut chats = Vec::new();
    let mut analytics = Vec::new();
    for _ in 0..event_count {
        if random.below(10) == 0 {
            chat(&mut random, as_of, &users, &mut chats, &mut analytics);
        } else {
            log.push(logged(&mut random, as_of, &users, event_count));
        }
        if log.len() >= ROWS_PER_STATEMENT {
            tx.insert_rows("ai_usage_log", &LOG_COLUMNS, &std::mem::take(&mut log), "ON CONFLICT DO NOTHING").await?;
        }
    }
    tx.insert_rows("ai_usage_log", &LOG_COLUMNS, &log, "ON CONFLICT DO NOTHING").await?;
    tx.insert_rows("chat_requests", &CHAT_COLUMNS, &chats, "ON CONFLICT DO NOTHING").await?;
    tx.insert_rows("request_analytics", &ANALYTICS_COLUMNS, &analytics, "ON CONFLICT DO NOTHING").await?;
    seats::write(&mut tx, seed, start_of(as_of)).await?;
    tx.commit().await
}

const LOG_COLUMNS: [&str; 13] = [
    "id",
    "user_id",
    "user_email",
    "customer_id",
    "customer_name",
    "request_type",
    "session_id",
    "input_tokens",
    "output_tokens",
    "latency_ms",
    "tool_turns",
    "status",
    "created_at",
];
const CHAT_COLUMNS: [&str; 8] = ["id", "user_id", "model", "tokens_used", "cost", "duration", "status", "created_at"];
const ANALYTICS_COLUMNS: [&str; 9] =
    ["id", "user_id", "request_id", "request_type", "category", "tokens_input", "tokens_output", "user_rating", "created_at"];

fn email(index: u64) -> String {
    format!("user{index}@example.com")
}

fn logged(random: &mut SplitMix64, as_of: NaiveDate, users: &[Uuid], event_count: u64) -> Vec<Value> {
    let id = random.uuid();
    let user = random.skewed(USERS);
    let occurred_at = instant(random, as_of);
    // Most users work for one customer, the support team (the first few) for any, now and then for none.
    let customer = if user < 6 { random.below(CUSTOMERS.len() as u64) } else { user % CUSTOMERS.len() as u64 };
    let customer = (random.below(20) != 0).then_some(customer);
    // One customer changed its name half-way: a rename never splits it.
    let name = customer.map(|index| match CUSTOMERS.get(usize::try_from(index).unwrap_or(0)) {
        Some(&"Acme Freight") if occurred_at > start_of(as_of) - TimeDelta::days(45) => "Acme Logistics",
        Some(name) => name,
        None => "",
    });
    let is_error = random.below(40) == 0;
    let request_type = ["report", "report", "report", "insight", "insight", "widget", "scheduled"][random.index(7)];
    // A clock that ran backwards, now and then: such a row goes to the quarantine.
    let is_bad = random.below(5_000) == 0 && event_count >= 20_000;
    let latency = if is_bad { -1 } else { 300 + random.small(6_000) };
    vec![
        id.into(),
        users.get(usize::try_from(user).unwrap_or(0)).copied().into(),
        email(user).into(),
        customer.map(|index| 100 + index.cast_signed()).into(),
        name.map(str::to_owned).into(),
        request_type.into(),
        format!("session-{}", random.below(5_000)).into(),
        (200 + random.small(9_000)).into(),
        if is_error { 0 } else { 50 + random.small(2_000) }.into(),
        latency.into(),
        random.small(4).into(),
        if is_error { "error" } else { "success" }.into(),
        occurred_at.into(),
    ]
}

fn chat(random: &mut SplitMix64, as_of: NaiveDate, users: &[Uuid], chats: &mut Vec<Vec<Value>>, analytics: &mut Vec<Vec<Value>>) {
    let id = random.uuid();
    let user: Value = users.get(usize::try_from(random.skewed(CHAT_USERS)).unwrap_or(0)).copied().into();
    let occurred_at = instant(random, as_of);
    let (input, output) = (100 + random.small(2_000), 20 + random.small(800));
    let model = ["gpt-4", "gpt-4o-mini", "gpt-4o-mini", "in-house"][random.index(4)];
    let status = ["completed", "completed", "completed", "completed", "failed", "pending"][random.index(6)];
    let cost: Value = if model == "gpt-4" { (1 + random.small(30)).into() } else { Value::Null };
    let duration: Value = if status == "pending" { Value::Null } else { (400 + random.small(4_000)).into() };
    chats.push(vec![id.into(), user.clone(), model.into(), (input + output).into(), cost, duration, status.into(), occurred_at.into()]);
    if random.below(8) != 0 {
        let category = ["nft", "token", "marketplace", "dao"][random.index(4)];
        let rating: Value = if random.below(3) == 0 { (1 + random.small(5)).into() } else { Value::Null };
        analytics.push(vec![
            random.uuid().into(),
            user,
            id.into(),
            ["chat", "code_generation", "analysis"][random.index(3)].into(),
            category.into(),
            input.into(),
            output.into(),
            rating,
            occurred_at.into(),
        ]);
    }
}

/// An instant of the days before `as_of`.
fn instant(random: &mut SplitMix64, as_of: NaiveDate) -> DateTime<Utc> {
    let first_day = as_of - Days::new(DAYS);
    // Weekends are quiet, and so are nights.
    loop {
        let day = random.below(DAYS);
        let micros = random.below(86_400_000_000).midpoint(random.below(86_400_000_000));
        let weekday = (day + u64::from(first_day.weekday().num_days_from_monday())) % 7;
        if weekday < 5 || random.below(4) == 0 {
            return start_of(first_day) + TimeDelta::days(day.cast_signed()) + TimeDelta::microseconds(micros.cast_signed());
        }
    }
}
