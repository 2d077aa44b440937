//! Days of the raw log that are due.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;

use super::UsageRollup;
use super::quarantine::{OCCURRED_IN_FUTURE, latest_occurred_at};
use crate::config::ChangeTracking;
use crate::engine::due::{DueWindows, FIRST, Look, SECOND};
use crate::engine::request::FORCED;
use crate::failure::Failure;
use crate::show::counted;
use crate::source::{Source, USAGE_EVENT};
use crate::sql_text::quote_identifier;
use crate::store::windows::{WindowRecord, WindowState};
use crate::store::{Store, Tx, Value};
use crate::window::{Window, WindowKind, day_of, next_day, start_of_day};

/// Days of a source, each with the source's name.
type SourceDays = BTreeSet<(String, NaiveDate)>;

impl UsageRollup {
    /// Days whose rows changed, that were left undone, or whose prices changed; and how far each source was looked at to find them.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind config where it is a restored one.
    pub async fn due(&self, look: &mut Look<'_>) -> Result<(DueWindows, Vec<(String, String)>)> {
        let (context, request) = (look.context, look.request);
        let mut due = DueWindows::new();
        let mut positions = Vec::new();
        let mut days: BTreeMap<NaiveDate, String> = BTreeMap::new();
        let mut raw_days = SourceDays::new();
        for source in &self.sources {
            let tracked = context.config.usage.change_tracking == ChangeTracking::Ingest;
            let seen = if request.rebuild || !tracked { None } else { look.tx.watermark(&source.name).await? };
            if tracked {
                // Taken before the rows are looked at: what comes in between is found again, never lost.
                positions.push((source.name.clone(), position(look.tx, source, seen.as_deref()).await?));
                if let Some(seen) = seen {
                    self.find_changed(look.tx, source, &seen, &mut days).await?;
                    continue;
                }
            }
            let all = self.days_with_events(look.tx, source, None, None).await?;
            raw_days.extend(all.iter().map(|day| (source.name.clone(), *day)));
            if tracked || request.rebuild {
                let reason = if request.rebuild { "rebuild" } else { "never written" };
                days.extend(all.into_iter().map(|day| (day, reason.to_owned())));
            }
        }
        if context.config.usage.change_tracking == ChangeTracking::Lookback && !request.rebuild {
            let recent = day_of(request.as_of, self.timezone)? - Days::new(context.config.usage.lookback_days.saturating_sub(1).into());
            look_back(look, recent, &raw_days, &mut days).await?;
        }
        for (day, reason) in days {
            due.insert(Window::containing(WindowKind::Day, day)?, reason);
        }
        // The reason that lets rows be gone stays, whatever else is found.
        let taken_out = look.states.values().filter(|state| state.has_rows_taken_out());
        due.extend(taken_out.filter_map(|state| Some((state.window, state.due_reason.clone()?))));
        self.add_left_undone(look, &mut due)?;
        if request.rebuild {
            add_rebuilt(look, &raw_days, &mut due).await?;
        }
        let sql = "SELECT DISTINCT usage_date FROM quarantined_event \
             WHERE reason = $1 AND occurred_at <= $2 AND usage_date IS NOT NULL";
        for row in look.tx.query(sql, &[OCCURRED_IN_FUTURE.into(), latest_occurred_at(request.as_of).into()]).await? {
            let window = Window::containing(look.job.window, row.date("usage_date")?)?;
            due.entry(window).or_insert_with(|| "quarantined events are no longer in the future".to_owned());
        }
        look.add_emptied(&mut due).await?;
        Ok((due, positions))
    }

    /// The events that a window has.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count_events(&self, store: &Store, tx: &mut Tx, window: Window) -> Result<i64> {
        let (start, end) = window.instants(self.timezone)?;
        let mut rows = 0;
        for source in &self.sources {
            let sql = format!("SELECT COUNT(*) AS row_count FROM ({}) AS events", source.events_sql(store, start, end)?);
            rows += tx.query(&sql, &[]).await?.first().map_or(Ok(0), |row| row.int("row_count"))?;
        }
        // Of a day that the window holds in part, all.
        let archived = tx.archived_days(Some(start.date_naive()), Some(next_day(end.date_naive())?)).await?;
        Ok(rows + archived.iter().filter(|day| day.is_read_for(start, end)).map(|day| day.event_count).sum::<i64>())
    }

    fn add_left_undone(&self, look: &Look<'_>, due: &mut DueWindows) -> Result<()> {
        for (window, state) in look.states {
            let reason = match state.state {
                WindowState::Due => state.due_reason.clone().unwrap_or_else(|| "left undone".to_owned()),
                WindowState::Failed => "failed before".to_owned(),
                WindowState::Done if self.have_rules_changed(state)? => "sources or prices changed".to_owned(),
                WindowState::Done if let Some(changed) = look.definition.change_since(state) => changed.to_owned(),
                // Set aside as too old, which it no longer is.
                WindowState::Kept if state.write_count == 0 && !self.is_implausible(*window) => "sources or prices changed".to_owned(),
                WindowState::Done | WindowState::Kept if look.request.force => FORCED.to_owned(),
                WindowState::Future if !window.begins_after(look.request.as_of, self.timezone)? => "it has begun".to_owned(),
                _ => continue,
            };
            due.entry(*window).or_insert(reason);
        }
        Ok(())
    }

    /// Whether sources, pricing or the prices in force are others than those that the window was written by.
    fn have_rules_changed(&self, state: &WindowRecord) -> Result<bool> {
        let Some(known) = state.input_fingerprint.as_deref() else { return Ok(true) };
        let (window, (start, end)) = (state.window, state.window.instants(self.timezone)?);
        // While a price was of a model alone.
        let prices = || self.prices.first_fingerprint(start, end);
        Ok(match (known.strip_prefix(FIRST), known.strip_prefix(SECOND)) {
            (Some(known), _) => known != self.fingerprint(window, prices(), self.first_sources()),
            (None, Some(known)) => known != self.fingerprint(window, prices(), self.sources.iter()),
            (None, None) => known != self.rules_fingerprint(window)?,
        })
    }

    async fn find_changed(&self, tx: &mut Tx, source: &Source, seen: &str, days: &mut BTreeMap<NaiveDate, String>) -> Result<()> {
        let changed = source.changed_sql()?;
        let parameters: Vec<Value> = changed.names.iter().map(|_| seen.into()).collect();
        for row in tx.query(&changed.sql, &parameters).await.map_err(|error| source.explain(error))? {
            let slot_start = row.instant("slot_start")?;
            let reason = row.text("reason")?;
            // In every zone of today a quarter of an hour lies in one day; in some of the past it may touch two.
            let slot_last = slot_start + TimeDelta::minutes(15) - TimeDelta::microseconds(1);
            for instant in [slot_start, slot_last] {
                days.entry(day_of(instant, self.timezone)?).or_insert_with(|| reason.clone());
            }
        }
        Ok(())
    }

    /// Every day of `[from, to)` that has events, in the table or in the lake alone.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind bad-data for a source of more days than windows can be asked for.
    pub async fn days_with_events(
        &self,
        tx: &mut Tx,
        source: &Source,
        from: Option<NaiveDate>,
        to: Option<NaiveDate>,
    ) -> Result<Vec<NaiveDate>> {
        let mut days: BTreeSet<NaiveDate> = self.days_in_table(tx, source, from, to, self.timezone).await?.into_iter().collect();
        for archived in tx.archived_days(None, None).await?.iter().filter(|day| day.is_deleted && day.source == source.name) {
            days.extend([day_of(archived.first_at, self.timezone)?, day_of(archived.last_at, self.timezone)?]);
        }
        Ok(days.into_iter().filter(|day| from.is_none_or(|from| from <= *day) && to.is_none_or(|to| *day < to)).collect())
    }

    /// Every day that has events, by reading all of them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn days_read(&self, store: &Store, source: &Source) -> Result<BTreeSet<NaiveDate>> {
        let ends = [EARLIEST_SECONDS, LATEST_SECONDS].map(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default());
        let slot = store.dialect().quarter_of_an_hour("occurred_at");
        let sql = format!("SELECT DISTINCT {slot} AS slot_start FROM ({}) AS event", source.events_sql(store, ends[0], ends[1])?);
        let rows = store.read(&sql, &[]).await.map_err(|error| source.explain(error))?;
        rows.iter().map(|row| day_of(row.instant("slot_start")?, self.timezone)).collect()
    }

    /// Every day of `[from, to)` in a time zone that has events in the table, by hopping from each day's end to the next event: a handful of
    /// index look-ups.
    ///
    /// # Errors
    /// As [`Self::days_with_events`].
    pub async fn days_in_table(
        &self,
        tx: &mut Tx,
        source: &Source,
        from: Option<NaiveDate>,
        to: Option<NaiveDate>,
        timezone: Tz,
    ) -> Result<Vec<NaiveDate>> {
        let mut days = Vec::new();
        let earliest = DateTime::<Utc>::from_timestamp(EARLIEST_SECONDS, 0).unwrap_or_default();
        let mut from = from.map_or(Ok(earliest), |from| start_of_day(from, timezone))?.max(earliest);
        while days.len() <= crate::window::MAX_WINDOWS {
            let Some(occurred_at) = source.next_event(tx, from).await? else { return Ok(days) };
            let day = day_of(occurred_at, timezone)?;
            if to.is_some_and(|to| to <= day) {
                return Ok(days);
            }
            days.push(day);
            from = start_of_day(next_day(day)?, timezone)?;
        }
        Err(Failure::bad_data(format!("Source `{}` holds events of more than {} days", source.name, crate::window::MAX_WINDOWS))
            .hint("run it for a range, with `--from` and `--to`")
            .into())
    }
}

/// Without change tracking: days that were never written, and the last ones, whether they still have events or not.
async fn look_back(look: &mut Look<'_>, recent: NaiveDate, raw_days: &SourceDays, days: &mut BTreeMap<NaiveDate, String>) -> Result<()> {
    let with_events = raw_days.iter().map(|(_, day)| *day);
    let written = look.states.values().filter(|state| state.write_count > 0).map(|state| state.window.start_date);
    for day in with_events.chain(written.filter(|day| *day >= recent)) {
        let state = look.states.get(&Window::containing(WindowKind::Day, day)?);
        let reason = match state {
            // Written before there was this source, it knows nothing of the source's rows.
            Some(state)
                if state.input_fingerprint.as_ref().is_some_and(|known| known.starts_with(FIRST))
                    && raw_days.contains(&(USAGE_EVENT.to_owned(), day)) =>
            {
                "sources or prices changed"
            }
            Some(state) if state.write_count > 0 && day < recent => continue,
            Some(state) if state.state == WindowState::Kept => {
                let sql = format!("SELECT DISTINCT source FROM {} WHERE usage_date = $1", quote_identifier(&look.job.writes));
                let sources = look.tx.query(&sql, &[day.into()]).await?;
                let sources = sources.iter().map(|row| Ok((row.text("source")?, day))).collect::<Result<BTreeSet<_>>>()?;
                if !raw_days.is_superset(&sources) {
                    continue;
                }
                "its raw rows are back"
            }
            Some(state) if state.write_count > 0 => "lookback",
            _ => "never written",
        };
        days.insert(day, reason.to_owned());
    }
    Ok(())
}

/// Every window that there is; stops where a source's rows of a written day are gone.
async fn add_rebuilt(look: &mut Look<'_>, raw_days: &SourceDays, due: &mut DueWindows) -> Result<()> {
    let sql = format!("SELECT DISTINCT usage_date, source FROM {} ORDER BY usage_date, source", quote_identifier(&look.job.writes));
    let mut lost = Vec::new();
    for row in look.tx.query(&sql, &[]).await? {
        let (day, source) = (row.date("usage_date")?, row.text("source")?);
        if look.states.get(&Window::containing(WindowKind::Day, day)?).is_some_and(WindowRecord::has_rows_taken_out) {
            continue;
        }
        // A day to each side: another time zone moves events by up to a day.
        let near = [day.pred_opt(), Some(day), day.succ_opt()];
        if !near.into_iter().flatten().any(|day| raw_days.contains(&(source.clone(), day))) {
            lost.push(format!("{day} ({source})"));
        }
    }
    if let (Some(first), false) = (lost.first(), look.request.force) {
        return Err(Failure::bad_data(format!(
            "A rebuild would empty {}, the first {first}: their raw rows are gone",
            counted(lost.len(), "day")
        ))
        .hint("restore the raw rows first, or give up those results with `--force`")
        .into());
    }
    for window in look.states.keys() {
        due.entry(*window).or_insert_with(|| "rebuild".to_owned());
    }
    Ok(())
}
async fn position(tx: &mut Tx, source: &Source, seen: Option<&str>) -> Result<String> {
    let statement = source.position_sql()?;
    let parameters: Vec<Value> = statement.names.iter().map(|_| seen.map(str::to_owned).into()).collect();
    let rows = tx.query(&statement.sql, &parameters).await.map_err(|error| source.explain(error))?;
    let Some(row) = rows.first() else {
        return Err(Failure::config(format!("The position statement of `{}` gives no row", source.origin)).into());
    };
    if row.int("is_behind")? != 0 {
        return Err(Failure::config(format!("The database is behind what was read of `{}`: it is a restored copy", source.name))
            .hint("rows could be missed; redo every day with `tallyroll run-job usage_daily --rebuild --downstream`")
            .into());
    }
    row.text("position")
}

/// 0001-01-01: the first day that both databases and every time zone can count.
const EARLIEST_SECONDS: i64 = -62_135_510_400;
/// 9999-12-01: from here on no event is read.
const LATEST_SECONDS: i64 = 253_399_622_400;
