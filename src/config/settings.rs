//! What can be set, typed (`docs/interface.md`, "Configuration").

use chrono::NaiveDate;
use chrono_tz::Tz;
use secrecy::SecretString;
use serde::Deserialize;

use crate::price::{CostRules, FailedRequests, Pricing};

/// Effective settings of one process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database: Database,
    pub output: Output,
    pub reporting: Reporting,
    pub archive: Archive,
    pub billing: Billing,
    pub dashboard: Dashboard,
    pub usage: Usage,
    pub quarantine: Quarantine,
    pub engine: Engine,
    pub serve: Serve,
    pub log: Log,
    pub metrics: Metrics,
    pub notify: Notify,
    pub history: History,
}

#[derive(Debug, Clone, Deserialize)]
pub struct History {
    /// Runs older than this are forgotten; those of billing jobs that went well never are.
    pub keep_days: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Database {
    pub url: SecretString,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Output {
    /// Without credentials: loading takes no other.
    pub url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Reporting {
    pub timezone: Tz,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Archive {
    /// How many days ago a UTC day ended before it is archived.
    pub after_days: u32,
    /// Whether rows that are archived are deleted from their tables.
    pub delete: bool,
    /// Where to; the output where it is empty.
    pub url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Billing {
    pub grace_hours: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Dashboard {
    /// The spans that the job `usage_dashboard` keeps.
    pub days: Vec<u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Usage {
    pub sources: Vec<String>,
    pub pricing: Pricing,
    pub failed: FailedRequests,
    pub change_tracking: ChangeTracking,
    /// Events before it are quarantined.
    pub earliest_date: NaiveDate,
    pub lookback_days: u32,
    pub price_book: String,
}

/// How a changed day is found (`docs/semantics.md` section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeTracking {
    /// By the ingest watermark and the triggers that Tallyroll installs.
    Ingest,
    /// The last `usage.lookback_days` days are redone at every run.
    Lookback,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Quarantine {
    pub max_ratio: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Engine {
    pub windows_at_once: u32,
    pub lock_lease_seconds: u32,
    pub batch_rows: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Serve {
    pub bind: String,
    pub token: SecretString,
    /// What applications send to record usage; it opens nothing else.
    pub writer_token: SecretString,
    /// How long runs at work may take to end after a signal, before they are cut off.
    pub grace_seconds: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Metrics {
    pub textfile: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Notify {
    pub webhook_url: SecretString,
}

impl Usage {
    #[must_use]
    pub fn cost_rules(&self) -> CostRules {
        CostRules { pricing: self.pricing, failed: self.failed }
    }
}
