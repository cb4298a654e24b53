//! How a topic behaves: the server's defaults, and what a topic overrides.

use std::time::Duration;

use comlog_archive::LocalRetention;
use comlog_log::LogConfig;
use comlog_proto::v1;
use comlog_record::Limits;
use serde::{Deserialize, Serialize};

use crate::status::ServiceError;

/// The value of "never" and "unlimited".
const UNLIMITED: i64 = -1;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 16 << 30;
const MAX_BATCH_BYTES_MIN: u32 = 1 << 10;
const MAX_BATCH_BYTES_MAX: u32 = 1 << 30;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written, synced within `append.sync_interval_ms`.
    Memory,
    /// Synced.
    Durable,
}

/// Whose clock stamps the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The server's.
    LogAppendTime,
}

/// How much of an encoded batch is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// Header and CRC.
    Header,
    /// Every record.
    Full,
}

/// The configuration of a topic with every field set: the server's defaults, or what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicDefaults {
    /// A segment is rolled before it exceeds this (default 128 MiB; 1 MiB to 16 GiB).
    pub segment_bytes: u64,
    /// A segment is rolled when its first record is this old; -1 never (default).
    pub segment_ms: i64,
    /// The oldest sealed segments are deleted while a partition is larger; -1 never (default).
    pub retention_bytes: i64,
    /// Sealed segments are deleted when their newest record is older; -1 never (default).
    pub retention_ms: i64,
    /// Whether sealed segments go to the archive, when the server has one (default true).
    pub archive: bool,
    /// Local copies of archived segments are removed, the oldest first, while a partition has more
    /// bytes here; 0 keeps only what is not archived yet, -1 all (default).
    pub local_retention_bytes: i64,
    /// Local copies of archived segments are removed when their newest record is older; -1 never
    /// (default).
    pub local_retention_ms: i64,
    /// The largest batch accepted (default 8 MiB; from 1 KiB).
    pub max_batch_bytes: u32,
    /// What an acknowledgement promises at least (default durable).
    pub durability: Durability,
    /// Whose clock stamps the records (default the producer's).
    pub timestamp_type: TimestampType,
    /// How much of an encoded batch is checked (default its header and CRC).
    pub validation: Validation,
}

impl Default for TopicDefaults {
    fn default() -> TopicDefaults {
        TopicDefaults {
            segment_bytes: 128 << 20,
            segment_ms: UNLIMITED,
            retention_bytes: UNLIMITED,
            retention_ms: UNLIMITED,
            archive: true,
            local_retention_bytes: UNLIMITED,
            local_retention_ms: UNLIMITED,
            max_batch_bytes: 8 << 20,
            durability: Durability::Durable,
            timestamp_type: TimestampType::CreateTime,
            validation: Validation::Header,
        }
    }
}

impl TopicDefaults {
    /// Checks every range.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn validate(&self) -> Result<(), String> {
        check_range(
            "segment_bytes",
            self.segment_bytes,
            SEGMENT_BYTES_MIN,
            SEGMENT_BYTES_MAX,
        )?;
        check_range(
            "max_batch_bytes",
            self.max_batch_bytes,
            MAX_BATCH_BYTES_MIN,
            MAX_BATCH_BYTES_MAX,
        )?;
        check_limit("segment_ms", self.segment_ms)?;
        check_limit("retention_bytes", self.retention_bytes)?;
        check_limit("retention_ms", self.retention_ms)?;
        check_local("local_retention_bytes", self.local_retention_bytes)?;
        check_local("local_retention_ms", self.local_retention_ms)
    }

    /// The bounds of one batch.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            batch_bytes_max: self.max_batch_bytes as usize,
            // What full validation unpacks.
            unpacked_bytes_max: Limits::DEFAULT.decompressed_bytes_max as u64,
            ..Limits::DEFAULT
        }
    }

    /// The configuration of each partition's log.
    #[must_use]
    pub fn to_log_config(&self) -> LogConfig {
        LogConfig {
            segment_bytes_max: self.segment_bytes,
            segment_age_max: duration(self.segment_ms),
            group_bytes_max: GROUP_BYTES_MAX.max(self.max_batch_bytes as usize),
            durability: match self.durability {
                Durability::Memory => comlog_log::Durability::Memory,
                Durability::Durable => comlog_log::Durability::Durable,
            },
            timestamp_type: match self.timestamp_type {
                TimestampType::CreateTime => comlog_record::TimestampType::CreateTime,
                TimestampType::LogAppendTime => comlog_record::TimestampType::LogAppendTime,
            },
            validation: match self.validation {
                Validation::Header => comlog_log::Validation::Header,
                Validation::Full => comlog_log::Validation::Full,
            },
            limits: self.limits(),
            retention_bytes: u64::try_from(self.retention_bytes).ok(),
            retention_age: duration(self.retention_ms),
            ..LogConfig::default()
        }
    }

    /// How much of what is archived stays here.
    pub(crate) fn local_retention(&self) -> LocalRetention {
        LocalRetention {
            bytes: u64::try_from(self.local_retention_bytes).ok(),
            age: duration(self.local_retention_ms),
        }
    }

    pub(crate) fn to_proto(&self) -> v1::TopicConfig {
        TopicOverrides::from(self).to_proto()
    }
}

/// What a topic sets itself; the rest follows the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TopicOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_retention_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_retention_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_batch_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp_type: Option<TimestampType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<Validation>,
}

impl From<&TopicDefaults> for TopicOverrides {
    fn from(all: &TopicDefaults) -> TopicOverrides {
        TopicOverrides {
            segment_bytes: Some(all.segment_bytes),
            segment_ms: Some(all.segment_ms),
            retention_bytes: Some(all.retention_bytes),
            retention_ms: Some(all.retention_ms),
            archive: Some(all.archive),
            local_retention_bytes: Some(all.local_retention_bytes),
            local_retention_ms: Some(all.local_retention_ms),
            max_batch_bytes: Some(all.max_batch_bytes),
            durability: Some(all.durability),
            timestamp_type: Some(all.timestamp_type),
            validation: Some(all.validation),
        }
    }
}

impl TopicOverrides {
    /// From a request: absent fields stay absent.
    ///
    /// # Errors
    /// An unknown enum value, naming the field.
    pub(crate) fn from_proto(
        config: Option<v1::TopicConfig>,
    ) -> Result<TopicOverrides, ServiceError> {
        let config = config.unwrap_or_default();
        Ok(TopicOverrides {
            segment_bytes: config.segment_bytes,
            segment_ms: config.segment_ms,
            retention_bytes: config.retention_bytes,
            retention_ms: config.retention_ms,
            archive: config.archive,
            local_retention_bytes: config.local_retention_bytes,
            local_retention_ms: config.local_retention_ms,
            max_batch_bytes: config.max_batch_bytes,
            durability: durability_from_proto(config.durability)?,
            timestamp_type: timestamp_type_from_proto(config.timestamp_type)?,
            validation: validation_from_proto(config.validation)?,
        })
    }

    pub(crate) fn to_proto(&self) -> v1::TopicConfig {
        let durability = match self.durability {
            None => v1::Durability::Unspecified,
            Some(Durability::Memory) => v1::Durability::Memory,
            Some(Durability::Durable) => v1::Durability::Durable,
        };
        let timestamp_type = match self.timestamp_type {
            None => v1::TimestampType::Unspecified,
            Some(TimestampType::CreateTime) => v1::TimestampType::CreateTime,
            Some(TimestampType::LogAppendTime) => v1::TimestampType::LogAppendTime,
        };
        let validation = match self.validation {
            None => v1::Validation::Unspecified,
            Some(Validation::Header) => v1::Validation::Header,
            Some(Validation::Full) => v1::Validation::Full,
        };
        v1::TopicConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_ms,
            archive: self.archive,
            local_retention_bytes: self.local_retention_bytes,
            local_retention_ms: self.local_retention_ms,
            max_batch_bytes: self.max_batch_bytes,
            durability: durability as i32,
            timestamp_type: timestamp_type as i32,
            validation: validation as i32,
        }
    }

    /// What is in force for a topic with these overrides.
    pub(crate) fn over(&self, defaults: &TopicDefaults) -> TopicDefaults {
        TopicDefaults {
            segment_bytes: self.segment_bytes.unwrap_or(defaults.segment_bytes),
            segment_ms: self.segment_ms.unwrap_or(defaults.segment_ms),
            retention_bytes: self.retention_bytes.unwrap_or(defaults.retention_bytes),
            retention_ms: self.retention_ms.unwrap_or(defaults.retention_ms),
            archive: self.archive.unwrap_or(defaults.archive),
            local_retention_bytes: self
                .local_retention_bytes
                .unwrap_or(defaults.local_retention_bytes),
            local_retention_ms: self
                .local_retention_ms
                .unwrap_or(defaults.local_retention_ms),
            max_batch_bytes: self.max_batch_bytes.unwrap_or(defaults.max_batch_bytes),
            durability: self.durability.unwrap_or(defaults.durability),
            timestamp_type: self.timestamp_type.unwrap_or(defaults.timestamp_type),
            validation: self.validation.unwrap_or(defaults.validation),
        }
    }

    /// These overrides with those of `changes` in their place.
    pub(crate) fn changed_by(&self, changes: &TopicOverrides) -> TopicOverrides {
        TopicOverrides {
            segment_bytes: changes.segment_bytes.or(self.segment_bytes),
            segment_ms: changes.segment_ms.or(self.segment_ms),
            retention_bytes: changes.retention_bytes.or(self.retention_bytes),
            retention_ms: changes.retention_ms.or(self.retention_ms),
            archive: changes.archive.or(self.archive),
            local_retention_bytes: changes.local_retention_bytes.or(self.local_retention_bytes),
            local_retention_ms: changes.local_retention_ms.or(self.local_retention_ms),
            max_batch_bytes: changes.max_batch_bytes.or(self.max_batch_bytes),
            durability: changes.durability.or(self.durability),
            timestamp_type: changes.timestamp_type.or(self.timestamp_type),
            validation: changes.validation.or(self.validation),
        }
    }

    /// Lets the field called `name` follow the server's configuration again.
    ///
    /// # Errors
    /// An unknown name.
    pub(crate) fn reset(&mut self, name: &str) -> Result<(), ServiceError> {
        match name {
            "segment_bytes" => self.segment_bytes = None,
            "segment_ms" => self.segment_ms = None,
            "retention_bytes" => self.retention_bytes = None,
            "retention_ms" => self.retention_ms = None,
            "archive" => self.archive = None,
            "local_retention_bytes" => self.local_retention_bytes = None,
            "local_retention_ms" => self.local_retention_ms = None,
            "max_batch_bytes" => self.max_batch_bytes = None,
            "durability" => self.durability = None,
            "timestamp_type" => self.timestamp_type = None,
            "validation" => self.validation = None,
            _ => {
                let message = format!("reset: there is no field {name:?}");
                return Err(ServiceError::invalid(message));
            }
        }
        Ok(())
    }
}

pub(crate) fn durability_from_proto(value: i32) -> Result<Option<Durability>, ServiceError> {
    match v1::Durability::try_from(value) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(v1::Durability::Memory) => Ok(Some(Durability::Memory)),
        Ok(v1::Durability::Durable) => Ok(Some(Durability::Durable)),
        Err(_) => Err(unknown_value("durability", value)),
    }
}

fn timestamp_type_from_proto(value: i32) -> Result<Option<TimestampType>, ServiceError> {
    match v1::TimestampType::try_from(value) {
        Ok(v1::TimestampType::Unspecified) => Ok(None),
        Ok(v1::TimestampType::CreateTime) => Ok(Some(TimestampType::CreateTime)),
        Ok(v1::TimestampType::LogAppendTime) => Ok(Some(TimestampType::LogAppendTime)),
        Err(_) => Err(unknown_value("timestamp_type", value)),
    }
}

fn validation_from_proto(value: i32) -> Result<Option<Validation>, ServiceError> {
    match v1::Validation::try_from(value) {
        Ok(v1::Validation::Unspecified) => Ok(None),
        Ok(v1::Validation::Header) => Ok(Some(Validation::Header)),
        Ok(v1::Validation::Full) => Ok(Some(Validation::Full)),
        Err(_) => Err(unknown_value("validation", value)),
    }
}

pub(crate) fn unknown_value(field: &str, value: i32) -> ServiceError {
    ServiceError::invalid(format!("{field}: {value} is not a known value"))
}

fn check_range<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), String> {
    if value >= min && value <= max {
        Ok(())
    } else {
        Err(format!("{field}: {value} is not within {min} to {max}"))
    }
}

/// -1 or at least 1.
fn check_limit(field: &str, value: i64) -> Result<(), String> {
    if value == UNLIMITED || value > 0 {
        Ok(())
    } else {
        Err(format!(
            "{field}: {value} is neither -1 (never) nor above 0"
        ))
    }
}

/// -1 or at least 0.
fn check_local(field: &str, value: i64) -> Result<(), String> {
    if value >= UNLIMITED {
        Ok(())
    } else {
        Err(format!(
            "{field}: {value} is neither -1 (all) nor at least 0"
        ))
    }
}

fn duration(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_win_until_they_are_reset() {
        let defaults = TopicDefaults::default();
        let mut overrides = TopicOverrides {
            retention_ms: Some(5),
            durability: Some(Durability::Memory),
            ..TopicOverrides::default()
        };
        let effective = overrides.over(&defaults);
        assert_eq!(effective.retention_ms, 5);
        assert_eq!(effective.durability, Durability::Memory);
        assert_eq!(effective.segment_bytes, defaults.segment_bytes);
        overrides.reset("retention_ms").expect("known");
        assert_eq!(overrides.over(&defaults).retention_ms, -1);
        assert!(overrides.reset("no_such").is_err());
        let back = TopicOverrides::from_proto(Some(overrides.to_proto())).expect("valid");
        assert_eq!(back, overrides);
    }

    #[test]
    fn a_value_out_of_range_names_its_field() {
        let broken = TopicDefaults {
            retention_bytes: 0,
            ..TopicDefaults::default()
        };
        let message = broken.validate().expect_err("0 keeps nothing");
        assert!(message.starts_with("retention_bytes"), "{message}");
        let broken = TopicDefaults {
            segment_bytes: 1,
            ..TopicDefaults::default()
        };
        assert!(broken.validate().is_err());
        TopicDefaults::default().validate().expect("sound");
    }
}
