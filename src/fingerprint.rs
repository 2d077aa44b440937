//! Fingerprints: short digests that tell whether what a window was computed from is still the same. Pure.

use sha2::{Digest, Sha256};

/// The first 128 bits of the SHA-256 of `parts`, each ended so that no two lists run together, in hexadecimal.
#[must_use]
pub fn of<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    hex(&digest.finalize()[..16])
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |hex, byte| hex + &format!("{byte:02x}"))
}
