//! What is asked of a store at a start, and what is made of its answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use comlog_archive::{ArchiveError, ArchiveStore, StoreOptions, Writes};
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What the store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The nth PUT is done, its answer is lost, and the client sends it once more by itself: so the
    /// condition that held does not hold any longer.
    Repeated(usize),
    /// No condition is looked at.
    Ignores,
    /// There are none.
    Lacks,
}

#[derive(Debug)]
struct Odd {
    inner: InMemory,
    fault: Fault,
    puts: AtomicUsize,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "odd {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Odd {
    async fn put_opts(
        &self,
        key: &Path,
        content: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let number = self.puts.fetch_add(1, Ordering::Relaxed);
        let is_update = matches!(options.mode, PutMode::Update(_));
        match self.fault {
            Fault::Repeated(nth) if nth == number => {
                let first = self.inner.put_opts(key, content.clone(), options.clone());
                first.await?;
            }
            Fault::Ignores => options.mode = PutMode::Overwrite,
            Fault::Lacks if is_update => {
                return Err(Error::NotImplemented {
                    operation: "a conditional put".to_owned(),
                    implementer: "odd".to_owned(),
                });
            }
            Fault::Repeated(_) | Fault::Lacks => {}
        }
        self.inner.put_opts(key, content, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn store(fault: Fault) -> ArchiveStore {
    let odd = Odd {
        inner: InMemory::new(),
        fault,
        puts: AtomicUsize::new(0),
    };
    ArchiveStore::from_store(Arc::new(odd), "odd", StoreOptions::default())
}

#[tokio::test]
async fn a_request_that_was_done_twice_is_no_finding() {
    // The probe's four writes: create, create again, replace, replace again.
    for nth in 0..4 {
        let store = store(Fault::Repeated(nth));
        let mut answer = Writes::probe(&store).await;
        if let Err(error) = &answer {
            assert!(!error.is_final(), "write {nth}: {error}");
            answer = Writes::probe(&store).await;
        }
        assert!(
            matches!(answer, Ok(Writes::Conditional)),
            "write {nth}: {answer:?}"
        );
        let left = store.list(&Path::default()).await.expect("memory works");
        assert!(left.is_empty(), "write {nth}: {left:?}");
    }
}

#[tokio::test]
async fn a_store_without_conditions_is_found_out() {
    for fault in [Fault::Ignores, Fault::Lacks] {
        let answer = Writes::probe(&store(fault)).await;
        let Err(error @ ArchiveError::Config(_)) = answer else {
            panic!("{fault:?}: {answer:?}");
        };
        let told = error.to_string();
        assert!(told.contains("--archive-single-writer"), "{told}");
    }
}
