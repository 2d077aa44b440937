//! Sessions that were ended: a log-out is in the database, so that every replica knows it at once.

use anyhow::Result;
use chrono::{DateTime, Utc};

use crate::snapshot::sha256;
use crate::store::Store;

/// A session that a browser has logged in for.
#[derive(Debug, Clone)]
pub(super) struct Login {
    /// What its cookie says under the signature: the end and a nonce.
    pub(super) claim: String,
    pub(super) ends_at: DateTime<Utc>,
}

impl Login {
    /// What of it may be kept: nobody makes a cookie from it.
    fn digest(&self) -> String {
        sha256(self.claim.as_bytes())
    }

    /// Whether somebody has logged out of it, here or at another replica.
    ///
    /// # Errors
    /// What the database says; then nobody may take the session for a good one.
    pub(super) async fn is_revoked(&self, store: &Store) -> Result<bool> {
        let sql = "SELECT 1 AS revoked FROM session_revoked WHERE session_digest = $1";
        Ok(!store.query(sql, &[self.digest().into()]).await?.is_empty())
    }

    /// Ends it for every replica, and forgets those that have ended by themselves.
    ///
    /// # Errors
    /// What the database says; then it goes on.
    pub(super) async fn revoke(&self, store: &Store, now: DateTime<Utc>) -> Result<()> {
        let sql = "INSERT INTO session_revoked (session_digest, ends_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        store.execute(sql, &[self.digest().into(), self.ends_at.into()]).await?;
        // An hour late: another replica's clock may be behind.
        let sql = "DELETE FROM session_revoked WHERE ends_at < $1";
        store.execute(sql, &[(now - chrono::TimeDelta::hours(1)).into()]).await?;
        Ok(())
    }
}
