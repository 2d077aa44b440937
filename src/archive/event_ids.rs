//! The ids of a day's events: what says whether a row is of one of them.

use anyhow::{Context as _, Result};
use arrow::array::{AsArray as _, RecordBatch};
use hashbrown::HashMap;
use uuid::Uuid;

use crate::failure::Failure;
use crate::source::kept_event_id;

/// Digests of ids, each with whether a row of its event is known.
#[derive(Debug, Default)]
pub(super) struct EventIds {
    has_row: HashMap<Uuid, bool>,
}

/// What rows are to their events.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) row_count: i64,
    /// The event of the first row whose event is none of the day's.
    pub(super) stranger: Option<String>,
}

impl EventIds {
    /// Takes in the events of a batch of the lake.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let ids = batch.column_by_name("event_id").context("A batch of events has no ids")?.as_string::<i32>();
        self.has_row.extend(ids.iter().map(|id| (digest(id.unwrap_or_default()), false)));
        Ok(())
    }

    /// Whether an event is one of these.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.has_row.contains_key(&digest(id))
    }

    /// Notes a row of an event.
    pub(super) fn note(&mut self, id: &str, given: &mut Given) {
        given.row_count += 1;
        match self.has_row.get_mut(&digest(id)) {
            Some(has_row) => *has_row = true,
            None => drop(given.stranger.get_or_insert_with(|| id.chars().take(80).collect())),
        }
    }

    /// Fails where an event of the day has no row.
    ///
    /// # Errors
    /// [`Failure`] of kind bad-data.
    pub(super) fn require_rows(&self, origin: &str) -> Result<()> {
        let without = self.has_row.values().filter(|has_row| !**has_row).count();
        if without == 0 {
            return Ok(());
        }
        let what = format!("Of {without} of {} events the `archive` statements of `{origin}` give no row", self.has_row.len());
        Err(Failure::bad_data(what).hint("they must give the rows that `events` reads; no row was deleted").into())
    }
}

fn digest(id: &str) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), kept_event_id(id).as_bytes())
}
