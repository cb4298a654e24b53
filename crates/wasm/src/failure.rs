//! The only map from what went wrong to what JavaScript sees: an `Error` with `code` and `reason`.

use comlog_log::{AppendError, InspectError, LogError, ReadError};
use comlog_record::{DecodeError, EncodeError, OffsetRange, UnknownCompression};
use comlog_storage::StorageError;
use js_sys::Reflect;
use wasm_bindgen::JsValue;

use crate::frame::Unread;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a call failed; the reasons and their codes are those of the server's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The offset the reason speaks of (see `Error.offset` in the protocol).
    pub(crate) offset: Option<i64>,
    /// Where reading can go on.
    pub(crate) next_offset: Option<i64>,
}

impl Failure {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            reason,
            message: message.into(),
            offset: None,
            next_offset: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new("INVALID_REQUEST", message)
    }

    fn at(mut self, offset: i64) -> Failure {
        self.offset = Some(offset);
        self
    }

    /// The canonical gRPC code of the reason.
    pub(crate) fn code(&self) -> &'static str {
        match self.reason {
            "INVALID_REQUEST" | "INVALID_RECORD_BATCH" | "BATCH_TOO_LARGE" => "INVALID_ARGUMENT",
            "DUPLICATE_SEQUENCE" => "ALREADY_EXISTS",
            "OFFSET_OUT_OF_RANGE" => "OUT_OF_RANGE",
            "UNEXPECTED_OFFSET" | "FENCED" | "PRODUCER_FENCED" | "OUT_OF_ORDER_SEQUENCE" => {
                "FAILED_PRECONDITION"
            }
            "SUSPENDED" => "ABORTED",
            "STORAGE_FULL" | "OVERLOADED" => "RESOURCE_EXHAUSTED",
            "CORRUPT" => "DATA_LOSS",
            "SHUTTING_DOWN" => "UNAVAILABLE",
            _ => "INTERNAL",
        }
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        let error = js_sys::Error::new(&failure.message);
        let set = |name: &str, value: JsValue| {
            // A new object of ours takes any property.
            let _ = Reflect::set(&error, &name.into(), &value);
        };
        set("code", failure.code().into());
        set("reason", failure.reason.into());
        if let Some(offset) = failure.offset {
            set("offset", offset.into());
        }
        if let Some(offset) = failure.next_offset {
            set("nextOffset", offset.into());
        }
        error.into()
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        let reason = match error {
            DecodeError::TooLarge { .. } => "BATCH_TOO_LARGE",
            _ => "INVALID_RECORD_BATCH",
        };
        Failure::new(reason, error.to_string())
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Failure {
        let reason = match unread.is_too_large {
            true => "BATCH_TOO_LARGE",
            false => "INVALID_RECORD_BATCH",
        };
        let mut failure = Failure::new(reason, unread.reason).at(unread.first.0);
        failure.next_offset = Some(unread.next);
        failure
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Failure {
        let reason = match error {
            EncodeError::TooLarge { .. } => "BATCH_TOO_LARGE",
            EncodeError::Empty => "INVALID_REQUEST",
            _ => "INTERNAL",
        };
        Failure::new(reason, error.to_string())
    }
}

impl From<UnknownCompression> for Failure {
    fn from(error: UnknownCompression) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Failure {
        let with = |reason| Failure::new(reason, error.to_string());
        match &error {
            AppendError::Invalid(error) => error.clone().into(),
            AppendError::UnexpectedOffset { actual, .. } => with("UNEXPECTED_OFFSET").at(actual.0),
            AppendError::Fenced { .. } => with("FENCED"),
            AppendError::OutOfOrderSequence { .. } => with("OUT_OF_ORDER_SEQUENCE"),
            AppendError::ProducerFenced { .. } => with("PRODUCER_FENCED"),
            AppendError::DuplicateSequence { .. } => with("DUPLICATE_SEQUENCE"),
            AppendError::Suspended => with("SUSPENDED"),
            AppendError::NoSpace => with("STORAGE_FULL"),
            AppendError::Closed => with("SHUTTING_DOWN"),
            _ => with("INTERNAL"),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let message = error.to_string();
        match &error {
            ReadError::OutOfRange { requested, log } => out_of_range(message, requested.0, *log),
            ReadError::Corrupt { offsets, .. } => {
                let mut failure = Failure::new("CORRUPT", message).at(offsets.end.0);
                failure.next_offset = Some(offsets.end.0);
                failure
            }
            ReadError::Storage(error) => (&**error).into(),
            ReadError::Closed => Failure::new("SHUTTING_DOWN", message),
            _ => Failure::new("INTERNAL", message),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        let message = error.to_string();
        match error {
            LogError::OutOfRange { requested, log } => out_of_range(message, requested.0, log),
            LogError::Read(error) => error.into(),
            LogError::Storage(error) => (&*error).into(),
            LogError::Closed => Failure::new("SHUTTING_DOWN", message),
            _ => Failure::new("INTERNAL", message),
        }
    }
}

impl From<&StorageError> for Failure {
    fn from(error: &StorageError) -> Failure {
        let reason = match error {
            StorageError::NoSpace { .. } => "STORAGE_FULL",
            StorageError::Damaged { .. } => "CORRUPT",
            _ => "INTERNAL",
        };
        Failure::new(reason, error.to_string())
    }
}

/// Names the end of the log that is nearer.
fn out_of_range(message: String, requested: i64, log: OffsetRange) -> Failure {
    let nearest = if requested < log.start.0 {
        log.start
    } else {
        log.end
    };
    Failure::new("OFFSET_OUT_OF_RANGE", message).at(nearest.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [&str; 15] = [
        "INVALID_REQUEST",
        "INVALID_RECORD_BATCH",
        "BATCH_TOO_LARGE",
        "DUPLICATE_SEQUENCE",
        "OFFSET_OUT_OF_RANGE",
        "UNEXPECTED_OFFSET",
        "FENCED",
        "PRODUCER_FENCED",
        "OUT_OF_ORDER_SEQUENCE",
        "SUSPENDED",
        "STORAGE_FULL",
        "OVERLOADED",
        "CORRUPT",
        "INTERNAL",
        "SHUTTING_DOWN",
    ];

    #[test]
    fn codes_agree_with_the_table_in_the_protocol() {
        let table = include_str!("../../../proto/comlog/v1/common.proto");
        for reason in REASONS {
            let row = table
                .lines()
                .filter(|line| line.starts_with("// | "))
                .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
                .find(|cells| cells[1] == reason);
            let row = row.unwrap_or_else(|| panic!("{reason} has no row"));
            assert_eq!(Failure::new(reason, "").code(), row[2], "{reason}");
        }
    }
}
