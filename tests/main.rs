//! Tests of the whole: the binary and the library, on SQLite and on a real PostgreSQL.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod support;

mod abort_points;
mod bounds;
mod changes;
mod cli;
mod clock_changes;
mod connections;
mod custom_job;
mod definitions;
mod differential;
mod edges;
mod faults;
mod forged;
mod golden;
mod hostile_servers;
mod hostile_storage;
mod import;
mod import_bounds;
mod interrupted;
mod job_files;
mod job_mistakes;
mod journal;
mod license;
mod locking;
mod lying_storage;
mod model;
mod one_snapshot;
mod overlap;
mod pages;
mod peak_seats;
mod project_files;
mod publishing;
mod quarantine;
mod readers;
mod reconcile;
mod recording;
mod render;
mod rollups;
mod scheduling;
mod secrets;
mod serving;
mod sessions;
mod sql_functions;
mod style;
mod tracking;
mod two_projects;
mod unrecorded;
mod upgrade;
mod usage_dashboard;
mod user_dashboard;
mod vouched;
mod wire;
mod wrong_years;
