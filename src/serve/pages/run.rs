//! `/runs/{id}`: one run, what it wrote, what went wrong, and the command that does it again.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use serde_json::json;
use uuid::Uuid;

use super::runs;
use crate::engine::request::Request;
use crate::serve::app::App;
use crate::serve::data::{self, LISTED_WINDOWS, RunLine, WindowLine};
use crate::serve::html::{
    cut, duration, encode, figure, grouped, instant, job_link, none, opt_instant, opt_text, run_link, shortened, text,
};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::{Named, Query};
use crate::serve::session::Session;
use crate::serve::states::state;
use crate::store::format_instant;
use crate::store::runs::{Run, RunState};

/// Seconds after which the page of a run at work is reloaded.
const REFRESH_SECONDS: u32 = 2;

/// How long to look for a run that was started from a page. If it has not appeared by then, nothing was due.
const BEGIN_MAX: TimeDelta = TimeDelta::seconds(30);

/// Characters of an error and of a log that a page shows.
const ERROR_CHARS: usize = 20_000;
const LOG_CHARS: usize = 200_000;

/// A run with what belongs to it.
struct Shown {
    run: Run,
    heartbeat_at: DateTime<Utc>,
    windows: Vec<WindowLine>,
    /// Windows of the job that are still due, or due again.
    windows_left: Vec<WindowLine>,
    downstream: Vec<RunLine>,
    log: Option<String>,
    rerun: Option<String>,
}

pub(super) async fn json(State(app): State<Arc<App>>, Named(id): Named) -> Result<Response, Problem> {
    let Some(shown) = read(&app, &id).await? else { return Err(unknown(&id)) };
    let body = json!({
        "run": shown.run,
        "heartbeat_at": shown.heartbeat_at,
        "windows": shown.windows,
        "windows_left": shown.windows_left,
        "downstream": shown.downstream,
        "log": shown.log,
        "rerun": shown.rerun,
    });
    Ok(Json(body).into_response())
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Named(id): Named,
    query: Query,
) -> Result<Response, Problem> {
    let now = app.context.clock.now();
    let Some(shown) = read(&app, &id).await? else {
        let started = query.text("started").filter(|job| app.context.jobs.get(job).is_ok());
        return started.map_or_else(|| Err(unknown(&id)), |job| Ok(not_begun(&session, &id, job, now)));
    };
    let run = &shown.run;
    let silent_for = now - shown.heartbeat_at;
    let is_running = run.state == RunState::Running;
    // A run that is silent for longer than its lease is dead, so reloading the page would show nothing new.
    let is_silent = is_running && silent_for > TimeDelta::seconds(app.context.config.engine.lock_lease_seconds.into());
    let content = html! {
        h1 { "Run of " (cut(&run.job, 60)) " " (state(run.state)) }
        @if is_silent {
            p class="warn" role="alert" {
                "It has been silent since " (instant(shown.heartbeat_at)) " UTC: its process is gone or cannot reach the database. "
                "The next run of the job takes over."
            }
        }
        (facts(run, now))
        @if let Some(error) = &run.error_text {
            h2 { "Error" @if let Some(class) = &run.error_class { " " span class="soft" { "(" (cut(class, 40)) ")" } } }
            pre class="bad wrap" { (cut(error, ERROR_CHARS)) }
        }
        @if let Some(command) = &shown.rerun { h2 { "Run it again" } pre { code { (command) } } }
        h2 { "Windows that it wrote" }
        (windows(&shown.windows, "None, or a later run has written them since."))
        @if !shown.windows_left.is_empty() {
            h2 { "Windows of the job that are not done now" }
            (windows(&shown.windows_left, ""))
        }
        @if !shown.downstream.is_empty() {
            h2 { "Runs after it" }
            (runs::table(&shown.downstream, true))
        }
        @if let Some(log) = shown.log.as_deref().filter(|log| !log.is_empty()) {
            h2 { "Log" }
            pre class="log" { (last(log, LOG_CHARS)) }
        }
    };
    let refresh = (is_running && !is_silent).then_some(REFRESH_SECONDS);
    Ok(layout::refreshing(&format!("Run of {}", cut(&run.job, 60)), Some(&session), refresh, &content))
}

async fn read(app: &App, id: &str) -> Result<Option<Shown>> {
    let store = &app.context.store;
    if !data::can_hold(store.engine(), id) {
        return Ok(None);
    }
    let Some(run) = store.run(id).await? else { return Ok(None) };
    let Some(heartbeat_at) = data::heartbeat_at(store, id).await? else { return Ok(None) };
    Ok(Some(Shown {
        heartbeat_at,
        windows: data::written_windows(store, &run.job, id).await?,
        windows_left: data::open_windows(store, &run.job).await?,
        downstream: data::downstream(store, id, run.started_at).await?,
        log: store.run_log(id).await?,
        rerun: rerun(&run),
        run,
    }))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("There is no run `{}`", shortened(id))).hint("a run that found nothing due is not recorded")
}

/// A run that was just started. It is recorded once it holds its job's lock, and never if nothing is due.
fn not_begun(session: &Session, id: &str, job: &str, now: DateTime<Utc>) -> Response {
    let started_at = Uuid::parse_str(id).ok().and_then(|id| id.get_timestamp()).and_then(|stamp| {
        let (seconds, nanos) = stamp.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    let is_new = started_at.is_some_and(|started_at| now - started_at < BEGIN_MAX);
    let content = html! {
        h1 { "Run of " (job) }
        @if is_new {
            p role="status" { "The run has not begun. This page looks again every " (REFRESH_SECONDS) " seconds." }
        } @else {
            p role="status" { "No such run is recorded: nothing was due, or another run holds the job." }
        }
        p class="links" {
            a href={ "/runs/" (encode(id)) "?started=" (encode(job)) } { "Look again" }
            a href={ "/runs?job=" (encode(job)) } { "Runs of " (job) }
        }
    };
    layout::refreshing(&format!("Run of {job}"), Some(session), is_new.then_some(REFRESH_SECONDS), &content)
}

fn facts(run: &Run, now: DateTime<Utc>) -> Markup {
    let took_ms = run.duration_ms.unwrap_or_else(|| (run.finished_at.unwrap_or(now) - run.started_at).num_milliseconds());
    html! {
        dl class="facts card" {
            (figure("Job", &job_link(&run.job)))
            (figure("Run", &html! { code class="wrap" { (cut(&run.run_id, 200)) } }))
            (figure("Started", &html! { (instant(run.started_at)) " UTC" }))
            (figure("Ended", &opt_instant(run.finished_at)))
            (figure("Took", &html! { (duration(took_ms)) }))
            (figure("As of", &instant(run.as_of)))
            (figure("Windows", &html! { (grouped(run.windows_done)) " of " (grouped(run.windows_planned)) }))
            (figure("Rows in", &html! { (grouped(run.rows_in)) }))
            (figure("Rows out", &html! { (grouped(run.rows_out)) }))
            (figure("Quarantined", &html! { (grouped(run.quarantined_count)) }))
            (figure("Started by", &html! {
                (cut(&run.trigger, 40))
                @if let Some(slot) = run.scheduled_for { " for " (instant(slot)) ", try " (grouped(run.attempt)) }
            }))
            @if let Some(parent) = &run.parent_run_id { (figure("After", &run_link(parent))) }
            (figure("On", &html! { (cut(&run.host, 80)) ", process " (run.pid) ", version " (cut(&run.version, 40)) }))
        }
    }
}

fn windows(windows: &[WindowLine], nothing: &str) -> Markup {
    if windows.is_empty() {
        return html! { p class="soft" { (nothing) } };
    }
    let with_words = windows.iter().any(|window| window.due_reason.is_some() || window.error_text.is_some());
    html! {
        div class="scroll" { table {
            thead { tr {
                th { "Window" } th { "State" } th class="number" { "Rows in" } th class="number" { "Rows out" }
                th class="number" { "Quarantined" } @if with_words { th { "Why" } }
            } }
            tbody { @for window in windows { tr {
                td { (window.window) }
                td { (state(window.state)) }
                td class="number" { (grouped(window.rows_in)) }
                td class="number" { (grouped(window.rows_out)) }
                td class="number" { (grouped(window.quarantined_count)) }
                @if with_words {
                    td class="wrap" {
                        @match (&window.error_text, &window.due_reason) {
                            (Some(error), _) => span class="bad" { (text(error)) },
                            (None, Some(_)) => (opt_text(window.due_reason.as_deref())),
                            (None, None) => (none()),
                        }
                    }
                }
            } } }
        } }
        @if windows.len() >= LISTED_WINDOWS { p class="soft" { "The latest " (LISTED_WINDOWS) "." } }
    }
}

/// The last characters of a text.
fn last(text: &str, chars: usize) -> String {
    let skipped = text.chars().count().saturating_sub(chars);
    let shown: String = crate::show::printable(text).chars().skip(skipped).collect();
    if skipped > 0 { format!("… {skipped} characters before\n{shown}") } else { shown }
}

/// The shell command that asks for the same run.
fn rerun(run: &Run) -> Option<String> {
    let request: Request = serde_json::from_str(&run.request).ok()?;
    let mut words = vec!["tallyroll".to_owned(), "run-job".to_owned(), quoted(&run.job)];
    for (name, day) in [("--from", request.from), ("--to", request.to)] {
        if let Some(day) = day {
            words.extend([name.to_owned(), day.to_string()]);
        }
    }
    words.extend(["--as-of".to_owned(), format_instant(request.as_of)]);
    for (name, is_set) in [("--downstream", request.downstream), ("--force", request.force), ("--rebuild", request.rebuild)] {
        if is_set {
            words.push(name.to_owned());
        }
    }
    Some(words.join(" "))
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:/".contains(&byte));
    if is_plain { word.to_owned() } else { format!("'{}'", crate::show::printable(word).replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_word_stays_one_word() {
        assert_eq!(quoted("usage_daily"), "usage_daily");
        assert_eq!(quoted("$(reboot); 'x'"), r"'$(reboot); '\''x'\'''");
    }

    #[test]
    fn a_long_log_shows_its_end() {
        assert_eq!(last("abc", 3), "abc");
        assert_eq!(last("abcdef", 2), "… 4 characters before\nef");
    }
}
