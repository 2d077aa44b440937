//! Whose a result table is: a job replaces rows of the table that it made, and of no other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Row, Store, Tx};
use crate::failure::Failure;
use crate::job::Job;
use crate::sql_text::quote_identifier;

/// Fails where the table that the job would write is there and is another one's.
///
/// # Errors
/// [`Failure`] of kind config with the statement that hands the table over.
pub async fn require_own(store: &Store, job: &Job) -> Result<()> {
    if job.has_table_of_the_schema {
        return Ok(());
    }
    // On PostgreSQL only those who upgrade make tables in our schema; SQLite has none, but the text that a table was made by.
    let (sql, name) = store.pick(
        (
            "SELECT relkind IN ('r', 'p') AS is_table, nspname = 'tallyroll' AS is_in_place, nspname::TEXT AS place, NULL::TEXT AS made_as \
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = to_regclass($1)",
            quote_identifier(&job.writes),
        ),
        (
            "SELECT type = 'table' AS is_table, 1 AS is_in_place, 'main' AS place, sql AS made_as FROM sqlite_schema \
             WHERE name = $1 COLLATE NOCASE AND type <> 'trigger'",
            job.writes.clone(),
        ),
    );
    let found = store.query(sql, &[name.into()]).await?;
    let Some(there) = found.first() else { return Ok(()) };
    if there.int("is_table")? == 0 {
        return Err(Failure::config(format!("`{}`, which `{}` would write, is no table", job.writes, job.origin))
            .hint("name another one in `writes`, or drop it: the next run makes a table")
            .into());
    }
    let sql = store.pick(
        "SELECT job, NULL::TEXT AS made_as FROM result_table WHERE table_name = $1",
        "SELECT job, made_as FROM result_table WHERE table_name = $1",
    );
    let recorded = store.query(sql, &[job.writes.as_str().into()]).await?;
    let made_by = recorded.first().map(|row| row.text("job")).transpose()?;
    let listed = store.pick("tallyroll.result_table", "result_table");
    let (said, mut hand_over) = match made_by {
        Some(made_by) if made_by != job.name => (
            format!("is the table of job `{made_by}`"),
            format!("UPDATE {listed} SET job = '{}' WHERE table_name = '{}'", job.name, job.writes),
        ),
        Some(_) if is_the_one_made(there, &recorded[0])? => return Ok(()),
        Some(_) => (
            "is not the table that this job made, which is gone".to_owned(),
            store.pick(String::new(), format!("UPDATE result_table SET made_as = NULL WHERE table_name = '{}'", job.writes)),
        ),
        None => (
            "was made by no job, and its rows would be replaced".to_owned(),
            format!("INSERT INTO {listed} (table_name, job) VALUES ('{}', '{}')", job.writes, job.name),
        ),
    };
    if there.int("is_in_place")? == 0 {
        let moved =
            format!("ALTER TABLE {}.{} SET SCHEMA tallyroll", quote_identifier(&there.text("place")?), quote_identifier(&job.writes));
        hand_over = if hand_over.is_empty() { moved } else { format!("{moved}; {hand_over}") };
    }
    Err(Failure::config(format!("`{}`, which `{}` would write, {said}", job.writes, job.origin))
        .hint(format!("name another one in `writes`; to hand it over with all its rows: `{hand_over}`"))
        .into())
}

/// Fails where the job's table was made when the job had another grain: two rows that are of one grain now might both stay.
///
/// # Errors
/// [`Failure`] of kind config that says what to do.
pub async fn require_grain(store: &Store, job: &Job) -> Result<()> {
    if job.has_table_of_the_schema {
        return Ok(());
    }
    let (sql, name) = store.pick(
        (
            "SELECT indexrelid::REGCLASS::TEXT AS index_name, attname::TEXT AS name FROM pg_index JOIN pg_attribute ON attrelid = indexrelid \
             WHERE indrelid = to_regclass($1) AND indisunique ORDER BY indexrelid, attnum",
            quote_identifier(&job.writes),
        ),
        (
            "SELECT index_.name AS index_name, column_.name AS name FROM pragma_index_list($1) AS index_, pragma_index_info(index_.name) AS column_ \
             WHERE index_.\"unique\" = 1 ORDER BY index_.name, column_.seqno",
            job.writes.clone(),
        ),
    );
    let mut unique: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in store.query(sql, &[name.into()]).await? {
        unique.entry(row.text("index_name")?).or_default().insert(row.text("name")?);
    }
    let grain = job.grain.iter().cloned().collect();
    let Some(other) = unique.values().next().filter(|_| !unique.values().any(|columns| *columns == grain)) else { return Ok(()) };
    let (was, is) = (other.iter().cloned().collect::<Vec<_>>().join(", "), job.grain.join(", "));
    Err(Failure::config(format!("The table `{}` has one row for each ({was}), and the grain of `{}` is ({is})", job.writes, job.origin))
        .hint("drop the table: `tallyroll migrate` makes it anew, with the grain as its key, and the next run fills it")
        .into())
}

/// Whether the table is the one that its job made: in our schema, or, in SQLite, by the same text, to which ALTER TABLE adds at the end.
fn is_the_one_made(there: &Row, recorded: &Row) -> Result<bool> {
    let Some(made_as) = recorded.opt_text("made_as")? else { return Ok(there.int("is_in_place")? != 0) };
    Ok(there.text("made_as")?.starts_with(made_as.trim_end_matches(|c: char| c == ')' || c.is_whitespace())))
}

/// Notes the table that the job has just made as the job's, and gives it the rights of its kind.
///
/// # Errors
/// What the database says.
pub async fn record(tx: &mut Tx, job: &Job) -> Result<()> {
    let (sql, name) = tx.pick(
        ("SELECT tallyroll.tallyroll_give_result_table(to_regclass($1))::TEXT", quote_identifier(&job.writes)),
        (
            "UPDATE result_table SET made_as = (SELECT sql FROM sqlite_schema WHERE name = $1 AND type = 'table') WHERE table_name = $1",
            job.writes.clone(),
        ),
    );
    tx.query(sql, &[name.into()]).await.map(|_| ())
}

/// On PostgreSQL tables are made by whoever may create in our schema; a runner may not.
///
/// # Errors
/// [`Failure`] of kind config where this role may not.
pub async fn require_right_to_create(store: &Store, job: &Job) -> Result<()> {
    let Some(sql) = store.pick(Some("SELECT has_schema_privilege('tallyroll', 'CREATE') AS may_create"), None) else { return Ok(()) };
    if store.query(sql, &[]).await?[0].int("may_create")? != 0 {
        return Ok(());
    }
    Err(Failure::config(format!("The table `{}` of job `{}` is not there, and this database role may not make it", job.writes, job.name))
        .hint("`tallyroll migrate`, in this project and as the role that upgrades the database, makes the tables of the project's jobs")
        .into())
}

/// Fails where tables inherit from the job's or from one that holds state: their rows are somebody else's, and would be read and replaced as
/// ours.
///
/// # Errors
/// [`Failure`] of kind config that names one of them.
pub async fn require_alone(store: &Store, job: &Job) -> Result<()> {
    let sql = "SELECT inhrelid::REGCLASS::TEXT AS heir, inhparent::REGCLASS::TEXT AS parent \
         FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent \
         WHERE (inhparent = to_regclass($1) OR parent.relnamespace = to_regnamespace('tallyroll')) AND parent.relkind = 'r' ORDER BY 1 LIMIT 1";
    let Some(sql) = store.pick(Some(sql), None) else { return Ok(()) };
    let Some(row) = store.query(sql, &[quote_identifier(&job.writes).into()]).await?.into_iter().next() else { return Ok(()) };
    let (heir, parent) = (row.text("heir")?, row.text("parent")?);
    Err(Failure::config(format!("The table `{heir}` inherits from `{parent}`, whose rows a run replaces"))
        .hint(format!("`ALTER TABLE {heir} NO INHERIT {parent}` keeps its rows"))
        .into())
}
