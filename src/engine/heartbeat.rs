//! A task that ends with what it is for.

use tokio::task::{AbortHandle, JoinHandle};

/// A heart that beats until this is dropped, however the run ends.
#[derive(Debug)]
pub struct BeatGuard(AbortHandle);

impl BeatGuard {
    pub fn new(heart: &JoinHandle<()>) -> Self {
        Self(heart.abort_handle())
    }
}

impl Drop for BeatGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
