//! The tokens, and the session cookies signed with the one for pages.
//!
//! A cookie is `<expiry>.<nonce>.<HMAC>`, keyed by the token: any replica with the same token accepts it, and a new token ends all
//! sessions. A form carries the HMAC of its session, so that another site cannot post in its name.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::connections::Client;
use super::session::{Login, SESSION_HOURS, Session};
use super::token::WrongTokens;
use crate::store::Store;

/// The token, and a record of the wrong ones that were tried.
pub struct Auth {
    token: String,
    writer_token: String,
    /// Whether reading needs no token: none is set, and only this machine can connect.
    pub(super) is_open: bool,
    wrong: WrongTokens,
}

/// What became of a token that was tried, by a program or on the login page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Right,
    Wrong,
    /// Wrong too, and there were too many wrong ones lately.
    TooMany,
}

impl Auth {
    #[must_use]
    pub fn new(token: &str, is_loopback: bool) -> Self {
        let is_open = token.is_empty() && is_loopback;
        Self { token: token.to_owned(), writer_token: String::new(), is_open, wrong: WrongTokens::default() }
    }

    /// With a token for those who record usage, and may do nothing else.
    #[must_use]
    pub fn with_writer(self, token: &str) -> Self {
        Self { writer_token: token.to_owned(), ..self }
    }

    /// Whether usage can be recorded at all.
    pub(super) fn has_writer_token(&self) -> bool {
        !self.writer_token.is_empty()
    }

    /// Whether anybody can log in.
    pub(super) fn has_token(&self) -> bool {
        !self.token.is_empty()
    }

    /// Wrong tokens since the server began.
    pub(super) fn wrong_token_count(&self) -> u64 {
        self.wrong.count()
    }

    /// The HMAC of a text under the token.
    fn sign(&self, text: &str) -> String {
        signed(&self.token, text)
    }

    /// The right one always passes: it is too long to be guessed (`token.rs`), and its holder must not be locked out by others who
    /// guess. A wrong one has to wait for its answer, or is refused.
    pub(super) async fn try_token(&self, tried: &str, client: Option<&Client>, now: DateTime<Utc>) -> Tried {
        self.held_against(&self.token, tried, client, now).await
    }

    /// As [`Self::try_token`], of those who record usage.
    pub(super) async fn try_writer_token(&self, tried: &str, client: Option<&Client>, now: DateTime<Utc>) -> Tried {
        self.held_against(&self.writer_token, tried, client, now).await
    }

    /// The only place where a token is checked.
    async fn held_against(&self, token: &str, tried: &str, client: Option<&Client>, now: DateTime<Utc>) -> Tried {
        // Both are hashed first, so that the time taken reveals neither the length nor how much of a guess was right.
        if !token.is_empty() && bool::from(signed(token, tried).as_bytes().ct_eq(signed(token, token).as_bytes())) {
            return Tried::Right;
        }
        match self.wrong.add(client.map(|client| client.peer), now) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Tried::Wrong
            }
            None => Tried::TooMany,
        }
    }

    /// A new session's cookie value, valid from `now` on.
    pub(super) fn open_session(&self, now: DateTime<Utc>) -> Option<String> {
        let mut nonce = [0_u8; 16];
        getrandom::fill(&mut nonce).ok()?;
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let claim = format!("{}.{nonce}", (now + TimeDelta::hours(SESSION_HOURS)).timestamp());
        Some(format!("{claim}.{}", self.sign(&format!("session {claim}"))))
    }

    /// The login that a cookie stands for, if we signed it and it has not expired.
    fn login(&self, cookie: &str, now: DateTime<Utc>) -> Option<Login> {
        let (claim, signature) = cookie.rsplit_once('.')?;
        let is_ours = self.has_token() && bool::from(self.sign(&format!("session {claim}")).as_bytes().ct_eq(signature.as_bytes()));
        let ends_at = DateTime::from_timestamp(claim.split('.').next()?.parse().ok()?, 0)?;
        (is_ours && ends_at > now).then(|| Login { claim: claim.to_owned(), ends_at })
    }

    /// The session that a cookie stands for, unless it has ended or somebody has logged out of it.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn session(&self, store: &Store, cookie: &str, now: DateTime<Utc>) -> Result<Option<Session>> {
        let Some(login) = self.login(cookie, now) else { return Ok(None) };
        if login.is_revoked(store).await? {
            return Ok(None);
        }
        Ok(Some(Session { csrf: self.sign(&format!("form {cookie}")), can_run: true, login: Some(login) }))
    }
}

/// The HMAC of a text under a key, as URL-safe Base64.
fn signed(key: &str, text: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_and_belongs_to_its_token() {
        let (auth, now) = (Auth::new("one", true), DateTime::UNIX_EPOCH);
        let cookie = auth.open_session(now).unwrap();
        let ends_at = now + TimeDelta::hours(SESSION_HOURS);
        assert_eq!(auth.login(&cookie, now).unwrap().ends_at, ends_at);
        assert!(auth.login(&cookie, ends_at).is_none());
        assert!(Auth::new("two", true).login(&cookie, now).is_none() && Auth::new("", true).login(&cookie, now).is_none());
        let (claim, signature) = cookie.rsplit_once('.').unwrap();
        let later = format!("9{claim}.{signature}");
        for forged in [later.as_str(), claim, "", ".", "9999999999..", &format!("{claim}."), &format!("{cookie}=")] {
            assert!(auth.login(forged, now).is_none(), "{forged}");
        }
    }
}
