//! Lets a request pass, or not: a bearer token, a session cookie, or, where no token is set, a client on this machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};

use super::app::App;
use super::auth::Tried;
use super::html::encode;
use super::login::NEXT_MAX;
use super::problem::Problem;
use super::receive;
use super::session::{COOKIE, Session};

/// Lets a request with a token or a session pass, and adds its [`Session`] to the extensions. Others get 401, or the login page.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // In parts: a body is not `Sync`, so it must not be held while the database is asked.
    let (mut parts, body) = request.into_parts();
    let now = app.context.clock.now();
    let session = if let Some(tried) = bearer(&parts.headers) {
        match app.auth.try_token(tried, parts.extensions.get(), now).await {
            Tried::Right => Session { csrf: String::new(), can_run: true, login: None },
            Tried::Wrong => return unauthorized("This token is not the right one"),
            Tried::TooMany => return too_many(),
        }
    } else {
        match without_token(&app, &parts, now).await {
            Ok(Some(session)) => session,
            Ok(None) => return to_login(&parts),
            Err(problem) => return problem.into_response(),
        }
    };
    parts.extensions.insert(session);
    next.run(Request::from_parts(parts, body)).await
}

/// Lets a request with the writers' token pass, before its body is read. No cookie, nor being on this machine, is enough.
pub(super) async fn guard_writing(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let refused = if !app.auth.has_writer_token() {
        Problem::new(StatusCode::FORBIDDEN, "Nothing is recorded here: no token for it is set")
            .hint("set `TALLYROLL__SERVE__WRITER_TOKEN_FILE` to the path of a file that holds one")
            .into_response()
    } else if let Some(tried) = bearer(&parts.headers) {
        match app.auth.try_writer_token(tried, parts.extensions.get(), app.context.clock.now()).await {
            Tried::Right => return next.run(Request::from_parts(parts, body)).await,
            Tried::Wrong => unauthorized("This is not the token of those who record usage"),
            Tried::TooMany => return too_many(),
        }
    } else {
        unauthorized("A bearer token is needed")
    };
    // Of a stranger's body some is passed over: one that is still sending would not see the answer.
    receive::leave_unread(body, receive::DRAIN_BYTES_MAX).await;
    refused
}

fn too_many() -> Response {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens").hint("wait a minute");
    ([(header::RETRY_AFTER, "60")], problem).into_response()
}

/// Who sent a request that has no token.
async fn without_token(app: &App, request: &Parts, now: DateTime<Utc>) -> Result<Option<Session>, Problem> {
    let headers = &request.headers;
    if let Some(cookie) = cookie(headers)
        && let Some(session) = app.auth.session(&app.context.store, cookie, now).await?
    {
        return Ok(Some(session));
    }
    if !app.auth.is_open || !is_to_loopback(&request.uri, headers) {
        return Ok(None);
    }
    match passed_on_by(headers) {
        Some(header) => Err(Problem::new(StatusCode::FORBIDDEN, format!("A proxy has passed this on (`{header}`), and no token is set"))
            .hint("without a token pages are for this machine alone; set `TALLYROLL__SERVE__TOKEN_FILE` to be asked through a proxy")),
        None => Ok(Some(Session { csrf: String::new(), can_run: false, login: None })),
    }
}

fn to_login(request: &Parts) -> Response {
    let path = request.uri.path();
    if request.method == Method::GET && !path.starts_with("/api/") && path != "/metrics" {
        let target = request.uri.path_and_query().map(PathAndQuery::as_str).filter(|target| target.len() <= NEXT_MAX).unwrap_or("/");
        return Redirect::to(&format!("/login?next={}", encode(target))).into_response();
    }
    unauthorized("A bearer token is needed")
}

fn unauthorized(why: &'static str) -> Response {
    let problem =
        Problem::new(StatusCode::UNAUTHORIZED, why).hint("a program sends `Authorization: Bearer TOKEN`; people log in at `/login`");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// The bearer token of a request. Other schemes are ignored: a proxy in front of the site may ask for a password of its own.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The header with which a proxy says that it has forwarded a request.
fn passed_on_by(headers: &HeaderMap) -> Option<&str> {
    let is_passed_on = |name: &str| ["forwarded", "via", "x-real-ip"].contains(&name) || name.starts_with("x-forwarded-");
    headers.keys().map(header::HeaderName::as_str).find(|name| is_passed_on(name))
}

/// Whether the `Host` of a request is this machine. Another site can have its own name resolve to 127.0.0.1, and could then read every
/// page through a browser on this machine; its name gives it away. A request without a host comes from no browser.
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
}
