//! Tail, UpdateTail.

use std::sync::Arc;

use comlog_proto::v1::{self, tail_response::Kind};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{BoxStream, Ending, with_ending};
use crate::broker::Shared;
use crate::budget::Charge;
use crate::status::ServiceError;
use crate::tail::Tail;

pub(crate) async fn tail(
    shared: Arc<Shared>,
    answer: Arc<Charge>,
    request: v1::TailRequest,
) -> Result<BoxStream<v1::TailResponse>, ServiceError> {
    shared.check_open()?;
    let tail = Tail::new(shared.clone(), request).await?;
    let (registered, updates) = shared.tails.register()?;
    let opened = v1::TailResponse {
        kind: Some(Kind::Opened(v1::TailOpened {
            tail_id: registered.id.clone(),
            positions: tail.positions(),
        })),
    };
    let (sender, messages) = mpsc::channel(shared.config.fetch.tail_messages_max as usize);
    let ending = Ending::default();
    let budgets = answer.budgets().clone();
    let set_ending = ending.clone();
    shared.tasks.spawn(async move {
        // One more sender lives until the ending is set, so the reader cannot miss it.
        let _last_sender = sender.clone();
        if let Err(error) = tail.run(registered, updates, sender, budgets).await {
            // Nobody else sets it.
            drop(set_ending.set(error.into()));
        }
    });
    let opened = futures_util::stream::iter([opened]);
    let messages = ReceiverStream::new(messages).map(move |(message, permit)| {
        answer.put(permit);
        message
    });
    Ok(with_ending(opened.chain(messages), ending))
}

pub(crate) async fn update_tail(
    shared: &Shared,
    request: v1::UpdateTailRequest,
) -> Result<v1::UpdateTailResponse, ServiceError> {
    shared.check_open()?;
    let positions = shared
        .tails
        .update(&request.tail_id, request.changes)
        .await?;
    Ok(v1::UpdateTailResponse { positions })
}
