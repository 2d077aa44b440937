//! What all answers share: the frame of a page, how a problem looks, security headers. No script, no outside asset.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::problem::Problem;
use super::session::Session;

/// Nothing is loaded from elsewhere, no script runs, and nobody may frame the page.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page; `session` is none before the login.
pub(super) fn page(title: &str, session: Option<&Session>, content: &Markup) -> Response {
    refreshing(title, session, None, content)
}

/// A page that the browser reloads every so many seconds, to follow a run.
pub(super) fn refreshing(title: &str, session: Option<&Session>, refresh_seconds: Option<u32>, content: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = refresh_seconds { meta http-equiv="refresh" content=(seconds); }
                title { (title) " · Tallyroll" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    a class="brand" href="/" { "Tallyroll" }
                    @if let Some(session) = session {
                        nav {
                            a href="/" { "Jobs" }
                            a href="/runs" { "Runs" }
                            a href="/usage" { "Usage" }
                            a href="/seats" { "Seats" }
                            a href="/quarantine" { "Quarantine" }
                        }
                        @if session.login.is_some() {
                            form method="post" action="/logout" class="logout" {
                                input type="hidden" name="csrf" value=(session.csrf);
                                button class="quiet" { "Log out" }
                            }
                        }
                    }
                }
                main { (content) }
            }
        }
    };
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

/// Makes every problem a page, or JSON below `/api/`. The answer keeps its headers.
pub(super) async fn render_problem(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let known = response.extensions_mut().remove::<Problem>();
    let Some(problem) = known.or_else(|| unworded(&response, is_api)) else { return response };
    let mut rendered = if is_api {
        Json(problem.json()).into_response()
    } else {
        let (title, content) = problem.page();
        page(&title, None, &content)
    };
    *rendered.status_mut() = problem.status();
    for (name, value) in response.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

/// A bare answer from the framework, for example to a method that a path does not accept.
fn unworded(response: &Response, is_api: bool) -> Option<Problem> {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let is_bare = status == StatusCode::METHOD_NOT_ALLOWED || (is_api && (status.is_client_error() || status.is_server_error()));
    (is_bare && !is_json).then(|| Problem::new(status, status.canonical_reason().unwrap_or("This cannot be answered")))
}

/// Adds the security headers to every answer.
pub(super) async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

pub(super) async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=300")];
    (headers, include_str!("style.css")).into_response()
}

pub(super) async fn not_found() -> Problem {
    Problem::not_found("There is no such page")
}
