//! What goes wrong, and what a caller can do about it.

use std::sync::Arc;

use comlog_proto::v1::{self, Reason};
use comlog_record::{DecodeError, EncodeError, Offset, OffsetRange};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The result of a client operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Domain of the machine-readable detail that the server's errors carry.
const ERROR_DOMAIN: &str = "comlog.v1";

/// Why an operation failed. Cloning is cheap: one failure may concern many records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused.
    #[error(transparent)]
    Server(Arc<ServerError>),
    /// No connection, or it broke; retries within their time did not help.
    #[error("cannot reach {server}: {message}")]
    Unavailable {
        /// The URL.
        server: Arc<str>,
        /// Whether somebody listens there: it was the connection that failed, then or later, not
        /// the attempt to make one.
        connected: bool,
        /// What the transport said.
        message: Arc<str>,
    },
    /// No answer in time. Whether the server did the work is not known.
    #[error("no answer within the time allowed: {0}")]
    Timeout(Arc<str>),
    /// The records were not acknowledged within the delivery timeout; whether they are in the
    /// log is not known. Holds the last failure, if there was one.
    #[error("not acknowledged within the delivery timeout{}", because(.0.as_deref()))]
    DeliveryTimeout(Option<Box<Error>>),
    /// The producer's buffer is full.
    #[error("the producer's buffer of {buffer_bytes_max} bytes is full")]
    BufferFull {
        /// The bound.
        buffer_bytes_max: usize,
    },
    /// How many partitions the topic has is not known yet: prepare the topic, or name a partition.
    #[error("the partitions of topic {0:?} are not known yet")]
    TopicNotPrepared(Arc<str>),
    /// A record that cannot be encoded, for instance because it is too large.
    #[error("cannot encode the record: {0}")]
    Encode(#[from] EncodeError),
    /// Bytes that were read are damaged. Reading can go on at `offsets.end`.
    #[error("offsets {offsets} of {topic:?} {partition} are damaged: {reason}")]
    Corrupt {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// What cannot be read: seek to its end to go on behind it.
        offsets: OffsetRange,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// A record larger than [`Limits::record_bytes_max`](crate::record::Limits) of the consumer, in
    /// a batch that unpacks to more than can be held at once. Reading can go on behind it.
    #[error(
        "the record at offset {offset} of {topic:?} {partition} unpacks to {bytes} bytes, more than are taken"
    )]
    RecordTooLarge {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Where it stands: seek behind it to go on.
        offset: Offset,
        /// Its bytes, unpacked.
        bytes: u64,
    },
    /// The server's answer contradicts the request or itself: a defect there, or it is no comlog.
    /// Nothing was taken from it; whether it did what was asked is not known.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(Arc<str>),
    /// An offset that the log does not hold.
    #[error("offset {offset} of {topic:?} {partition} is out of range: {message}")]
    OutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: Offset,
        /// What the server said.
        message: Arc<str>,
    },
    /// No group is set, or nothing is assigned.
    #[error("{0}")]
    InvalidState(&'static str),
    /// An option or argument is wrong.
    #[error("invalid configuration: {0}")]
    Config(Arc<str>),
    /// The producer or consumer is closed.
    #[error("closed")]
    Closed,
    /// The producer was dropped before the record was acknowledged: whether it is in the log is
    /// not known.
    #[error("the producer was dropped before the record was acknowledged")]
    Abandoned,
}

/// A refusal, as the server put it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// The canonical gRPC code.
    pub code: Code,
    /// What to decide by; [`Reason::Unspecified`] when the server (or a proxy) gave none.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Where it applies, if anywhere.
    pub topic: Option<String>,
    /// Where it applies, if anywhere.
    pub partition: Option<u32>,
    /// The offset the reason speaks of, see `Error.offset` in the protocol.
    pub offset: Option<Offset>,
}

/// What an [`Error`] means to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Try again later: the server is away, restarts or has too much to do.
    Retry,
    /// No such topic, partition, group or tail.
    NotFound,
    /// The name or batch is there already.
    AlreadyExists,
    /// The offset is not in the log: seek.
    OutOfRange,
    /// Another writer was faster or took over, or the log ends elsewhere: decide anew.
    Conflict,
    /// Damaged bytes: reading can go on behind them.
    Corrupt,
    /// The request or an option is wrong: trying again does not help.
    Invalid,
    /// Closed or dropped.
    Closed,
    /// A defect, on either side, or a disk that failed.
    Internal,
}

impl Error {
    /// What the error means to the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Server(error) => error.kind(),
            Error::Unavailable { .. }
            | Error::Timeout(_)
            | Error::DeliveryTimeout(_)
            | Error::BufferFull { .. }
            | Error::TopicNotPrepared(_) => ErrorKind::Retry,
            Error::Encode(_)
            | Error::InvalidState(_)
            | Error::Config(_)
            | Error::RecordTooLarge { .. } => ErrorKind::Invalid,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::OutOfRange { .. } => ErrorKind::OutOfRange,
            Error::Closed | Error::Abandoned => ErrorKind::Closed,
            Error::Protocol(_) => ErrorKind::Internal,
        }
    }

    /// The server's answer, when that is what failed.
    #[must_use]
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Error::Server(error) => Some(error),
            Error::DeliveryTimeout(Some(error)) => error.server_error(),
            _ => None,
        }
    }

    /// The server's reason; [`Reason::Unspecified`] for every other error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.server_error()
            .map_or(Reason::Unspecified, |error| error.reason)
    }

    /// From the status of a call to `server`.
    pub(crate) fn from_status(status: &Status, server: &Arc<str>) -> Error {
        let error = ServerError::from_status(status);
        if error.reason != Reason::Unspecified {
            return Error::Server(Arc::new(error));
        }
        let message = || Arc::from(describe(status, server));
        match status.code() {
            // The server names a reason: these come from the transport, on either side.
            Code::Unavailable | Code::Unknown | Code::Internal => Error::Unavailable {
                server: server.clone(),
                connected: !is_unconnected(status),
                message: message(),
            },
            Code::Cancelled | Code::DeadlineExceeded => Error::Timeout(message()),
            _ => Error::Server(Arc::new(error)),
        }
    }

    pub(crate) fn from_message(error: v1::Error) -> Error {
        Error::Server(Arc::new(ServerError::from_message(error)))
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Error {
        Error::Protocol(Arc::from(message.into()))
    }

    pub(crate) fn config(message: impl Into<String>) -> Error {
        Error::Config(Arc::from(message.into()))
    }

    pub(crate) fn corrupt(
        topic: &Arc<str>,
        partition: u32,
        offsets: OffsetRange,
        reason: &DecodeError,
    ) -> Error {
        Error::Corrupt {
            topic: topic.clone(),
            partition,
            offsets,
            reason: Arc::from(reason.to_string()),
        }
    }
}

impl ServerError {
    /// What the error means to the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied => {
                ErrorKind::Invalid
            }
            Code::Unauthenticated => ErrorKind::Invalid,
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::AlreadyExists,
            Code::OutOfRange => ErrorKind::OutOfRange,
            Code::FailedPrecondition => ErrorKind::Conflict,
            Code::DataLoss => ErrorKind::Corrupt,
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled => ErrorKind::Retry,
            Code::Internal | Code::Unknown | Code::Ok => ErrorKind::Internal,
        }
    }

    fn from_status(status: &Status) -> ServerError {
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        let metadata = |key: &str| info.as_ref().and_then(|info| info.metadata.get(key));
        let reason = info
            .as_ref()
            .and_then(|info| Reason::from_str_name(&format!("REASON_{}", info.reason)));
        ServerError {
            code: status.code(),
            reason: reason.unwrap_or(Reason::Unspecified),
            message: status.message().to_owned(),
            topic: metadata("topic").cloned(),
            partition: metadata("partition").and_then(|value| value.parse().ok()),
            offset: metadata("offset").and_then(|value| value.parse().ok().map(Offset)),
        }
    }

    fn from_message(mut error: v1::Error) -> ServerError {
        let code = Code::from_i32(error.code);
        if error.message.is_empty() {
            error.message = format!("the server gave no reason: {}", code.description());
        }
        ServerError {
            code,
            reason: error.reason(),
            topic: Some(error.topic).filter(|topic| !topic.is_empty()),
            partition: error.partition,
            offset: error.offset.map(Offset),
            message: error.message,
        }
    }
}

/// The status and what lies beneath it, each thing once: tonic's own layer only says
/// "transport error", and layers quote each other.
fn describe(status: &Status, server: &str) -> String {
    let mut message = status.message().to_owned();
    for error in causes(status) {
        let text = error.to_string();
        if !message.contains(&text) && text != "transport error" {
            message = format!("{message}: {text}");
        }
    }
    match advice(&message, server, is_unconnected(status)) {
        Some(advice) => format!("{message}; {advice}"),
        None => message,
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source())
}

/// Whether no connection came about at all.
fn is_unconnected(status: &Status) -> bool {
    let text = |error: &(dyn std::error::Error + 'static)| error.to_string();
    causes(status).map(text).any(|text| {
        ["tcp connect error", "dns error", "tcp open error"]
            .iter()
            .any(|what| text.contains(what))
    })
}

/// What helps when both sides do not agree on TLS.
fn advice(message: &str, server: &str, unconnected: bool) -> Option<&'static str> {
    if message.contains("CaUsedAsEndEntity") {
        return Some(
            "the server's certificate is one of an authority; make one for a server, with \
             `openssl req -x509 -addext basicConstraints=critical,CA:FALSE`",
        );
    }
    if message.contains("UnknownIssuer") {
        return Some(
            "the authority that signed its certificate is not trusted; name its certificate",
        );
    }
    let encrypted = server.starts_with("https:");
    if encrypted && (message.contains("InvalidContentType") || message.contains("corrupt message"))
    {
        return Some("it speaks no TLS there: http:// may be right");
    }
    let ends = [
        "connection closed",
        "http2 error",
        "broken pipe",
        "reset by peer",
    ];
    let at_once = ends.iter().any(|end| message.contains(end));
    (!encrypted && !unconnected && at_once).then_some("if it speaks TLS there, https:// is right")
}

fn because(error: Option<&Error>) -> String {
    error.map_or_else(String::new, |error| format!(": {error}"))
}
