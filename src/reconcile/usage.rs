//! The usage summaries against the raw log, and against each other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use chrono::{DateTime, NaiveDate, Utc};

use super::{Findings, Range};
use crate::job::{Job, OperatorKind};
use crate::money::div_half_even;
use crate::operator::usage_rollup::UsageRollup;
use crate::plan::{Plan, Request, days_with_events};
use crate::run::{Context, Operator, load_operator};
use crate::sql_text::quote_identifier;
use crate::store::windows::WindowState;
use crate::store::{Row, Value};
use crate::window::{Window, WindowKind, first_of_month};

/// Measures that add up over any grouping.
const MEASURES: [&str; 15] = [
    "request_count",
    "success_count",
    "error_count",
    "unpriced_count",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost_nanos",
    "output_cost_nanos",
    "total_cost_nanos",
    "success_total_tokens",
    "success_latency_ms_sum",
    "tool_turns",
    "rating_sum",
    "rating_count",
];

type Sums = BTreeMap<&'static str, i128>;

/// `usage_daily` against the raw log, read and priced again, and the quarantine against what is still bad.
pub(super) async fn raw_log(context: &Context, range: &Range, as_of: DateTime<Utc>, findings: &mut Findings) -> Result<()> {
    for job in context.jobs.iter().filter(|job| job.operator == OperatorKind::UsageRollup) {
        let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, job).await?;
        let Operator::UsageRollup(rollup) = &operator else { continue };
        // Before the plan: what comes in between is due by then, and not held against anyone.
        let logged = logged_windows(context, rollup, range).await?;
        let (plan, due) = planned(context, job, &operator, as_of).await?;
        let stored = stored_sums(context, job, &job.window_column).await?;
        for (day, found) in &stored {
            let window = Window::containing(job.window, *day)?;
            if !plan.states.contains_key(&window) && !due.contains(&window) {
                let rows = found.get("request_count").unwrap_or(&0);
                findings.compare("raw_log", &window.to_string(), "rows of a day that no run wrote", &0, rows, || {
                    format!("SELECT * FROM {} WHERE {} = '{day}'", job.writes, job.window_column)
                });
            }
        }
        let written = plan.states.iter().filter(|(window, state)| state.state == WindowState::Done && range.holds(window.start_date));
        // Days that no run has written, and none knows to be due: their rows came past what tracks them.
        let unwritten = logged.into_iter().filter(|window| !plan.states.contains_key(window) && !due.contains(window));
        for window in written.map(|(window, _)| *window).chain(unwritten) {
            let computed = rollup.compute(&context.store, window, as_of, &context.stop).await?;
            let day = window.start_date;
            let is_written = plan.states.contains_key(&window);
            if !due.contains(&window) {
                let none = Sums::new();
                let found = stored.get(&day).unwrap_or(&none);
                for measure in MEASURES {
                    let (expected, found) = (sum_of(&computed.rows, measure), found.get(measure).unwrap_or(&0));
                    findings.compare("raw_log", &window.to_string(), measure, &expected, found, || {
                        if is_written {
                            format!("SELECT SUM({measure}) FROM {} WHERE {} = '{day}'", job.writes, job.window_column)
                        } else {
                            format!("no run has found this day: `tallyroll run-job {} --day {day} --downstream`", job.name)
                        }
                    });
                }
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
        for day in days_with_events(&mut tx, source, rollup, range.from, range.to).await? {
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
        let found = if still_bad.contains(event_id.as_str()) { "bad" } else { "mended, and not taken up" };
        findings.compare("quarantine", &window.to_string(), &format!("{source} {event_id}"), &"bad", &found, || {
            format!("SELECT * FROM quarantined_event WHERE source = '{source}' AND event_id = '{}'", event_id.replace('\'', "''"))
        });
    }
    Ok(())
}

/// The summaries downstream of `usage_daily`, each measure per window.
pub(super) async fn summaries(context: &Context, as_of: DateTime<Utc>, findings: &mut Findings) -> Result<()> {
    let Some(daily) = context.jobs.iter().find(|job| job.operator == OperatorKind::UsageRollup) else { return Ok(()) };
    let days = stored_sums(context, daily, &daily.window_column).await?;
    for job in context.jobs.downstream_of(daily).into_iter().filter(|job| job.operator == OperatorKind::Sql) {
        let check = match job.window {
            WindowKind::Day => "days",
            WindowKind::Month => "months",
            _ => continue,
        };
        let columns = context.store.table_columns(&job.writes).await?;
        let measures: Vec<&'static str> = MEASURES.into_iter().filter(|measure| columns.iter().any(|column| column == measure)).collect();
        if measures.is_empty() {
            continue;
        }
        let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, job).await?;
        let (_, due) = planned(context, job, &operator, as_of).await?;
        let stored = stored_sums(context, job, &job.window_column).await?;
        let mut expected: BTreeMap<NaiveDate, Sums> = BTreeMap::new();
        for (day, sums) in &days {
            let key = if job.window == WindowKind::Month { first_of_month(*day) } else { *day };
            let into = expected.entry(key).or_default();
            for (measure, sum) in sums {
                *into.entry(measure).or_default() += sum;
            }
        }
        let starts: BTreeSet<NaiveDate> = expected.keys().chain(stored.keys()).copied().collect();
        for start in starts {
            let window = Window::containing(job.window, start)?;
            if due.contains(&window) {
                continue;
            }
            let none = Sums::new();
            let (expected, found) = (expected.get(&start).unwrap_or(&none), stored.get(&start).unwrap_or(&none));
            for measure in &measures {
                let (expected, found) = (expected.get(measure).unwrap_or(&0), found.get(measure).unwrap_or(&0));
                findings.compare(check, &format!("{} {window}", job.writes), measure, expected, found, || {
                    let (from, to, day) = (window.start_date, window.end_date, &daily.window_column);
                    format!(
                        "SELECT (SELECT SUM({measure}) FROM {} WHERE {day} >= '{from}' AND {day} < '{to}'), (SELECT SUM({measure}) FROM {} WHERE {} = '{from}')",
                        daily.writes, job.writes, job.window_column
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
    let operator = load_operator(&context.project, &context.config, &context.store, &context.storage, job).await?;
    if !planned(context, job, &operator, as_of).await?.1.is_empty() {
        return Ok(());
    }
    let sql = "SELECT dashboard.user_id AS user_id, dashboard.total_requests AS total_requests, \
             dashboard.total_tokens_used AS total_tokens_used, dashboard.total_cost AS total_cost, \
             CAST(COALESCE(SUM(month.request_count), 0) AS BIGINT) AS request_count, \
             CAST(COALESCE(SUM(month.total_tokens), 0) AS BIGINT) AS total_tokens, \
             CAST(COALESCE(SUM(month.total_cost_nanos), 0) AS BIGINT) AS total_cost_nanos \
         FROM user_dashboard_data AS dashboard \
         LEFT JOIN usage_monthly_user AS month ON month.user_id = dashboard.user_id \
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
    let plan = Plan::make(context, &mut tx, job, operator, &Request { as_of, ..Request::default() }).await?;
    let due = plan.windows.iter().map(|planned| planned.window).collect();
    Ok((plan, due))
}

/// A table's measures, summed by the day that its windows start on.
async fn stored_sums(context: &Context, job: &Job, window_column: &str) -> Result<BTreeMap<NaiveDate, Sums>> {
    let columns = context.store.table_columns(&job.writes).await?;
    let measures: Vec<&'static str> = MEASURES.into_iter().filter(|measure| columns.iter().any(|column| column == measure)).collect();
    let as_text = |measure: &&str| format!("CAST(SUM({measure}) AS TEXT) AS {measure}");
    let column = quote_identifier(window_column);
    let sql = format!(
        "SELECT {column} AS window_start, {} FROM {} GROUP BY {column} ORDER BY {column}",
        measures.iter().map(as_text).collect::<Vec<_>>().join(", "),
        quote_identifier(&job.writes)
    );
    let sums_of = |row: &Row| -> Result<(NaiveDate, Sums)> {
        let mut sums = Sums::new();
        for measure in &measures {
            let sum = match row.get(measure)? {
                Value::Null => 0,
                value => value.to_text().unwrap_or_default().parse()?,
            };
            sums.insert(measure, sum);
        }
        Ok((row.date("window_start")?, sums))
    };
    context.store.query(&sql, &[]).await?.iter().map(sums_of).collect()
}

fn sum_of(rows: &RecordBatch, measure: &str) -> i128 {
    rows.column_by_name(measure).map_or(0, |column| column.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum())
}
