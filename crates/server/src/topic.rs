//! One topic and its partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use comlog_proto::v1::Reason;
use futures_util::{StreamExt, stream};
use parking_lot::RwLock;

use crate::partition::Partition;
use crate::status::{PartitionKey, ServiceError};
use crate::topic_store::TopicMeta;

/// One topic and its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    name: Arc<str>,
    id: String,
    meta: RwLock<Arc<TopicMeta>>,
    partitions: RwLock<Vec<Arc<Partition>>>,
    deleted: Arc<AtomicBool>,
}

impl Topic {
    /// A topic without its partitions.
    pub(crate) fn new(meta: TopicMeta) -> Topic {
        Topic {
            name: meta.name.as_str().into(),
            id: meta.id.clone(),
            meta: RwLock::new(Arc::new(meta)),
            partitions: RwLock::new(Vec::new()),
            deleted: Arc::new(AtomicBool::new(false)),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// 32 hex digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn meta(&self) -> Arc<TopicMeta> {
        self.meta.read().clone()
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    pub(crate) fn partition(&self, partition: u32) -> Result<Arc<Partition>, ServiceError> {
        let partitions = self.partitions.read();
        let found = partitions.get(partition as usize).cloned();
        found.ok_or_else(|| {
            let message = format!(
                "topic {:?} has partitions 0 to {}",
                &*self.name,
                partitions.len().saturating_sub(1)
            );
            let key = PartitionKey {
                topic: self.name.clone(),
                partition,
            };
            ServiceError::new(Reason::PartitionNotFound, message).at(&key)
        })
    }

    pub(crate) fn set_meta(&self, meta: Arc<TopicMeta>) {
        *self.meta.write() = meta;
    }

    /// Adds partitions behind those there are.
    pub(crate) fn add_partitions(&self, partitions: impl IntoIterator<Item = Arc<Partition>>) {
        self.partitions.write().extend(partitions);
    }

    /// Set once the topic is deleted.
    pub(crate) fn deleted(&self) -> Arc<AtomicBool> {
        self.deleted.clone()
    }

    /// From now on its closed logs mean that it is gone.
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }
}

/// Closes partitions in parallel; failures are logged by their owners.
pub(crate) async fn close_all(partitions: &[Arc<Partition>]) {
    const CLOSE_PARALLEL: usize = 32;
    stream::iter(partitions)
        .for_each_concurrent(CLOSE_PARALLEL, |partition| async move {
            drop(partition.close().await);
        })
        .await;
}
