//! Fingerprints: short digests that tell whether what a window was computed from is still the same. Pure.

use sha2::{Digest, Sha256};

/// The first 128 bits of the SHA-256 of `parts`, each ended so that no two lists run together, in hexadecimal.
#[must_use]
pub fn of<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut fingerprint = Fingerprint::default();
    for part in parts {
        fingerprint.add(part.as_ref());
    }
    fingerprint.finish()
}

/// A fingerprint whose parts come one after the other.
#[derive(Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    pub fn add(&mut self, part: &[u8]) {
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
    }

    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.0.finalize()[..16])
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |hex, byte| hex + &format!("{byte:02x}"))
}
