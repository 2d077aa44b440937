//! Where finance files go: a local folder or an S3-compatible bucket. A file is there whole, or not at all.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, RetryConfig};

use crate::abort;
use crate::failure::Failure;
use crate::project::Project;

/// Names of files that are being written; a dot keeps them out of readers' globs.
const TEMPORARY_PREFIX: &str = ".tallyroll-";

/// A temporary file that is older was left by a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// An opened `output.url`.
#[derive(Debug, Clone)]
pub enum Storage {
    Local { root: PathBuf },
    S3 { store: Arc<AmazonS3>, prefix: String, url: String },
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
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build().map_err(|error| {
                Failure::config(format!("`output.url` = `{url}` cannot be opened"))
                    .caused_by(error)
                    .hint("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, where it is not Amazon's, AWS_ENDPOINT_URL (and AWS_ALLOW_HTTP=true for http)")
            })?;
            return Ok(Self::S3 { store: Arc::new(store), prefix: prefix.trim_matches('/').to_owned(), url: url.to_owned() });
        }
        let path = url.strip_prefix("file://").unwrap_or(url);
        if path.contains("://") || path.is_empty() {
            return Err(Failure::config(format!("`output.url` = `{url}` is no place for files"))
                .hint("it is a folder such as `./out`, `file:///srv/out`, or `s3://bucket/prefix`")
                .into());
        }
        Ok(Self::Local { root: project.dir.join(path) })
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
        match self {
            Self::Local { root } => match fs::read(root.join(path)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.explain_io(path, error)),
            },
            Self::S3 { store, prefix, .. } => match store.get(&object_path(prefix, path)).await {
                Ok(found) => Ok(Some(found.bytes().await.map_err(|error| self.explain_s3(path, error))?)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.explain_s3(path, error)),
            },
        }
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

    async fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<bool> {
        match self {
            Self::Local { root } => {
                let (target, is_new) = (root.join(path), mode == PutMode::Create);
                let written = tokio::task::spawn_blocking(move || put_local(&target, &bytes, is_new)).await?;
                written.map_err(|error| self.explain_io(path, error))
            }
            Self::S3 { store, prefix, .. } => match store.put_opts(&object_path(prefix, path), bytes.into(), mode.into()).await {
                Ok(_) => Ok(true),
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
                let mut found = Vec::new();
                list_local(root, &root.join(folder), &mut found).map_err(|error| self.explain_io(folder, error))?;
                found
            }
            Self::S3 { store, prefix, .. } => {
                let under = object_path(prefix, folder);
                let found: Vec<_> = store.list(Some(&under)).try_collect().await.map_err(|error| self.explain_s3(folder, error))?;
                let start = if prefix.is_empty() { 0 } else { object_path(prefix, "").as_ref().len() + 1 };
                found.iter().filter_map(|object| object.location.as_ref().get(start..).map(str::to_owned)).collect()
            }
        };
        paths.sort_unstable();
        Ok(paths)
    }

    fn explain_io(&self, path: &str, error: std::io::Error) -> anyhow::Error {
        let shown = self.shown(path);
        let failure = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Failure::try_again(format!("There is no room left for `{shown}`")).hint("free some space and run the same command again")
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
                Failure::config(format!("`{shown}` cannot be written or read")).hint("mend `output.url` or the folder's rights")
            }
            _ => return anyhow::Error::new(error).context(format!("Failed to write or read `{shown}`")),
        };
        failure.caused_by(error).into()
    }

    #[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
    fn explain_s3(&self, path: &str, error: object_store::Error) -> anyhow::Error {
        use object_store::Error;
        let shown = self.shown(path);
        // Its words hold those of its causes already.
        let text = error.to_string();
        let is_refused = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. } | Error::NotFound { .. })
            // Some statuses come without a kind of their own.
            || ["400", "401", "403", "404"].iter().any(|status| text.contains(&format!("status code: {status}")));
        let failure = if is_refused {
            Failure::config(format!("The storage refuses `{shown}`"))
                .hint("check the bucket's name, the credentials, and their right to list, get and put")
        } else {
            Failure::try_again(format!("The storage could not do it this time: `{shown}`")).hint("this command can be repeated as it is")
        };
        failure.caused_by(anyhow::anyhow!(text)).into()
    }
}

/// The object of a path. Every part of a path is our own: no name from the data is in it.
fn object_path(prefix: &str, path: &str) -> ObjectPath {
    ObjectPath::from(format!("{prefix}/{path}"))
}

/// Temporary file, fsync, rename or link, fsync of the folder.
fn put_local(target: &Path, bytes: &[u8], is_new: bool) -> std::io::Result<bool> {
    let folder = target.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes)?;
    remove_abandoned(folder, file.as_file().metadata()?.modified()?);
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    abort::point("file_before_rename");
    let persisted = if is_new { file.persist_noclobber(target) } else { file.persist(target) };
    match persisted {
        Ok(_) => {}
        Err(error) if is_new && error.error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.error),
    }
    File::open(folder)?.sync_all()?;
    Ok(true)
}

/// Makes a folder and those above it, each made to last.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// What a killed process left is no use to anyone. How old it is, the time of a file that was just written tells. Failing to remove
/// it harms nothing.
fn remove_abandoned(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
        let age = || now.duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        if is_temporary && age().is_some_and(|age| age > ABANDONED_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn list_local(root: &Path, folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list_local(root, &path, found)?;
        } else if !entry.file_name().to_string_lossy().starts_with('.') {
            found.extend(path.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// Reads a file that must be there.
///
/// # Errors
/// [`Failure`] of kind bad-data where it is missing.
pub async fn require(storage: &Storage, path: &str) -> Result<Bytes> {
    let missing = || Failure::bad_data(format!("`{}` is missing", storage.shown(path))).hint("restore it from a copy");
    Ok(storage.get(path).await?.ok_or_else(missing)?)
}
