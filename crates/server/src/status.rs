//! The only map from what went wrong to a gRPC code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use comlog_log::{AppendError, LogError, ReadError};
use comlog_proto::v1::{self, Reason};
use comlog_record::{DecodeError, EncodeError, Offset, OffsetRange};
use comlog_storage::StorageError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` of this service.
pub const ERROR_DOMAIN: &str = "comlog.v1";

/// A topic and one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Why a call, or one batch or partition of it, failed: becomes a [`Status`] or a [`v1::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// What callers decide by.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Where it applies.
    pub topic: Option<Arc<str>>,
    /// Where it applies.
    pub partition: Option<u32>,
    /// The offset the reason speaks of (see `Error.offset` in the protocol).
    pub offset: Option<i64>,
    /// Where reading can go on (see `Error.next_offset` in the protocol).
    pub next_offset: Option<i64>,
}

impl ServiceError {
    /// An error that names no topic.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> ServiceError {
        ServiceError {
            reason,
            message: message.into(),
            topic: None,
            partition: None,
            offset: None,
            next_offset: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> ServiceError {
        ServiceError::new(Reason::InvalidRequest, message)
    }

    pub(crate) fn overloaded(message: impl Into<String>) -> ServiceError {
        ServiceError::new(Reason::Overloaded, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> ServiceError {
        ServiceError::new(Reason::Internal, message)
    }

    pub(crate) fn shutting_down() -> ServiceError {
        ServiceError::new(Reason::ShuttingDown, "the server is shutting down")
    }

    pub(crate) fn topic_not_found(topic: &str) -> ServiceError {
        let message = format!("topic {topic:?} does not exist");
        ServiceError::new(Reason::TopicNotFound, message).at_topic(topic)
    }

    pub(crate) fn at_topic(mut self, topic: &str) -> ServiceError {
        self.topic = Some(topic.into());
        self
    }

    pub(crate) fn at(mut self, key: &PartitionKey) -> ServiceError {
        self.topic = Some(key.topic.clone());
        self.partition = Some(key.partition);
        self
    }

    fn at_offset(mut self, offset: Offset) -> ServiceError {
        self.offset = Some(offset.0);
        self
    }

    /// The canonical gRPC code of the reason.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.reason {
            Reason::InvalidRequest
            | Reason::InvalidTopicName
            | Reason::InvalidRecordBatch
            | Reason::BatchTooLarge => Code::InvalidArgument,
            Reason::TopicNotFound
            | Reason::PartitionNotFound
            | Reason::TailNotFound
            | Reason::GroupNotFound => Code::NotFound,
            Reason::TopicExists | Reason::DuplicateSequence => Code::AlreadyExists,
            Reason::OffsetOutOfRange => Code::OutOfRange,
            Reason::UnexpectedOffset
            | Reason::Fenced
            | Reason::StaleFencingToken
            | Reason::ProducerFenced
            | Reason::ArchiveStopped
            | Reason::OutOfOrderSequence => Code::FailedPrecondition,
            Reason::Suspended => Code::Aborted,
            Reason::StorageFull | Reason::Overloaded => Code::ResourceExhausted,
            Reason::Corrupt => Code::DataLoss,
            Reason::PartitionFailed | Reason::Internal | Reason::Unspecified => Code::Internal,
            Reason::ShuttingDown | Reason::ArchiveUnavailable => Code::Unavailable,
        }
    }

    /// The reason's name without `REASON_`, as it stands in `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        let name = self.reason.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }

    /// The same error as a message inside a stream or beside other results.
    #[must_use]
    pub fn to_message(&self) -> v1::Error {
        v1::Error {
            code: self.code() as i32,
            reason: self.reason as i32,
            message: self.message.clone(),
            topic: self.topic.as_deref().unwrap_or_default().to_owned(),
            partition: self.partition,
            offset: self.offset,
            next_offset: self.next_offset,
        }
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Status {
        let mut metadata = HashMap::new();
        if let Some(topic) = &error.topic {
            metadata.insert("topic".to_owned(), topic.to_string());
        }
        if let Some(partition) = error.partition {
            metadata.insert("partition".to_owned(), partition.to_string());
        }
        if let Some(offset) = error.offset {
            metadata.insert("offset".to_owned(), offset.to_string());
        }
        if let Some(offset) = error.next_offset {
            metadata.insert("next_offset".to_owned(), offset.to_string());
        }
        let details = ErrorDetails::with_error_info(error.reason_name(), ERROR_DOMAIN, metadata);
        Status::with_error_details(error.code(), error.message, details)
    }
}

impl From<DecodeError> for ServiceError {
    fn from(error: DecodeError) -> ServiceError {
        let reason = match error {
            DecodeError::TooLarge { .. } => Reason::BatchTooLarge,
            _ => Reason::InvalidRecordBatch,
        };
        // Which key of the configuration the bound comes from.
        let key = match error {
            DecodeError::TooLarge {
                what: "record bytes",
                ..
            } => " (append.record_bytes_max)",
            DecodeError::TooLarge {
                what: "batch bytes",
                ..
            } => " (max_batch_bytes of the topic)",
            _ => "",
        };
        ServiceError::new(reason, format!("{error}{key}"))
    }
}

impl From<EncodeError> for ServiceError {
    fn from(error: EncodeError) -> ServiceError {
        let reason = match error {
            EncodeError::TooLarge { .. } => Reason::BatchTooLarge,
            EncodeError::Empty => Reason::InvalidRequest,
            _ => Reason::Internal,
        };
        ServiceError::new(reason, error.to_string())
    }
}

impl From<AppendError> for ServiceError {
    fn from(error: AppendError) -> ServiceError {
        let message = error.to_string();
        let with = |reason| ServiceError::new(reason, message);
        match error {
            AppendError::Invalid(error) => error.into(),
            AppendError::UnexpectedOffset { actual, .. } => {
                with(Reason::UnexpectedOffset).at_offset(actual)
            }
            AppendError::Fenced { .. } => with(Reason::Fenced),
            AppendError::OutOfOrderSequence { .. } => with(Reason::OutOfOrderSequence),
            AppendError::ProducerFenced { .. } => with(Reason::ProducerFenced),
            AppendError::DuplicateSequence { .. } => with(Reason::DuplicateSequence),
            AppendError::Suspended => with(Reason::Suspended),
            AppendError::NoSpace => with(Reason::StorageFull),
            AppendError::NoDescriptors => with(Reason::Overloaded),
            AppendError::Failed(_) => with(Reason::PartitionFailed),
            AppendError::Closed => ServiceError::shutting_down(),
            _ => with(Reason::Internal),
        }
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> ServiceError {
        let message = error.to_string();
        match error {
            ReadError::OutOfRange { requested, log } => out_of_range(message, requested, log),
            ReadError::Corrupt { offsets, .. } => {
                let mut error = ServiceError::new(Reason::Corrupt, message).at_offset(offsets.end);
                error.next_offset = error.offset;
                error
            }
            ReadError::Storage(error) => storage(&error),
            ReadError::Closed => ServiceError::shutting_down(),
            _ => ServiceError::internal(message),
        }
    }
}

impl From<LogError> for ServiceError {
    fn from(error: LogError) -> ServiceError {
        let message = error.to_string();
        match error {
            LogError::OutOfRange { requested, log } => out_of_range(message, requested, log),
            LogError::StaleToken { .. } => ServiceError::new(Reason::StaleFencingToken, message),
            LogError::Read(error) => error.into(),
            LogError::Storage(error) => storage(&error),
            LogError::Closed => ServiceError::shutting_down(),
            _ => ServiceError::internal(message),
        }
    }
}

impl From<&StorageError> for ServiceError {
    fn from(error: &StorageError) -> ServiceError {
        storage(error)
    }
}

fn storage(error: &StorageError) -> ServiceError {
    let reason = match error {
        StorageError::NoSpace { .. } => Reason::StorageFull,
        StorageError::NoDescriptors { .. } => Reason::Overloaded,
        StorageError::Damaged { .. } | StorageError::Lost { .. } => Reason::Corrupt,
        StorageError::Unavailable { .. } => Reason::ArchiveUnavailable,
        _ => Reason::PartitionFailed,
    };
    ServiceError::new(reason, error.to_string())
}

fn out_of_range(message: String, requested: Offset, log: OffsetRange) -> ServiceError {
    let nearest = if requested < log.start {
        log.start
    } else {
        log.end
    };
    ServiceError::new(Reason::OffsetOutOfRange, message).at_offset(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_topic_partition_and_offset() {
        let key = PartitionKey {
            topic: "t".into(),
            partition: 3,
        };
        let error = ServiceError::from(AppendError::UnexpectedOffset {
            expected: Offset(4),
            actual: Offset(9),
        })
        .at(&key);
        let status = Status::from(error.clone());
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().expect("details");
        assert_eq!(info.domain, "comlog.v1");
        assert_eq!(info.reason, "UNEXPECTED_OFFSET");
        assert_eq!(info.metadata["topic"], "t");
        assert_eq!(info.metadata["partition"], "3");
        assert_eq!(info.metadata["offset"], "9");
        let message = error.to_message();
        assert_eq!(message.reason(), Reason::UnexpectedOffset);
        assert_eq!(message.code, Code::FailedPrecondition as i32);
        assert_eq!((message.partition, message.offset), (Some(3), Some(9)));
    }

    #[test]
    fn codes_agree_with_the_table_in_the_protocol() {
        let table = include_str!("../../../proto/comlog/v1/common.proto");
        let mut rows = 0;
        for line in table.lines().filter(|line| line.starts_with("// | ")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let Some(reason) = Reason::from_str_name(&format!("REASON_{}", cells[1])) else {
                continue;
            };
            let code = format!("{:?}", ServiceError::new(reason, "").code());
            assert_eq!(code.to_uppercase(), cells[2].replace('_', ""), "{line}");
            rows += 1;
        }
        assert_eq!(rows, 25, "every reason but UNSPECIFIED has a row");
    }

    #[test]
    fn out_of_range_names_the_nearest_end() {
        let log = OffsetRange::new(Offset(5), Offset(8));
        let below = ServiceError::from(ReadError::OutOfRange {
            requested: Offset(1),
            log,
        });
        let above = ServiceError::from(ReadError::OutOfRange {
            requested: Offset(9),
            log,
        });
        assert_eq!((below.offset, above.offset), (Some(5), Some(8)));
    }
}
