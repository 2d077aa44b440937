//! What is due, as an operator is asked for it (`docs/semantics.md` section 5).

use std::collections::BTreeMap;

use anyhow::Result;

use super::env::Context;
use super::request::{ASKED_FOR, Request};
use crate::job::Job;
use crate::sql_text::quote_identifier;
use crate::store::Tx;
use crate::store::windows::WindowRecord;
use crate::window::{Window, day_of, next_day};

/// Windows that are due, each with its reason.
pub type DueWindows = BTreeMap<Window, String>;

/// What an operator looks at to say what is due.
pub struct Look<'a> {
    pub context: &'a Context,
    pub tx: &'a mut Tx,
    pub job: &'a Job,
    /// The job's windows as they are.
    pub states: &'a BTreeMap<Window, WindowRecord>,
    pub definition: &'a Definition,
    pub request: &'a Request,
}

impl Look<'_> {
    /// The windows that are named, where any are.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn asked_for(&self) -> Result<Option<DueWindows>> {
        let Some(from) = self.request.from else { return Ok(None) };
        let timezone = self.context.config.reporting.timezone;
        let to = self.request.to.map_or_else(|| day_of(self.request.as_of, timezone).and_then(next_day), Ok)?;
        let windows = Window::covering(self.job.window, from, to)?;
        Ok(Some(windows.into_iter().map(|window| (window, ASKED_FOR.to_owned())).collect()))
    }

    /// Adds windows whose rows are all gone from the table, by whatever way.
    ///
    /// # Errors
    /// What the database says.
    pub async fn add_emptied(&mut self, due: &mut DueWindows) -> Result<()> {
        let with_rows: Vec<Window> = self.states.values().filter(|state| state.rows_out > 0).map(|state| state.window).collect();
        if with_rows.is_empty() {
            return Ok(());
        }
        let sql = format!("SELECT 1 AS one FROM {} LIMIT 1", quote_identifier(&self.job.writes));
        if self.tx.query(&sql, &[]).await?.is_empty() {
            for window in with_rows {
                due.entry(window).or_insert_with(|| "its rows are gone from the table".to_owned());
            }
        }
        Ok(())
    }
}

/// What a job's results are made by.
#[derive(Debug, Default)]
pub struct Definition {
    pub now: String,
    /// As it was written before the source `usage_event`.
    pub first: String,
}

/// What stands before a digest of a definition or of rules from before the source `usage_event`, by its migration.
pub const FIRST: &str = "v1 ";
/// What stands before a digest of rules from before prices had a provider, a tier or a size, by its migration.
pub const SECOND: &str = "v2 ";

impl Definition {
    /// Why a window's result was made by something else than what makes it now, if so.
    #[must_use]
    pub fn change_since(&self, state: &WindowRecord) -> Option<&'static str> {
        let known = state.definition.as_deref()?;
        let (known, definition) = known.strip_prefix(FIRST).map_or((known, &self.now), |known| (known, &self.first));
        let sql = |definition: &str| definition.split_once(' ').map(|(_, sql)| sql.to_owned());
        match known == definition {
            true => None,
            false if sql(known) == sql(definition) => Some("its job's file changed"),
            false => Some("its SQL changed"),
        }
    }
}
