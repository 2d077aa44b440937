//! Who asks: a program with the token, a browser that has logged in, or somebody on this machine.
//!
//! A log-out is stored in the database, so that every replica knows it at once.

use anyhow::Result;
use axum::http::HeaderMap;
use chrono::{DateTime, TimeDelta, Utc};
use subtle::ConstantTimeEq;

use crate::snapshot::sha256;
use crate::store::Store;

pub(super) const COOKIE: &str = "tallyroll_session";
pub(super) const SESSION_HOURS: i64 = 12;

/// Who asks, for the pages.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// What a form must carry. Empty for a bearer token: no other site can make such a request.
    pub(super) csrf: String,
    /// Whether this one may start runs: only with a token, never by being on this machine.
    pub(super) can_run: bool,
    /// The login that a log-out ends.
    pub(super) login: Option<Login>,
}

impl Session {
    /// Whether a post with this form token may be done in the name of this session.
    pub(super) fn may_post(&self, csrf: &str) -> bool {
        // A bearer token is sent by programs, never by a browser on its own.
        self.can_run && (self.login.is_none() || bool::from(self.csrf.as_bytes().ct_eq(csrf.as_bytes())))
    }
}

/// The form token of a request that has no form.
pub(super) fn csrf_of(headers: &HeaderMap) -> &str {
    headers.get("x-csrf-token").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A session that a browser has logged in for.
#[derive(Debug, Clone)]
pub(super) struct Login {
    /// What its cookie says under the signature: the end and a nonce.
    pub(super) claim: String,
    pub(super) ends_at: DateTime<Utc>,
}

impl Login {
    /// What is stored of it: nobody can make a cookie from a digest.
    fn digest(&self) -> String {
        sha256(self.claim.as_bytes())
    }

    /// Whether somebody has logged out of it, here or at another replica.
    ///
    /// # Errors
    /// What the database says. The session must not be trusted then.
    pub(super) async fn is_revoked(&self, store: &Store) -> Result<bool> {
        let sql = "SELECT 1 AS revoked FROM session_revoked WHERE session_digest = $1";
        Ok(!store.query(sql, &[self.digest().into()]).await?.is_empty())
    }

    /// Ends it for every replica, and forgets those that have expired.
    ///
    /// # Errors
    /// What the database says. The session is not ended then.
    pub(super) async fn revoke(&self, store: &Store, now: DateTime<Utc>) -> Result<()> {
        let sql = "INSERT INTO session_revoked (session_digest, ends_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        store.execute(sql, &[self.digest().into(), self.ends_at.into()]).await?;
        // An hour late: another replica's clock may be behind.
        let sql = "DELETE FROM session_revoked WHERE ends_at < $1";
        store.execute(sql, &[(now - TimeDelta::hours(1)).into()]).await?;
        Ok(())
    }
}
