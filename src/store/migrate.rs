//! Creating and upgrading the schema, by plain SQL under `sql/migrations/<engine>/`.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::classify::{classify, hint_of, no_session, refused, what_it_says};
use super::{Store, Tx, functions, postgres};
use crate::abort;
use crate::failure::Failure;
use crate::sql_text::quote_identifier;

/// A table of its own: the application may keep `_sqlx_migrations` for itself.
const HISTORY_TABLE: &str = "tallyroll_migration";

static POSTGRES: Migrator = sqlx::migrate!("sql/migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("sql/migrations/sqlite");

/// One migration and whether it was there before.
#[derive(Debug, Clone)]
pub struct Migrated {
    pub version: i64,
    pub description: String,
    pub already_applied: bool,
}

impl Store {
    /// Applies what is missing; with `dry_run`, only tells it.
    ///
    /// # Errors
    /// [`Failure`] of kind config when the database is newer than this version or holds a table that does not fit.
    pub async fn migrate(&self, dry_run: bool) -> Result<Vec<Migrated>> {
        self.require_trust_to_migrate().await?;
        let migrator = migrator(self.pick(&POSTGRES, &SQLITE));
        let applied = self.applied_migrations().await?;
        if let Some(unknown) = applied.iter().find(|version| !migrator.version_exists(**version)) {
            return Err(Failure::config(format!("The database has migration {unknown}, which this version does not know"))
                .hint("use the version of tallyroll that upgraded it, or a newer one")
                .into());
        }
        let plan = migrator
            .iter()
            .map(|migration| Migrated {
                version: migration.version,
                description: migration.description.to_string(),
                already_applied: applied.contains(&migration.version),
            })
            .collect();
        if !dry_run {
            self.forget_half_built_indexes().await?;
            match self {
                Self::Postgres { pool, .. } => self.migrate_postgres(pool, &migrator, &applied).await?,
                Self::Sqlite { pool, .. } => self.migrate_sqlite(pool, &migrator, applied).await?,
            }
            // Somebody who could create in our schema until now may have.
            self.require_trust_after_migrate().await?;
        }
        Ok(plan)
    }

    /// SQLite has no lock for this. Where another process was first with a migration, ours fails, and there is one more.
    async fn migrate_sqlite(&self, pool: &SqlitePool, migrator: &Migrator, mut applied: Vec<i64>) -> Result<()> {
        let mut connection = pool.acquire().await.map_err(classify)?;
        while let Err(error) = apply(migrator, &mut *connection, &applied).await {
            let now_applied = self.applied_migrations().await?;
            if now_applied.len() <= applied.len() {
                return Err(explain(error, self));
            }
            applied = now_applied;
        }
        Ok(())
    }

    /// Applies migrations with the application's schema first, where they look for and make the tables that applications know; then
    /// makes the functions.
    async fn migrate_postgres(&self, pool: &PgPool, migrator: &Migrator, applied: &[i64]) -> Result<()> {
        let application_schema = self.application_schema().await?;
        // A connection of its own: what is set, and a lock that an error leaves, ends with it.
        let mut connection = postgres::acquire(pool).await?.detach();
        // Anybody who may connect can hold the lock that migrations take.
        let settings = format!("SET search_path = {}, tallyroll; SET lock_timeout = '5min'", quote_identifier(&application_schema));
        connection.execute(AssertSqlSafe(settings)).await.map_err(classify)?;
        apply(migrator, &mut connection, applied).await.map_err(|error| explain(error, self))?;
        functions::create(&mut connection, &application_schema, &self.location()).await?;
        connection.close().await.map_err(classify)
    }

    /// Makes the roles, rights and row-level security of `sql/roles.sql`, in one transaction; there already, they stay.
    ///
    /// # Errors
    /// [`Failure`] of kind config on SQLite, which has no roles, and where the user may not make them.
    pub async fn create_roles(&self) -> Result<()> {
        let Self::Postgres { pool, .. } = self else {
            return Err(Failure::config("SQLite has no roles: who may read the file is up to the file system").into());
        };
        let mut tx = pool.begin().await.map_err(no_session)?;
        if let Err(error) = sqlx::raw_sql(include_str!("../../sql/roles.sql")).execute(&mut *tx).await {
            let text = what_it_says(&error);
            let hint = hint_of(&error).map(str::to_owned);
            let classified = classify(error);
            if crate::failure::find(&classified).is_some() {
                return Err(classified);
            }
            let hint = hint.unwrap_or("run `tallyroll migrate --roles` as one who may create roles and owns the tables".to_owned());
            return Err(Failure::config(format!("The roles could not be made: {text}")).hint(hint).into());
        }
        // While the tables are locked: what their owner has used of others is as it was.
        let mut tx = Tx::Postgres(tx);
        self.require_trust_to_make_roles(&mut tx).await?;
        tx.commit().await
    }

    /// Whether every migration of this version is there, and its functions.
    ///
    /// # Errors
    /// What the database says.
    pub async fn is_migrated(&self) -> Result<bool> {
        let applied = self.applied_migrations().await?;
        Ok(self.pick(&POSTGRES, &SQLITE).iter().all(|migration| applied.contains(&migration.version)) && self.has_functions().await?)
    }

    /// Fails with the next step where the schema is not this version's, or where this role had better not look.
    ///
    /// # Errors
    /// [`Failure`] of kind config.
    pub async fn require_migrated(&self) -> Result<()> {
        self.require_trust().await?;
        if self.is_migrated().await? {
            return Ok(());
        }
        Err(Failure::config(format!(
            "The database at `{}` lacks tables or functions of this version, or its schema was renamed",
            self.location()
        ))
        .hint("`tallyroll migrate` creates or upgrades them; `tallyroll migrate --dry-run` says which")
        .into())
    }

    async fn applied_migrations(&self) -> Result<Vec<i64>> {
        if self.table_columns(HISTORY_TABLE).await?.is_empty() {
            return Ok(Vec::new());
        }
        let succeeded = self.pick("success", "success = 1");
        let sql = format!("SELECT version FROM {HISTORY_TABLE} WHERE {succeeded}");
        self.query(&sql, &[]).await?.iter().map(|row| row.int("version")).collect()
    }

    /// Makes an interrupted `CREATE INDEX CONCURRENTLY` repeatable: its invalid index and its half record go.
    async fn forget_half_built_indexes(&self) -> Result<()> {
        let Self::Postgres { .. } = self else { return Ok(()) };
        if self.table_columns(HISTORY_TABLE).await?.is_empty() {
            return Ok(());
        }
        self.execute(&format!("DELETE FROM {HISTORY_TABLE} WHERE NOT success"), &[]).await?;
        let sql = "SELECT indexrelid::regclass::TEXT AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
             WHERE NOT indisvalid AND relname IN \
             ('idx_ai_usage_log_ingest_xid', 'idx_chat_requests_ingest_xid', 'idx_chat_requests_created', 'idx_request_analytics_request')";
        for row in self.query(sql, &[]).await? {
            self.execute(&format!("DROP INDEX CONCURRENTLY {}", row.text("name")?), &[]).await?;
        }
        Ok(())
    }
}

/// The tables and views that the schema of either database has: results, state, sources, and the history of migrations.
#[must_use]
pub fn own_tables() -> BTreeSet<String> {
    let mut tables = BTreeSet::from([HISTORY_TABLE.to_owned()]);
    for migration in POSTGRES.iter().chain(SQLITE.iter()) {
        for line in migration.sql.as_str().lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("CREATE") {
                continue;
            }
            let mut words = words.skip_while(|word| ["OR", "REPLACE"].contains(word));
            if matches!(words.next(), Some("TABLE" | "VIEW")) {
                let name = words.find(|word| !["IF", "NOT", "EXISTS"].contains(word)).unwrap_or_default();
                let name = name.split('(').next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
                tables.insert(name.trim_matches('"').to_owned());
            }
        }
    }
    tables
}

/// The migrations of one engine, their history kept in our own table.
fn migrator(migrations: &Migrator) -> Migrator {
    let mut migrator = Migrator::with_migrations(migrations.iter().cloned().collect());
    migrator.dangerous_set_table_name(HISTORY_TABLE);
    migrator
}

/// Applies what is missing one by one, so that each stays that was applied; the last look compares the texts of all.
async fn apply<C: Migrate>(migrator: &Migrator, connection: &mut C, applied: &[i64]) -> Result<(), MigrateError> {
    let missing = migrator.iter().map(|migration| migration.version).filter(|version| !applied.contains(version));
    for target in missing.map(Some).chain([None]) {
        migrator.run_direct(target, connection, false).await?;
        abort::point("migration_applied");
    }
    Ok(())
}

fn explain(error: MigrateError, store: &Store) -> anyhow::Error {
    match error {
        MigrateError::VersionMismatch(version) => {
            Failure::config(format!("Migration {version} was applied with another text than this version's"))
                .hint("use the version of tallyroll that upgraded the database, or a newer one")
                .into()
        }
        MigrateError::ExecuteMigration(source, version) => refused(source, &format!("Migration {version}"), &store.location()),
        MigrateError::Execute(source) => classify(source),
        other => anyhow::Error::new(other).context("The schema could not be upgraded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_own_tables_are_known_by_name() {
        let tables = own_tables();
        for table in [
            "users",
            "subscription",
            "job_window",
            "tallyroll_setting",
            "usage_daily",
            "ai_usage_summary",
            "upsert_seat_assignment",
            "tallyroll_migration",
        ] {
            assert!(tables.contains(table), "{table} in {tables:?}");
        }
        assert!(tables.iter().all(|table| table.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')), "{tables:?}");
    }
}
