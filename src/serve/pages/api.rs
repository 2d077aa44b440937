//! JSON without a page of its own: dashboards for applications, and the description of all of it.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use uuid::Uuid;

use crate::dashboard::admin::UsageDashboard;
use crate::dashboard::costs::CostSummary;
use crate::dashboard::user::{self as dashboard, UserDashboard};
use crate::dashboard::user_usage::UserUsage;
use crate::serve::app::App;
use crate::serve::html::shortened;
use crate::serve::problem::Problem;
use crate::serve::query::{Named, Query};
use crate::serve::session::{Session, csrf_of};
use crate::source::MAX_TEXT_BYTES;

/// The most days before today that a dashboard covers, and the default.
const DAYS_MAX: u64 = 3_660;
const DAYS: u64 = 30;

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../../docs/openapi.json")).into_response()
}

/// `GET /api/usage/dashboard`: the admin's dashboard.
pub(super) async fn usage_dashboard(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let days = query.number("days", 0..=DAYS_MAX, DAYS)?;
    let mut tx = app.context.store.begin_read().await?;
    let timezone = app.context.config.reporting.timezone;
    let dashboard = UsageDashboard::compute(&mut tx, days, timezone, app.context.clock.now()).await?;
    Ok(Json(dashboard).into_response())
}

/// `GET /api/usage/costs`: what was spent today, this week, this month and ever.
pub(super) async fn costs(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut tx = app.context.store.begin_read().await?;
    let costs = CostSummary::compute(&mut tx, app.context.config.reporting.timezone, app.context.clock.now()).await?;
    Ok(Json(costs).into_response())
}

/// `GET /api/users/{id}/usage`: a user's days and latest requests.
pub(super) async fn user_usage(State(app): State<Arc<App>>, Named(id): Named, query: Query) -> Result<Response, Problem> {
    if id.is_empty() || id.len() > MAX_TEXT_BYTES || id.contains('\0') {
        return Err(Problem::bad_request(format!("`{}` is no user's id", shortened(&id))));
    }
    let days = query.number("days", 0..=DAYS_MAX, DAYS)?;
    let context = &app.context;
    let usage = UserUsage::compute(&context.project, &context.config, &context.store, &id, days, context.clock.now()).await?;
    Ok(Json(usage).into_response())
}

/// The seed documents the keys at the top level, and reads them from `dashboard` in its example. Both work here.
#[derive(Serialize)]
struct Twice<'a> {
    #[serde(flatten)]
    keys: &'a UserDashboard,
    dashboard: &'a UserDashboard,
}

/// `GET /api/user/dashboard`: what a user's dashboard shows.
pub(super) async fn user_dashboard(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    dashboard_of(&app, asked_user(&query)?).await
}

/// `POST /api/user/dashboard`: the same, computed afresh.
pub(super) async fn refresh_user_dashboard(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    if !session.may_post(csrf_of(&headers)) {
        return Err(Problem::forbidden());
    }
    let user = asked_user(&query)?;
    let context = &app.context;
    dashboard::refresh(&context.project, &context.config, &context.store, user, context.clock.now()).await?;
    dashboard_of(&app, user).await
}

async fn dashboard_of(app: &App, user: Uuid) -> Result<Response, Problem> {
    let context = &app.context;
    let dashboard = UserDashboard::read(&context.project, &context.config, &context.store, user, DAYS + 1, context.clock.now()).await?;
    Ok(Json(Twice { keys: &dashboard, dashboard: &dashboard }).into_response())
}

fn asked_user(query: &Query) -> Result<Uuid, Problem> {
    let text = query.text("user").unwrap_or_default();
    Uuid::try_parse(text).map_err(|_| {
        Problem::bad_request(format!("`{}` is no user's id", shortened(text))).hint("dashboards are of users whose id is a UUID")
    })
}
