//! `import list` and `import undo`: what was imported, and out again.

use anyhow::Result;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::clock::Clock;
use crate::import;
use crate::store::{Create, format_instant};

pub(super) async fn list(session: &Session) -> Result<()> {
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let imports = import::imports(&store).await?;
    store.close().await;
    if session.json {
        return imports.iter().try_for_each(output::json);
    }
    let rows: Vec<Vec<String>> = imports
        .iter()
        .map(|import| {
            vec![
                import.import_id.clone(),
                output::printable(&import.file),
                output::grouped(import.inserted_count),
                output::grouped(import.bad_count),
                format_instant(import.imported_at),
                match (&import.replaced_by, import.undone_at) {
                    (Some(by), _) => format!("replaced by {by}"),
                    (None, Some(_)) => "taken out".to_owned(),
                    (None, None) => String::new(),
                },
            ]
        })
        .collect();
    session.tell(&output::table(&["import", "file", "imported", "bad", "at", ""], &["imported", "bad"], &rows))
}

pub(super) async fn undo(session: &Session, id: &str) -> Result<()> {
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let mut tx = store.begin().await?;
    let (import, gone) = import::undo(&mut tx, id, None, session.loaded.config.reporting.timezone, Clock::system().now()).await?;
    tx.commit().await?;
    store.close().await;
    if session.json {
        return output::json(&json!({ "import_id": import.import_id, "file": import.file, "removed_count": gone }));
    }
    session.tell(&format!("{} rows of `{}` taken out; their days are due", count(gone), output::printable(&import.file)))
}

pub(super) fn count(number: u64) -> String {
    output::grouped(i64::try_from(number).unwrap_or(i64::MAX))
}
