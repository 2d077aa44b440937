//! Printing: tables and JSON on stdout, errors and progress on stderr. The only place that prints.
#![allow(clippy::print_stderr, reason = "this is where an error is printed")]

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use chrono::{DateTime, Utc};
use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::engine::env::Event;
use crate::failure;
use crate::show::{ago, escaped};
pub(super) use crate::show::{counted, grouped, printable, seconds};
use crate::store::{format_instant, url};

/// Writes a text and a line end to stdout. A closed pipe is not an error.
pub(super) fn line(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Prints an error with what caused it, once, and the next step on a line of its own.
pub(super) fn error(error: &anyhow::Error) {
    let (label, hint) =
        if is_coloured(&io::stderr()) { ("\x1b[1;31merror:\x1b[0m", "\x1b[1;36mhint:\x1b[0m") } else { ("error:", "hint:") };
    // Whoever closed standard error has the exit code.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "{label} {}", without_urls(failure::text(error)));
    if let Some(text) = failure::find(error).and_then(|failure| failure.hint.as_ref()) {
        let _ = writeln!(stderr, "{hint} {}", without_urls(escaped(text)));
    }
}

/// Prints what is wrong with the arguments, or the help that they ask for.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let shown = without_urls(text.clone());
    if shown == text {
        let _ = error.print();
    } else {
        eprint!("{shown}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
}

/// A text in which no argument stands that is a URL with a user, and so may have a password.
fn without_urls(text: String) -> String {
    let arguments = std::env::args_os().flat_map(|argument| {
        let argument = argument.to_string_lossy().into_owned();
        let value = argument.split_once('=').map(|(_, value)| value.to_owned());
        [Some(argument), value]
    });
    let has_user = |argument: &String| argument.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    arguments.flatten().filter(has_user).fold(text, |text, argument| text.replace(&argument, &url::shown(&argument)))
}

/// Whether to colour what goes to a stream: only a terminal, and not against `NO_COLOR`.
pub(super) fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table: the columns named `right` hold numbers.
pub(super) fn table(header: &[&str], right: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(rule)).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|text| Cell::new(printable(text))).collect::<Vec<_>>());
    }
    for (index, name) in header.iter().enumerate() {
        if let (true, Some(column)) = (right.contains(name), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A table without the columns that only `--wide` shows, and without those of `if_any` in which nothing stands but zeros.
pub(super) fn narrow(wide: bool, header: &[&str], right: &[&str], rows: &[Vec<String>], wide_only: &[&str], if_any: &[&str]) -> String {
    let is_blank = |index: usize| rows.iter().all(|row| row.get(index).is_none_or(|text| text == "0" || text == "-"));
    let is_kept = |(index, name): &(usize, &&str)| wide || !(wide_only.contains(name) || if_any.contains(name) && is_blank(*index));
    let kept: Vec<usize> = header.iter().enumerate().filter(is_kept).map(|(index, _)| index).collect();
    let header: Vec<&str> = kept.iter().map(|index| header[*index]).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| kept.iter().filter_map(|index| row.get(*index).cloned()).collect()).collect();
    table(&header, right, &rows)
}

/// A run's id; without `--wide` its last characters, which commands take as well.
pub(super) fn run_id(wide: bool, id: &str) -> String {
    let start = if wide { 0 } else { id.len().saturating_sub(SHORT_ID) };
    id.get(start..).unwrap_or(id).to_owned()
}

const SHORT_ID: usize = 8;

/// An instant; without `--wide` how long ago it was.
pub(super) fn instant(wide: bool, at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if wide { format_instant(at) } else { ago(at, now) }
}

/// A bar of up to `columns` blocks for a count beside the largest one.
pub(super) fn bar(count: i64, largest: i64, columns: i64) -> String {
    let blocks = (i128::from(count) * i128::from(columns)).div_euclid(largest.max(1).into());
    "█".repeat(usize::try_from(blocks).unwrap_or(0))
}

/// Draws a progress bar on a terminal: windows done, rows a second, time left.
pub(super) fn progress(is_text: bool) -> Box<dyn Fn(&Event) + Send + Sync> {
    if !is_text || !io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{msg} {wide_bar} {pos}/{len} windows, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Several jobs can be at work at once: one bar for them all.
    let jobs_and_rows = Mutex::new((Vec::<String>::new(), 0_i64));
    Box::new(move |event| {
        let Ok(mut state) = jobs_and_rows.lock() else { return };
        let (jobs, row_count) = &mut *state;
        match event {
            Event::Planned { job, window_count } => {
                if jobs.is_empty() {
                    *row_count = 0;
                    bar.reset();
                    bar.set_length(0);
                }
                if !jobs.contains(job) {
                    jobs.push(job.clone());
                }
                bar.inc_length(*window_count as u64);
                bar.set_message(jobs.join(", "));
            }
            Event::WindowDone { rows_in } => {
                *row_count += rows_in;
                bar.inc(1);
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a rate for the eye")]
                let rate = (*row_count as f64 / bar.elapsed().as_secs_f64().max(0.001)) as i64;
                bar.set_message(format!("{}: {} rows/s", jobs.join(", "), grouped(rate)));
            }
            Event::JobDone { job } => {
                jobs.retain(|other| other != job);
                if jobs.is_empty() {
                    bar.finish_and_clear();
                }
            }
        }
    })
}

/// A path of an argument that names a folder to write into.
pub(super) fn local_folder(text: &str) -> Result<PathBuf, String> {
    if text.contains("://") {
        Err("this is an address, and the command writes into a folder of this machine".to_owned())
    } else {
        Ok(text.into())
    }
}
