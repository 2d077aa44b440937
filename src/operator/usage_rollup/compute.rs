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
use crate::fingerprint;
use crate::lake::event_file;
use crate::store::Store;
use crate::store::archived::ArchivedDay;
use crate::window::{Window, next_day, start_of_day};

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
        loop {
            let archived = self.archived_days(store, window).await?;
            let computed = self.compute_with(store, window, as_of, stop, &archived).await;
            // Rows that went into the lake meanwhile, or came back, may have been seen in neither place, or in both.
            if self.archived_days(store, window).await? == archived {
                return computed;
            }
        }
    }

    /// The days that lie in a window, or touch it, and whose rows are in the lake alone.
    async fn archived_days(&self, store: &Store, window: Window) -> Result<Vec<ArchivedDay>> {
        let (start, end) = window.instants(self.timezone)?;
        let mut days = store.archived_days(Some(start.date_naive()), Some(next_day(end.date_naive())?)).await?;
        days.retain(|day| day.is_read_for(start, end));
        Ok(days)
    }

    async fn compute_with(
        self: &Arc<Self>,
        store: &Store,
        window: Window,
        as_of: DateTime<Utc>,
        stop: &watch::Receiver<Option<i32>>,
        archived: &[ArchivedDay],
    ) -> Result<Rollup> {
        let (start, end) = window.instants(self.timezone)?;
        let earliest_micros = start_of_day(self.earliest_date, self.timezone)?.timestamp_micros();
        let plausible = earliest_micros..=quarantine::latest_occurred_at(as_of).timestamp_micros();
        let mut state = Accumulator::new(self, plausible, start.timestamp_micros()..end.timestamp_micros());
        for source in &self.sources {
            let of_source = || archived.iter().filter(|day| day.source == source.name);
            state.begin_source(source, of_source().next().is_some());
            let mut batches = source.read(store, start, end, self.batch_rows);
            while let Some(batch) = batches.next().await {
                check_stop(stop)?;
                let batch = batch?;
                state = blocking(move || state.take(&batch)).await?;
            }
            for day in of_source() {
                let manifest = self.lake.manifest(day).await?;
                if !manifest.definition.is_empty() && manifest.definition != fingerprint::of([source.definition()?]) {
                    tracing::warn!(
                        source = source.name,
                        day = %day.event_date,
                        "The day was archived by another `events` statement, and keeps the events that it gave: `tallyroll archive --restore` brings its rows back"
                    );
                }
                for file in &manifest.events.files {
                    let mut batches = self.lake.events(file).await?;
                    while let Some(batch) = batches.next().await {
                        check_stop(stop)?;
                        let batch = batch?;
                        state = blocking(move || state.take(&event_file::completed(&event_file::within(&batch, start, end)?)?)).await?;
                    }
                }
            }
        }
        Ok(state.finish())
    }
}
