//! Which windows of a job are due, and why (`docs/semantics.md` section 5). Planning reads; [`Plan::keep`] makes it last.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};

use crate::config::ChangeTracking;
use crate::engine::env::Context;
use crate::engine::request::{ASKED_FOR, FORCED, Planned, Request};
use crate::failure::Failure;
use crate::fingerprint;
use crate::job::{Job, OperatorKind};
use crate::operator::Operator;
use crate::operator::usage_rollup::UsageRollup;
use crate::operator::usage_rollup::quarantine::{OCCURRED_IN_FUTURE, latest_occurred_at};
use crate::snapshot::usage_monthly;
use crate::source::Source;
use crate::sql_text::quote_identifier;
use crate::store::windows::{WindowRecord, WindowState};
use crate::store::{Tx, Value};
use crate::usage_dashboard;
use crate::window::{Window, WindowKind, day_of, next_day, start_of_day};

/// The windows that one run of one job will write.
#[derive(Debug, Default)]
pub struct Plan {
    pub windows: Vec<Planned>,
    /// Windows as they were when the plan was made.
    pub states: BTreeMap<Window, WindowRecord>,
    /// What the job's results are made by now.
    definition: String,
    /// How far each source was looked at to find them.
    positions: Vec<(String, String)>,
}

impl Plan {
    /// Makes the plan: nothing is changed.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind config when the windows were written in another time zone, or the database
    /// is a restored one.
    pub async fn make(context: &Context, tx: &mut Tx, job: &Job, operator: &Operator, request: &Request) -> Result<Self> {
        tx.begin_reading().await?;
        let plan = Self::find(context, tx, job, operator, request).await?;
        tx.end_reading().await?;
        Ok(plan)
    }

    async fn find(context: &Context, tx: &mut Tx, job: &Job, operator: &Operator, request: &Request) -> Result<Self> {
        let states = tx.windows(&job.name).await?;
        let mut plan = Self { states, definition: operator.definition(job)?, ..Self::default() };
        plan.check_timezone(context, tx, job, request).await?;
        let mut due: BTreeMap<Window, String> = BTreeMap::new();
        if let Operator::PeakSeats(peak_seats) = operator {
            due = peak_seats.plan(&context.store, &plan.states, request, context.clock.now()).await?;
        } else if let Some(from) = request.from {
            let to = request.to.map_or_else(|| day_of(request.as_of, context.config.reporting.timezone).and_then(next_day), Ok)?;
            for window in Window::covering(job.window, from, to)? {
                due.insert(window, ASKED_FOR.to_owned());
            }
        } else {
            match operator {
                Operator::UsageRollup(rollup) => plan.find_raw(context, tx, job, rollup, request, &mut due).await?,
                Operator::Sql(_) | Operator::Rollup(_) => {
                    let follows = match operator.select() {
                        Some(select) => select.follows_from(tx, job, request.as_of).await?,
                        None => Vec::new(),
                    };
                    plan.find_derived(context, tx, job, &follows, request, &mut due).await?;
                }
                Operator::UsageDashboard => {
                    let follows = [usage_dashboard::follows_from(&context.config, request.as_of)?];
                    plan.find_derived(context, tx, job, &follows, request, &mut due).await?;
                }
                // It looks at everything each time it runs.
                Operator::Reconcile => {
                    due.insert(Window::containing(WindowKind::All, NaiveDate::default())?, "checked at every run".to_owned());
                }
                Operator::PeakSeats(_) => {}
            }
            if matches!(operator, Operator::UsageRollup(_) | Operator::Rollup(_) | Operator::Sql(_)) {
                find_emptied(tx, job, &plan.states, &mut due).await?;
            }
        }
        plan.windows = due.into_iter().map(|(window, reason)| Planned { window, reason }).collect();
        Ok(plan)
    }

    /// Makes the plan last: its windows stay due until they are written, and only then is the watermark moved past what
    /// made them so. The caller commits.
    ///
    /// # Errors
    /// What the database says.
    pub async fn keep(&self, context: &Context, tx: &mut Tx, job: &Job, now: DateTime<Utc>) -> Result<()> {
        let due: Vec<(Window, String)> = self.windows.iter().map(|planned| (planned.window, planned.reason.clone())).collect();
        tx.mark_due(&job.name, &due, context.config.reporting.timezone.name()).await?;
        for (source, position) in &self.positions {
            tx.set_watermark(source, position, now).await?;
        }
        Ok(())
    }

    async fn check_timezone(&self, context: &Context, tx: &mut Tx, job: &Job, request: &Request) -> Result<()> {
        if request.rebuild {
            return Ok(());
        }
        let timezone = context.config.reporting.timezone.name();
        // A summary's own windows are rewritten once what they read is: only that counts.
        let mut written: Vec<String> = Vec::new();
        for upstream in context.jobs.upstream_of(job) {
            written.extend(tx.windows(&upstream.name).await?.into_values().map(|state| state.timezone));
        }
        if job.operator == OperatorKind::UsageRollup {
            written.extend(self.states.values().map(|state| state.timezone.clone()));
        }
        match written.into_iter().find(|zone| zone != timezone) {
            Some(zone) => Err(Failure::config(format!(
                "The windows of job `{}` were written with `reporting.timezone` = `{zone}`, and it is `{timezone}` now",
                job.name
            ))
            .hint("set it back, or redo every day with `tallyroll run-job usage_daily --rebuild --downstream`")
            .into()),
            None => Ok(()),
        }
    }

    /// Windows of the raw log: those whose rows changed, that were left undone, or whose prices changed.
    async fn find_raw(
        &mut self,
        context: &Context,
        tx: &mut Tx,
        job: &Job,
        rollup: &UsageRollup,
        request: &Request,
        due: &mut BTreeMap<Window, String>,
    ) -> Result<()> {
        let mut days: BTreeMap<NaiveDate, String> = BTreeMap::new();
        let mut raw_days: BTreeSet<(String, NaiveDate)> = BTreeSet::new();
        for source in &rollup.sources {
            let tracked = context.config.usage.change_tracking == ChangeTracking::Ingest;
            let seen = if request.rebuild || !tracked { None } else { tx.watermark(&source.name).await? };
            if tracked {
                // Taken before the rows are looked at: what comes in between is found again, never lost.
                self.positions.push((source.name.clone(), position(tx, source, seen.as_deref()).await?));
                if let Some(seen) = seen {
                    find_changed(tx, source, rollup, &seen, &mut days).await?;
                    continue;
                }
            }
            let all = days_with_events(tx, source, rollup, None, None).await?;
            raw_days.extend(all.iter().map(|day| (source.name.clone(), *day)));
            if tracked || request.rebuild {
                let reason = if request.rebuild { "rebuild" } else { "never written" };
                days.extend(all.into_iter().map(|day| (day, reason.to_owned())));
            }
        }
        if context.config.usage.change_tracking == ChangeTracking::Lookback && !request.rebuild {
            let recent = day_of(request.as_of, rollup.timezone)? - Days::new(context.config.usage.lookback_days.saturating_sub(1).into());
            self.look_back(tx, job, recent, &raw_days, &mut days).await?;
        }
        for (day, reason) in days {
            due.insert(Window::containing(WindowKind::Day, day)?, reason);
        }
        self.find_left_undone(rollup, request, due)?;
        if request.rebuild {
            self.find_rebuilt(tx, job, &raw_days, request, due).await?;
        }
        let sql = "SELECT DISTINCT usage_date FROM quarantined_event \
             WHERE reason = $1 AND occurred_at <= $2 AND usage_date IS NOT NULL";
        for row in tx.query(sql, &[OCCURRED_IN_FUTURE.into(), latest_occurred_at(request.as_of).into()]).await? {
            let window = Window::containing(job.window, row.date("usage_date")?)?;
            due.entry(window).or_insert_with(|| "quarantined events are no longer in the future".to_owned());
        }
        Ok(())
    }

    fn find_left_undone(&self, rollup: &UsageRollup, request: &Request, due: &mut BTreeMap<Window, String>) -> Result<()> {
        for (window, state) in &self.states {
            let reason = match state.state {
                WindowState::Due => state.due_reason.clone().unwrap_or_else(|| "left undone".to_owned()),
                WindowState::Failed => "failed before".to_owned(),
                WindowState::Done if state.input_fingerprint.as_deref() != Some(&rollup.rules_fingerprint(*window)?) => {
                    "sources or prices changed".to_owned()
                }
                WindowState::Done if let Some(changed) = changed_definition(state, &self.definition) => changed.to_owned(),
                // Set aside as too old, which it no longer is.
                WindowState::Kept if state.write_count == 0 && !rollup.is_implausible(*window) => "sources or prices changed".to_owned(),
                WindowState::Done | WindowState::Kept if request.force => FORCED.to_owned(),
                WindowState::Future if !window.begins_after(request.as_of, rollup.timezone)? => "it has begun".to_owned(),
                _ => continue,
            };
            due.entry(*window).or_insert(reason);
        }
        Ok(())
    }

    /// Without change tracking: days that were never written, and the last ones, whether they still have events or not.
    async fn look_back(
        &self,
        tx: &mut Tx,
        job: &Job,
        recent: NaiveDate,
        raw_days: &BTreeSet<(String, NaiveDate)>,
        days: &mut BTreeMap<NaiveDate, String>,
    ) -> Result<()> {
        let with_events = raw_days.iter().map(|(_, day)| *day);
        let written = self.states.values().filter(|state| state.write_count > 0).map(|state| state.window.start_date);
        for day in with_events.chain(written.filter(|day| *day >= recent)) {
            let state = self.states.get(&Window::containing(WindowKind::Day, day)?);
            let reason = match state {
                Some(state) if state.write_count > 0 && day < recent => continue,
                Some(state) if state.state == WindowState::Kept => {
                    let sql = format!("SELECT DISTINCT source FROM {} WHERE usage_date = $1", quote_identifier(&job.writes));
                    let sources = tx.query(&sql, &[day.into()]).await?;
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
    async fn find_rebuilt(
        &self,
        tx: &mut Tx,
        job: &Job,
        raw_days: &BTreeSet<(String, NaiveDate)>,
        request: &Request,
        due: &mut BTreeMap<Window, String>,
    ) -> Result<()> {
        let sql = format!("SELECT DISTINCT usage_date, source FROM {} ORDER BY usage_date, source", quote_identifier(&job.writes));
        let mut lost = Vec::new();
        for row in tx.query(&sql, &[]).await? {
            let (day, source) = (row.date("usage_date")?, row.text("source")?);
            // A day to each side: another time zone moves events by up to a day.
            let near = [day.pred_opt(), Some(day), day.succ_opt()];
            if !near.into_iter().flatten().any(|day| raw_days.contains(&(source.clone(), day))) {
                lost.push(format!("{day} ({source})"));
            }
        }
        if let (Some(first), false) = (lost.first(), request.force) {
            return Err(Failure::bad_data(format!(
                "A rebuild would empty {} day(s), the first {first}: their raw rows are gone",
                lost.len()
            ))
            .hint("restore the raw rows first, or give up those results with `--force`")
            .into());
        }
        for window in self.states.keys() {
            due.entry(*window).or_insert_with(|| "rebuild".to_owned());
        }
        Ok(())
    }

    /// Windows of a summary: those whose upstream windows were written since.
    async fn find_derived(
        &mut self,
        context: &Context,
        tx: &mut Tx,
        job: &Job,
        follows: &[String],
        request: &Request,
        due: &mut BTreeMap<Window, String>,
    ) -> Result<()> {
        let published = match &job.publish {
            Some(folder) => Some(context.storage.list(folder).await?),
            None => None,
        };
        for (window, input) in upstream_fingerprints(context, tx, job, follows).await? {
            let is_unpublished = |state: &WindowRecord| {
                let path = job.publish.as_ref().map(|folder| usage_monthly::path(job, folder, window));
                state.rows_out > 0 && path.is_some_and(|path| published.as_ref().is_some_and(|published| !published.contains(&path)))
            };
            let reason = match self.states.get(&window) {
                None => "never written",
                Some(state) if state.state == WindowState::Due => "left undone",
                Some(state) if state.state == WindowState::Failed => "failed before",
                Some(state) if state.input_fingerprint.as_deref() != Some(&input) => "what it is made from has changed",
                Some(state) if let Some(changed) = changed_definition(state, &self.definition) => changed,
                Some(state) if is_unpublished(state) => "its finance file is missing",
                Some(_) if request.force || request.rebuild => FORCED,
                Some(_) => continue,
            };
            due.insert(window, reason.to_owned());
        }
        Ok(())
    }
}

/// Why a window's result was made by something else than what makes it now, if so.
fn changed_definition(state: &WindowRecord, definition: &str) -> Option<&'static str> {
    let known = state.definition.as_deref()?;
    let sql = |definition: &str| definition.split_once(' ').map(|(_, sql)| sql.to_owned());
    match known == definition {
        true => None,
        false if sql(known) == sql(definition) => Some("its job's file changed"),
        false => Some("its SQL changed"),
    }
}

/// Windows whose rows are all gone from the table, by whatever way.
async fn find_emptied(tx: &mut Tx, job: &Job, states: &BTreeMap<Window, WindowRecord>, due: &mut BTreeMap<Window, String>) -> Result<()> {
    let with_rows: Vec<Window> = states.values().filter(|state| state.rows_out > 0).map(|state| state.window).collect();
    if with_rows.is_empty() {
        return Ok(());
    }
    let sql = format!("SELECT 1 AS one FROM {} LIMIT 1", quote_identifier(&job.writes));
    if tx.query(&sql, &[]).await?.is_empty() {
        for window in with_rows {
            due.entry(window).or_insert_with(|| "its rows are gone from the table".to_owned());
        }
    }
    Ok(())
}

/// For each window of `job` that has written upstream windows: a digest of which writes of them it would read, and of what else it
/// follows from ([`SqlSelect::follows_from`](crate::operator::sql::SqlSelect::follows_from)).
///
/// # Errors
/// What the database says.
pub async fn upstream_fingerprints(context: &Context, tx: &mut Tx, job: &Job, follows: &[String]) -> Result<BTreeMap<Window, String>> {
    let mut inputs: BTreeMap<Window, Vec<String>> = BTreeMap::new();
    for upstream in context.jobs.upstream_of(job) {
        for (window, state) in tx.windows(&upstream.name).await? {
            for reader in readers_of(job.window, window)? {
                inputs.entry(reader).or_default().extend(write_of(upstream, window, &state));
            }
        }
    }
    inputs.retain(|_, writes| !writes.is_empty());
    Ok(inputs.into_iter().map(|(window, writes)| (window, fingerprint::of(writes.into_iter().chain(follows.iter().cloned())))).collect())
}

/// The digest of one window, as [`upstream_fingerprints`] makes it, and the rows that its upstream windows hold. Only they are
/// looked at: a backfill of many windows does not read all of them for each.
///
/// # Errors
/// What the database says.
pub async fn upstream_of_window(context: &Context, tx: &mut Tx, job: &Job, window: Window, follows: &[String]) -> Result<(String, i64)> {
    let (mut writes, mut row_count) = (Vec::new(), 0);
    for upstream in context.jobs.upstream_of(job) {
        for (read, state) in tx.windows_near(&upstream.name, window).await? {
            if readers_of(job.window, read)?.contains(&window) {
                writes.extend(write_of(upstream, read, &state));
                row_count += if window.contains(&read) { state.rows_out } else { 0 };
            }
        }
    }
    let fingerprint = if writes.is_empty() { String::new() } else { fingerprint::of(writes.into_iter().chain(follows.iter().cloned())) };
    Ok((fingerprint, row_count))
}

/// The digest of a window that reads one upstream window and nothing else, as [`upstream_of_window`] makes it.
#[must_use]
pub fn fingerprint_of_write(upstream: &Job, window: Window, write_count: i64) -> String {
    fingerprint::of([write_text(upstream, window, write_count)])
}

/// Which writing of an upstream window is read; none where it was never written.
fn write_of(upstream: &Job, window: Window, state: &WindowRecord) -> Option<String> {
    (state.write_count > 0).then(|| write_text(upstream, window, state.write_count))
}

fn write_text(upstream: &Job, window: Window, write_count: i64) -> String {
    format!("{} {} {write_count}", upstream.name, window.start_date)
}

/// The windows of `kind` that read an upstream window.
///
/// # Errors
/// Only at the end of the calendar.
pub fn readers_of(kind: WindowKind, upstream: Window) -> Result<Vec<Window>> {
    if kind == WindowKind::All || upstream == Window::containing(WindowKind::All, upstream.start_date)? {
        return Ok(vec![Window::containing(WindowKind::All, upstream.start_date)?]);
    }
    Window::covering(kind, upstream.start_date, upstream.end_date)
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

async fn find_changed(
    tx: &mut Tx,
    source: &Source,
    rollup: &UsageRollup,
    seen: &str,
    days: &mut BTreeMap<NaiveDate, String>,
) -> Result<()> {
    let changed = source.changed_sql()?;
    let parameters: Vec<Value> = changed.names.iter().map(|_| seen.into()).collect();
    for row in tx.query(&changed.sql, &parameters).await.map_err(|error| source.explain(error))? {
        let slot_start = row.instant("slot_start")?;
        let reason = row.text("reason")?;
        // In every zone of today a quarter of an hour lies in one day; in some of the past it may touch two.
        let slot_last = slot_start + TimeDelta::minutes(15) - TimeDelta::microseconds(1);
        for instant in [slot_start, slot_last] {
            days.entry(day_of(instant, rollup.timezone)?).or_insert_with(|| reason.clone());
        }
    }
    Ok(())
}

/// Every day of `[from, to)` that has events, by hopping from each day's end to the next event: a handful of index look-ups.
///
/// # Errors
/// What the database says; [`Failure`] of kind bad-data for a source of more days than windows can be asked for.
pub(crate) async fn days_with_events(
    tx: &mut Tx,
    source: &Source,
    rollup: &UsageRollup,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<Vec<NaiveDate>> {
    let next_event = source.next_event_sql()?;
    let mut days = Vec::new();
    let earliest = DateTime::<Utc>::from_timestamp(EARLIEST_SECONDS, 0).unwrap_or_default();
    let mut from = from.map_or(Ok(earliest), |from| start_of_day(from, rollup.timezone))?.max(earliest);
    while days.len() <= crate::window::MAX_WINDOWS {
        let rows = tx.query(&next_event.sql, &[from.into()]).await.map_err(|error| source.explain(error))?;
        let Some(occurred_at) = rows.first().map(|row| row.opt_instant("occurred_at")).transpose()?.flatten() else {
            return Ok(days);
        };
        let day = day_of(occurred_at, rollup.timezone)?;
        if to.is_some_and(|to| to <= day) {
            return Ok(days);
        }
        days.push(day);
        from = start_of_day(next_day(day)?, rollup.timezone)?;
    }
    Err(Failure::bad_data(format!("Source `{}` holds events of more than {} days", source.name, crate::window::MAX_WINDOWS))
        .hint("run it for a range, with `--from` and `--to`")
        .into())
}

/// 0001-01-01: the first day that both databases and every time zone can count.
const EARLIEST_SECONDS: i64 = -62_135_510_400;
