//! A place on an object store, by URL; every call has a time limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectMeta, ObjectStore, ObjectStoreExt,
    ObjectStoreScheme, PutMode, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
};
use url::Url;

use crate::{ArchiveError, Result};

/// The slowest transfer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// An object above this is sent in parts: no store takes more in one PUT than this or a bit more.
const SINGLE_PUT_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a part, and how many are under way at once.
const PART_BYTES: usize = 64 << 20;
const PARTS_AT_ONCE: usize = 4;
/// The client's own limit of a request; ours are shorter and know how much is sent.
const CLIENT_TIMEOUT: &str = "1 day";

/// How a store is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How long one request may take, beside what its bytes need (default 30 s).
    pub timeout: Duration,
    /// Above this many bytes an object is sent in parts (default 4 GiB).
    pub single_put_bytes_max: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            timeout: Duration::from_secs(30),
            single_put_bytes_max: SINGLE_PUT_BYTES_MAX,
        }
    }
}

/// Where an archive lies; clones share it.
#[derive(Clone)]
pub struct ArchiveStore {
    store: Arc<dyn ObjectStore>,
    name: Arc<str>,
    options: StoreOptions,
    conditional: bool,
}

impl fmt::Debug for ArchiveStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveStore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    Done(UpdateVersion),
    /// The condition did not hold.
    Refused,
    /// The store knows no such condition.
    Unsupported,
}

impl ArchiveStore {
    /// The store that a URL names: `s3://bucket/path`, `gs://`, `az://`, `file:///path`, `memory:///`.
    /// Credentials and options come from the environment, by the names that `object_store` documents.
    /// Blocks on the disk for `file:`. A query or a fragment is refused, since two URLs that differ in
    /// it would be one place; a relative path too, since a `file:` URL has none.
    ///
    /// # Errors
    /// [`ArchiveError::Config`]; the store is not asked anything yet.
    pub fn open(url: &str, options: StoreOptions) -> Result<ArchiveStore> {
        // The HTTP client takes the process's cryptography; a binary may have chosen it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let parsed =
            Url::parse(url).map_err(|error| config(format!("{url:?} is no URL: {error}")))?;
        if parsed.password().is_some() || parsed.query().is_some() {
            return Err(config(
                "the URL must not hold credentials or options; use the environment",
            ));
        }
        if parsed.fragment().is_some() {
            return Err(config(format!(
                "{url:?}: what follows a # would be left out; write %23 for one in a name"
            )));
        }
        if parsed.scheme() == "file" && !names_absolute_path(url) {
            return Err(config(format!("{url:?}: use file:///absolute/path")));
        }
        let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|_| {
            config(format!(
                "{url:?}: use s3://, gs://, az://, file:// or memory://"
            ))
        })?;
        let bad = |error: Error| config(error.to_string());
        let conditional = scheme != ObjectStoreScheme::Local;
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::Local => return local(&parsed, options),
            ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
            ObjectStoreScheme::AmazonS3 => {
                let builder = AmazonS3Builder::from_env()
                    .with_url(url)
                    .with_retry(retry())
                    .with_config(
                        AmazonS3ConfigKey::Client(ClientConfigKey::Timeout),
                        CLIENT_TIMEOUT,
                    );
                Arc::new(builder.build().map_err(bad)?)
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_url(url)
                    .with_retry(retry())
                    .with_config(
                        GoogleConfigKey::Client(ClientConfigKey::Timeout),
                        CLIENT_TIMEOUT,
                    );
                Arc::new(builder.build().map_err(bad)?)
            }
            ObjectStoreScheme::MicrosoftAzure => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_url(url)
                    .with_retry(retry())
                    .with_config(
                        AzureConfigKey::Client(ClientConfigKey::Timeout),
                        CLIENT_TIMEOUT,
                    );
                Arc::new(builder.build().map_err(bad)?)
            }
            _ => {
                return Err(config(format!(
                    "{url:?}: use s3://, gs://, az://, file:// or memory://"
                )));
            }
        };
        Ok(ArchiveStore {
            store: Arc::new(PrefixStore::new(store, path)),
            name: url.into(),
            options,
            conditional,
        })
    }

    /// An archive at the root of `store`, which is called `name` in errors.
    #[must_use]
    pub fn from_store(
        store: Arc<dyn ObjectStore>,
        name: &str,
        options: StoreOptions,
    ) -> ArchiveStore {
        ArchiveStore {
            store,
            name: name.into(),
            options,
            conditional: true,
        }
    }

    /// The URL it was opened by; holds no secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store itself, with keys relative to the archive.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// How it is used.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        self.options
    }

    /// Whether it may have conditional writes: where not, nobody needs to try.
    #[must_use]
    pub fn may_be_conditional(&self) -> bool {
        self.conditional
    }

    /// The content of a small object and its version; `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn get(&self, key: &Path) -> Result<Option<(Bytes, UpdateVersion)>> {
        let get = async {
            let found = self.store.get(key).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        match self.limited("get", key, 0, get).await? {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(ArchiveError::unavailable(format!("get {key}"), error)),
        }
    }

    /// An object's content piece by piece.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when there is no such object; [`ArchiveError::Unavailable`].
    pub async fn pieces(&self, key: &Path) -> Result<Pieces<'_>> {
        match self.limited("get", key, 0, self.store.get(key)).await? {
            Ok(found) => Ok(Pieces {
                store: self,
                key: key.clone(),
                content: found.into_stream(),
            }),
            Err(Error::NotFound { .. }) => Err(ArchiveError::Damaged {
                object: key.to_string(),
                reason: "the object is not there".to_owned(),
            }),
            Err(error) => Err(ArchiveError::unavailable(format!("get {key}"), error)),
        }
    }

    /// Bytes of an object; `None` when there is none.
    pub(crate) async fn len(&self, key: &Path) -> Result<Option<u64>> {
        match self.limited("head", key, 0, self.store.head(key)).await? {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(ArchiveError::unavailable(format!("head {key}"), error)),
        }
    }

    /// Writes an object whole, if the condition of `mode` holds.
    pub(crate) async fn put(&self, key: &Path, content: Vec<Bytes>, mode: PutMode) -> Result<Put> {
        let payload = PutPayload::from_iter(content);
        let len = payload.content_length() as u64;
        if len > self.options.single_put_bytes_max {
            return self.put_in_parts(key, payload, len).await;
        }
        let put = self.store.put_opts(key, payload, mode.into());
        match self.limited("put", key, len, put).await? {
            Ok(done) => Ok(Put::Done(done.into())),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Refused),
            Err(Error::NotImplemented { .. }) => Ok(Put::Unsupported),
            Err(error) => Err(ArchiveError::unavailable(format!("put {key}"), error)),
        }
    }

    /// There is no condition in parts; the key holds the writer's epoch, so nobody else uses it.
    async fn put_in_parts(&self, key: &Path, payload: PutPayload, len: u64) -> Result<Put> {
        let put = async {
            let upload = self.store.put_multipart(key).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            for bytes in &payload {
                upload.wait_for_capacity(PARTS_AT_ONCE).await?;
                upload.put(bytes.clone());
            }
            upload.finish().await
        };
        match self.limited("put", key, len, put).await? {
            Ok(done) => Ok(Put::Done(done.into())),
            Err(error) => Err(ArchiveError::unavailable(format!("put {key}"), error)),
        }
    }

    /// Writes a small object whole, whatever is there.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn overwrite(&self, key: &Path, content: Bytes) -> Result<()> {
        self.put(key, vec![content], PutMode::Overwrite)
            .await
            .map(drop)
    }

    /// Removes an object; no error when there is none.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn delete(&self, key: &Path) -> Result<()> {
        match self
            .limited("delete", key, 0, self.store.delete(key))
            .await?
        {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ArchiveError::unavailable(format!("delete {key}"), error)),
        }
    }

    /// Every object below `dir`, and in its folders.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn list(&self, dir: &Path) -> Result<Vec<ObjectMeta>> {
        let mut listing = self.store.list(Some(dir));
        let mut found = Vec::new();
        while let Some(next) = self.limited("list", dir, 0, listing.next()).await? {
            found.push(
                next.map_err(|error| ArchiveError::unavailable(format!("list {dir}"), error))?,
            );
        }
        Ok(found)
    }

    async fn limited<T>(
        &self,
        what: &str,
        key: &Path,
        len: u64,
        call: impl Future<Output = T>,
    ) -> Result<T> {
        let limit = self.options.timeout + Duration::from_secs(len / BYTES_PER_SECOND_MIN);
        let done = tokio::time::timeout(limit, call).await;
        done.map_err(|_| {
            ArchiveError::unavailable(format!("{what} {key}"), format!("no answer in {limit:?}"))
        })
    }
}

/// The content of an object on its way.
#[allow(missing_debug_implementations, reason = "a stream says nothing")]
pub struct Pieces<'a> {
    store: &'a ArchiveStore,
    key: Path,
    content: BoxStream<'static, object_store::Result<Bytes>>,
}

impl Pieces<'_> {
    /// The next bytes; `None` at the end. Each piece has a time limit of its own.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = self.content.try_next();
        let next = self.store.limited("read", &self.key, 0, next).await?;
        next.map_err(|error| ArchiveError::unavailable(format!("read {}", self.key), error))
    }
}

/// Whether the path of a `file:` URL, as it was written, begins at the root: a parsed one always does.
fn names_absolute_path(url: &str) -> bool {
    let path = url.split_once(':').map_or("", |(_, path)| path);
    path.trim_start().starts_with('/')
}

fn local(url: &Url, options: StoreOptions) -> Result<ArchiveStore> {
    let path = url
        .to_file_path()
        .map_err(|()| config(format!("{url}: use file:///absolute/path")))?;
    let failed = |error: &dyn fmt::Display| config(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(&path).map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed(&error))?;
    Ok(ArchiveStore {
        store: Arc::new(store.with_fsync(true)),
        name: url.as_str().into(),
        options,
        conditional: false,
    })
}

/// The store is asked again quickly for what passes quickly; longer outages are the caller's.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(15),
    }
}

fn config(message: impl Into<String>) -> ArchiveError {
    ArchiveError::Config(message.into())
}
