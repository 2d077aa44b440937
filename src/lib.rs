//! Tallyroll: scheduled batch aggregation of usage logs and seat ledgers.
//!
//! `schedules.toml` says when, `jobs/` says what, `sql/` says how to read and derive, and this crate turns due windows into
//! replaced windows. Start with `ARCHITECTURE.md`; what every number means is in `docs/semantics.md`.

pub mod abort;
pub mod ai_seats;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod engine;
pub mod failure;
pub mod fingerprint;
pub mod fold;
pub mod import;
pub mod job;
pub mod jobs;
pub mod lake;
pub mod license;
pub mod measure;
pub mod metrics;
pub mod money;
pub mod operator;
pub mod plan;
pub mod price;
pub mod project;
pub mod quarantine;
pub mod reconcile;
pub mod render;
pub mod repricing;
pub mod run;
pub mod schedule;
pub mod scheduler;
pub mod seat_report;
pub mod seats;
pub mod serve;
mod show;
pub mod snapshot;
pub mod source;
pub mod sql_text;
pub mod store;
pub mod text_file;
pub mod window;
