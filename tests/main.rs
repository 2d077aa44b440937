//! Tests of the whole: the binary and the library, on SQLite and on a real PostgreSQL.

mod support;

mod changes;
mod cli;
mod custom_job;
mod differential;
mod golden;
mod import;
mod interrupted;
mod locking;
mod quarantine;
mod style;
mod upgrade;
