//! Whose output it is: one project's. A file at its root names the project, and so does every Parquet file, so that two databases
//! never write into one another's months (`docs/interface.md`, "Parquet for finance").

use anyhow::Result;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storage::{Storage, require};
use super::{FINANCE_FOLDERS, is_parquet, parquet_file};
use crate::abort;
use crate::failure::Failure;
use crate::store::Store;

/// Names the project, at the root of the output; created once.
pub const OWNER_FILE: &str = "_tallyroll.json";

#[derive(Serialize, Deserialize)]
struct Owner {
    project_id: String,
}

/// The id that `tallyroll migrate` gave the database; a restored copy has the same.
///
/// # Errors
/// What the database says; [`Failure`] of kind config where the row is gone.
pub async fn project_id(store: &Store) -> Result<Uuid> {
    let rows = store.query("SELECT project_id FROM tallyroll_project", &[]).await?;
    let id = rows.first().map(|row| row.text("project_id")).transpose()?.and_then(|id| id.parse().ok());
    let missing = || {
        Failure::config("The table `tallyroll_project` has no row with a UUID").hint(format!(
            "restore it, or take the id of the output's `{OWNER_FILE}`: INSERT INTO {} (project_id) VALUES ('…')",
            store.dialect().own_table("tallyroll_project")
        ))
    };
    Ok(id.ok_or_else(missing)?)
}

/// Fails where the output is another project's: by the file at its root or, where that is missing, by those of the months.
///
/// # Errors
/// [`Failure`] of kind config there; what database or storage say.
pub async fn check(storage: &Storage, store: &Store) -> Result<()> {
    let ours = project_id(store).await?;
    match named(storage).await? {
        Some(theirs) if theirs != ours => Err(foreign(storage, store, OWNER_FILE, theirs, ours).into()),
        Some(_) => Ok(()),
        None => check_files(storage, store, ours).await,
    }
}

/// Makes the output this project's, before anything is written there.
///
/// # Errors
/// As [`check`].
pub async fn claim(storage: &Storage, store: &Store) -> Result<()> {
    let ours = project_id(store).await?;
    check(storage, store).await?;
    if named(storage).await?.is_none() {
        // Without a line end: whatever part of it a torn write leaves is no JSON.
        let text = serde_json::to_string_pretty(&Owner { project_id: ours.to_string() })?;
        // Where another project is first, this one finds it there.
        storage.create(OWNER_FILE, text.into()).await?;
        abort::point("output_claimed");
        check(storage, store).await?;
    }
    Ok(())
}

async fn named(storage: &Storage) -> Result<Option<Uuid>> {
    let Some(bytes) = storage.get(OWNER_FILE).await? else { return Ok(None) };
    let read = || -> Result<Uuid> { Ok(serde_json::from_slice::<Owner>(&bytes)?.project_id.parse()?) };
    let broken = |error| {
        Failure::bad_data(format!("`{}` names no project", storage.shown(OWNER_FILE)))
            .caused_by(error)
            .hint("restore it from a copy; or remove it: the project whose months are sealed there makes it again")
    };
    Ok(Some(read().map_err(broken)?))
}

/// Every file of a month says in its footer whose it is, whether this database has recorded a file of that path or not. One that
/// cannot be read says nothing: whoever reads the month names it.
async fn check_files(storage: &Storage, store: &Store, ours: Uuid) -> Result<()> {
    for folder in FINANCE_FOLDERS {
        for path in storage.list(folder).await?.iter().filter(|path| is_parquet(path)) {
            if let Ok(read) = parquet_file::read(require(storage, path).await?) {
                check_file(storage, store, path, &read, ours)?;
            }
        }
    }
    Ok(())
}

/// Fails where a file is another project's. One that names none is from before.
///
/// # Errors
/// [`Failure`] of kind config there.
pub fn check_file(storage: &Storage, store: &Store, path: &str, read: &parquet_file::ReadBack, ours: Uuid) -> Result<()> {
    let theirs = read.fact("project_id").ok().map(str::parse::<Uuid>).transpose();
    let broken =
        |error| Failure::bad_data(format!("`{}` names no project", storage.shown(path))).caused_by(error).hint("restore it from a copy");
    match theirs.map_err(|error| broken(anyhow::Error::new(error)))? {
        Some(theirs) if theirs != ours => Err(foreign(storage, store, path, theirs, ours).into()),
        _ => Ok(()),
    }
}

fn foreign(storage: &Storage, store: &Store, path: &str, theirs: Uuid, ours: Uuid) -> Failure {
    Failure::config(format!("`{}` is of project {theirs}, and this database is project {ours}", storage.shown(path))).hint(format!(
        "give each database an `output.url` of its own; a new database that is to go on with these files takes their id: \
         UPDATE {} SET project_id = '{theirs}'",
        store.dialect().own_table("tallyroll_project")
    ))
}
