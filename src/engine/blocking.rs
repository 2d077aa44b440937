//! Work for the processor, off the threads that wait for others.

use anyhow::{Context as _, Result};

/// Runs CPU-bound work off the runtime's own threads.
///
/// # Errors
/// What `work` gives, or that it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("A worker thread died")?
}
