//! Operators: how a job turns one window's input into its rows.

pub mod content;
pub mod peak_seats;
pub mod rollup;
pub mod sql;
pub mod usage_rollup;
