//! Gives what is refused before a handler is called the reason that every error carries.
//!
//! tonic and the codec refuse messages that are too large, malformed or beyond a bound, and their
//! status has no detail: clients would take the first for an offset outside a log, the second for
//! a defect.

use axum::response::Response;
use comlog_proto::v1::Reason;
use http::HeaderMap;
use tonic::{Code, Status};

use super::by_size::{MESSAGE_BYTES_MAX, appends};
use crate::status::ServiceError;

/// Explains the answer to a unary call of the method at `path`.
pub(crate) fn explain_response(path: &str, response: Response) -> Response {
    match explanation(path, response.headers()) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn explanation(path: &str, headers: &HeaderMap) -> Option<Status> {
    // Of a call that failed before it began to answer, the status stands in the headers.
    headers.get(Status::GRPC_STATUS)?;
    let status = Status::from_header_map(headers)?;
    let bound = if appends(path) {
        "append.request_bytes_max".to_owned()
    } else {
        format!("at most {MESSAGE_BYTES_MAX} bytes, where nothing is appended")
    };
    let error = explanation_of(&status, &bound)?;
    Some(error.into())
}

/// Explains the error of a stream of appends.
pub(crate) fn explain(status: Status) -> Status {
    match explanation_of(&status, "append.request_bytes_max") {
        Some(error) => error.into(),
        None => status,
    }
}

/// Every error of ours has details; those without are tonic's or the codec's.
fn explanation_of(status: &Status, bound: &str) -> Option<ServiceError> {
    if !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    match status.code() {
        Code::OutOfRange => Some(ServiceError::new(
            Reason::BatchTooLarge,
            format!("{message} ({bound})"),
        )),
        // What is no message, or stands in no frame of one.
        Code::InvalidArgument | Code::Internal => Some(ServiceError::invalid(message)),
        Code::ResourceExhausted => Some(ServiceError::overloaded(message)),
        _ => None,
    }
}
