//! What every call passes on its way in and out: its bytes are counted.
//!
//! The bytes of requests and answers are taken from the budgets by the [bodies](crate::body)
//! around tonic. What requests take once they are decoded is charged before they are: a repeated
//! field of two bytes an element takes a hundred in memory. That is charged from then until the
//! call is answered.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use tonic::Status;

use super::by_size::{MESSAGE_BYTES_MAX, appends};
use super::refusals;
use crate::body::{AnswerBody, Bounds, RequestBody};
use crate::broker::Shared;
use crate::budget::{ANSWERS, Budgets, Charge, ConnectionBudget, DECODING, Permit, REQUESTS};

/// The calls that take a stream of messages.
const STREAMS: [&str; 2] = ["/AppendStream", "/ServerReflectionInfo"];

/// What a call has taken from the budgets; in the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// By the message handed to the handler last, until the handler claims it.
    pub(crate) request: Arc<Charge>,
    /// By the messages that the handler has given out, until their bytes are made.
    pub(crate) answer: Arc<Charge>,
}

impl Call {
    /// Of a request that comes through a connection, or from within the process.
    pub(crate) fn new(shared: &Shared, connection: Option<&ConnectionBudget>) -> Call {
        let requests = connection.map(|connection| connection.requests.clone());
        let requests = Budgets::new(requests, shared.request_budget.clone(), &REQUESTS);
        let answers = connection.map(|connection| connection.answers.clone());
        let answers = Budgets::new(answers, shared.answer_budget.clone(), &ANSWERS);
        Call {
            request: Charge::new(requests),
            answer: Charge::new(answers),
        }
    }
}

tokio::task_local! {
    /// What decoding has taken for the call under way.
    static DECODED: Mutex<Permit>;
}

/// Counts the bytes of one call, and explains how it was refused if it was.
pub(crate) async fn call(shared: Arc<Shared>, mut request: Request, next: Next) -> Response {
    comlog_proto::charge_requests(charge);
    let connection = request.extensions_mut().remove::<ConnectionBudget>();
    let decoded = decoded(&shared, connection.as_ref());
    let call = Call::new(&shared, connection.as_ref());
    let bounds = bounds(&shared, request.uri().path());
    let (charge, answer) = (call.request.clone(), call.answer.clone());
    request.extensions_mut().insert(call);
    let uri = request.uri().clone();
    let request = request.map(|body| Body::new(RequestBody::new(body, bounds, charge)));
    let response = DECODED.scope(decoded, next.run(request)).await;
    let response = refusals::explain_response(uri.path(), response);
    response.map(|body| Body::new(AnswerBody::new(body, answer)))
}

fn bounds(shared: &Shared, path: &str) -> Bounds {
    let config = &shared.config.append;
    Bounds {
        message_bytes_max: if appends(path) {
            config.request_bytes_max as usize
        } else {
            MESSAGE_BYTES_MAX
        },
        timeout: Duration::from_millis(config.request_timeout_ms),
        is_stream: STREAMS.iter().any(|name| path.ends_with(name)),
    }
}

fn decoded(shared: &Shared, connection: Option<&ConnectionBudget>) -> Mutex<Permit> {
    let connection = connection.map(|connection| connection.decoding.clone());
    let budgets = Budgets::new(connection, shared.decoding_budget.clone(), &DECODING);
    Mutex::new(Permit::none(budgets))
}

/// Charges the call under way for what decoding adds. The messages of a stream that is read after
/// its call has begun to be answered hold no repeated field, and are not charged here.
fn charge(bytes: u64) -> Result<(), Status> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let charged = DECODED.try_with(|permit| Ok(permit.lock().try_grow(bytes)?));
    charged.unwrap_or(Ok(()))
}
