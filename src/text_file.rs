//! Files of text. Those that people write (settings, jobs, SQL, prices, licences, keys, secrets) are read whole, so each has to be a
//! regular file of a bounded size: a pipe would hang the run, a device would fill the memory.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Far more than anybody writes by hand.
pub const LARGEST_MIB: u64 = 16;

/// The text of a file, without a byte order mark; `None` where there is no file.
///
/// # Errors
/// Says what the file is instead: no regular file, too large, no text.
pub fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            refuse_dangling(path)?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    anyhow::ensure!(metadata.is_file(), "it is no regular file");
    let mut bytes = Vec::new();
    // The size that the metadata names is not trusted: files of /proc have none.
    File::open(path)?.take((LARGEST_MIB << 20) + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= LARGEST_MIB << 20, "it is larger than {LARGEST_MIB} MiB");
    let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not UTF-8 text"))?;
    anyhow::ensure!(!text.contains('\0'), "it holds a NUL character, so it is no text");
    Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)))
}

/// Fails where a file or a folder is not there because a link leads nowhere: somebody means it to be there.
///
/// # Errors
/// Names the link.
pub fn refuse_dangling(path: &Path) -> anyhow::Result<()> {
    match path.ancestors().find(|part| part.is_symlink() && !part.exists()) {
        Some(link) => anyhow::bail!("the link `{}` leads nowhere", link.display()),
        None => Ok(()),
    }
}

/// Puts a text in the place of a file at once, or where there is none yet. A link leads to the file that is meant; its mode stays unless one is given.
///
/// # Errors
/// What writing says.
pub fn replace(path: &Path, text: &str, mode: Option<u32>) -> anyhow::Result<()> {
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let write = || -> anyhow::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".tallyroll").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        let there = || fs::metadata(path).map(|metadata| metadata.permissions().mode());
        file.as_file().set_permissions(Permissions::from_mode(mode.or_else(|| there().ok()).unwrap_or(0o644)))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("Failed to write `{}`", path.display()))
}

/// The line of a text that a part of it begins in.
#[must_use]
pub fn line_of(text: &str, part: &str) -> usize {
    text.find(part).map_or(1, |at| line_at(text, at))
}

/// The line of a text that a byte of it lies in.
#[must_use]
pub fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text_and_the_largest_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "\u{feff}a").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "a");
        for (bytes, is_read) in [(16 << 20, true), ((16 << 20) + 1, false)] {
            fs::write(&path, vec![b'a'; bytes]).unwrap();
            assert_eq!(read(&path).is_ok(), is_read);
        }
        fs::write(&path, [b'a', 0]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("NUL"));
    }
}
