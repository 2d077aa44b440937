//! The log lines of each run, kept beside its record: what a person looks for first when a run failed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;
use crate::show::escaped;
use crate::store::{Store, format_instant};

/// What is said of each window: of many days it would be all that is seen.
pub const EACH_WINDOW: &str = concat!(env!("CARGO_CRATE_NAME"), "::each_window");

/// Collects what is logged inside a span `run` that has a `run_id`.
#[derive(Debug, Default)]
pub struct RunLog;

/// Lines kept of a run: a backfill of years has a line for each day.
const MOST_LINES: usize = 2_000;

/// Runs whose lines are kept at the same time; those of older ones, cut off and never taken, go.
const MOST_RUNS: usize = 64;

/// By run id: those are in the order of time.
static LINES: LazyLock<Mutex<BTreeMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

/// Begins to keep the lines of a run, until they are stored.
pub(super) fn keep(run_id: &str) {
    if let Ok(mut lines) = LINES.lock() {
        lines.insert(run_id.to_owned(), Vec::new());
        while lines.len() > MOST_RUNS {
            lines.pop_first();
        }
    }
}

/// Stores the lines of a run with its record. That this cannot be done fails no run.
pub(crate) async fn store(store: &Store, run_id: &str) {
    let Some(lines) = LINES.lock().ok().and_then(|mut lines| lines.remove(run_id)) else { return };
    if let Err(error) = store.keep_log(run_id, &lines.join("\n")).await {
        tracing::warn!(run_id, error = format!("{error:#}"), "The run's log lines could not be kept");
    }
}

struct RunId(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RunLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != "run" {
            return;
        }
        let mut found = Fields::default();
        attributes.record(&mut found);
        if let (Some(run_id), Some(span)) = (found.run_id, context.span(id)) {
            span.extensions_mut().insert(RunId(run_id));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let run_id = context
            .event_scope(event)
            .and_then(|scope| scope.into_iter().find_map(|span| span.extensions().get::<RunId>().map(|run_id| run_id.0.clone())));
        let (Some(run_id), Ok(mut lines)) = (run_id, LINES.lock()) else { return };
        let Some(lines) = lines.get_mut(&run_id).filter(|lines| lines.len() < MOST_LINES) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = format!("{} {:5} {}{}", format_instant(Clock::system().now()), event.metadata().level(), fields.message, fields.others);
        // A line end in what was logged would fake a line.
        lines.push(escaped(&line));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    run_id: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "run_id" {
            self.run_id = Some(value.to_owned());
        } else {
            self.record_debug(field, &format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let _ = write!(self.others, " {}={value:?}", field.name());
        }
    }
}
