//! The bytes of a file, whose first ones have been looked at.

use std::io::{self, Error, ErrorKind, Read};

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
