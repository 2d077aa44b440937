//! A wire in front of PostgreSQL that is cut, or goes dead for a while, at a named moment of the conversation.
//!
//! It knows just enough of the protocol (PostgreSQL documentation, "Message Formats") to tell which statement is sent, and which answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::postgres_url;

/// A moment of the conversation. Statements are told by a part of their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The statement has left the client, and has not come to the server.
    Sent(&'static str),
    /// The server has done the statement, and the client does not know.
    Answered(&'static str),
    /// In the middle of a message of rows to the server.
    CopyIn,
    /// In the middle of a message of rows from the server.
    CopyOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection is gone for both sides.
    Cut,
    /// Nothing gets through on any connection, until [`Proxy::release`].
    Hold,
}

struct Rule {
    moment: Moment,
    /// How often the moment still passes by.
    left: usize,
    then: Then,
}

/// What all connections share.
struct Wire {
    watched: Vec<Moment>,
    rule: Mutex<Option<Rule>>,
    seen: Mutex<BTreeMap<Moment, usize>>,
    fired: watch::Sender<bool>,
    held: watch::Sender<bool>,
}

pub struct Proxy {
    port: u16,
    wire: Arc<Wire>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    /// A wire that counts how often it comes to each of the `watched` moments, and does as `rule` says at the nth of one.
    pub async fn start(watched: &[Moment], rule: Option<(Moment, usize, Then)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::new(Wire {
            watched: watched.to_vec(),
            rule: Mutex::new(rule.map(|(moment, nth, then)| Rule { moment, left: nth, then })),
            seen: Mutex::default(),
            fired: watch::Sender::new(false),
            held: watch::Sender::new(false),
        });
        let socket = socket_of(&postgres_url());
        let shared = Arc::clone(&wire);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(connect(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, wire, listening }
    }

    /// The database of a `postgres:` URL, through this wire.
    pub fn url(&self, url: &str) -> String {
        let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
        format!("postgres://postgres@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    pub fn seen(&self) -> BTreeMap<Moment, usize> {
        self.wire.seen.lock().unwrap().clone()
    }

    pub fn has_fired(&self) -> bool {
        *self.wire.fired.borrow()
    }

    /// Waits until the moment has come.
    pub async fn fired(&self) {
        self.wire.fired.subscribe().wait_for(|fired| *fired).await.unwrap();
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.wire.held.send_replace(false);
    }
}

fn socket_of(url: &str) -> PathBuf {
    let folder = url.split_once("host=").expect("the test server listens on a socket").1.split('&').next().unwrap();
    PathBuf::from(folder).join(".s.PGSQL.5432")
}

impl Wire {
    /// Counts a moment; what is to be done at it.
    fn comes_to(&self, moment: Moment) -> Option<Then> {
        *self.seen.lock().unwrap().entry(moment).or_default() += 1;
        let mut rule = self.rule.lock().unwrap();
        let matching = rule.as_mut().filter(|rule| rule.moment == moment)?;
        matching.left -= 1;
        if matching.left > 0 {
            return None;
        }
        let then = matching.then;
        *rule = None;
        if then == Then::Hold {
            self.held.send_replace(true);
        }
        self.fired.send_replace(true);
        Some(then)
    }

    /// The watched moments that a statement's text belongs to.
    fn moment_of(&self, sql: &str, of: fn(&'static str) -> Moment) -> Option<Moment> {
        self.watched.iter().copied().find(|moment| match moment {
            Moment::Sent(part) | Moment::Answered(part) => of(part) == *moment && sql.contains(part),
            _ => false,
        })
    }

    async fn wait_while_held(&self) {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }
}

/// Statements that were sent and are not answered yet.
type Pending = Arc<Mutex<VecDeque<String>>>;

async fn connect(client: TcpStream, server: UnixStream, wire: Arc<Wire>) {
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let pending = Pending::default();
    // Whichever side ends, or is cut, takes the other with it.
    tokio::select! {
        _ = forward(from_client, to_server, &wire, &pending) => {}
        _ = answer(from_server, to_client, &wire, &pending) => {}
    }
}

/// A message with its type, which the first one of a client lacks.
async fn message(from: &mut (impl AsyncReadExt + Unpin), has_type: bool) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4 + usize::from(has_type)];
    from.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes(bytes[bytes.len() - 4..].try_into().unwrap());
    let start = bytes.len();
    bytes.resize(start + length as usize - 4, 0);
    from.read_exact(&mut bytes[start..]).await?;
    Ok(bytes)
}

/// The strings that a message holds behind its head, each ended by a NUL.
fn strings(message: &[u8]) -> Vec<String> {
    message[5..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

async fn forward(
    mut client: impl AsyncReadExt + Unpin,
    mut server: impl AsyncWriteExt + Unpin,
    wire: &Wire,
    pending: &Pending,
) -> io::Result<()> {
    let mut prepared: HashMap<String, String> = HashMap::new();
    let mut bound = String::new();
    let mut is_first = true;
    loop {
        let message = message(&mut client, !is_first).await?;
        let mut moment = None;
        if !std::mem::take(&mut is_first) {
            let mut executed = None;
            match message[0] {
                b'P' => {
                    let texts = strings(&message);
                    prepared.insert(texts[0].clone(), texts[1].clone());
                }
                b'B' => bound = prepared.get(&strings(&message)[1]).cloned().unwrap_or_default(),
                b'E' => executed = Some(bound.clone()),
                b'Q' => executed = Some(strings(&message)[0].clone()),
                b'd' => moment = Some(Moment::CopyIn),
                _ => {}
            }
            if let Some(sql) = executed {
                moment = wire.moment_of(&sql, Moment::Sent);
                pending.lock().unwrap().push_back(sql);
            }
        }
        if let Some(then) = moment.and_then(|moment| wire.comes_to(moment)) {
            if moment == Some(Moment::CopyIn) {
                server.write_all(&message[..message.len() / 2]).await?;
            }
            if then == Then::Cut {
                return Ok(());
            }
            wire.wait_while_held().await;
            if moment == Some(Moment::CopyIn) {
                server.write_all(&message[message.len() / 2..]).await?;
                continue;
            }
        }
        wire.wait_while_held().await;
        server.write_all(&message).await?;
    }
}

async fn answer(
    mut server: impl AsyncReadExt + Unpin,
    mut client: impl AsyncWriteExt + Unpin,
    wire: &Wire,
    pending: &Pending,
) -> io::Result<()> {
    loop {
        let message = message(&mut server, true).await?;
        let moment = match message[0] {
            b'C' => {
                let sql = pending.lock().unwrap().pop_front();
                sql.and_then(|sql| wire.moment_of(&sql, Moment::Answered))
            }
            b'Z' => {
                pending.lock().unwrap().clear();
                None
            }
            b'd' => Some(Moment::CopyOut),
            _ => None,
        };
        if moment.and_then(|moment| wire.comes_to(moment)) == Some(Then::Cut) {
            client.write_all(&message[..if message[0] == b'd' { message.len() / 2 } else { 0 }]).await?;
            return Ok(());
        }
        wire.wait_while_held().await;
        client.write_all(&message).await?;
    }
}
