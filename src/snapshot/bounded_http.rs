//! HTTP for the storage, whose answers end: a listing or an error that goes on for ever is cut off. Objects have a bound of their own
//! in `storage.rs`. It asks nobody but the storage: a redirect is an error, for whoever it leads to would get the session token.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{NoProxy, Proxy, redirect};

/// A page of a listing has up to a thousand keys of up to a kilobyte, and what is said of each.
const MAX_ANSWER_BYTES: usize = 16 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer that was cut off.
#[derive(Debug, thiserror::Error)]
#[error("The storage's answer is longer than {MAX_ANSWER_BYTES} bytes")]
pub(super) struct TooLong;

/// Makes clients whose answers are bounded.
#[derive(Debug)]
pub(super) struct BoundedHttp;

impl HttpConnector for BoundedHttp {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = client(options).map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
        Ok(HttpClient::new(Bounded(HttpClient::new(client))))
    }
}

/// As `object_store` makes it, but for redirects, which it has no setting for.
fn client(options: &ClientOptions) -> reqwest::Result<reqwest::Client> {
    let value = |key| options.get_config_value(&key);
    let is_on = |key| value(key).is_some_and(|text| ["1", "true", "on", "yes", "y"].contains(&text.to_ascii_lowercase().as_str()));
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .danger_accept_invalid_certs(is_on(ClientConfigKey::AllowInvalidCertificates))
        .https_only(!is_on(ClientConfigKey::AllowHttp));
    if let Some(proxy) = value(ClientConfigKey::ProxyUrl) {
        let excludes = value(ClientConfigKey::ProxyExcludes).and_then(|names| NoProxy::from_string(&names));
        builder = builder.proxy(Proxy::all(proxy)?.no_proxy(excludes));
    }
    builder.build()
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
