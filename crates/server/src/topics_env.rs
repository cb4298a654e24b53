//! What the registry of topics needs of the rest of the server.

use std::sync::Arc;

use comlog_log::{Clock, LogConfig};

use crate::archive::Archive;
use crate::broker_config::{BrokerConfig, TopicsConfig};
use crate::dirs::LogDirs;
use crate::fetch::RECORD_OVERHEAD_MAX;
use crate::group_commit::OwnerEnv;
use crate::status::ServiceError;
use crate::topic_config::{TopicDefaults, TopicOverrides};
use crate::topic_name;

/// Where topics come from and go to: what the registry needs of the rest of the server.
#[derive(Debug, Clone)]
pub(crate) struct TopicsEnv {
    pub(crate) dirs: Arc<dyn LogDirs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) owner: OwnerEnv,
    pub(crate) config: TopicsConfig,
    pub(crate) defaults: TopicDefaults,
    /// The second home of the records, if there is one.
    pub(crate) archive: Option<Arc<Archive>>,
    /// No topic may accept batches above this.
    pub(crate) request_bytes_max: u32,
    /// No topic but comlog's own may accept records above this.
    pub(crate) record_bytes_max: u32,
}

impl TopicsEnv {
    pub(crate) fn new(
        dirs: Arc<dyn LogDirs>,
        clock: Arc<dyn Clock>,
        owner: OwnerEnv,
        config: &BrokerConfig,
        archive: Option<Arc<Archive>>,
    ) -> TopicsEnv {
        TopicsEnv {
            dirs,
            clock,
            owner,
            config: config.topics.clone(),
            defaults: config.topic_defaults.clone(),
            archive,
            request_bytes_max: config.append.request_bytes_max,
            record_bytes_max: config.append.record_bytes_max,
        }
    }

    /// The configuration of the logs of the topic `name`: with an archive, what was appended gets there within
    /// the roll interval, and no more is made ready ahead of readers than is to be fetched ahead.
    pub(crate) fn log_config(&self, name: &str, config: &TopicDefaults) -> LogConfig {
        let mut log_config = config.to_log_config();
        if !topic_name::is_reserved(name) {
            let bytes_max = self.record_bytes_max.saturating_add(RECORD_OVERHEAD_MAX);
            log_config.limits.record_bytes_max = bytes_max as usize;
        }
        if let Some(archive) = &self.archive {
            log_config.look_ahead_bytes = archive.prefetch_bytes();
        }
        if let Some(archive) = self.archive.as_ref().filter(|_| config.archive) {
            let interval = archive.roll_interval();
            let age = log_config.segment_age_max;
            log_config.segment_age_max = Some(age.map_or(interval, |age| age.min(interval)));
        }
        log_config
    }

    /// # Errors
    /// A value that is out of range once `config` is in force, naming the field.
    pub(crate) fn check_config(&self, config: &TopicOverrides) -> Result<(), ServiceError> {
        let effective = config.over(&self.defaults);
        let invalid = |message| ServiceError::invalid(format!("config.{message}"));
        effective.validate().map_err(invalid)?;
        if effective.max_batch_bytes > self.request_bytes_max {
            return Err(invalid(format!(
                "max_batch_bytes: {} is above the server's append.request_bytes_max, {}",
                effective.max_batch_bytes, self.request_bytes_max
            )));
        }
        Ok(())
    }
}
