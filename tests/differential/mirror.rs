//! A log on SQLite that follows one on PostgreSQL row by row.

use std::collections::BTreeMap;

use tallyroll::store::Value;

use crate::support::{Engine, Fixture, SUMMARIES};

/// A table of the log, and what PostgreSQL gives for each of its columns on SQLite; the first is the key.
type Mirrored = (&'static str, &'static [(&'static str, &'static str)]);

/// SQLite has no NaN: a cost that is none is a negative one, as bad.
const TABLES: [Mirrored; 4] = [
    (
        "ai_usage_log",
        &[
            ("id", "id::TEXT"),
            ("user_id", "user_id::TEXT"),
            ("user_email", "user_email"),
            ("customer_id", "customer_id"),
            ("customer_name", "customer_name"),
            ("model_used", "model_used"),
            ("input_tokens", "input_tokens"),
            ("output_tokens", "output_tokens"),
            ("latency_ms", "latency_ms"),
            ("status", "status"),
            ("cost_basis", "cost_basis"),
            ("logged_cost_nanos", "CASE logged_cost_usd WHEN 'NaN' THEN -1 ELSE (logged_cost_usd * 1000000000)::BIGINT END"),
            ("created_at", "created_at"),
        ],
    ),
    (
        "chat_requests",
        &[
            ("id", "id::TEXT"),
            ("user_id", "user_id::TEXT"),
            ("model", "model"),
            ("tokens_used", "tokens_used"),
            ("cost", "cost"),
            ("duration", "duration"),
            ("status", "status"),
            ("created_at", "created_at"),
        ],
    ),
    (
        "request_analytics",
        &[
            ("id", "id::TEXT"),
            ("user_id", "user_id::TEXT"),
            ("request_id", "request_id::TEXT"),
            ("request_type", "request_type"),
            ("category", "category"),
            ("tokens_input", "tokens_input"),
            ("tokens_output", "tokens_output"),
            ("user_rating", "user_rating"),
            ("created_at", "created_at"),
        ],
    ),
    (
        "usage_event",
        &[
            ("event_id", "event_id"),
            ("occurred_at", "occurred_at"),
            ("user_id", "user_id"),
            ("user_name", "user_name"),
            ("customer_id", "customer_id"),
            ("model", "model"),
            ("input_tokens", "input_tokens"),
            ("output_tokens", "output_tokens"),
            ("cached_input_tokens", "cached_input_tokens"),
            ("cache_write_tokens", "cache_write_tokens"),
            ("reasoning_tokens", "reasoning_tokens"),
            ("total_tokens", "total_tokens"),
            ("cost_nanos", "CASE cost_usd WHEN 'NaN' THEN -1 ELSE (cost_usd * 1000000000)::BIGINT END"),
            ("status", "status"),
            ("provider", "provider"),
            ("service_tier", "service_tier"),
        ],
    ),
];

pub struct Mirror {
    pub fixture: Fixture,
    rows: BTreeMap<&'static str, BTreeMap<String, Vec<Value>>>,
}

impl Mirror {
    /// Of a log that is empty, with the same settings, prices and users.
    pub async fn of(log: &Fixture) -> Self {
        let fixture = Fixture::new(Engine::Sqlite).await;
        for file in ["tallyroll.toml", "prices.toml"] {
            fixture.write(file, &std::fs::read_to_string(log.path().join(file)).unwrap());
        }
        for row in log.store.query("SELECT id::TEXT AS id, email FROM users", &[]).await.unwrap() {
            fixture.store.execute("INSERT INTO users (id, email) VALUES ($1, $2)", &row.values).await.unwrap();
        }
        Self { fixture, rows: BTreeMap::new() }
    }

    /// Inserts, updates and deletes what has changed in the log since.
    pub async fn follow(&mut self, log: &Fixture) {
        for (table, columns) in TABLES {
            let key = columns[0].0;
            let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
            let expressions: Vec<String> = columns.iter().map(|(name, expression)| format!("{expression} AS {name}")).collect();
            let select = format!("SELECT {} FROM {table}", expressions.join(", "));
            let rows = log.store.query(&select, &[]).await.unwrap();
            let rows: BTreeMap<String, Vec<Value>> = rows.into_iter().map(|row| (row.values[0].to_text().unwrap(), row.values)).collect();
            let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
            let insert = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
            let set: Vec<String> = names.iter().zip(&places).map(|(name, place)| format!("{name} = {place}")).collect();
            let update = format!("UPDATE {table} SET {} WHERE {key} = $1", set.join(", "));
            let before = self.rows.remove(table).unwrap_or_default();
            for gone in before.keys().filter(|id| !rows.contains_key(*id)) {
                let delete = format!("DELETE FROM {table} WHERE {key} = $1");
                self.fixture.store.execute(&delete, &[gone.as_str().into()]).await.unwrap();
            }
            for (id, values) in &rows {
                match before.get(id) {
                    None => self.fixture.store.execute(&insert, values).await.unwrap(),
                    Some(old) if old != values => self.fixture.store.execute(&update, values).await.unwrap(),
                    Some(_) => continue,
                };
            }
            self.rows.insert(table, rows);
        }
    }

    pub async fn assert_same_tables(&self, log: &Fixture, when: &str) {
        for table in SUMMARIES {
            let select = format!("SELECT {} FROM {table}", log.store.table_columns(table).await.unwrap().join(", "));
            let [ours, theirs] = [self.fixture.rows(&select).await, log.rows(&select).await].map(|mut rows| {
                rows.sort();
                rows
            });
            let differences: Vec<&String> =
                ours.iter().filter(|row| !theirs.contains(row)).chain(theirs.iter().filter(|row| !ours.contains(row))).collect();
            assert!(ours == theirs, "{table} on SQLite and on PostgreSQL: {differences:#?}\n{when}");
        }
    }
}
