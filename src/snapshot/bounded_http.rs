//! HTTP for the storage, whose answers end: a listing or an error that goes on for ever is cut off. Objects have a bound of their own
//! in `storage.rs`.

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};

/// A page of a listing has up to a thousand keys of up to a kilobyte, and what is said of each.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An answer that was cut off.
#[derive(Debug, thiserror::Error)]
#[error("The storage's answer is longer than {MAX_ANSWER_BYTES} bytes")]
pub(super) struct TooLong;

/// Makes clients whose answers are bounded.
#[derive(Debug)]
pub(super) struct BoundedHttp;

impl HttpConnector for BoundedHttp {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Bounded(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Bounded(HttpClient);

#[async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_object = request.method() == "GET" && !request.uri().query().unwrap_or_default().contains("list-type=");
        let response = self.0.execute(request).await?;
        if is_object && response.status().is_success() {
            return Ok(response);
        }
        Ok(response.map(|body| HttpResponseBody::new(Limited::new(body, MAX_ANSWER_BYTES).map_err(explain))))
    }
}

fn explain(error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    match error.downcast::<HttpError>() {
        Ok(error) => *error,
        // One that is not tried again: the next answer would be no shorter.
        Err(_) => HttpError::new(HttpErrorKind::Decode, TooLong),
    }
}
