//! Where finance files go: a local folder or an S3-compatible bucket. A file is there whole, or not at all.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, RetryConfig};

use super::bounded_http::BoundedHttp;
use super::local::{self, Refusal};
use super::s3_error;
use crate::failure::Failure;
use crate::project::Project;

/// The longest finance file: a few million rows. Whoever reads one holds it in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The longest file of facts about others: a manifest, whose output it is.
const MAX_FACTS_BYTES: u64 = 1 << 20;

/// The most files below a folder: sixty thousand revisions with four files each.
const MAX_LISTED: usize = 250_000;

/// How long a bucket may take to hand over one file, or one listing.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// An opened `output.url`.
#[derive(Debug, Clone)]
pub enum Storage {
    Local {
        root: PathBuf,
    },
    /// A bucket, behind whatever speaks to it.
    S3 {
        store: Arc<dyn ObjectStore>,
        prefix: String,
        url: String,
        max_wait: Duration,
    },
}

/// Fails for settings of the environment with which every request would panic or go wrong; never says a value.
fn check_settings(builder: &AmazonS3Builder) -> Result<()> {
    let refused = |name: &str, is: &str| Failure::config(format!("{name}, a setting of the storage, {is}"));
    for (key, name) in [
        (AmazonS3ConfigKey::AccessKeyId, "AWS_ACCESS_KEY_ID"),
        (AmazonS3ConfigKey::SecretAccessKey, "AWS_SECRET_ACCESS_KEY"),
        (AmazonS3ConfigKey::Token, "AWS_SESSION_TOKEN"),
        (AmazonS3ConfigKey::Region, "AWS_REGION"),
        (AmazonS3ConfigKey::Endpoint, "AWS_ENDPOINT_URL"),
    ] {
        let value = builder.get_config_value(&key).unwrap_or_default();
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "take it out; a line end comes with `echo x | base64`, not with `printf x | base64`";
            return Err(refused(name, "has a blank, a line end or a character that is not ASCII").hint(hint).into());
        }
    }
    let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) else { return Ok(()) };
    match url::Url::parse(&endpoint) {
        // The errors of a request name the address that was asked.
        Ok(address) if !address.username().is_empty() || address.password().is_some() => {
            let hint = "they go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
            Err(refused("AWS_ENDPOINT_URL", "has credentials in it").hint(hint).into())
        }
        Ok(address) if matches!(address.scheme(), "http" | "https") && address.has_host() => Ok(()),
        _ => Err(refused("AWS_ENDPOINT_URL", "is no address").hint("write it as `https://host:port`").into()),
    }
}

impl Storage {
    /// Opens `output.url`: a path (relative to the project folder), `file://…` or `s3://bucket/prefix`. Credentials, region and
    /// endpoint of S3 come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    ///
    /// # Errors
    /// [`Failure`] of kind config.
    pub fn open(project: &Project, url: &str) -> Result<Self> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let retry = RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).with_http_connector(BoundedHttp);
            check_settings(&builder)?;
            // Its error may hold a variable's value.
            let store = builder.build().map_err(|_| {
                Failure::config(format!("`output.url` = `{url}` cannot be opened"))
                    .hint("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, where it is not Amazon's, AWS_ENDPOINT_URL (and AWS_ALLOW_HTTP=true for http)")
            })?;
            return Ok(Self::bucket(Arc::new(store), prefix, url));
        }
        let path = url.strip_prefix("file://").unwrap_or(url);
        if path.contains("://") || path.is_empty() {
            return Err(Failure::config(format!("`output.url` = `{url}` is no place for files"))
                .hint("it is a folder such as `./out`, `file:///srv/out`, or `s3://bucket/prefix`")
                .into());
        }
        Ok(Self::Local { root: project.dir.join(path) })
    }

    /// A bucket that is spoken to through `store`.
    #[must_use]
    pub fn bucket(store: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Self {
        Self::S3 { store, prefix: prefix.trim_matches('/').to_owned(), url: url.to_owned(), max_wait: MAX_WAIT }
    }

    /// How a person would name a file of it.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        match self {
            Self::Local { root } => root.join(path).display().to_string(),
            Self::S3 { url, .. } => format!("{}/{path}", url.trim_end_matches('/')),
        }
    }

    /// A whole file; `None` where there is none.
    ///
    /// # Errors
    /// [`Failure`]; so for all that follows.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let max_bytes = if is_data(path) { MAX_FILE_BYTES } else { MAX_FACTS_BYTES };
        match self {
            Self::Local { root } => {
                let (root, owned) = (root.clone(), path.to_owned());
                let read = tokio::task::spawn_blocking(move || local::read(&root, &owned, max_bytes)).await?;
                read.map_err(|refusal| self.explain_local(path, refusal))
            }
            Self::S3 { store, prefix, .. } => self.in_time(path, self.get_object(store, &object_path(prefix, path), path, max_bytes)).await,
        }
    }

    /// What the storage says of an object's length is not believed: its bytes are counted.
    async fn get_object(&self, store: &Arc<dyn ObjectStore>, object: &ObjectPath, path: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        let mut stream = match store.get(object).await {
            Ok(found) => found.into_stream(),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.explain_s3(path, error)),
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(|error| self.explain_s3(path, error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > max_bytes {
                return Err(self.explain_local(path, Refusal::TooLong(max_bytes)));
            }
        }
        Ok(Some(bytes.into()))
    }

    async fn in_time<T>(&self, path: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let Self::S3 { max_wait, .. } = self else { return answer.await };
        let too_slow = || {
            Failure::try_again(format!("The storage did not hand over `{}` in {} seconds", self.shown(path), max_wait.as_secs()))
                .hint("this command can be repeated as it is")
        };
        tokio::time::timeout(*max_wait, answer).await.map_err(|_| too_slow())?
    }

    /// Writes a file that must not be there yet; false, and nothing changed, where it is.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<bool> {
        self.put(path, bytes, PutMode::Create).await
    }

    /// Writes a file, in place of an older one: a reader sees the old or the new one whole.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn replace(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put(path, bytes, PutMode::Overwrite).await.map(|_| ())
    }

    /// Takes a file away; one that is not there is gone already.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self {
            Self::Local { root } => {
                let (root, owned) = (root.clone(), path.to_owned());
                let removed = tokio::task::spawn_blocking(move || local::remove(&root, &owned)).await?;
                removed.map_err(|refusal| self.explain_local(path, refusal))
            }
            Self::S3 { store, prefix, .. } => match store.delete(&object_path(prefix, path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.explain_s3(path, error)),
            },
        }
    }

    async fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<bool> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(self.explain_local(path, Refusal::TooLong(MAX_FILE_BYTES)));
        }
        match self {
            Self::Local { root } => {
                let (root, owned, is_new) = (root.clone(), path.to_owned(), mode == PutMode::Create);
                let written = tokio::task::spawn_blocking(move || local::put(&root, &owned, &bytes, is_new)).await?;
                written.map_err(|refusal| self.explain_local(path, refusal))
            }
            Self::S3 { store, prefix, .. } => match store.put_opts(&object_path(prefix, path), bytes.clone().into(), mode.into()).await {
                // What a bucket says it has taken is believed when it gives it back.
                Ok(_) if self.get(path).await?.as_ref() == Some(&bytes) => Ok(true),
                Ok(_) => Err(Failure::try_again(format!("The storage did not keep `{}` as it was written", self.shown(path)))
                    .hint("this command can be repeated as it is; a bucket that loses or changes what it has acknowledged is broken")
                    .into()),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
                Err(error) => Err(self.explain_s3(path, error)),
            },
        }
    }

    /// Every file under a folder, in order.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut paths = match self {
            Self::Local { root } => {
                let (root, owned) = (root.clone(), folder.to_owned());
                let found = tokio::task::spawn_blocking(move || local::list(&root, &owned, MAX_LISTED)).await?;
                found.map_err(|refusal| self.explain_local(folder, refusal))?
            }
            Self::S3 { store, prefix, .. } => self.in_time(folder, self.list_objects(store, prefix, folder)).await?,
        };
        paths.sort_unstable();
        Ok(paths)
    }

    async fn list_objects(&self, store: &Arc<dyn ObjectStore>, prefix: &str, folder: &str) -> Result<Vec<String>> {
        let start = if prefix.is_empty() { 0 } else { object_path(prefix, "").as_ref().len() + 1 };
        let mut objects = store.list(Some(&object_path(prefix, folder)));
        let mut paths = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(|error| self.explain_s3(folder, error))? {
            if paths.len() == MAX_LISTED {
                return Err(self.explain_local(folder, Refusal::TooMany(MAX_LISTED)));
            }
            paths.extend(object.location.as_ref().get(start..).map(str::to_owned));
        }
        Ok(paths)
    }

    fn explain_local(&self, path: &str, refusal: Refusal) -> anyhow::Error {
        let shown = self.shown(path);
        let failure = match refusal {
            Refusal::Io(error) => return self.explain_io(path, error),
            Refusal::NotPlain { path, kind } => Failure::bad_data(format!("`{}` is {kind}", self.shown(&path)))
                .hint("below `output.url` no link is followed and only plain files are read: put the folder or the file itself there"),
            Refusal::TooLong(max) => {
                Failure::bad_data(format!("`{shown}` is longer than {max} bytes")).hint("no finance file is: restore it from a copy")
            }
            Refusal::TooMany(max) => {
                Failure::bad_data(format!("`{shown}` holds more than {max} files")).hint("keep there only what tallyroll wrote")
            }
        };
        failure.into()
    }

    fn explain_io(&self, path: &str, error: std::io::Error) -> anyhow::Error {
        let shown = self.shown(path);
        let failure = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Failure::try_again(format!("There is no room left for `{shown}`")).hint("free some space and run the same command again")
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
                Failure::config(format!("`{shown}` cannot be written or read")).hint("fix `output.url` or the folder's rights")
            }
            _ => return anyhow::Error::new(error).context(format!("Failed to write or read `{shown}`")),
        };
        failure.caused_by(error).into()
    }

    #[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
    fn explain_s3(&self, path: &str, error: object_store::Error) -> anyhow::Error {
        s3_error::explain(&self.shown(path), &error).into()
    }
}

/// The object of a path. Every part of a path is our own: no name from the data is in it.
fn object_path(prefix: &str, path: &str) -> ObjectPath {
    ObjectPath::from(format!("{prefix}/{path}"))
}

/// Whether a file holds rows; what others hold is short.
fn is_data(path: &str) -> bool {
    [".parquet", ".csv"].iter().any(|extension| path.ends_with(extension))
}

/// Reads a file that must be there.
///
/// # Errors
/// [`Failure`] of kind bad-data where it is missing.
pub async fn require(storage: &Storage, path: &str) -> Result<Bytes> {
    let missing = || Failure::bad_data(format!("`{}` is missing", storage.shown(path))).hint("restore it from a copy");
    Ok(storage.get(path).await?.ok_or_else(missing)?)
}
