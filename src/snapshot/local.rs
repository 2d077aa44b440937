//! Finance files in a local folder. Below its root no link is followed and only plain files are read, whatever someone puts there:
//! every folder on the way is opened from the one above it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::abort;

/// Names of files that are being written; a dot keeps them out of readers' globs.
const TEMPORARY_PREFIX: &str = ".tallyroll-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A temporary file that is older was left by a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// The mode of a file that replaces none.
const NEW_FILE_MODE: u32 = 0o644;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else than a file or folder stands at this path below the root.
    #[error("`{path}` is {kind}")]
    NotPlain { path: String, kind: &'static str },
    #[error("The file is longer than {0} bytes")]
    TooLong(u64),
    #[error("There are more than {0} files")]
    TooMany(usize),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A whole file; `None` where there is none.
pub(super) fn read(root: &Path, path: &str, max_bytes: u64) -> Result<Option<Bytes>, Refusal> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(folder) = open_folder(root, folder, false)? else { return Ok(None) };
    // A pipe that nobody writes to would hold up whoever opens it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(not_plain(&folder, name, path).unwrap_or_else(|| errno.into())),
    };
    if !file.metadata()?.is_file() {
        return Err(not_plain(&folder, name, path).unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into()));
    }
    // Its length is only believed where it is too much: the file may grow.
    if file.metadata()?.len() > max_bytes {
        return Err(Refusal::TooLong(max_bytes));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes { Err(Refusal::TooLong(max_bytes)) } else { Ok(Some(bytes.into())) }
}

/// Temporary file, fsync, rename, fsync of the folder; false, and nothing changed, where a new file is there already.
pub(super) fn put(root: &Path, path: &str, bytes: &[u8], is_new: bool) -> Result<bool, Refusal> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = open_folder(root, folder, true)?.ok_or(Errno::NOENT)?;
    let mode = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Mode::from_raw_mode(NEW_FILE_MODE),
        Err(errno) => return Err(errno.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Mode::from_raw_mode(stat.st_mode & 0o7777),
        Ok(_) => return Err(not_plain(&folder, name, path).unwrap_or_else(|| Errno::EXIST.into())),
    };
    let temporary = Temporary { folder: &folder, name: format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", Uuid::now_v7().simple()) };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&folder, &temporary.name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    remove_abandoned(&folder, file.metadata()?.modified()?);
    rustix::fs::fchmod(&file, mode)?;
    file.sync_all()?;
    abort::point("file_before_rename");
    if is_new {
        let renamed = match rustix::fs::renameat_with(&folder, &temporary.name, &folder, name, RenameFlags::NOREPLACE) {
            // Not every filesystem can; those have hard links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&folder, &temporary.name, &folder, name, AtFlags::empty())
            }
            renamed => renamed,
        };
        match renamed {
            Err(Errno::EXIST) => return Ok(false),
            renamed => renamed?,
        }
    } else {
        rustix::fs::renameat(&folder, &temporary.name, &folder, name)?;
    }
    rustix::fs::fsync(&folder)?;
    Ok(true)
}

/// Takes a file away, and the folders above it that hold nothing else.
pub(super) fn remove(root: &Path, path: &str) -> Result<(), Refusal> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(opened) = open_folder(root, folder, false)? else { return Ok(()) };
    match rustix::fs::unlinkat(&opened, name, AtFlags::empty()) {
        Ok(()) => rustix::fs::fsync(&opened)?,
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut at = folder;
    while let Some((above, name)) = at.rsplit_once('/') {
        let Some(opened) = open_folder(root, above, false)? else { break };
        if rustix::fs::unlinkat(&opened, name, AtFlags::REMOVEDIR).is_err() {
            break;
        }
        at = above;
    }
    Ok(())
}

/// Every file under a folder, as paths from the root, but for those that are being written. What is no folder counts as a file: whoever
/// reads it is told what it is.
pub(super) fn list(root: &Path, folder: &str, max_entries: usize) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    if let Some(opened) = open_folder(root, folder, false)? {
        let mut left = max_entries;
        list_into(&opened, folder, &mut left, &mut found).map_err(|error| match error {
            Refusal::TooMany(_) => Refusal::TooMany(max_entries),
            error => error,
        })?;
    }
    Ok(found)
}

/// Folders within folders that are looked into.
const DEPTH_MAX: usize = 32;

fn list_into(folder: &OwnedFd, path: &str, left: &mut usize, found: &mut Vec<String>) -> Result<(), Refusal> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if [b".".as_slice(), b".."].contains(&bytes) {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Refusal::TooMany(0))?;
        let name = String::from_utf8_lossy(bytes);
        let path = format!("{path}/{name}");
        match rustix::fs::openat(folder, entry.file_name(), FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            // Nothing of ours lies so deep: it is named in place of what is in it.
            Ok(_) if path.matches('/').count() > DEPTH_MAX => found.push(path),
            Ok(inner) => list_into(&inner, &path, left, found)?,
            Err(Errno::NOTDIR) if is_temporary(folder, &name) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => found.push(path),
            // It was removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether it is a file that is being written, or was when its process was killed.
fn is_temporary(folder: &OwnedFd, name: &str) -> bool {
    let id = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    id.and_then(|id| Uuid::try_parse(id).ok().filter(|uuid| uuid.get_version_num() == 7 && uuid.simple().to_string() == id)).is_some()
        && rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a folder below the root, component by component; with `make`, those that are missing are made to last.
fn open_folder(root: &Path, folder: &str, make: bool) -> Result<Option<OwnedFd>, Refusal> {
    let mut at = match rustix::fs::open(root, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) if make => {
            make_root(root)?;
            rustix::fs::open(root, FOLDER, Mode::empty())?
        }
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mut path = String::new();
    for name in folder.split('/').filter(|name| !name.is_empty()) {
        path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if name == ".." {
            return Err(Refusal::NotPlain { path, kind: "a way out of the folder" });
        }
        let open = || rustix::fs::openat(&at, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) if make => {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) => rustix::fs::fsync(&at)?,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                open()
            }
            opened => opened,
        };
        at = match opened {
            Ok(inner) => inner,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(not_plain(&at, name, &path).unwrap_or_else(|| errno.into())),
        };
    }
    Ok(Some(at))
}

/// Makes the root and the folders above it, each made to last.
fn make_root(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_root(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// What stands at a path, if it is neither a file nor a folder.
fn not_plain(folder: &OwnedFd, name: &str, path: &str) -> Option<Refusal> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::Directory => "a folder",
        FileType::RegularFile => "a file",
        _ => "a device",
    };
    Some(Refusal::NotPlain { path: path.to_owned(), kind })
}

/// A file that is being written; what is left of it goes when this is dropped.
struct Temporary<'a> {
    folder: &'a OwnedFd,
    name: String,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(self.folder, &self.name, AtFlags::empty());
    }
}

/// What a killed process left is no use to anyone. How old it is, the time of a file that was just written tells. Failing to remove
/// it harms nothing.
fn remove_abandoned(folder: &OwnedFd, now: SystemTime) {
    for entry in Dir::read_from(folder).into_iter().flatten().flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !name.to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
        if now.duration_since(written_at).is_ok_and(|age| age > ABANDONED_AFTER) {
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        }
    }
}
