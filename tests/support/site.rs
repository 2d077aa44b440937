//! The site of a fixture, on a port of its own, and a client that looks at every answer's headers.

use std::sync::{Arc, Mutex};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, redirect};
use serde_json::Value;
use tallyroll::clock::Clock;
use tallyroll::engine::env::Context;
use tallyroll::jobs::Jobs;
use tallyroll::project::Project;
use tallyroll::schedule;
use tallyroll::scheduler::asked::Asked;
use tallyroll::serve::{App, Auth, connections, router};
use tallyroll::snapshot::storage::Storage;
use tokio::sync::watch;

use super::Fixture;

/// Long enough that nobody guesses it.
pub const TOKEN: &str = "7f3a9c1e5b2d8046f1c7a9e3b05d6284";

/// What applications record with.
pub const WRITER_TOKEN: &str = "9b1f64d0c7e84a52b3d9e0f15a6c7b28";

/// Connections at once, so many that the tests of a flood find room.
const CONNECTIONS: usize = 1_100;

/// A run that was started: the job, and whether with what reads it.
pub type Started = Arc<Mutex<Vec<(String, bool)>>>;

pub struct Site {
    pub url: String,
    pub started: Started,
    client: Client,
    /// Sent with every request: a bearer token, a cookie.
    headers: HeaderMap,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The run that the tests' starter says it started.
pub const STARTED_RUN: &str = "00000000-0000-7000-8000-00000000beef";

impl Site {
    /// The site as its owner sees it, with the token; an empty token is a site open to its own machine.
    pub async fn new(fixture: &Fixture, token: &str, now: &str) -> Self {
        Self::of(fixture, Auth::new(token, true).with_writer(WRITER_TOKEN), token, now).await
    }

    /// A site that nobody records through.
    pub async fn without_writers(fixture: &Fixture, now: &str) -> Self {
        Self::of(fixture, Auth::new(TOKEN, true), TOKEN, now).await
    }

    async fn of(fixture: &Fixture, auth: Auth, token: &str, now: &str) -> Self {
        let project = Project::new(fixture.path());
        let jobs = Jobs::load(&project).unwrap();
        let schedules = schedule::read(&project, &jobs).unwrap().0;
        let config = fixture.config();
        let now: chrono::DateTime<chrono::Utc> = now.parse().unwrap();
        let context = Context {
            storage: Storage::open(&project, &config.output.url).unwrap(),
            project,
            config,
            store: fixture.store.clone(),
            jobs,
            clock: Clock::new(move || now),
            stop: watch::channel(None).1,
            observe: Box::new(|_| {}),
        };
        let started = Started::default();
        let told = Arc::clone(&started);
        let app = App {
            context: Arc::new(context),
            schedules,
            auth,
            starter: Arc::new(move |job, downstream| {
                told.lock().unwrap().push((job.to_owned(), downstream));
                Ok(Asked::Starts(STARTED_RUN.to_owned()))
            }),
            heartbeat_micros: Arc::new(now.timestamp_micros().into()),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (end, answers_may_end) = watch::channel(false);
        tokio::spawn(async move {
            connections::answer(listener, router(Arc::new(app)), CONNECTIONS, answers_may_end).await;
            drop(end);
        });
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        // The server closes what idles for ten seconds, and a post is not sent again by itself.
        let idle_max = std::time::Duration::from_secs(5);
        let client = Client::builder().redirect(redirect::Policy::none()).pool_idle_timeout(idle_max).no_proxy().build().unwrap();
        Self { url, started, client, headers }
    }

    /// The same site for somebody who sends these headers and no others.
    pub fn with(&self, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Self { url: self.url.clone(), started: Arc::clone(&self.started), client: self.client.clone(), headers }
    }

    /// The same site for a browser that has logged in.
    pub async fn log_in(&self) -> Self {
        let answer = self.with(&[]).post("/login", "application/x-www-form-urlencoded", &format!("token={TOKEN}&next=%2Fruns")).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/runs"));
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        self.with(&[("cookie", &cookie)])
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, kind: &str, body: &str) -> Answer {
        self.send(Method::POST, path, kind, body).await
    }

    pub async fn send(&self, method: Method, path: &str, kind: &str, body: &str) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).headers(self.headers.clone());
        if !kind.is_empty() {
            request = request.header("content-type", kind).body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await.unwrap().to_vec() };
        // hyper itself refuses an address that is too long.
        if ![414, 431].contains(&status) {
            check_headers(path, &answer);
        }
        answer
    }
}

fn check_headers(path: &str, answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{path}: {policy}");
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")] {
        assert_eq!(answer.header(name), value, "{path}: {name}");
    }
    assert!(!answer.header("cache-control").is_empty(), "{path}");
    assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
}

/// The form token of a page.
pub fn csrf_of(page: &str) -> String {
    page.split("name=\"csrf\" value=\"").nth(1).unwrap_or_else(|| panic!("no form in {page}")).split('"').next().unwrap().to_owned()
}
