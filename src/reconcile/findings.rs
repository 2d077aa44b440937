//! What was compared, and what differs.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::Serialize;

/// Which days of the raw log are compared; every one unless said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub from: Option<NaiveDate>,
    /// Exclusive.
    pub to: Option<NaiveDate>,
}

impl Range {
    pub(super) fn holds(self, date: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }
}

/// Two numbers that should be one.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    pub check: &'static str,
    pub window: String,
    pub subject: String,
    pub expected: String,
    pub found: String,
    /// What shows it: a statement for the database, or a command.
    pub query: String,
}

/// Collects what checks find.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) compared: BTreeMap<&'static str, i64>,
    pub(super) differences: Vec<Difference>,
}

impl Findings {
    pub(super) fn compare(
        &mut self,
        check: &'static str,
        window: &str,
        subject: &str,
        expected: &impl ToString,
        found: &impl ToString,
        query: impl FnOnce() -> String,
    ) {
        *self.compared.entry(check).or_default() += 1;
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            let (window, subject) = (window.to_owned(), subject.to_owned());
            self.differences.push(Difference { check, window, subject, expected, found, query: query() });
        }
    }

    pub(super) fn add(&mut self, others: Self) {
        for (check, count) in others.compared {
            *self.compared.entry(check).or_default() += count;
        }
        self.differences.extend(others.differences);
    }
}
