//! How much memory the pages of a Parquet file take, read from their headers before any page is: a few kilobytes may unpack to
//! gigabytes, and the footer may say otherwise.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::{Result, bail, ensure};
use parquet::file::metadata::ColumnChunkMetaData;

/// Of one column chunk, the sizes of its largest pages once unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Largest {
    pub(super) dictionary_bytes: u64,
    pub(super) data_bytes: u64,
}

/// A header longer than this is none: the longest thing in it are two values of a column, its least and its greatest.
const MAX_HEADER_BYTES: u64 = 16 << 20;

const DICTIONARY_PAGE: i64 = 2;

/// Reads every page header of a column chunk.
pub(super) fn largest(file: &File, chunk: &ColumnChunkMetaData) -> Result<Largest> {
    let offset = |offset: i64| u64::try_from(offset);
    let start = offset(chunk.dictionary_page_offset().filter(|start| *start > 0).unwrap_or(chunk.data_page_offset()))?;
    let end = start.saturating_add(offset(chunk.compressed_size())?).min(file.metadata()?.len());
    let mut reader = BufReader::new(file.try_clone()?);
    reader.seek(SeekFrom::Start(start))?;
    let mut largest = Largest::default();
    let mut position = start;
    while position < end {
        let mut header = Header { bytes: reader.by_ref().take(MAX_HEADER_BYTES), depth: 0 };
        let (kind, unpacked, packed) = header.page()?;
        let header_bytes = MAX_HEADER_BYTES - header.bytes.limit();
        let into = if kind == DICTIONARY_PAGE { &mut largest.dictionary_bytes } else { &mut largest.data_bytes };
        *into = (*into).max(unpacked);
        position = position.saturating_add(header_bytes).saturating_add(packed);
        reader.seek_relative(i64::try_from(packed)?)?;
    }
    Ok(largest)
}

/// A page header: a struct in Thrift's compact protocol, of which the first three fields are needed.
struct Header<R> {
    bytes: R,
    depth: usize,
}

const TYPE_STRUCT: u8 = 12;

impl<R: BufRead> Header<R> {
    /// The kind of the page, its size unpacked, its size in the file.
    fn page(&mut self) -> Result<(i64, u64, u64)> {
        let mut numbers = [None; 3];
        let mut id: i64 = 0;
        while let Some((delta, kind)) = self.field()? {
            id = if delta == 0 { self.zigzag()? } else { id.saturating_add(delta.into()) };
            match usize::try_from(id).ok().and_then(|id| numbers.get_mut(id.wrapping_sub(1))) {
                Some(number) => *number = Some(self.zigzag()?),
                None => self.skip(kind)?,
            }
        }
        let [Some(kind), Some(unpacked), Some(packed)] = numbers else { bail!("a page has no size") };
        Ok((kind, u64::try_from(unpacked)?, u64::try_from(packed)?))
    }

    /// The distance to the next field's number, and its type; `None` at the end of a struct.
    fn field(&mut self) -> Result<Option<(u8, u8)>> {
        let byte = self.byte()?;
        Ok((byte != 0).then_some((byte >> 4, byte & 0x0f)))
    }

    fn skip(&mut self, kind: u8) -> Result<()> {
        match kind {
            // The type of a boolean field is its value.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            TYPE_STRUCT => {
                self.depth += 1;
                ensure!(self.depth < 16, "a page header is nested too deeply");
                while let Some((delta, kind)) = self.field()? {
                    if delta == 0 {
                        self.varint()?;
                    }
                    self.skip(kind)?;
                }
                self.depth -= 1;
                Ok(())
            }
            _ => bail!("a page header holds what none does"),
        }
    }

    fn skip_bytes(&mut self, count: u64) -> Result<()> {
        let skipped = std::io::copy(&mut self.bytes.by_ref().take(count), &mut std::io::sink())?;
        ensure!(skipped == count, "a page header ends too early");
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.bytes.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a page header holds a number that does not end")
    }

    fn zigzag(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: &[u8]) -> Result<(i64, u64, u64)> {
        Header { bytes, depth: 0 }.page()
    }

    #[test]
    fn a_page_header_gives_its_sizes() {
        // type = 0, uncompressed = 150, compressed = 75, crc, a data page header with statistics, the end.
        let header =
            [0x15, 0x00, 0x15, 0xac, 0x02, 0x15, 0x96, 0x01, 0x15, 0x01, 0x1c, 0x15, 0x02, 0x18, 0x02, b'a', b'b', 0x11, 0x00, 0x00];
        assert_eq!(page(&header).unwrap(), (0, 150, 75));
    }

    #[test]
    fn a_broken_header_is_an_error_not_a_panic() {
        let deep = [0x1c; 64];
        for bytes in
            [&[][..], &[0x15][..], &[0x00][..], &[0x15, 0x00, 0x15, 0x01, 0x15, 0x00, 0x00][..], &[0x15; 40][..], &deep[..], &[0x1f; 9][..]]
        {
            assert!(page(bytes).is_err(), "{bytes:?}");
        }
        assert!(page(&[&[0x48, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 9][..]].concat()).is_err());
    }
}
