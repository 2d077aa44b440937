//! The usage summaries against the raw log, and against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};

use super::findings::{Findings, Range};
use super::keys;
use super::totals::{self, Totals};
use crate::engine::env::Context;
use crate::engine::request::Request;
use crate::job::{Job, OperatorKind};
use crate::measure::{MEASURES, REQUEST_COUNT};
use crate::money::div_half_even;
use crate::operator::usage_rollup::{SeenIds, UsageRollup};
use crate::operator::{self, Found, Operator};
use crate::plan::Plan;
use crate::store::windows::WindowState;
use crate::window::{Window, WindowKind, first_of_month};

/// `usage_daily` against the raw log, read and priced again, and the quarantine against what is still bad.
pub(super) async fn raw_log(context: &Context, range: &Range, as_of: DateTime<Utc>, findings: &mut Findings) -> Result<()> {
    for (source, day) in context.store.archived_sources_but(&context.config.usage.sources).await? {
        findings.compare("raw_log", &day.to_string(), &format!("archived events of `{source}`"), &"in a total", &"in none", || {
            format!("`usage.sources` lacks `{source}`: put it back, or restore its days with `tallyroll archive --restore {day}`")
        });
    }
    for job in context.jobs.iter().filter(|job| job.operator == OperatorKind::UsageRollup) {
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        let Operator::UsageRollup(rollup) = &operator else { continue };
        let own = rollup.sources.iter().filter(|source| !source.is_built_in);
        let seen_ids = own.map(|source| (source.name.clone(), SeenIds::default())).collect();
        let rollup = &Arc::new(UsageRollup { seen_ids: Some(seen_ids), ..UsageRollup::clone(rollup) });
        // Before the plan: what comes in between is due by then, and not held against anyone.
        let logged = logged_windows(context, rollup, range).await?;
        let (plan, due) = planned(context, job, &operator, as_of).await?;
        let stored = totals::stored(&context.store, job).await?;
        for (day, found) in &stored {
            let window = Window::containing(job.window, *day)?;
            if !plan.states.contains_key(&window) && !due.contains(&window) {
                let rows = found.shown(REQUEST_COUNT);
                findings.compare("raw_log", &window.to_string(), "rows of a day that no run wrote", &0, &rows, || {
                    format!("SELECT * FROM {} WHERE {} = '{day}'", job.writes, job.window_column)
                });
            }
        }
        let written = plan.states.iter().filter(|(window, state)| state.state == WindowState::Done && range.holds(window.start_date));
        // Days that no run has written, and none knows to be due: their rows came past what tracks them.
        let unwritten = logged.into_iter().filter(|window| !plan.states.contains_key(window) && !due.contains(window));
        for window in written.map(|(window, _)| *window).chain(unwritten) {
            let computed = rollup.compute(&context.store, window, as_of, &context.stop).await?;
            for source in &rollup.sources {
                let repeated = computed.repeated.get(&source.name);
                let count = repeated.map_or(0, |repeated| repeated.count);
                let subject = format!("events of `{}` that it gives again", source.name);
                findings.compare("raw_log", &window.to_string(), &subject, &0, &count, || {
                    let event_id = repeated.map_or("", |repeated| &repeated.event_id);
                    format!("the first with the id `{event_id}`: look at the JOINs of `{}`", source.origin)
                });
            }
            let day = window.start_date;
            let is_written = plan.states.contains_key(&window);
            if !due.contains(&window) {
                let (expected, found) = (Totals::of_groups(&computed.groups), stored.get(&day).copied().unwrap_or(Totals::NONE));
                for (index, measure) in MEASURES.iter().enumerate() {
                    findings.compare("raw_log", &window.to_string(), measure.name, &expected.shown(index), &found.shown(index), || {
                        if is_written {
                            format!("SELECT {} FROM {} WHERE {} = '{day}'", measure.sql(), job.writes, job.window_column)
                        } else {
                            format!("no run has found this day: `tallyroll run-job {} --day {day} --downstream`", job.name)
                        }
                    });
                }
            }
            if is_written && !due.contains(&window) {
                let differing = keys::differing(&context.store, &job.writes, day, &computed).await?;
                let (expected, found) = differing.unwrap_or_default();
                findings.compare("raw_log", &window.to_string(), "rows by key", &expected, &found, || {
                    format!("SELECT * FROM {} WHERE {} = '{day}'", job.writes, job.window_column)
                });
            }
            quarantine(context, rollup, window, &computed.quarantined.iter().map(|event| event.event_id.as_str()).collect(), findings)
                .await?;
        }
    }
    Ok(())
}

/// The days that the log has, as windows.
async fn logged_windows(context: &Context, rollup: &UsageRollup, range: &Range) -> Result<BTreeSet<Window>> {
    let mut windows = BTreeSet::new();
    let mut tx = context.store.begin_read().await?;
    for source in &rollup.sources {
        let mut days: BTreeSet<NaiveDate> = rollup.days_with_events(&mut tx, source, range.from, range.to).await?.into_iter().collect();
        // What a project's own statement says of the next event is not believed.
        if !source.is_built_in {
            days.extend(rollup.days_read(&context.store, source).await?.into_iter().filter(|day| range.holds(*day)));
        }
        for day in days {
            windows.insert(Window::containing(WindowKind::Day, day)?);
        }
    }
    Ok(windows)
}

/// Events that were quarantined and are no longer bad should have been taken up.
async fn quarantine(
    context: &Context,
    rollup: &UsageRollup,
    window: Window,
    still_bad: &BTreeSet<&str>,
    findings: &mut Findings,
) -> Result<()> {
    let sql = "SELECT source, event_id FROM quarantined_event WHERE usage_date = $1 ORDER BY source, event_id";
    for row in context.store.query(sql, &[window.start_date.into()]).await? {
        let (source, event_id) = (row.text("source")?, row.text("event_id")?);
        if rollup.sources.iter().all(|known| known.name != source) {
            continue;
        }
        let found = if still_bad.contains(event_id.as_str()) { "bad" } else { "fixed, and not taken up" };
        findings.compare("quarantine", &window.to_string(), &format!("{source} {event_id}"), &"bad", &found, || {
            format!("SELECT * FROM quarantined_event WHERE source = '{source}' AND event_id = '{}'", event_id.replace('\'', "''"))
        });
    }
    Ok(())
}

/// The summaries downstream of `usage_daily`, each measure per window.
pub(super) async fn summaries(context: &Context, as_of: DateTime<Utc>, findings: &mut Findings) -> Result<()> {
    let Some(daily) = context.jobs.iter().find(|job| job.operator == OperatorKind::UsageRollup) else { return Ok(()) };
    let days = totals::stored(&context.store, daily).await?;
    for job in context.jobs.downstream_of(daily).into_iter().filter(|job| matches!(job.operator, OperatorKind::Sql | OperatorKind::Rollup))
    {
        let check = match job.window {
            WindowKind::Day => "days",
            WindowKind::Month => "months",
            _ => continue,
        };
        let measures = totals::measures_of(&context.store, job).await?;
        if measures.is_empty() {
            continue;
        }
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        let (_, due) = planned(context, job, &operator, as_of).await?;
        let stored = totals::stored(&context.store, job).await?;
        let mut expected: BTreeMap<NaiveDate, Totals> = BTreeMap::new();
        for (day, totals) in &days {
            let key = if job.window == WindowKind::Month { first_of_month(*day) } else { *day };
            expected.entry(key).or_insert(Totals::NONE).add(totals);
        }
        let starts: BTreeSet<NaiveDate> = expected.keys().chain(stored.keys()).copied().collect();
        for start in starts {
            let window = Window::containing(job.window, start)?;
            if due.contains(&window) {
                continue;
            }
            let (expected, found) = (expected.get(&start).unwrap_or(&Totals::NONE), stored.get(&start).unwrap_or(&Totals::NONE));
            for index in &measures {
                let measure = &MEASURES[*index];
                let window_name = format!("{} {window}", job.writes);
                findings.compare(check, &window_name, measure.name, &expected.shown(*index), &found.shown(*index), || {
                    let (from, to, day) = (window.start_date, window.end_date, &daily.window_column);
                    format!(
                        "SELECT (SELECT {sql} FROM {} WHERE {day} >= '{from}' AND {day} < '{to}'), (SELECT {sql} FROM {} WHERE {} = '{from}')",
                        daily.writes,
                        job.writes,
                        job.window_column,
                        sql = measure.sql()
                    )
                });
            }
        }
    }
    Ok(())
}

/// Each user's cached totals against the monthly summaries that they were made from.
pub(super) async fn dashboards(context: &Context, findings: &mut Findings) -> Result<()> {
    let last = context.store.query("SELECT MAX(last_calculated_at) AS as_of FROM user_dashboard_data", &[]).await?;
    let Some(as_of) = last.first().map(|row| row.opt_instant("as_of")).transpose()?.flatten() else { return Ok(()) };
    let job = context.jobs.get("user_dashboard")?;
    let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
    if !planned(context, job, &operator, as_of).await?.1.is_empty() {
        return Ok(());
    }
    let sql = "SELECT dashboard.user_id AS user_id, dashboard.total_requests AS total_requests, \
             dashboard.total_tokens_used AS total_tokens_used, dashboard.total_cost AS total_cost, \
             CAST(COALESCE(SUM(month.request_count), 0) AS BIGINT) AS request_count, \
             CAST(COALESCE(SUM(month.total_tokens), 0) AS BIGINT) AS total_tokens, \
             CAST(COALESCE(SUM(month.total_cost_nanos), 0) AS BIGINT) AS total_cost_nanos \
         FROM user_dashboard_data AS dashboard \
         LEFT JOIN usage_monthly_user AS month ON month.user_id = CAST(dashboard.user_id AS TEXT) \
         GROUP BY dashboard.user_id, dashboard.total_requests, dashboard.total_tokens_used, dashboard.total_cost \
         ORDER BY dashboard.user_id";
    for row in context.store.query(sql, &[]).await? {
        let user_id = row.text("user_id")?;
        let cents = div_half_even(row.int("total_cost_nanos")?.into(), NANOS_PER_CENT);
        for (subject, expected) in [
            ("total_requests", i128::from(row.int("request_count")?)),
            ("total_tokens_used", i128::from(row.int("total_tokens")?)),
            ("total_cost", cents),
        ] {
            findings.compare("dashboards", &user_id, subject, &expected, &row.int(subject)?, || {
                format!("SELECT * FROM usage_monthly_user WHERE user_id = '{user_id}' ORDER BY usage_month")
            });
        }
    }
    Ok(())
}

const NANOS_PER_CENT: i128 = 10_000_000;

/// The plan of a job, and the windows that are due.
async fn planned(context: &Context, job: &Job, operator: &Operator, as_of: DateTime<Utc>) -> Result<(Plan, BTreeSet<Window>)> {
    let mut tx = context.store.begin_read().await?;
    let plan = Plan::make(context, &mut tx, job, operator, &Request { as_of, ..Request::default() }, &Found::Nothing).await?;
    let due = plan.windows.iter().map(|planned| planned.window).collect();
    Ok((plan, due))
}
