//! `prices import`: LiteLLM's map of prices, into the price book.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::{NaiveDate, NaiveTime};
use clap::Args;
use serde_json::json;

use super::output;
use super::session::{Session, read_text};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::price::litellm::{Additions, PriceMap};
use crate::price::{Price, PriceKey, file};
use crate::{project, text_file};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// LiteLLM's map, JSON
    file: PathBuf,
    /// The first day, in UTC, that the prices are in force; today unless set
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Only the models that this names; `*` stands for anything
    #[arg(long, value_name = "GLOB")]
    model: Option<String>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Fields of a map that a person is shown.
const SHOWN: usize = 10;

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let map = PriceMap::parse(&read_text(&arguments.file)?, &arguments.file.display().to_string())?;
    let config = &session.loaded.config;
    let from = arguments.from.unwrap_or_else(|| Clock::system().now().date_naive());
    let book = config.price_book_or_none(&session.project)?;
    let additions = map.additions(&book, from.and_time(NaiveTime::MIN).and_utc(), arguments.model.as_deref());
    let path = session.project.dir.join(&config.usage.price_book);
    if let Some(first) = additions.conflicts.first() {
        let others = additions.conflicts.len() - 1;
        return Err(Failure::usage(format!(
            "`{}` has another price of {} from {from} already{}",
            path.display(),
            first,
            if others == 0 { String::new() } else { format!(", and of {others} more") }
        ))
        .hint("give another day with `--from`, or take those entries out of the file")
        .into());
    }
    if !(arguments.dry_run || additions.new.is_empty()) {
        append(&path, &additions.new)?;
    }
    if session.json {
        return output::json(&json!({
            "file": arguments.file, "model_count": map.entry_count, "left_out": map.left_out, "partial_count": map.partial_count,
            "unused_fields": map.unused_fields, "rounded_count": map.rounded_count, "effective_from": from,
            "price_book": path, "written_count": if arguments.dry_run { 0 } else { additions.new.len() },
            "new_count": additions.new.len(), "unchanged_count": additions.unchanged_count,
        }));
    }
    session.tell(&told(&map, &additions, from, &path, arguments.dry_run))
}

fn told(map: &PriceMap, additions: &Additions, from: NaiveDate, path: &Path, is_dry: bool) -> String {
    let count = |number: u64| output::grouped(i64::try_from(number).unwrap_or(i64::MAX));
    let left_out: u64 = map.left_out.values().sum();
    let mut lines =
        vec![format!("{} models read, {} of them expressed as prices", count(map.entry_count), count(map.entry_count - left_out))];
    lines.extend(map.left_out.iter().map(|(reason, number)| format!("  {} not: {reason}", count(*number))));
    if map.partial_count > 0 {
        let mut fields: Vec<_> = map.unused_fields.iter().collect();
        fields.sort_by_key(|(field, number)| (Reverse(**number), *field));
        let shown: Vec<String> = fields.iter().take(SHOWN).map(|(field, number)| format!("    {field} ({})", count(**number))).collect();
        lines.push(format!("  {} in part: what else they cost is not expressed", count(map.partial_count)));
        lines.extend(shown);
        if fields.len() > SHOWN {
            lines.push(format!("    and {} more fields; `--json` lists them all", fields.len() - SHOWN));
        }
    }
    if map.rounded_count > 0 {
        lines.push(format!("  {} rounded to nine digits of USD per million", output::counted(map.rounded_count, "price")));
    }
    let written = if is_dry { "would be written" } else { "written" };
    lines.push(format!(
        "{} {written} to `{}`, in force from {from}; {} there already",
        output::counted(additions.new.len(), "price"),
        path.display(),
        count(additions.unchanged_count)
    ));
    lines.join("\n")
}

/// Writes prices behind what a price book holds, in a file that takes its place at once.
fn append(path: &Path, new: &[(PriceKey, Price)]) -> Result<()> {
    // A link leads to the file that is meant.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut text = project::read_text(path)?.unwrap_or_default();
    for (key, price) in new {
        if !(text.is_empty() || text.ends_with("\n\n")) {
            text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
        }
        text.push_str(&file::entry(key, price));
    }
    // What would not be read is not written.
    file::parse(&text, &path.display().to_string())?;
    if text.len() as u64 > text_file::LARGEST_MIB << 20 {
        return Err(Failure::usage(format!("`{}` would be larger than {} MiB", path.display(), text_file::LARGEST_MIB))
            .hint("name the models that you use with `--model`")
            .into());
    }
    text_file::replace(path, &text, None)
}
