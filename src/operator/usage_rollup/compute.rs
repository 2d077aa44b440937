//! A window's events, read and aggregated.

use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::accumulate::Accumulator;
use super::quarantine;
use super::{Rollup, UsageRollup};
use crate::engine::blocking::blocking;
use crate::engine::stop::check_stop;
use crate::store::Store;
use crate::window::{Window, start_of_day};

impl UsageRollup {
    /// Reads a window's events and aggregates them; nothing is written.
    ///
    /// # Errors
    /// What reading gives; a sum that does not fit; `interrupted` turning true.
    pub async fn compute(
        self: &Arc<Self>,
        store: &Store,
        window: Window,
        as_of: DateTime<Utc>,
        stop: &watch::Receiver<Option<i32>>,
    ) -> Result<Rollup> {
        let (start, end) = window.instants(self.timezone)?;
        let earliest_micros = start_of_day(self.earliest_date, self.timezone)?.timestamp_micros();
        let plausible = earliest_micros..=quarantine::latest_occurred_at(as_of).timestamp_micros();
        let mut state = Accumulator::new(self, plausible, start.timestamp_micros()..end.timestamp_micros());
        for source in &self.sources {
            state.begin_source(source);
            let mut batches = source.read(store, start, end, self.batch_rows);
            while let Some(batch) = batches.next().await {
                check_stop(stop)?;
                let batch = batch?;
                state = blocking(move || state.take(&batch)).await?;
            }
        }
        Ok(state.finish())
    }
}
