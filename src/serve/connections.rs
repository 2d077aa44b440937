//! Connections: how many there may be, how long a client may keep one waiting, and which is closed when there are too many.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_io_timeout::TimeoutStream;

/// The longest wait for the head of a request, from the start of the connection or the end of the previous answer.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest wait for a client that does not read its answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of a head: proxies add cookies and headers of their own.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The most connections at once, if there are enough file descriptors.
const CONNECTIONS_MAX: u64 = 512;
/// A connection that waits for its client is kept at least this long: enough for a request that is on its way.
const KEPT_MIN: Duration = Duration::from_millis(250);
/// How often to check whether there is room.
const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// For how long after there was no room each connection ends with its answer, so that those who wait come to their turn.
const CROWDED: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be accepted because the process or the machine is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A quarter of the file descriptors that the process may have. The rest is for the database, runs and files.
#[must_use]
pub fn connections_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((descriptors / 4).clamp(1, CONNECTIONS_MAX)).unwrap_or(1)
}

/// Serves `site` until `end` becomes true, then finishes the answers under way. HTTP/1 only.
pub async fn answer(listener: TcpListener, site: Router, connections_max: usize, mut end: watch::Receiver<bool>) {
    let clients = Arc::new(Clients { max: connections_max, open: Mutex::default() });
    let mut tasks = JoinSet::new();
    {
        // Never dropped half-way: it may hold a client that is waiting for room.
        let accepted = accept(&listener, &clients);
        tokio::pin!(accepted);
        loop {
            tokio::select! {
                (stream, peer) = &mut accepted => {
                    clients.take_in(&mut tasks, stream, peer, &site, &end);
                    accepted.set(accept(&listener, &clients));
                }
                Some(_) = tasks.join_next() => {}
                () = until(&mut end) => break,
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// The next client, once there is room. Until then clients wait in the system's queue, in order.
async fn accept(listener: &TcpListener, clients: &Clients) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                clients.room().await;
                return accepted;
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted");
                clients.close_longest_waiting();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn until(end: &mut watch::Receiver<bool>) {
    let _ = end.wait_for(|end| *end).await;
}

/// Whether the client was gone before it could be accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve(stream: TcpStream, client: Client, site: Router, mut end: watch::Receiver<bool>) {
    tracing::debug!(peer = %client.peer, "A client is connected");
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(ANSWER_WAIT_MAX));
    let site = TowerToHyperService::new(site);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let (answer, clients) = (site.call(request), Arc::clone(&client.all));
        async move {
            let mut answer = answer.await?;
            if clients.is_crowded() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until(&mut end) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %client.peer, %error, "A connection ended early");
    }
}

/// The connections that are open.
struct Clients {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The id of the newest client.
    last_id: u64,
    /// When a client last had to wait for room.
    crowded_at: Option<Instant>,
    clients: HashMap<u64, Held>,
}

struct Held {
    /// Since when it has been waiting for its client; none while a request is being handled.
    waits_since: Option<Instant>,
    task: AbortHandle,
}

impl Clients {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once there is room for another connection, closing the one that has waited longest for its client if necessary. Those
    /// whose clients ask again and again end with their next answer.
    async fn room(&self) {
        while self.is_full() && !self.close_longest_waiting() {
            sleep(ROOM_PAUSE).await;
        }
    }

    fn is_full(&self) -> bool {
        let mut open = self.open();
        let is_full = open.clients.len() >= self.max;
        if is_full {
            open.crowded_at = Some(Instant::now());
        }
        is_full
    }

    fn is_crowded(&self) -> bool {
        self.open().crowded_at.is_some_and(|at| at.elapsed() < CROWDED)
    }

    /// Closes the connection that has waited longest for its client, if it has waited long enough.
    fn close_longest_waiting(&self) -> bool {
        let mut open = self.open();
        let waiting = open.clients.iter().filter_map(|(id, held)| Some((held.waits_since?, *id)));
        let longest = waiting.min().filter(|(since, _)| since.elapsed() >= KEPT_MIN);
        let closed = longest.and_then(|(_, id)| open.clients.remove(&id));
        if let Some(held) = &closed {
            held.task.abort();
        }
        closed.is_some()
    }

    fn take_in(self: &Arc<Self>, tasks: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, site: &Router, end: &watch::Receiver<bool>) {
        // Locked until the connection is in the list, so that it cannot end before it is there.
        let mut open = self.open();
        open.last_id += 1;
        let id = open.last_id;
        let client = Client { peer, id, all: Arc::clone(self) };
        let leaving = Leaving(client.clone());
        let (site, end) = (site.clone(), end.clone());
        let task = tasks.spawn(async move {
            serve(stream, leaving.0.clone(), site, end).await;
            drop(leaving);
        });
        open.clients.insert(id, Held { waits_since: Some(Instant::now()), task });
    }
}

/// The client whose connection a request came by. It is among the request's extensions.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    id: u64,
    all: Arc<Clients>,
}

impl Client {
    /// Keeps the connection open while this is held; none if it was closed to make room.
    pub(super) fn begin(self) -> Option<AtWork> {
        self.all.open().clients.get_mut(&self.id)?.waits_since = None;
        Some(AtWork(self))
    }
}

/// A request is being handled.
pub(super) struct AtWork(Client);

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(held) = self.0.all.open().clients.get_mut(&self.0.id) {
            held.waits_since = Some(Instant::now());
        }
    }
}

/// Takes a connection off the list, however it ends.
struct Leaving(Client);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.all.open().clients.remove(&self.0.id);
    }
}
