//! Which path leads where, and what answers without a page: health checks and metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::TimeDelta;
use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use super::app::App;
use super::problem::Problem;
use super::receive::{self, BODY_BYTES_MAX};
use super::{guard, layout, login, pages, recording};
use crate::metrics::Served;

/// A scheduler that is silent for longer is not healthy.
const HEARTBEAT_MAX: TimeDelta = TimeDelta::minutes(2);

/// The whole site. Health checks and the style sheet need no token; `guard.rs` lets the rest pass.
pub fn router(app: Arc<App>) -> Router {
    let guarded = pages::routes().route("/metrics", get(metrics)).layer(middleware::from_fn_with_state(Arc::clone(&app), guard::guard));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/style.css", get(layout::style))
        .route("/login", get(login::login_page).post(login::log_in))
        .merge(guarded)
        .fallback(layout::not_found)
        .layer(middleware::from_fn(receive::receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(recording::routes(&app))
        .layer(middleware::from_fn(survive))
        .layer(middleware::from_fn(layout::render_problem))
        .layer(middleware::map_response(layout::secure))
        .with_state(app)
}

/// A library that is told nonsense by the database's server may panic: that is an answer, too.
async fn survive(request: Request, next: Next) -> Response {
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "This could not be read this time").hint("try it again").into_response()
    })
}

/// Guarded as the pages are; `metrics.textfile` needs no token.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let served = Served { heartbeat_at: app.heartbeat_at(), wrong_token_count: app.auth.wrong_token_count() };
    match crate::metrics::render(&app.context, &app.schedules, Some(&served)).await {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "The metrics could not be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n").into_response()
        }
    }
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    let silent_for = app.context.clock.now() - app.heartbeat_at();
    if silent_for > HEARTBEAT_MAX {
        let text = format!("the scheduler has been silent for {} s\n", silent_for.num_seconds());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    (StatusCode::OK, "ok\n").into_response()
}

/// Requests that may wait for the database at once without a token: while it hangs, more would leave no place for anybody else.
const READY_AT_ONCE: usize = 8;
static READY: Semaphore = Semaphore::const_new(READY_AT_ONCE);

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let Ok(_permit) = READY.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database is being asked by others\n").into_response();
    };
    match app.context.store.query("SELECT 1 AS one", &[]).await {
        Ok(_) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response(),
        // What the database says stays in the log: this answer needs no token.
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "The database cannot be reached");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n").into_response()
        }
    }
}
