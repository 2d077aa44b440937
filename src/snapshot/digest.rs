//! What the database knows of the bytes of files beside `snapshot_file`: the digests of sealed files that a run was about to create,
//! and of the monthly files that were published. A file that is found is one of ours where its digest is there.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{FINAL_FOLDER, sha256};
use crate::store::lock::JobLock;
use crate::store::{Store, Tx};

/// Says that the run that holds the lock is about to create a file: what it leaves, killed or not, is known to be its own.
///
/// # Errors
/// What the database says; [`crate::failure::Failure`] of kind try-again where the run has lost its lock.
pub async fn intend(store: &Store, lock: &JobLock, path: &str, bytes: &[u8]) -> Result<()> {
    let mut tx = store.begin().await?;
    insert(&mut tx, path, bytes).await?;
    lock.assert_held(store, &mut tx).await?;
    tx.commit().await
}

/// Keeps the digest of a file that is replaced, with whatever else `tx` writes.
///
/// # Errors
/// What the database says.
pub async fn record(tx: &mut Tx, path: &str, bytes: &[u8]) -> Result<()> {
    forget(tx, path).await?;
    insert(tx, path, bytes).await
}

async fn insert(tx: &mut Tx, path: &str, bytes: &[u8]) -> Result<()> {
    let sql = "INSERT INTO file_digest (path, sha256) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    tx.execute(sql, &[path.into(), sha256(bytes).into()]).await.map(|_| ())
}

/// Forgets what was intended for a file: what was sealed is recorded in `snapshot_file`.
///
/// # Errors
/// What the database says.
pub async fn forget(tx: &mut Tx, path: &str) -> Result<()> {
    tx.execute("DELETE FROM file_digest WHERE path = $1", &[path.into()]).await.map(|_| ())
}

/// The digests of a file.
///
/// # Errors
/// What the database says.
pub async fn of(tx: &mut Tx, path: &str) -> Result<Vec<String>> {
    let rows = tx.query("SELECT sha256 FROM file_digest WHERE path = $1", &[path.into()]).await?;
    rows.iter().map(|row| row.text("sha256")).collect()
}

/// Path and digest of every file that was published, monthly ones and those of `snapshot_file`.
///
/// # Errors
/// What the database says.
pub async fn published(store: &Store) -> Result<BTreeSet<(String, String)>> {
    let of_seats = store.query("SELECT path, sha256 FROM snapshot_file", &[]).await?;
    let others = store.query("SELECT path, sha256 FROM file_digest", &[]).await?;
    let pair = |row: &crate::store::Row| Ok((row.text("path")?, row.text("sha256")?));
    let mut published: BTreeSet<_> = others.iter().map(pair).collect::<Result<_>>()?;
    // What was about to be sealed may never have been.
    published.retain(|(path, _)| !path.starts_with(FINAL_FOLDER));
    published.extend(of_seats.iter().map(pair).collect::<Result<Vec<_>>>()?);
    Ok(published)
}

/// The statement by which a person says that a file is one of ours, after a backup of the database was restored that does not know it.
#[must_use]
pub fn adoption(store: &Store, path: &str, bytes: &[u8]) -> String {
    format!("INSERT INTO {} (path, sha256) VALUES ('{path}', '{}')", store.dialect().own_table("file_digest"), sha256(bytes))
}
