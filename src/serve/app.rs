//! What every page works with, and which path leads where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, TimeDelta, Utc};

use super::auth::{self, Auth};
use super::connections::{self, BODY_BYTES_MAX};
use super::{layout, login, pages, problem};
use crate::metrics::Served;
use crate::run::Context;
use crate::schedule::Schedule;
use crate::scheduler::asked::Asked;

/// Starts a run of a job, with what reads it where asked.
pub type Starter = Arc<dyn Fn(&str, bool) -> Result<Asked> + Send + Sync>;

/// Shared by all requests.
pub struct App {
    pub context: Arc<Context>,
    pub schedules: BTreeMap<String, Schedule>,
    pub auth: Auth,
    pub starter: Starter,
    /// When the scheduler last showed that it lives, in microseconds of the Unix epoch.
    pub heartbeat_micros: Arc<AtomicI64>,
}

/// A scheduler silent for longer is not well.
const HEARTBEAT_MAX: TimeDelta = TimeDelta::minutes(2);

impl App {
    /// When the scheduler last showed that it lives.
    #[must_use]
    pub fn heartbeat_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.heartbeat_micros.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// The whole site. Health checks and the style sheet need no token; see [`auth`] for the rest.
pub fn router(app: Arc<App>) -> Router {
    let guarded = pages::routes().route("/metrics", get(metrics)).layer(middleware::from_fn_with_state(Arc::clone(&app), auth::guard));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/style.css", get(layout::style))
        .route("/login", get(login::login_page).post(login::log_in))
        .merge(guarded)
        .fallback(layout::not_found)
        .layer(middleware::from_fn(connections::receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(problem::render))
        .layer(middleware::map_response(layout::secure))
        .with_state(app)
}

/// Guarded as the pages are; `metrics.textfile` is the way past a token.
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

async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.context.store.query("SELECT 1 AS one", &[]).await {
        Ok(_) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response(),
        // What the database says stays in the log: this answer needs no token.
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "The database cannot be reached");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n").into_response()
        }
    }
}
