//! Which tables a statement reads, as the database says it: PostgreSQL by its plan, SQLite by asking whether it may.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value as Json;

use super::{Store, Value};

impl Store {
    /// The tables that a SELECT reads, those behind its views among them, without their schemas; it is not run. Its parameters have
    /// values like those of a run: PostgreSQL leaves out what they say cannot give a row.
    ///
    /// # Errors
    /// What the database says against the statement.
    pub async fn tables_read(&self, sql: &str, parameters: &[Value]) -> Result<BTreeSet<String>> {
        match self {
            Self::Postgres { .. } => {
                let mut tables = BTreeSet::new();
                for row in self.read(&format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}"), parameters).await? {
                    let plan = row.values.first().and_then(Value::to_text).context("PostgreSQL gave no plan")?;
                    add_relations(&serde_json::from_str(&plan)?, &mut tables);
                }
                let names = tables.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
                for row in self.query(BEHIND_MATERIALIZED_VIEWS, &[names.into()]).await? {
                    tables.insert(row.text("name")?);
                }
                Ok(tables)
            }
            Self::Sqlite { file, .. } => {
                let (file, sql) = (file.clone(), sql.to_owned());
                tokio::task::spawn_blocking(move || {
                    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
                    let tables = Arc::new(Mutex::new(BTreeSet::new()));
                    let asked = Arc::clone(&tables);
                    connection.authorizer(Some(move |context: AuthContext<'_>| {
                        if let AuthAction::Read { table_name, .. } = context.action {
                            asked.lock().unwrap_or_else(PoisonError::into_inner).insert(table_name.to_owned());
                        }
                        Authorization::Allow
                    }))?;
                    connection.prepare(&sql)?;
                    let tables = tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    Ok(tables)
                })
                .await?
            }
        }
    }
}

const BEHIND_MATERIALIZED_VIEWS: &str = include_str!("../../sql/behind_materialized_views.sql");

/// Collects the names of the relations of a plan, however deep they stand.
fn add_relations(plan: &Json, tables: &mut BTreeSet<String>) {
    match plan {
        Json::Object(node) => {
            tables.extend(node.get("Relation Name").and_then(Json::as_str).map(str::to_owned));
            node.values().for_each(|value| add_relations(value, tables));
        }
        Json::Array(nodes) => nodes.iter().for_each(|node| add_relations(node, tables)),
        _ => {}
    }
}
