//! Rows that an import does not take in, and where they are kept.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::row::cut;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::quarantine::OF_FILE;
use crate::store::{Tx, Value};

/// Bad rows that an import keeps aside, and bytes of them: past either it gives up.
const MAX_BAD_ROWS: usize = 1_000_000;
const MAX_BAD_BYTES: usize = 256 << 20;

/// Bad rows that a report shows.
const SHOWN_BAD_ROWS: usize = 10;

/// What is kept aside of a bad row.
const KEPT_CHARS: usize = 4_000;

/// A row that was not taken in.
#[derive(Debug, Clone, Serialize)]
pub struct BadRow {
    pub line: u64,
    pub reason: String,
}

/// Rows that were not taken in.
#[derive(Debug, Default)]
pub(super) struct BadRows {
    pub(super) rows: Vec<(BadRow, String)>,
    bytes: usize,
}

impl BadRows {
    pub(super) fn push(&mut self, line: u64, reason: String, record: &str) {
        let kept = cut(record, KEPT_CHARS);
        self.bytes += reason.len() + kept.len();
        self.rows.push((BadRow { line, reason }, kept));
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.rows.append(&mut other.rows);
        self.rows.sort_by_key(|(row, _)| row.line);
    }

    /// The first of them.
    pub(super) fn shown(&self) -> Vec<BadRow> {
        self.rows.iter().take(SHOWN_BAD_ROWS).map(|(row, _)| row.clone()).collect()
    }

    /// Fails where more than `max_ratio` of the rows read are bad, or more than can be kept aside.
    pub(super) fn refuse_too_many(&self, path: &Path, row_count: u64, max_ratio: f64) -> Result<()> {
        let (bad_count, shown) = (self.rows.len(), path.display());
        if self.are_too_many() {
            return Err(Failure::bad_data(format!("{bad_count} of the first {row_count} rows of `{shown}` are bad; nothing was imported"))
                .hint("so many bad rows are rarely the rows' fault: look at the file and the mapping first")
                .into());
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
        let ratio = bad_count as f64 / row_count.max(1) as f64;
        if ratio <= max_ratio {
            return Ok(());
        }
        let first = self.shown().into_iter().map(|row| format!("  line {}: {}", row.line, row.reason));
        Err(Failure::bad_data(format!(
            "{bad_count} of the {row_count} rows of `{shown}` are bad, more than `quarantine.max_ratio` = {max_ratio} allows; nothing was imported"
        ))
        .listing(first)
        .hint("fix the rows or the mapping (`--column field=header`, `--set field=value`) and import the file again; `--dry-run` shows both")
        .into())
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.rows.len() >= MAX_BAD_ROWS || self.bytes >= MAX_BAD_BYTES
    }
}

/// The source under which bad rows of a file are kept.
pub(super) fn source(path: &Path) -> String {
    format!("{OF_FILE}{}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Keeps them aside, in place of what an earlier import of a file of that name left there.
pub(super) async fn quarantine(tx: &mut Tx, clock: &Clock, path: &Path, bad: &[(BadRow, String)]) -> Result<()> {
    let source = source(path);
    let now = clock.now();
    tx.execute("DELETE FROM quarantined_event WHERE source = $1", &[source.as_str().into()]).await?;
    let columns = ["source", "event_id", "reason", "payload", "first_seen_at"];
    let rows: Vec<Vec<Value>> = bad
        .iter()
        .map(|(row, record)| {
            let payload = json!({ "line": row.line, "record": record }).to_string().replace("\\u0000", "\\ufffd");
            vec![
                source.as_str().into(),
                format!("line {}", row.line).into(),
                row.reason.replace('\0', "\u{fffd}").into(),
                payload.into(),
                now.into(),
            ]
        })
        .collect();
    tx.insert_rows("quarantined_event", &columns, &rows, "").await?;
    Ok(())
}
