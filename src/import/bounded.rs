//! Reading row by row without ever holding more than a row may have.

use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest row of a file.
pub(super) const MAX_RECORD_BYTES: usize = 16 << 20;

/// Gives at most [`MAX_RECORD_BYTES`] from one [`begin_record`](Self::begin_record) to the next.
#[derive(Debug)]
pub(super) struct BoundedRead<R> {
    inner: R,
    left: usize,
}

impl<R> BoundedRead<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: MAX_RECORD_BYTES }
    }

    pub(super) fn begin_record(&mut self) {
        self.left = MAX_RECORD_BYTES;
    }
}

impl<R: Read> Read for BoundedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(RecordTooLong));
        }
        let wanted = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..wanted])?;
        self.left -= read;
        Ok(read)
    }
}

#[derive(Debug)]
struct RecordTooLong;

impl fmt::Display for RecordTooLong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row is too long")
    }
}

impl std::error::Error for RecordTooLong {}

/// Whether a [`BoundedRead`] gave up.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<RecordTooLong>())
}

/// The next line, with more than [`MAX_RECORD_BYTES`] where it is longer; `None` at the end.
pub(super) fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = MAX_RECORD_BYTES as u64 + 1;
    let read = reader.take(limit).read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}
