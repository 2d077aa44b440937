//! `/api/chat/track`: a chat request is begun, and completed. The keys are those of the seed about chat requests.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::body::{json, refused, unprocessable};
use crate::serve::app::App;
use crate::serve::problem::Problem;
use crate::store::recording::{ChatOutcome, ChatRequest};

/// Begins a request: 201 with its id.
pub(super) async fn track(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let request: ChatRequest = json(&body)?;
    request.check().map_err(unprocessable)?;
    let mut tx = app.context.store.begin().await?;
    let id = tx.track_chat_request(&request, app.context.clock.now()).await.map_err(refused)?;
    let Some(id) = id else { return Err(unprocessable(format!("There is no user `{}`", request.user_id))) };
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(json!({ "requestId": id, "status": "pending" }))).into_response())
}

/// Completes a request, or adds to one what is known only later.
pub(super) async fn complete(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let outcome: ChatOutcome = json(&body)?;
    outcome.check().map_err(unprocessable)?;
    let mut tx = app.context.store.begin().await?;
    let status = tx.complete_chat_request(&outcome, app.context.clock.now()).await.map_err(refused)?;
    let Some(status) = status else {
        return Err(
            Problem::not_found(format!("There is no chat request `{}`", outcome.request_id)).hint("`POST /api/chat/track` begins one")
        );
    };
    tx.commit().await?;
    Ok(Json(json!({ "requestId": outcome.request_id.to_string(), "status": status })).into_response())
}
