//! Where the broker's logs and metadata live.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use comlog_storage::{DataDir, Storage, StorageError};

/// A tree of [`Storage`]s, one a directory: the local disk in the server, memory in tests.
#[async_trait]
pub trait LogDirs: fmt::Debug + Send + Sync + 'static {
    /// The storage in the directory `path` (names joined by `/`), made when it is not there.
    ///
    /// # Errors
    /// Those of the medium.
    async fn storage(&self, path: &str) -> Result<Arc<dyn Storage>, StorageError>;

    /// The names of the directories in `path`, ascending; none when it does not exist. A link to a
    /// directory is one.
    ///
    /// # Errors
    /// Those of the medium.
    async fn list(&self, path: &str) -> Result<Vec<String>, StorageError>;

    /// Removes a directory and what is in it, durably on return; no error when there is none.
    ///
    /// # Errors
    /// Those of the medium.
    async fn remove(&self, path: &str) -> Result<(), StorageError>;
}

/// The local disk; calls that block go to a thread for them.
#[derive(Debug)]
pub struct DiskDirs(Arc<DataDir>);

impl DiskDirs {
    /// The directories of `data_dir`, which stays locked while this lives.
    #[must_use]
    pub fn new(data_dir: Arc<DataDir>) -> DiskDirs {
        DiskDirs(data_dir)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&DataDir, &str) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (dir, path) = (self.0.clone(), path.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&dir, &path)).await;
        done.unwrap_or_else(|error| {
            Err(StorageError::Io {
                what: "open or remove a directory".to_owned(),
                source: std::io::Error::other(error),
            })
        })
    }
}

#[async_trait]
impl LogDirs for DiskDirs {
    async fn storage(&self, path: &str) -> Result<Arc<dyn Storage>, StorageError> {
        let storage = self.blocking(path, |dir, path| dir.storage(path)).await?;
        Ok(storage)
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, StorageError> {
        self.blocking(path, |dir, path| dir.list(path)).await
    }

    async fn remove(&self, path: &str) -> Result<(), StorageError> {
        self.blocking(path, |dir, path| dir.remove(path)).await
    }
}
