//! The bytes of a file, whose first ones have been looked at, until a signal comes.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::fingerprint::hex;

/// How much of a file is looked at before it is read: a header.
const BEGIN_BYTES: usize = 64 << 10;

pub(super) struct Source {
    begin: Vec<u8>,
    given: usize,
    rest: Box<dyn Read + Send>,
}

impl Source {
    /// Reads the first line, without a byte order mark.
    ///
    /// # Errors
    /// What reading says; of kind invalid-data for UTF-16.
    pub(super) fn begin(mut rest: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut begin = Vec::new();
        while begin.len() < BEGIN_BYTES && !begin.contains(&b'\n') {
            if rest.by_ref().take(4 << 10).read_to_end(&mut begin)? == 0 {
                break;
            }
        }
        if begin.starts_with(&[0xff, 0xfe]) || begin.starts_with(&[0xfe, 0xff]) {
            return Err(Error::new(ErrorKind::InvalidData, "it is UTF-16; write it as UTF-8 (a spreadsheet's \"CSV UTF-8\")"));
        }
        let given = if begin.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        Ok(Self { begin, given, rest })
    }

    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.begin[self.given..]
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.begin.len() {
            return self.rest.read(buffer);
        }
        let count = buffer.len().min(self.begin.len() - self.given);
        buffer[..count].copy_from_slice(&self.begin[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// A file that ends with an error once a signal has come: unpacking may read on for long without a row.
pub(super) struct Stoppable {
    pub(super) inner: File,
    pub(super) stop: watch::Receiver<Option<i32>>,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.borrow().is_some() {
            return Err(Error::other("a signal has come"));
        }
        self.inner.read(buffer)
    }
}

/// What the kernel makes up is no file of rows, and a link to it could show what this process keeps to itself.
pub(super) fn refuse_kernel_file(file: &File, path: &Path) -> Result<()> {
    const OF_THE_KERNEL: [i64; 2] = [0x9fa0, 0x6265_6572];
    let kind = rustix::fs::fstatfs(file).map_err(Error::from)?.f_type;
    #[expect(clippy::useless_conversion, reason = "its width is the platform's")]
    if OF_THE_KERNEL.contains(&i64::from(kind)) {
        return Err(Failure::usage(format!("`{}` is a file of the kernel's", path.display())).hint("name a file of rows").into());
    }
    Ok(())
}

/// The SHA-256 of what a file holds.
pub(super) fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&bytes[..count]),
        }
    }
}
