//! A bucket that lies: by a seed, so that each lie can be told again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What the bucket does other than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// A put is acknowledged, and nothing is kept.
    Lost,
    /// A put is kept, and answered with an error.
    ErrorAfter,
    ErrorBefore,
    /// A put is acknowledged, and the beginning of it is kept.
    Torn,
    /// A put over an older file is done once more, after later ones.
    Twice,
    Slow,
    /// The next requests are refused too.
    Storm,
    /// A get gives other bytes.
    OtherBytes,
    /// A get gives the beginning, and says that it is all.
    Short,
    /// The connection breaks in the middle of a get.
    CutOff,
    /// A get says that the file is not there.
    Unseen,
    /// A listing is from before the latest puts.
    StaleList,
    /// A listing lacks its end.
    HalfList,
}

const OF_PUTS: [Lie; 7] = [Lie::Lost, Lie::ErrorAfter, Lie::ErrorBefore, Lie::Torn, Lie::Twice, Lie::Slow, Lie::Storm];
const OF_GETS: [Lie; 5] = [Lie::OtherBytes, Lie::Short, Lie::CutOff, Lie::Unseen, Lie::Storm];
const OF_DELETES: [Lie; 3] = [Lie::ErrorBefore, Lie::ErrorAfter, Lie::Storm];
const OF_LISTS: [Lie; 3] = [Lie::StaleList, Lie::HalfList, Lie::Storm];

/// Of how many requests one is answered with a lie.
const ONE_IN: u64 = 6;

#[derive(Debug, Default)]
struct State {
    random: u64,
    lies_left: u32,
    storm_left: u64,
    objects: BTreeMap<String, Bytes>,
    /// The names before the latest puts.
    older_names: Vec<String>,
    /// Puts that will be done once more.
    late: Vec<(String, Bytes)>,
    told: Vec<(Lie, String)>,
    /// Sealed files that were given other bytes.
    changed: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Liar {
    state: Arc<Mutex<State>>,
}

impl fmt::Display for Liar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a bucket that lies")
    }
}

impl Liar {
    /// A bucket that has nothing, and tells at most so many lies.
    pub fn new(seed: u64, lies: u32) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c908;
        Self { state: Arc::new(Mutex::new(State { random, lies_left: lies, ..State::default() })) }
    }

    /// From now on it tells the truth, and what it still had to do twice it does.
    pub fn reform(&self) {
        let mut state = self.state.lock().unwrap();
        (state.lies_left, state.storm_left) = (0, 0);
        for (path, bytes) in std::mem::take(&mut state.late) {
            state.keep(path, bytes);
        }
    }

    /// Lies again, at most so often.
    pub fn relapse(&self, lies: u32) {
        self.state.lock().unwrap().lies_left = lies;
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state.lock().unwrap().objects.clone()
    }

    pub fn told(&self) -> Vec<(Lie, String)> {
        self.state.lock().unwrap().told.clone()
    }

    pub fn changed(&self) -> Vec<String> {
        self.state.lock().unwrap().changed.clone()
    }
}

impl State {
    /// xorshift64*: enough to choose lies by.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    fn lie(&mut self, of: &[Lie], path: &str) -> Result<Option<Lie>> {
        if self.storm_left > 0 {
            self.storm_left -= 1;
            return Err(refused());
        }
        if self.lies_left == 0 || self.draw(ONE_IN) > 0 {
            return Ok(None);
        }
        let lie = of[usize::try_from(self.draw(of.len() as u64)).unwrap()];
        self.lies_left -= 1;
        self.told.push((lie, path.to_owned()));
        if lie == Lie::Storm {
            self.storm_left = self.draw(3);
            return Err(refused());
        }
        Ok(Some(lie))
    }

    fn keep(&mut self, path: String, bytes: Bytes) {
        self.older_names = self.objects.keys().cloned().collect();
        if self.objects.get(&path).is_some_and(|old| path.contains("/final/") && *old != bytes) {
            self.changed.push(path.clone());
        }
        self.objects.insert(path, bytes);
    }

    fn some_of(&mut self, bytes: &Bytes) -> Bytes {
        let end = usize::try_from(self.draw(bytes.len() as u64)).unwrap();
        bytes.slice(..end)
    }

    fn put(&mut self, path: &str, bytes: Bytes, mode: &PutMode) -> Result<()> {
        if let Some((late, old)) = self.late.pop() {
            self.keep(late, old);
        }
        let lie = self.lie(&OF_PUTS, path)?;
        if lie == Some(Lie::ErrorBefore) {
            return Err(refused());
        }
        let is_new = *mode == PutMode::Create;
        if is_new && self.objects.contains_key(path) {
            return Err(Error::AlreadyExists { path: path.to_owned(), source: "it is there".into() });
        }
        match lie {
            Some(Lie::Lost) => {}
            Some(Lie::Torn) => {
                let torn = self.some_of(&bytes);
                self.keep(path.to_owned(), torn);
            }
            lie => {
                self.keep(path.to_owned(), bytes.clone());
                if lie == Some(Lie::Twice) && !is_new {
                    self.late.push((path.to_owned(), bytes));
                }
            }
        }
        if lie == Some(Lie::ErrorAfter) { Err(refused()) } else { Ok(()) }
    }
}

fn refused() -> Error {
    Error::Generic { store: "liar", source: "503 Slow Down".into() }
}

fn meta_of(path: &str, bytes: &Bytes) -> ObjectMeta {
    ObjectMeta { location: Path::from(path), last_modified: DateTime::default(), size: bytes.len() as u64, e_tag: None, version: None }
}

#[async_trait::async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_slow = {
            let mut state = self.state.lock().unwrap();
            state.put(location.as_ref(), payload.into(), &options.mode)?;
            state.told.last().is_some_and(|(lie, path)| *lie == Lie::Slow && path == location.as_ref())
        };
        if is_slow {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn get_opts(&self, location: &Path, _options: GetOptions) -> Result<GetResult> {
        let mut state = self.state.lock().unwrap();
        let path = location.as_ref();
        let lie = state.lie(&OF_GETS, path)?;
        let unseen = || Error::NotFound { path: path.to_owned(), source: "it is not there".into() };
        let Some(mut bytes) = state.objects.get(path).cloned().filter(|_| lie != Some(Lie::Unseen)) else { return Err(unseen()) };
        if lie == Some(Lie::OtherBytes) && !bytes.is_empty() {
            let mut other = bytes.to_vec();
            let place = usize::try_from(state.draw(other.len() as u64)).unwrap();
            other[place] ^= 1 << state.draw(8);
            bytes = other.into();
        }
        if matches!(lie, Some(Lie::Short | Lie::CutOff)) {
            bytes = state.some_of(&bytes);
        }
        let meta = meta_of(path, &bytes);
        let mut chunks = vec![Ok(bytes)];
        if lie == Some(Lie::CutOff) {
            chunks.push(Err(refused()));
        }
        let range = 0..meta.size;
        Ok(GetResult { payload: GetResultPayload::Stream(stream::iter(chunks).boxed()), meta, range, attributes: Attributes::default() })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut state = self.state.lock().unwrap();
        let folder = prefix.map_or(String::new(), |prefix| format!("{prefix}/"));
        let lie = match state.lie(&OF_LISTS, &folder) {
            Ok(lie) => lie,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let is_known = |path: &&String| lie != Some(Lie::StaleList) || state.older_names.contains(path);
        let names: Vec<&String> = state.objects.keys().filter(|path| path.starts_with(&folder)).filter(is_known).collect();
        let shown = if lie == Some(Lie::HalfList) { names.len() / 2 } else { names.len() };
        let listed: Vec<_> = names[..shown].iter().map(|path| Ok(meta_of(path, &state.objects[*path]))).collect();
        stream::iter(listed).boxed()
    }

    async fn put_multipart_opts(&self, _location: &Path, _options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put_multipart_opts".to_owned(), implementer: self.to_string() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let state = Arc::clone(&self.state);
        locations
            .map(move |location| {
                let location = location?;
                let mut state = state.lock().unwrap();
                let lie = state.lie(&OF_DELETES, location.as_ref())?;
                if lie != Some(Lie::ErrorBefore) {
                    state.objects.remove(location.as_ref());
                }
                if lie.is_some() { Err(refused()) } else { Ok(location) }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "list_with_delimiter".to_owned(), implementer: self.to_string() })
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy_opts".to_owned(), implementer: self.to_string() })
    }
}
