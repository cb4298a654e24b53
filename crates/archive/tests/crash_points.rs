//! A server dies at every single request that it sends to the store, once before the store has done
//! it and once after; the power goes at the same moment. Started again each time, it must lose
//! nothing, name nothing that is not there, and in the end leave nothing that is not named.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use comlog_archive::{
    ArchiveError, ArchiveStore, Catalog, Identity, LocalRetention, LogState, PartitionArchive,
    PartitionKeys, Progress, StoreOptions, Survey, Writer, Writes, read_back,
};
use comlog_log::{AppendRequest, Log, LogConfig, ManualClock, Owner};
use comlog_record::{BatchBuilder, BatchStream, Compression, Limits, Offset, Timestamp};
use comlog_storage::{BlockCache, CacheOptions, FaultyStorage, Storage, TieredStorage};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

const TOPIC: &str = "crashing";
const TOPIC_ID: &str = "0123456789abcdef0123456789abcdef";
const WRITER_ID: &str = "fedcba9876543210fedcba9876543210";
/// More requests than a life needs; that it ends before is checked.
const REQUESTS_MAX: usize = 1_000;
const BATCHES_PER_SEGMENT: usize = 3;

/// A store whose client dies at its nth request.
#[derive(Debug, Clone)]
struct Fused {
    inner: Arc<InMemory>,
    fuse: Arc<Fuse>,
}

#[derive(Debug)]
struct Fuse {
    left: AtomicUsize,
    /// Whether the last request is done all the same.
    after: AtomicBool,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    DoneUnanswered,
    NotDone,
}

impl Fuse {
    fn spend(&self) -> Fate {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(1))
            })
            .unwrap_or_default();
        match left {
            0 => Fate::NotDone,
            1 if self.after.load(Ordering::Relaxed) => Fate::DoneUnanswered,
            1 => Fate::NotDone,
            _ => Fate::Answered,
        }
    }

    fn is_blown(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn renew(&self) {
        self.left.store(usize::MAX, Ordering::Relaxed);
    }
}

fn gone() -> Error {
    Error::Generic {
        store: "fused",
        source: "the process is dead".into(),
    }
}

impl Fused {
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fuse.spend() {
            Fate::Answered => call.await,
            Fate::NotDone => Err(gone()),
            Fate::DoneUnanswered => {
                call.await?;
                Err(gone())
            }
        }
    }
}

impl fmt::Display for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fused {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Fused {
    async fn put_opts(
        &self,
        key: &Path,
        content: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.call(self.inner.put_opts(key, content, options)).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call(self.inner.put_multipart_opts(key, options)).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(self.inner.get_opts(key, options)).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        keys.then(move |key| {
            let this = this.clone();
            async move {
                let key = key?;
                this.call(this.inner.delete(&key)).await?;
                Ok(key)
            }
        })
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fuse.spend() {
            Fate::Answered => self.inner.list(prefix),
            Fate::DoneUnanswered | Fate::NotDone => stream::once(async { Err(gone()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.inner.copy_opts(from, to, options)).await
    }
}

/// What outlives a process: its disk, its store, and what it has promised to whom.
struct World {
    disk: FaultyStorage,
    store: Fused,
    writes: Writes,
    clock: Arc<ManualClock>,
    /// Every record that was acknowledged.
    records: BTreeMap<Offset, Vec<u8>>,
    start: Offset,
}

/// A process.
struct Server {
    log: Log,
    writer: Writer,
    storage: Arc<TieredStorage>,
    archive: PartitionArchive,
}

impl World {
    fn new(seed: u64, writes: Writes, requests: usize, after: bool) -> World {
        let fuse = Fuse {
            left: AtomicUsize::new(requests),
            after: AtomicBool::new(after),
        };
        World {
            disk: FaultyStorage::new(seed),
            store: Fused {
                inner: Arc::default(),
                fuse: Arc::new(fuse),
            },
            writes,
            clock: Arc::new(ManualClock::new(Timestamp(1_000))),
            records: BTreeMap::new(),
            start: Offset(0),
        }
    }

    fn archive_store(&self, store: Arc<dyn ObjectStore>) -> ArchiveStore {
        ArchiveStore::from_store(store, "fused", StoreOptions::default())
    }

    async fn start(&self) -> Result<Server, ArchiveError> {
        let store = self.archive_store(Arc::new(self.store.clone()));
        let identity = Identity::load_or_create(&store, self.writes).await?;
        let local: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let keys = PartitionKeys::new(TOPIC_ID, 0);
        let cache = BlockCache::new(store.object_store().clone(), CacheOptions::default());
        let catalog = Catalog::open(local.clone(), keys, store.clone(), cache).await?;
        let catalog = Arc::new(catalog);
        let storage = Arc::new(TieredStorage::new(local, catalog.clone()));
        // Little is preallocated, so that a life takes milliseconds.
        let config = LogConfig {
            owner: Owner::named(TOPIC_ID, 0),
            segment_bytes_max: 16 << 10,
            ..LogConfig::default()
        };
        let opened = Log::open(storage.clone(), config, self.clock.clone()).await;
        let (log, report) = opened.expect("the local disk works");
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        Ok(Server {
            log,
            writer: Writer {
                store,
                archive_id: identity.id,
                writes: self.writes,
                writer_id: WRITER_ID.to_owned(),
            },
            archive: PartitionArchive::new(TOPIC, TOPIC_ID, 0, catalog, storage.clone()),
            storage,
        })
    }

    /// Appends what fills some segments, and rolls behind each.
    async fn fill(&mut self, server: &mut Server, segments: usize) {
        for _ in 0..segments {
            for _ in 0..BATCHES_PER_SEGMENT {
                let value = format!("record {}", self.records.len()).into_bytes();
                let mut builder = BatchBuilder::new(Limits::DEFAULT);
                builder
                    .push(Timestamp(1_000), None, Some(&value), std::iter::empty())
                    .expect("a small record");
                let batch = builder.build(Compression::None, None).expect("a batch");
                let answers = server.log.append(vec![AppendRequest::new(batch)]).await;
                let appended = answers[0].as_ref().expect("the local disk works");
                self.records.insert(appended.offsets.start, value);
            }
            server.log.roll().await.expect("the local disk works");
        }
    }

    /// Nothing that a manifest names is missing or another, whatever moment it is.
    async fn check_manifests(&self, when: &str) {
        let store = self.archive_store(self.store.inner.clone());
        let Some(survey) = Survey::take(&store).await.expect("the archive is readable") else {
            return;
        };
        for found in survey.topics.iter().flat_map(|topic| &topic.partitions) {
            let manifest = found.manifest.as_ref().expect("the manifest is whole");
            manifest.check().expect("the manifest is consistent");
            for entry in &manifest.segments {
                let key = found.keys.segment(entry);
                let read = read_back(&store, &key, entry.len, entry.crc).await;
                read.unwrap_or_else(|error| panic!("{when}: {error}"));
                for key in found.keys.all_of(entry) {
                    let there = self.store.inner.head(&key).await.is_ok();
                    assert!(there, "{when}: {key} is gone");
                }
            }
            if let Some(state) = &manifest.state {
                let key = found.keys.state(state);
                let read = read_back(&store, &key, state.len, state.crc).await;
                read.unwrap_or_else(|error| panic!("{when}: {error}"));
            }
        }
    }

    /// The log reads as it was acknowledged, from its start to its end.
    async fn check_log(&self, server: &Server, when: &str) {
        let reader = server.log.reader();
        let positions = reader.positions();
        assert_eq!(positions.start, self.start, "{when}: the start moved");
        let (mut from, mut found) = (positions.start, BTreeMap::new());
        while from < positions.end {
            let fetched = reader.read(from, 1 << 20).await;
            let fetched = fetched.unwrap_or_else(|error| panic!("{when}: at {from}: {error}"));
            let mut batches = BatchStream::new(fetched.chunks);
            while let Some(batch) = batches.next_batch(&Limits::DEFAULT).expect("a batch") {
                for record in &batch.records(&Limits::DEFAULT).expect("records") {
                    let record = record.expect("a record");
                    if record.offset >= from {
                        let value = record.value.unwrap_or_default().to_vec();
                        assert_eq!(found.insert(record.offset, value), None, "{when}: twice");
                    }
                }
            }
            from = fetched.offsets.end;
        }
        let expected: BTreeMap<_, _> = self
            .records
            .range(self.start..)
            .map(|(offset, value)| (*offset, value.clone()))
            .collect();
        assert_eq!(found, expected, "{when}");
    }
}

impl Server {
    fn state(&self) -> LogState {
        let reader = self.log.reader();
        let segments = reader.segments();
        let positions = reader.positions();
        LogState {
            segments,
            start: positions.start,
            end: positions.end,
            leader_epoch: positions.leader_epoch,
            fencing_token: self.log.fencing_token(),
            config: self.log.config().clone(),
            local: LocalRetention {
                bytes: Some(0),
                age: None,
            },
            now: Timestamp(2_000),
        }
    }

    /// Works until there is nothing left to do.
    async fn catch_up(&mut self) -> Result<(), ArchiveError> {
        let mut progress = Progress::default();
        for _ in 0..100 {
            let state = self.state();
            if !self.archive.has_work(&state) {
                return Ok(());
            }
            let (archive, writer) = (&mut self.archive, &self.writer);
            archive.advance(writer, &state, 1, &mut progress).await?;
        }
        panic!("it never ends: {progress:?}");
    }

    async fn sweep(&mut self) -> Result<(), ArchiveError> {
        // One that was just started is not the writer yet.
        self.catch_up().await?;
        let mut progress = Progress::default();
        let (archive, writer) = (&mut self.archive, &self.writer);
        archive
            .remove_orphans(writer, Duration::ZERO, &mut progress)
            .await
    }
}

/// What a partition goes through; a step that broke off is begun again.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fill(usize),
    Trim(i64),
    CatchUp,
    Sweep,
    Restart,
}

const LIFE: [Step; 13] = [
    Step::Fill(3),
    Step::CatchUp,
    Step::Fill(2),
    // In the middle of the second segment.
    Step::Trim(4),
    Step::CatchUp,
    Step::Sweep,
    Step::Restart,
    Step::Fill(1),
    Step::CatchUp,
    // Exactly between two segments, one of them not archived yet.
    Step::Fill(1),
    Step::Trim(18),
    Step::CatchUp,
    Step::Sweep,
];

impl Step {
    async fn run(self, world: &mut World, server: &mut Server) -> Result<(), ArchiveError> {
        match self {
            Step::Fill(segments) => world.fill(server, segments).await,
            Step::Trim(offset) => {
                let trimmed = server.log.trim(Offset(offset)).await;
                world.start = trimmed.expect("the local disk works");
            }
            Step::CatchUp => server.catch_up().await?,
            Step::Sweep => server.sweep().await?,
            Step::Restart => {}
        }
        Ok(())
    }
}

/// One life with a death at the nth request; whether it came to that.
async fn live(seed: u64, writes: Writes, requests: usize, after: bool) -> bool {
    let when = format!("request {requests}, done: {after}, {writes:?}, seed {seed}");
    let mut world = World::new(seed, writes, requests, after);
    let mut server = None;
    let mut died = false;
    let mut next = 0;
    while next < LIFE.len() {
        let mut running = match server.take() {
            Some(running) => running,
            None => match world.start().await {
                Ok(started) => started,
                Err(error) => {
                    die(&mut world, &mut died, &when, &error).await;
                    continue;
                }
            },
        };
        match LIFE[next].run(&mut world, &mut running).await {
            Ok(()) => {
                if !matches!(LIFE[next], Step::Restart) {
                    server = Some(running);
                }
                next += 1;
            }
            Err(error) => {
                drop(running);
                die(&mut world, &mut died, &when, &error).await;
            }
        }
    }
    let mut server = server.expect("the last step is no restart");
    settle(&mut world, &mut server, &when).await;
    died
}

async fn die(world: &mut World, died: &mut bool, when: &str, error: &ArchiveError) {
    assert!(world.store.fuse.is_blown() && !*died, "{when}: {error}");
    *died = true;
    world.disk.crash();
    world.check_manifests(when).await;
    world.store.fuse.renew();
}

/// Everything is where it belongs, nothing is left over, and a process that starts now agrees.
async fn settle(world: &mut World, server: &mut Server, when: &str) {
    world.store.fuse.renew();
    server.sweep().await.expect("the store works");
    world.check_manifests(when).await;
    world.check_log(server, when).await;
    let local = server.storage.list_local().await.expect("the disk works");
    assert_eq!(local.len(), 1, "{when}: only the active segment: {local:?}");
    let store = world.archive_store(world.store.inner.clone());
    let survey = Survey::take(&store).await.expect("the archive is readable");
    let survey = survey.expect("there is an archive");
    assert_eq!(survey.orphans, (0, 0), "{when}: something is left over");
    let again = world.start().await.expect("the store works");
    world.check_log(&again, when).await;
}

async fn every_request(writes: Writes) {
    for after in [false, true] {
        let mut requests = 1;
        while live(requests as u64, writes, requests, after).await {
            requests += 1;
            assert!(requests < REQUESTS_MAX, "a life never ends");
        }
        assert!(requests > 50, "only {requests} requests: the life is empty");
    }
}

#[tokio::test]
async fn no_crash_between_server_and_store_loses_anything() {
    every_request(Writes::Conditional).await;
}

#[tokio::test]
async fn nor_where_the_store_has_no_conditions() {
    every_request(Writes::SingleWriter).await;
}
