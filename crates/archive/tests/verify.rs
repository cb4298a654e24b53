//! An archive is verified while its server goes on: what retention removes meanwhile is no damage.

use std::sync::Arc;

use comlog_archive::{
    ArchiveStore, ArchivedPartition, ArchivedTopic, Catalog, Identity, LocalRetention, LogState,
    PartitionArchive, PartitionKeys, PartitionList, Progress, StoreOptions, Survey, Verified,
    Writer, Writes, audit, remove_topic, topic_key, verify_partition,
};
use comlog_log::{AppendRequest, Log, LogConfig, ManualClock, Owner};
use comlog_record::{BatchBuilder, Compression, Limits, Offset, Timestamp};
use comlog_storage::{BlockCache, CacheOptions, MemoryStorage, Storage, TieredStorage};
use object_store::memory::InMemory;
use object_store::path::Path;

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

    /// As a server does it before the first segment.
    async fn list(&self) {
        let added = PartitionList::add(&self.store, Writes::Conditional, TOPIC_ID, &[0]);
        added.await.expect("the store works");
    }

    /// What is wrong with the topic, whose metadata may be anything.
    async fn faults(&self, topic: &ArchivedTopic) -> Vec<String> {
        let faults = audit(&self.store, topic, |_, _| Ok(())).await;
        let faults = faults.expect("the store works");
        faults.iter().map(ToString::to_string).collect()
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
    live.list().await;
    let survey = live.survey().await;
    let topic = &survey.topics[0];
    assert!(topic.meta.is_none(), "nobody wrote it in this test");
    let faults = live.faults(topic).await;
    assert_eq!(
        faults.len(),
        1,
        "records, and no topic for them: {faults:?}"
    );
    assert!(
        faults[0].contains("/topic is damaged: it is gone"),
        "{faults:?}"
    );

    let now = Survey::topic(&live.store, TOPIC_ID).await;
    remove_topic(&live.store, &now.expect("the store works"))
        .await
        .expect("the store works");
    let verified = live.verify(&topic.partitions[0]).await;
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    assert_eq!(verified.removed, 2);
    assert!(live.faults(topic).await.is_empty());
    assert!(live.survey().await.topics.is_empty(), "nothing is left");
}

#[tokio::test]
async fn a_removal_that_was_broken_off_is_no_damage() {
    let live = Live::start(2).await;
    live.list().await;
    let store = &live.store;
    let now = Survey::topic(store, TOPIC_ID)
        .await
        .expect("the store works");
    let everything = objects(&live, &now.partitions[0].keys).await;
    remove_topic(store, &now).await.expect("the store works");
    // As after a crash: the mark, and what was not removed yet, the manifest being the first to go.
    let mark = Path::from_iter(["topics", TOPIC_ID, "deleted"]);
    let json = format!("{{\"topic_id\":\"{TOPIC_ID}\"}}");
    let crc = crc32c::crc32c(json.as_bytes());
    let put = |key: Path, content: String| async move {
        store
            .overwrite(&key, content.into())
            .await
            .expect("the store works");
    };
    for key in everything
        .iter()
        .filter(|key| key.filename() != Some("manifest"))
    {
        put(key.clone(), "what was there".to_owned()).await;
    }
    let without_mark = live.survey().await;
    let manifest = without_mark.topics[0].partitions[0].manifest.clone();
    let error = manifest
        .expect_err("objects without a manifest")
        .to_string();
    assert!(error.contains("manifest is damaged: it is gone"), "{error}");

    put(mark, format!("comlog deleted 1 {crc:08x}\n{json}")).await;
    let survey = live.survey().await;
    assert!(matches!(survey.topics[0].deleted, Ok(true)));
    assert!(survey.topics[0].partitions.is_empty());
    assert!(live.faults(&survey.topics[0]).await.is_empty());
    let again = Survey::topic(store, TOPIC_ID)
        .await
        .expect("the store works");
    remove_topic(store, &again).await.expect("the store works");
    assert!(live.survey().await.topics.is_empty(), "it was gone on with");
}

#[tokio::test]
async fn what_is_written_meanwhile_is_not_missed() {
    let live = Live::start(1).await;
    let survey = live.survey().await;
    assert_eq!(
        live.faults(&survey.topics[0]).await.len(),
        2,
        "metadata and list"
    );
    let key = topic_key(TOPIC_ID);
    let put = live.store.overwrite(&key, "metadata".into());
    put.await.expect("the store works");
    live.list().await;
    assert!(live.faults(&survey.topics[0]).await.is_empty());
}

#[tokio::test]
async fn what_a_crash_left_of_a_beginning_is_no_damage() {
    let live = Live::start(0).await;
    let mut live = live;
    // The manifest is the first object of all, then the metadata, then the list.
    live.archive().await;
    assert!(live.faults(&live.survey().await.topics[0]).await.is_empty());
    let key = topic_key(TOPIC_ID);
    let put = live.store.overwrite(&key, "metadata".into());
    put.await.expect("the store works");
    assert!(live.faults(&live.survey().await.topics[0]).await.is_empty());
    live.list().await;
    live.append_and_archive().await;
    assert!(live.faults(&live.survey().await.topics[0]).await.is_empty());
}

#[tokio::test]
async fn a_list_grows_whoever_else_adds_to_it() {
    let live = Live::start(0).await;
    for partitions in [&[4, 5][..], &[0, 1, 2], &[3], &[7]] {
        let added = PartitionList::add(&live.store, Writes::Conditional, TOPIC_ID, partitions);
        added.await.expect("the store works");
    }
    let list = PartitionList::load(&live.store, TOPIC_ID).await;
    let list = list.expect("it is whole").expect("it is there");
    assert_eq!(list.partitions().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 7]);
    assert_eq!(list.end(), 8);
    assert!(list.names(7) && !list.names(6));
    let content = list.encode().expect("it encodes");
    let other = "fedcba9876543210fedcba9876543210";
    assert!(
        PartitionList::decode(other, &content).is_err(),
        "another topic's"
    );
    let huge = PartitionList::new(TOPIC_ID, [u32::MAX - 1]);
    let huge = huge.encode().expect("it encodes");
    assert!(
        PartitionList::decode(TOPIC_ID, &huge).is_err(),
        "no topic is so large"
    );
}

async fn objects(live: &Live, keys: &PartitionKeys) -> Vec<Path> {
    let listed = live.store.list(keys.dir()).await.expect("the store works");
    listed.into_iter().map(|object| object.location).collect()
}
