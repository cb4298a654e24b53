//! The bodies of calls, on their way in and out.
//!
//! [`RequestBody`] stands before tonic. It takes the bytes of a request from the budgets as they
//! arrive, hands a message on only once it is whole (tonic would allocate what its first five bytes
//! declare), and ends a request that is not complete in time. A unary call over a budget is refused;
//! a stream of appends waits, and what the client sends meanwhile waits in its HTTP/2 window. A
//! message that has begun waits no longer than it may take as a whole, so that two that wait for
//! each other both end.
//!
//! [`AnswerBody`] stands behind tonic and ties what an answer took from the budgets to its bytes,
//! so that it is given back when the last of them went to the socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::budget::{Charge, Permit};
use crate::status::ServiceError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A flag and the length.
const PREFIX_BYTES: usize = 5;
/// Pieces of a message below this are copied together: each would keep the whole buffer alive that
/// it was read into.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// Copied pieces are kept in buffers of about this size.
const COPIED_BYTES: usize = 64 << 10;

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Longer messages go to tonic as they come, which refuses them by their first bytes.
    pub(crate) message_bytes_max: usize,
    /// From the first byte of a message to its last; for a unary call from its beginning to its end.
    pub(crate) timeout: Duration,
    /// Whether the request is a stream of messages.
    pub(crate) is_stream: bool,
}

/// A request whose bytes are counted, and whose messages come whole.
pub(crate) struct RequestBody {
    body: Body,
    bounds: Bounds,
    /// Where the bytes of a whole message go for its handler to claim.
    charge: Arc<Charge>,
    /// What the messages took that are not handed on yet.
    taken: Permit,
    /// Arrived, but not yet taken from the budgets.
    arrived: Bytes,
    room: Option<BoxFuture<'static, ()>>,
    messages: Messages,
    /// When the message (of a unary call, the call) began that is not complete.
    begun: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(crate) fn new(body: Body, bounds: Bounds, charge: Arc<Charge>) -> RequestBody {
        let messages = Messages {
            bytes_max: bounds.message_bytes_max,
            ..Messages::default()
        };
        RequestBody {
            body,
            bounds,
            taken: Permit::none(charge.budgets().clone()),
            charge,
            arrived: Bytes::new(),
            room: None,
            messages,
            begun: (!bounds.is_stream).then(Instant::now),
            timer: None,
        }
    }

    /// The next piece of a whole message, if there is one.
    fn next_piece(&mut self) -> Option<Bytes> {
        let (piece, whole) = self.messages.next()?;
        if whole > 0 {
            self.charge.put(self.taken.split(whole));
        }
        if self.bounds.is_stream {
            self.begun = self.messages.has_begun().then(Instant::now);
        }
        Some(piece)
    }

    /// Takes from the budgets what has arrived.
    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        loop {
            if let Some(room) = &mut self.room {
                std::task::ready!(room.as_mut().poll(context));
                self.room = None;
            }
            match self.taken.try_grow(self.arrived.len()) {
                Ok(()) => {
                    self.begun = self.begun.or_else(|| Some(Instant::now()));
                    self.messages.push(std::mem::take(&mut self.arrived));
                    return Poll::Ready(Ok(()));
                }
                Err(error) if !self.bounds.is_stream => return Poll::Ready(Err(error)),
                Err(_) => {
                    let budgets = self.taken.budgets().clone();
                    self.room = Some(Box::pin(async move { budgets.freed().await }));
                }
            }
        }
    }

    /// Nothing has come: is it too late?
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(begun) = self.begun else {
            return Poll::Pending;
        };
        let deadline = begun + self.bounds.timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(self.late());
            }
            // It was set for an earlier message.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn late(&self) -> Status {
        if self.room.is_some() {
            let message = "the bytes of a message found no room in time (append.inflight_bytes_max, append.request_timeout_ms); back off and retry";
            return ServiceError::overloaded(message).into();
        }
        let message = "the request was not complete in time (append.request_timeout_ms)";
        Status::deadline_exceeded(message)
    }

    fn poll_pending(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let late = self.poll_late(context);
        late.map(|status| Some(Err(status.into())))
    }

    /// # Errors
    /// The body ended inside a message.
    fn check_end(&self) -> Result<(), Status> {
        if self.messages.is_partial() {
            return Err(ServiceError::invalid("the request ends inside a message").into());
        }
        Ok(())
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.next_piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if !this.arrived.is_empty() {
                match this.poll_take(context) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Some(Err(Status::from(error).into())));
                    }
                    Poll::Pending => return this.poll_pending(context),
                }
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return this.poll_pending(context),
                Poll::Ready(None) => {
                    let ended = this.check_end().err();
                    this.messages.clear();
                    return Poll::Ready(ended.map(|status| Err(status.into())));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) => this.arrived = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_empty() && self.arrived.is_empty() && self.body.is_end_stream()
    }
}

/// Cuts what arrives into whole messages, without copying large pieces.
#[derive(Debug, Default)]
struct Messages {
    bytes_max: usize,
    /// Behind the message that is being put together.
    rest: Bytes,
    /// Of the message that is being put together, copied ones last.
    pieces: VecDeque<Bytes>,
    copied: BytesMut,
    /// Of those pieces.
    have: usize,
    /// With its prefix, as declared; 0 between messages.
    need: usize,
    /// The message is whole: its pieces are being handed on.
    is_whole: bool,
    /// A message above the bound has begun: everything goes on as it comes.
    passing: bool,
}

impl Messages {
    /// Adds what arrived, once there is no whole message left.
    fn push(&mut self, data: Bytes) {
        self.rest = if self.rest.is_empty() {
            data
        } else {
            // The beginning of a prefix.
            [&self.rest[..], &data[..]].concat().into()
        };
    }

    /// The next piece of a whole message; with its last piece the bytes of all of it, else 0.
    fn next(&mut self) -> Option<(Bytes, usize)> {
        if self.is_whole {
            return self.next_of_whole();
        }
        if self.passing {
            let rest = std::mem::take(&mut self.rest);
            let len = rest.len();
            return (len > 0).then_some((rest, len));
        }
        if self.need == 0 {
            self.need = self.declared()?;
            if self.passing {
                self.need = 0;
                return self.next();
            }
            if self.rest.len() >= self.need {
                let need = std::mem::take(&mut self.need);
                return Some((self.rest.split_to(need), need));
            }
        }
        self.gather();
        self.is_whole.then(|| self.next_of_whole())?
    }

    /// The bytes of the message that `rest` begins with.
    fn declared(&mut self) -> Option<usize> {
        let mut prefix = self.rest.get(..PREFIX_BYTES)?;
        prefix.advance(1);
        let len = prefix.get_u32() as usize;
        self.passing = len > self.bytes_max;
        Some(PREFIX_BYTES + len)
    }

    fn gather(&mut self) {
        let piece = self
            .rest
            .split_to(self.rest.len().min(self.need - self.have));
        self.have += piece.len();
        if piece.len() < PIECE_BYTES_MIN {
            self.copied.extend_from_slice(&piece);
        }
        self.is_whole = self.have == self.need;
        let is_large = piece.len() >= PIECE_BYTES_MIN;
        if is_large || self.is_whole || self.copied.len() >= COPIED_BYTES {
            let copied = self.copied.split().freeze();
            self.pieces.extend((!copied.is_empty()).then_some(copied));
        }
        self.pieces.extend(is_large.then_some(piece));
    }

    fn next_of_whole(&mut self) -> Option<(Bytes, usize)> {
        let piece = self.pieces.pop_front()?;
        if !self.pieces.is_empty() {
            return Some((piece, 0));
        }
        self.is_whole = false;
        self.have = 0;
        Some((piece, std::mem::take(&mut self.need)))
    }

    /// Whether there is something of a message that is not whole.
    fn is_partial(&self) -> bool {
        self.need > 0 || (!self.passing && !self.rest.is_empty())
    }

    fn has_begun(&self) -> bool {
        self.need > 0 || !self.rest.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.has_begun()
    }

    fn clear(&mut self) {
        *self = Messages {
            bytes_max: self.bytes_max,
            ..Messages::default()
        };
    }
}

/// An answer whose bytes hold what it took from the budgets until they are sent.
pub(crate) struct AnswerBody {
    body: Body,
    charge: Arc<Charge>,
}

impl AnswerBody {
    pub(crate) fn new(body: Body, charge: Arc<Charge>) -> AnswerBody {
        AnswerBody { body, charge }
    }
}

/// Bytes, and what they took.
struct Charged {
    data: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

fn charged(data: Bytes, charge: &Charge) -> Bytes {
    let permit = charge.claim();
    if permit.bytes() == 0 {
        return data;
    }
    Bytes::from_owner(Charged {
        data,
        _permit: permit,
    })
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_ok(|frame| frame.map_data(|data| charged(data, &self.charge)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_be_bytes());
        bytes.extend((0..len).map(|index| index as u8));
        bytes
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let lens = [0, 1, 7, 20_000, 3, 70_000, 0, 40_000];
        let all: Vec<u8> = lens.iter().flat_map(|&len| message(len)).collect();
        for step in [1, 2, 5, 6, 999, 16_384, 65_536, all.len()] {
            let mut messages = Messages {
                bytes_max: 100_000,
                ..Messages::default()
            };
            let (mut found, mut pieces) = (Vec::new(), Vec::new());
            for cut in all.chunks(step) {
                messages.push(Bytes::copy_from_slice(cut));
                while let Some((piece, whole)) = messages.next() {
                    pieces.extend_from_slice(&piece);
                    if whole > 0 {
                        assert_eq!(pieces.len(), whole);
                        found.push(std::mem::take(&mut pieces));
                    }
                }
                assert!(pieces.is_empty(), "a part of a message came out");
            }
            let expected: Vec<Vec<u8>> = lens.iter().map(|&len| message(len)).collect();
            assert!(found == expected, "cut every {step} bytes");
            assert!(!messages.is_partial() && messages.is_empty());
        }
    }

    #[test]
    fn a_message_above_the_bound_goes_on_as_it_comes() {
        let mut messages = Messages {
            bytes_max: 10,
            ..Messages::default()
        };
        messages.push(message(11).into());
        assert_eq!(messages.next().map(|(_, len)| len), Some(16));
        assert!(messages.next().is_none() && !messages.is_partial());
    }
}
