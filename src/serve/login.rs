//! `/login` and `/logout`: takes the token, gives a session cookie, and ends the session.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};
use maud::html;
use serde::Deserialize;

use super::app::App;
use super::auth::Tried;
use super::connections::Client;
use super::layout;
use super::problem::Problem;
use super::query::Query;
use super::session::{COOKIE, SESSION_HOURS, Session};

/// The longest path, in bytes, that a login returns to.
pub(super) const NEXT_MAX: usize = 2_000;

pub(super) async fn login_page(State(app): State<Arc<App>>, query: Query) -> Response {
    form(&app, query.text("next").unwrap_or_default(), None, StatusCode::OK)
}

fn form(app: &App, next: &str, wrong: Option<&str>, status: StatusCode) -> Response {
    let content = html! {
        h1 { "Log in" }
        @if !app.auth.has_token() {
            p { "No token is set, so nobody can log in. Set " code { "TALLYROLL__SERVE__TOKEN_FILE" } " to the path of a file that holds one." }
        } @else {
            form method="post" action="/login" class="card" {
                @if let Some(wrong) = wrong { p class="bad" role="alert" { (wrong) } }
                input type="hidden" name="next" value=(next);
                label { "Token " input type="password" name="token" autocomplete="current-password" required autofocus; }
                button { "Log in" }
            }
        }
    };
    (status, layout::page("Log in", None, &content)).into_response()
}

#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn log_in(
    State(app): State<Arc<App>>,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    Form(login): Form<LoginForm>,
) -> Response {
    let now = app.context.clock.now();
    match app.auth.try_token(&login.token, client.as_deref(), now).await {
        Tried::Right => {}
        Tried::Wrong => return form(&app, &login.next, Some("This token is not the right one."), StatusCode::UNAUTHORIZED),
        Tried::TooMany => {
            return form(&app, &login.next, Some("Too many wrong tokens. Wait a minute."), StatusCode::TOO_MANY_REQUESTS);
        }
    }
    let Some(session) = app.auth.open_session(now) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    // Behind a proxy with TLS, the cookie is for TLS only.
    let secure = if headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", SESSION_HOURS * 3_600);
    ([(header::SET_COOKIE, cookie)], Redirect::to(local(&login.next))).into_response()
}

/// `next`, if it is a path of this site; otherwise the first page.
fn local(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    let is_plain = next.len() <= NEXT_MAX && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path && is_plain { next } else { "/" }
}

#[derive(Debug, Deserialize)]
pub(super) struct LogoutForm {
    csrf: String,
}

pub(super) async fn log_out(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Form(logout): Form<LogoutForm>,
) -> Result<Response, Problem> {
    if !session.may_post(&logout.csrf) {
        return Err(Problem::forbidden());
    }
    if let Some(login) = &session.login {
        // Until the session has ended everywhere the browser keeps its cookie, so that it can try again.
        login.revoke(&app.context.store, app.context.clock.now()).await.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "A session could not be ended");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The session could not be ended: the database does not take it")
                .hint(format!("log out again; it ends by itself {SESSION_HOURS} hours after the login"))
        })?;
    }
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_nowhere_else() {
        for (next, target) in [
            ("/runs?job=a", "/runs?job=a"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("", "/"),
            ("/\n", "/"),
        ] {
            assert_eq!(local(next), target);
        }
    }
}
