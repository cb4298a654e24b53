//! The running tails of a consumer, each on a connection of its own.

use std::future::poll_fn;
use std::task::Poll;

use comlog_proto::v1;
use futures_util::StreamExt;
use tonic::Status;
use tonic::transport::Channel;

use crate::tail::Tail;
use crate::{Client, Result};

/// What came of a tail, and its number; `None` when it has ended.
pub(crate) type Received = (usize, Result<Option<v1::TailResponse>, Status>);

/// See the module's description. Tails are numbered from 0; most consumers have one.
#[derive(Debug)]
pub(crate) struct Tails {
    client: Client,
    prefetch_bytes: u32,
    slots: Vec<Slot>,
    /// Whose turn it is, so that no tail starves the others.
    turn: usize,
}

#[derive(Debug)]
struct Slot {
    /// One for each, so that what waits unread of one tail does not keep another from opening.
    channel: Channel,
    tail: Option<Tail>,
}

impl Tails {
    /// Tails over `client`, of which each may send `prefetch_bytes` ahead.
    pub(crate) fn new(client: &Client, prefetch_bytes: u32) -> Result<Tails> {
        let mut tails = Tails {
            client: client.clone(),
            prefetch_bytes,
            slots: Vec::new(),
            turn: 0,
        };
        tails.channel(0)?;
        Ok(tails)
    }

    /// The connection of a tail.
    pub(crate) fn channel(&mut self, number: usize) -> Result<Channel> {
        while self.slots.len() <= number {
            let config = self.client.config();
            self.slots.push(Slot {
                channel: config.download_channel(self.prefetch_bytes)?,
                tail: None,
            });
        }
        Ok(self.slots[number].channel.clone())
    }

    /// A tail that runs.
    pub(crate) fn get(&self, number: usize) -> Option<&Tail> {
        self.slots.get(number)?.tail.as_ref()
    }

    pub(crate) fn put(&mut self, number: usize, tail: Tail) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.tail = Some(tail);
        }
    }

    pub(crate) fn drop(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.tail = None;
        }
    }

    /// The next message of any tail; for ever waiting without one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Received {
        poll_fn(|cx| {
            let count = self.slots.len();
            for number in (0..count).map(|index| (self.turn + index) % count) {
                let Some(tail) = &mut self.slots[number].tail else {
                    continue;
                };
                if let Poll::Ready(message) = tail.stream.poll_next_unpin(cx) {
                    self.turn = number + 1;
                    return Poll::Ready((number, message.transpose()));
                }
            }
            Poll::Pending
        })
        .await
    }
}
