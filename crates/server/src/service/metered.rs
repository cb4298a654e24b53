//! What requests take once they are decoded is charged before they are.
//!
//! A repeated field of two bytes an element takes a hundred in memory. The bytes that arrived are
//! charged elsewhere; here it is what decoding adds, from then until the call is answered.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use tonic::Status;

use super::refusals;
use crate::broker::Shared;
use crate::budget::{Budget, BudgetPermit, ConnectionBudget, take_decoding};

/// The budgets of the call under way, and what it has taken.
struct Meter {
    connection: Option<ConnectionBudget>,
    total: Budget,
    taken: Mutex<Vec<BudgetPermit>>,
}

tokio::task_local! {
    static METER: Meter;
}

/// Runs one call under its meter, and explains how it was refused if it was.
pub(crate) async fn call(shared: Arc<Shared>, request: Request, next: Next) -> Response {
    comlog_proto::charge_requests(charge);
    let meter = Meter {
        connection: request.extensions().get::<ConnectionBudget>().cloned(),
        total: shared.decoding_budget.clone(),
        taken: Mutex::default(),
    };
    let uri = request.uri().clone();
    let response = METER.scope(meter, next.run(request)).await;
    refusals::explain_response(uri.path(), response)
}

/// Charges the call under way. The messages of a stream that is read after its call has begun to
/// be answered hold no repeated field, and are not charged here.
fn charge(bytes: u64) -> Result<(), Status> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let charged = METER.try_with(|meter| {
        let permit = take_decoding(meter.connection.as_ref(), &meter.total, bytes)?;
        meter.taken.lock().push(permit);
        Ok(())
    });
    charged.unwrap_or(Ok(()))
}
