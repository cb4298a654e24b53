//! An archive is verified while its server goes on: what retention removes meanwhile is no damage.

use std::sync::Arc;

use comlog_archive::{
    ArchiveStore, ArchivedPartition, Catalog, Identity, LocalRetention, LogState, PartitionArchive,
    PartitionKeys, Progress, StoreOptions, Survey, Verified, Writer, Writes, has_lost_metadata,
    topic_key, verify_partition,
};
use comlog_log::{AppendRequest, Log, LogConfig, ManualClock, Owner};
use comlog_record::{BatchBuilder, Compression, Limits, Offset, Timestamp};
use comlog_storage::{BlockCache, CacheOptions, MemoryStorage, Storage, TieredStorage};
use object_store::memory::InMemory;

const TOPIC_ID: &str = "0123456789abcdef0123456789abcdef";

/// A server that archives one partition.
struct Live {
    store: ArchiveStore,
    log: Log,
    writer: Writer,
    archive: PartitionArchive,
}

impl Live {
    /// With `segments` archived segments of one record each.
    async fn start(segments: usize) -> Live {
        let inner = Arc::new(InMemory::new());
        let store = ArchiveStore::from_store(inner, "memory", StoreOptions::default());
        let identity = Identity::load_or_create(&store, Writes::Conditional).await;
        let local: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let keys = PartitionKeys::new(TOPIC_ID, 0);
        let cache = BlockCache::new(store.object_store().clone(), CacheOptions::default());
        let catalog = Catalog::open(local.clone(), keys, store.clone(), cache).await;
        let catalog = Arc::new(catalog.expect("nothing is there yet"));
        let storage = Arc::new(TieredStorage::new(local, catalog.clone()));
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let config = LogConfig {
            owner: Owner::named(TOPIC_ID, 0),
            ..LogConfig::default()
        };
        let opened = Log::open(storage.clone(), config, clock).await;
        let mut live = Live {
            log: opened.expect("memory works").0,
            writer: Writer {
                store: store.clone(),
                archive_id: identity.expect("memory works").id,
                writes: Writes::Conditional,
                writer_id: "fedcba9876543210fedcba9876543210".to_owned(),
            },
            archive: PartitionArchive::new("live", TOPIC_ID, 0, catalog, storage),
            store,
        };
        for _ in 0..segments {
            live.append_and_archive().await;
        }
        live
    }

    async fn append_and_archive(&mut self) {
        let mut builder = BatchBuilder::new(Limits::DEFAULT);
        builder
            .push(Timestamp(1_000), None, Some(b"value"), std::iter::empty())
            .expect("a small record");
        let batch = builder.build(Compression::None, None).expect("a batch");
        let answers = self.log.append(vec![AppendRequest::new(batch)]).await;
        answers[0].as_ref().expect("memory works");
        self.log.roll().await.expect("memory works");
        self.archive().await;
    }

    async fn trim_and_archive(&mut self, start: i64) {
        self.log.trim(Offset(start)).await.expect("memory works");
        self.archive().await;
    }

    async fn archive(&mut self) {
        let reader = self.log.reader();
        let positions = reader.positions();
        let state = LogState {
            segments: reader.segments(),
            start: positions.start,
            end: positions.end,
            leader_epoch: positions.leader_epoch,
            fencing_token: 0,
            config: self.log.config().clone(),
            local: LocalRetention::default(),
            now: Timestamp(2_000),
        };
        let mut progress = Progress::default();
        let archived = self
            .archive
            .advance(&self.writer, &state, 10, &mut progress);
        archived.await.expect("the store works");
    }

    async fn survey(&self) -> Survey {
        let survey = Survey::take(&self.store).await.expect("the store works");
        survey.expect("there is an archive")
    }

    async fn verify(&self, partition: &ArchivedPartition) -> Verified {
        let verified = verify_partition(&self.store, partition, &mut |_| {}).await;
        verified.expect("the store answers")
    }
}

#[tokio::test]
async fn what_retention_removed_meanwhile_is_no_damage() {
    let mut live = Live::start(4).await;
    let survey = live.survey().await;
    // The segments that the survey names go, the state at their end is replaced.
    live.trim_and_archive(2).await;
    live.append_and_archive().await;
    let verified = live.verify(&survey.topics[0].partitions[0]).await;
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    assert_eq!(verified.removed, 2, "segments that are no longer named");
}

#[tokio::test]
async fn what_is_still_named_and_gone_is_damage() {
    let mut live = Live::start(4).await;
    let survey = live.survey().await;
    let partition = &survey.topics[0].partitions[0];
    let manifest = partition.manifest.clone().expect("it is whole");
    live.trim_and_archive(1).await;
    let lost = partition.keys.segment(&manifest.segments[2]);
    live.store.delete(&lost).await.expect("the store works");
    let verified = live.verify(partition).await;
    let damage: Vec<String> = verified.damage.iter().map(ToString::to_string).collect();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].contains(lost.as_ref()), "{damage:?}");
    assert_eq!(verified.removed, 1);
}

#[tokio::test]
async fn a_topic_that_is_deleted_meanwhile_is_no_damage() {
    let live = Live::start(2).await;
    let survey = live.survey().await;
    let topic = &survey.topics[0];
    assert!(topic.meta.is_none(), "nobody wrote it in this test");
    let lost = has_lost_metadata(&live.store, topic).await;
    assert!(
        lost.expect("the store works"),
        "records, and no topic for them"
    );

    // As a server does it: the manifest first.
    let keys = &topic.partitions[0].keys;
    for object in [keys.manifest()]
        .into_iter()
        .chain(objects(&live, keys).await)
    {
        live.store.delete(&object).await.expect("the store works");
    }
    let verified = live.verify(&topic.partitions[0]).await;
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    assert_eq!(verified.removed, 2);
    let lost = has_lost_metadata(&live.store, topic).await;
    assert!(!lost.expect("the store works"));
}

#[tokio::test]
async fn metadata_that_came_later_is_not_lost() {
    let live = Live::start(1).await;
    let survey = live.survey().await;
    let key = topic_key(TOPIC_ID);
    let put = live.store.overwrite(&key, "metadata".into()).await;
    put.expect("the store works");
    let lost = has_lost_metadata(&live.store, &survey.topics[0]).await;
    assert!(!lost.expect("the store works"));
}

async fn objects(live: &Live, keys: &PartitionKeys) -> Vec<object_store::path::Path> {
    let listed = live.store.list(keys.dir()).await.expect("the store works");
    listed.into_iter().map(|object| object.location).collect()
}
