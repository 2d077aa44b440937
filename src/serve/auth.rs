//! Who may see and do what: a bearer token, or a session cookie from the login page.
//!
//! A session is `<expiry>.<nonce>.<HMAC>`, keyed by the token: any replica with the same token knows it, and a new token ends all.
//! A form carries the HMAC of its session, so that another site cannot post in its name.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::app::App;
use super::layout;
use super::problem::Problem;

/// The token, and how many wrong ones were tried lately.
pub struct Auth {
    token: String,
    /// Whether reading needs no token: none is set, and only this machine can connect.
    is_open: bool,
    wrong: Mutex<VecDeque<DateTime<Utc>>>,
}

/// Who asks, for the pages.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// What a form must carry; empty for a bearer token, whose requests no other site can make.
    pub(super) csrf: String,
    /// Whether this one may start runs: with a token only, never by being on this machine.
    pub(super) can_run: bool,
    /// Whether there is a session to end.
    pub(super) is_logged_in: bool,
}

impl Session {
    /// Whether a post with this form token may be done in the name of this session.
    pub(super) fn may_post(&self, csrf: &str) -> bool {
        // A bearer token is sent by programs, never by a browser on its own.
        self.can_run && (!self.is_logged_in || bool::from(self.csrf.as_bytes().ct_eq(csrf.as_bytes())))
    }
}

pub(super) const COOKIE: &str = "tallyroll_session";
pub(super) const SESSION_HOURS: i64 = 12;

/// Wrong tokens in a minute after which every further try waits, whoever makes it.
const FREE_TRIES: usize = 5;
const PENALTY: Duration = Duration::from_secs(2);
/// Wrong tokens in a minute that are answered at all; more are refused at once.
const MAX_TRIES: usize = 20;

/// Bytes of a path that a login leads back to.
pub(super) const NEXT_MAX: usize = 2_000;

/// A token that is shorter could be guessed, so that tries at it have to have a limit.
const GUESSABLE_BYTES: usize = 16;

impl Auth {
    #[must_use]
    pub fn new(token: &str, is_loopback: bool) -> Self {
        Self { token: token.to_owned(), is_open: token.is_empty() && is_loopback, wrong: Mutex::new(VecDeque::new()) }
    }

    /// Whether anybody can log in.
    pub(super) fn has_token(&self) -> bool {
        !self.token.is_empty()
    }

    /// The HMAC of a text under the token, as URL-safe Base64.
    fn sign(&self, text: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.token.as_bytes()) else { return String::new() };
        mac.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Whether this is the token. A short one is not compared under a flood of wrong ones, so that guessing has a limit; a long one
    /// cannot be guessed, and whoever holds it is not locked out by those who do not.
    pub(super) fn admits(&self, tried: &str, now: DateTime<Utc>) -> bool {
        (self.token.len() >= GUESSABLE_BYTES || !self.is_flooded(now)) && self.is_token(tried)
    }

    fn is_token(&self, tried: &str) -> bool {
        // Both are hashed first: equal lengths tell nothing, and no comparison ends early.
        !self.token.is_empty() && bool::from(self.sign(tried).as_bytes().ct_eq(self.sign(&self.token).as_bytes()))
    }

    /// A new session's cookie value, valid from `now` on.
    pub(super) fn open_session(&self, now: DateTime<Utc>) -> Option<String> {
        let mut nonce = [0_u8; 16];
        getrandom::fill(&mut nonce).ok()?;
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let claim = format!("{}.{nonce}", (now + TimeDelta::hours(SESSION_HOURS)).timestamp());
        Some(format!("{claim}.{}", self.sign(&format!("session {claim}"))))
    }

    fn is_session(&self, cookie: &str, now: DateTime<Utc>) -> bool {
        let Some((claim, signature)) = cookie.rsplit_once('.') else { return false };
        let expires = claim.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(0);
        !self.token.is_empty()
            && expires > now.timestamp()
            && bool::from(self.sign(&format!("session {claim}")).as_bytes().ct_eq(signature.as_bytes()))
    }

    /// Counts a wrong token; how long its answer has to wait, or none where too many wait already.
    pub(super) fn wrong_token(&self, now: DateTime<Utc>) -> Option<Duration> {
        let mut wrong = self.wrong.lock().ok()?;
        wrong.retain(|at| now - *at < TimeDelta::minutes(1));
        if wrong.len() >= MAX_TRIES {
            return None;
        }
        wrong.push_back(now);
        Some(if wrong.len() > FREE_TRIES { PENALTY } else { Duration::ZERO })
    }

    /// Whether wrong tokens are so many that even a right one has to wait for its turn.
    fn is_flooded(&self, now: DateTime<Utc>) -> bool {
        self.wrong.lock().is_ok_and(|wrong| wrong.iter().filter(|at| now - **at < TimeDelta::minutes(1)).count() >= MAX_TRIES)
    }

    /// Who a request's headers say it is.
    fn session(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Who {
        if let Some(tried) = bearer(headers) {
            return if self.admits(tried, now) {
                Who::Known(Session { csrf: String::new(), can_run: true, is_logged_in: false })
            } else {
                Who::WrongToken
            };
        }
        match cookie(headers).filter(|cookie| self.is_session(cookie, now)) {
            Some(cookie) => Who::Known(Session { csrf: self.sign(&format!("form {cookie}")), can_run: true, is_logged_in: true }),
            None if self.is_open && is_to_loopback(headers) => {
                Who::Known(Session { csrf: String::new(), can_run: false, is_logged_in: false })
            }
            None => Who::Unknown,
        }
    }
}

enum Who {
    Known(Session),
    WrongToken,
    Unknown,
}

/// The bearer token of a request. Another scheme is none of ours: a proxy before the site may ask for a password of its own.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a request names this machine. A site elsewhere can have its own name lead here, and would read every page from a browser on
/// this machine; its name gives it away. A request without a name comes from no browser.
fn is_to_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    all.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Lets a request with a token or a session pass, with its [`Session`] among the extensions; others get 401, or the login page.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let now = app.context.clock.now();
    match app.auth.session(request.headers(), now) {
        Who::Known(session) => {
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        Who::WrongToken => refused(&app, now).await,
        Who::Unknown => {
            let path = request.uri().path();
            if request.method() == Method::GET && !path.starts_with("/api/") && path != "/metrics" {
                let target =
                    request.uri().path_and_query().map(PathAndQuery::as_str).filter(|target| target.len() <= NEXT_MAX).unwrap_or("/");
                return Redirect::to(&format!("/login?next={}", layout::encode(target))).into_response();
            }
            unauthorized("A bearer token is needed")
        }
    }
}

async fn refused(app: &App, now: DateTime<Utc>) -> Response {
    if let Some(wait) = app.auth.wrong_token(now) {
        tokio::time::sleep(wait).await;
        return unauthorized("This token is not the right one");
    }
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens").hint("wait a minute");
    ([(header::RETRY_AFTER, "60")], problem).into_response()
}

fn unauthorized(why: &'static str) -> Response {
    let problem =
        Problem::new(StatusCode::UNAUTHORIZED, why).hint("a program sends `Authorization: Bearer TOKEN`; people log in at `/login`");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_lead_to_it() {
        let with = |host: &str| is_to_loopback(&HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9:1", "[::1]", "[::1]:8080"] {
            assert!(with(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com:8080", "127.0.0.1.example.com", "10.0.0.1:8080", "[2001:db8::1]", "", ":8080"] {
            assert!(!with(host), "{host}");
        }
        assert!(is_to_loopback(&HeaderMap::new()));
    }

    #[test]
    fn a_flood_locks_out_nobody_whose_token_cannot_be_guessed() {
        let now = DateTime::UNIX_EPOCH;
        for (token, is_admitted) in [("a-token-of-32-characters-or-more", true), ("short", false)] {
            let auth = Auth::new(token, true);
            assert!(auth.admits(token, now));
            for _ in 0..1_000 {
                assert!(!auth.admits("wrong", now));
                let _ = auth.wrong_token(now);
            }
            assert_eq!(auth.admits(token, now), is_admitted, "{token}");
            assert!(auth.admits(token, now + TimeDelta::minutes(2)), "{token}");
        }
        assert!(!Auth::new("", true).admits("", now), "no token is not an empty one");
    }

    #[test]
    fn a_session_ends_and_belongs_to_its_token() {
        let (auth, now) = (Auth::new("one", true), DateTime::UNIX_EPOCH);
        let cookie = auth.open_session(now).unwrap();
        assert!(auth.is_session(&cookie, now) && !auth.is_session(&cookie, now + TimeDelta::hours(SESSION_HOURS)));
        assert!(!Auth::new("two", true).is_session(&cookie, now) && !Auth::new("", true).is_session(&cookie, now));
        let (claim, signature) = cookie.rsplit_once('.').unwrap();
        let later = format!("9{claim}.{signature}");
        for forged in [later.as_str(), claim, "", ".", "9999999999..", &format!("{claim}.")] {
            assert!(!auth.is_session(forged, now), "{forged}");
        }
    }
}
