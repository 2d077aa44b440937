//! Who may see and do what: a bearer token, or a session cookie from the login page.
//!
//! A session is `<expiry>.<nonce>.<HMAC>`, keyed by the token: any replica with the same token knows it, and a new token ends all.
//! What it was logged out of stands in the database (`session.rs`). A form carries the HMAC of its session, so that another site
//! cannot post in its name.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::app::App;
use super::connections::Client;
use super::layout;
use super::problem::Problem;
use super::session::Login;
use super::token::WrongTokens;

/// The token, and the wrong ones that were tried.
pub struct Auth {
    token: String,
    /// Whether reading needs no token: none is set, and only this machine can connect.
    is_open: bool,
    wrong: WrongTokens,
}

/// Who asks, for the pages.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// What a form must carry; empty for a bearer token, whose requests no other site can make.
    pub(super) csrf: String,
    /// Whether this one may start runs: with a token only, never by being on this machine.
    pub(super) can_run: bool,
    /// What there is to log out of.
    pub(super) login: Option<Login>,
}

impl Session {
    /// Whether a post with this form token may be done in the name of this session.
    pub(super) fn may_post(&self, csrf: &str) -> bool {
        // A bearer token is sent by programs, never by a browser on its own.
        self.can_run && (self.login.is_none() || bool::from(self.csrf.as_bytes().ct_eq(csrf.as_bytes())))
    }
}

pub(super) const COOKIE: &str = "tallyroll_session";
pub(super) const SESSION_HOURS: i64 = 12;

/// Bytes of a path that a login leads back to.
pub(super) const NEXT_MAX: usize = 2_000;

/// What became of a token that was tried, by a program or on the login page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Right,
    Wrong,
    /// Wrong as well, and one of too many.
    TooMany,
}

impl Auth {
    #[must_use]
    pub fn new(token: &str, is_loopback: bool) -> Self {
        Self { token: token.to_owned(), is_open: token.is_empty() && is_loopback, wrong: WrongTokens::default() }
    }

    /// Whether anybody can log in.
    pub(super) fn has_token(&self) -> bool {
        !self.token.is_empty()
    }

    /// Wrong tokens since the server began.
    pub(super) fn wrong_token_count(&self) -> u64 {
        self.wrong.count()
    }

    /// The HMAC of a text under the token, as URL-safe Base64.
    fn sign(&self, text: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.token.as_bytes()) else { return String::new() };
        mac.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// The one door for a token. A right one passes whatever else is tried: it is long enough that nobody finds it
    /// (`token.rs`), and whoever holds it is not locked out by those who do not. A wrong one waits, or is refused.
    pub(super) async fn try_token(&self, tried: &str, client: Option<&Client>, now: DateTime<Utc>) -> Tried {
        if self.is_token(tried) {
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

    /// What a cookie of ours that has not ended says.
    fn login(&self, cookie: &str, now: DateTime<Utc>) -> Option<Login> {
        let (claim, signature) = cookie.rsplit_once('.')?;
        let is_ours = self.has_token() && bool::from(self.sign(&format!("session {claim}")).as_bytes().ct_eq(signature.as_bytes()));
        let ends_at = DateTime::from_timestamp(claim.split('.').next()?.parse().ok()?, 0)?;
        (is_ours && ends_at > now).then(|| Login { claim: claim.to_owned(), ends_at })
    }

    /// Who a request without a token is.
    async fn session(&self, app: &App, uri: &Uri, headers: &HeaderMap, now: DateTime<Utc>) -> Result<Option<Session>, Problem> {
        if let Some((cookie, login)) = cookie(headers).and_then(|cookie| Some((cookie, self.login(cookie, now)?)))
            && !login.is_revoked(&app.context.store).await?
        {
            return Ok(Some(Session { csrf: self.sign(&format!("form {cookie}")), can_run: true, login: Some(login) }));
        }
        if !self.is_open || !is_to_loopback(uri, headers) {
            return Ok(None);
        }
        match passed_on_by(headers) {
            Some(header) => {
                Err(Problem::new(StatusCode::FORBIDDEN, format!("A proxy has passed this on (`{header}`), and no token is set")).hint(
                    "without a token pages are for this machine alone; set `TALLYROLL__SERVE__TOKEN_FILE` to be asked through a proxy",
                ))
            }
            None => Ok(Some(Session { csrf: String::new(), can_run: false, login: None })),
        }
    }
}

/// The bearer token of a request. Another scheme is none of ours: a proxy before the site may ask for a password of its own.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The header by which a proxy says that it passed a request on.
fn passed_on_by(headers: &HeaderMap) -> Option<&str> {
    let is_passed_on = |name: &str| ["forwarded", "via", "x-real-ip"].contains(&name) || name.starts_with("x-forwarded-");
    headers.keys().map(header::HeaderName::as_str).find(|name| is_passed_on(name))
}

/// Whether a request names this machine. A site elsewhere can have its own name lead here, and would read every page from a browser on
/// this machine; its name gives it away. A request without a name comes from no browser.
fn is_to_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    hosts.chain(uri.authority().map(Authority::as_str)).all(is_loopback)
}

fn is_loopback(host: &str) -> bool {
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
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // In parts: a body is nothing that two threads may look at while the database is asked.
    let (mut parts, body) = request.into_parts();
    let now = app.context.clock.now();
    let session = if let Some(tried) = bearer(&parts.headers) {
        match app.auth.try_token(tried, parts.extensions.get(), now).await {
            Tried::Right => Session { csrf: String::new(), can_run: true, login: None },
            Tried::Wrong => return unauthorized("This token is not the right one"),
            Tried::TooMany => {
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens").hint("wait a minute");
                return ([(header::RETRY_AFTER, "60")], problem).into_response();
            }
        }
    } else {
        match app.auth.session(&app, &parts.uri, &parts.headers, now).await {
            Ok(Some(session)) => session,
            Ok(None) => return to_login(&parts),
            Err(problem) => return problem.into_response(),
        }
    };
    parts.extensions.insert(session);
    next.run(Request::from_parts(parts, body)).await
}

fn to_login(request: &Parts) -> Response {
    let path = request.uri.path();
    if request.method == Method::GET && !path.starts_with("/api/") && path != "/metrics" {
        let target = request.uri.path_and_query().map(PathAndQuery::as_str).filter(|target| target.len() <= NEXT_MAX).unwrap_or("/");
        return Redirect::to(&format!("/login?next={}", layout::encode(target))).into_response();
    }
    unauthorized("A bearer token is needed")
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
        let with = |host: &str| is_to_loopback(&Uri::from_static("/"), &HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9:1", "[::1]", "[::1]:8080"] {
            assert!(with(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com:8080", "127.0.0.1.example.com", "10.0.0.1:8080", "[2001:db8::1]", "", ":8080"] {
            assert!(!with(host), "{host}");
        }
        let none = HeaderMap::new();
        assert!(is_to_loopback(&Uri::from_static("/"), &none) && is_to_loopback(&Uri::from_static("http://localhost:8080/"), &none));
        assert!(!is_to_loopback(&Uri::from_static("http://example.com/"), &none));
    }

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
