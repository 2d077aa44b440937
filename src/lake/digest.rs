//! A digest of rows that does not depend on their order, and that adds up: the digest of two sets of rows is the sum of theirs. Pure.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// How many rows, and the sum, modulo 2^128, of a digest of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowDigest {
    pub row_count: i64,
    sum: u128,
}

impl RowDigest {
    /// Takes in a row, as [`frame`] has put its cells together.
    pub fn add(&mut self, row: &[u8]) {
        let digest = Sha256::digest(row);
        let half: [u8; 16] = std::array::from_fn(|index| digest[index]);
        self.row_count += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
    }

    /// The digest of these rows and of those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { row_count: self.row_count + other.row_count, sum: self.sum.wrapping_add(other.sum) }
    }

    /// The digest that was written down.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(row_count: i64, shown: &str) -> Result<Self> {
        Ok(Self { row_count, sum: u128::from_str_radix(shown, 16).context("A digest is no number")? })
    }

    /// In hexadecimal.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// Appends a cell to a row; NULL is none, and no cell runs into the next.
pub fn frame(row: &mut Vec<u8>, cell: Option<&[u8]>) {
    row.extend_from_slice(&cell.map_or(0, |cell| cell.len() as u64 + 1).to_le_bytes());
    row.extend_from_slice(cell.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[&[Option<&str>]]) -> RowDigest {
        let mut digest = RowDigest::default();
        for row in rows {
            let mut framed = Vec::new();
            row.iter().for_each(|cell| frame(&mut framed, cell.map(str::as_bytes)));
            digest.add(&framed);
        }
        digest
    }

    #[test]
    fn rows_are_told_apart_and_their_order_is_not() {
        let (one, other): (&[_], &[_]) = (&[Some("ab"), None], &[Some("a"), Some("b")]);
        assert_eq!(of(&[one, other]), of(&[other, one]));
        assert_eq!(of(&[one]).and(of(&[other])), of(&[one, other]));
        for different in [&[Some("a"), Some("b")][..], &[Some("ab"), Some("")], &[None, Some("ab")], &[Some("ab")]] {
            assert_ne!(of(&[one]), of(&[different]));
        }
        // A row that is there twice is not there none or four times.
        assert_ne!(of(&[one, one]), of(&[]));
        assert_ne!(of(&[one, one, other]), of(&[other]));
    }
}
