//! Whose a result table is: a job replaces rows of the table that it made, and of no other.

use anyhow::Result;

use crate::failure::Failure;
use crate::job::Job;
use crate::sql_text::quote_identifier;
use crate::store::Store;

/// Fails where the table that the job would write is there and is another one's.
///
/// # Errors
/// [`Failure`] of kind config with the statement that hands the table over.
pub(super) async fn require_own(store: &Store, job: &Job) -> Result<()> {
    if job.has_table_of_the_schema {
        return Ok(());
    }
    let (sql, name) = store.pick(
        ("SELECT relkind IN ('r', 'p') AS is_table FROM pg_class WHERE oid = to_regclass($1)", quote_identifier(&job.writes)),
        (
            "SELECT type = 'table' AS is_table FROM sqlite_schema WHERE name = $1 COLLATE NOCASE AND type IN ('table', 'view')",
            job.writes.clone(),
        ),
    );
    let found = store.query(sql, &[name.into()]).await?;
    let Some(row) = found.first() else { return Ok(()) };
    if row.int("is_table")? == 0 {
        return Err(Failure::config(format!("`{}`, which `{}` would write, is no table", job.writes, job.origin))
            .hint("name another one in `writes`, or drop it: the next run makes a table")
            .into());
    }
    let made_by = store.query("SELECT job FROM result_table WHERE table_name = $1", &[job.writes.as_str().into()]).await?;
    let made_by = made_by.first().map(|row| row.text("job")).transpose()?;
    let listed = store.pick("tallyroll.result_table", "result_table");
    let (said, hand_over) = match made_by {
        Some(made_by) if made_by == job.name => return Ok(()),
        Some(made_by) => (
            format!("is the table of job `{made_by}`"),
            format!("UPDATE {listed} SET job = '{}' WHERE table_name = '{}'", job.name, job.writes),
        ),
        None => (
            "was made by no job, and its rows would be replaced".to_owned(),
            format!("INSERT INTO {listed} (table_name, job) VALUES ('{}', '{}')", job.writes, job.name),
        ),
    };
    Err(Failure::config(format!("`{}`, which `{}` would write, {said}", job.writes, job.origin))
        .hint(format!("name another one in `writes`; to hand it over with all its rows: `{hand_over}`"))
        .into())
}

/// On PostgreSQL tables are made by whoever may create in our schema; a runner may not.
pub(super) async fn require_right_to_create(store: &Store, job: &Job) -> Result<()> {
    let Some(sql) = store.pick(Some("SELECT has_schema_privilege('tallyroll', 'CREATE') AS may_create"), None) else { return Ok(()) };
    if store.query(sql, &[]).await?[0].int("may_create")? != 0 {
        return Ok(());
    }
    Err(Failure::config(format!("The table `{}` of job `{}` is not there, and this database role may not make it", job.writes, job.name))
        .hint("`tallyroll migrate`, in this project and as the role that upgrades the database, makes the tables of the project's jobs")
        .into())
}
