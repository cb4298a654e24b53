//! Gives messages that are too large to be decoded the reason that every error carries.
//!
//! tonic refuses them before a handler is called, as OUT_OF_RANGE and without a detail; clients
//! would take that for an offset outside a log.

use axum::response::Response;
use comlog_proto::v1::Reason;
use http::HeaderMap;
use tonic::{Code, Status};

use crate::status::ServiceError;

/// Explains the answer to a unary call.
pub(crate) async fn explain_response(response: Response) -> Response {
    match explanation(response.headers()) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn explanation(headers: &HeaderMap) -> Option<Status> {
    // Of a call that failed before it began to answer, the status stands in the headers.
    headers.get(Status::GRPC_STATUS)?;
    let status = Status::from_header_map(headers)?;
    is_unexplained(&status).then(|| explain(status))
}

/// Explains the error of a streaming call.
pub(crate) fn explain(status: Status) -> Status {
    if is_unexplained(&status) {
        let message = format!("{} (append.request_bytes_max)", status.message());
        ServiceError::new(Reason::BatchTooLarge, message).into()
    } else {
        status
    }
}

/// Every error of ours has details.
fn is_unexplained(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.details().is_empty()
}
