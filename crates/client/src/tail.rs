//! The consumer's calls, each in a task of its own, so that a poll that gives up waiting does not
//! undo them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use comlog_proto::v1;
use comlog_proto::v1::tail_response::Kind;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::{Client, Error, Result};

/// A running tail.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) id: String,
    pub(crate) stream: Streaming<v1::TailResponse>,
    pub(crate) positions: Vec<v1::TailPosition>,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) enum Done {
    /// The tail of this number was opened.
    Opened(usize, Result<Box<Tail>>),
    /// The tail of this number was told; where it stands now.
    Updated(usize, Result<Vec<v1::TailPosition>>),
    /// What the group has committed.
    Committed(Result<Vec<v1::CommittedOffset>>),
    /// How many partitions each subscribed topic has.
    Described(Vec<(Arc<str>, Result<u32>)>),
    /// The runtime has ended.
    Ended,
}

/// A call under way; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Work(JoinHandle<Done>);

impl Work {
    fn spawn(call: impl Future<Output = Done> + Send + 'static) -> Work {
        Work(tokio::spawn(call))
    }

    pub(crate) fn open(
        client: Client,
        number: usize,
        channel: Channel,
        request: v1::TailRequest,
    ) -> Work {
        Work::spawn(async move {
            let opened = open_tail(&client, channel, request).await;
            Done::Opened(number, opened.map(Box::new))
        })
    }

    /// Not over the tail's own connection: that is full of what is not read yet.
    pub(crate) fn update(client: Client, number: usize, request: v1::UpdateTailRequest) -> Work {
        Work::spawn(async move {
            let mut logs = client.logs();
            let call = async |request| logs.update_tail(request).await;
            let updated = client.call_once(request, call).await;
            Done::Updated(number, updated.map(|updated| updated.positions))
        })
    }

    pub(crate) fn committed(
        client: Client,
        group: String,
        partitions: Vec<v1::TopicPartition>,
    ) -> Work {
        Work::spawn(async move {
            let committed = client.committed_offsets(&group, partitions).await;
            Done::Committed(match committed {
                Err(error) if error.reason() == v1::Reason::GroupNotFound => Ok(Vec::new()),
                committed => committed,
            })
        })
    }

    pub(crate) fn describe(client: Client, topics: Vec<Arc<str>>) -> Work {
        Work::spawn(async move {
            let mut described = Vec::with_capacity(topics.len());
            for topic in topics {
                let found = client.describe_topic(&topic).await;
                let partitions = found.map(|found| found.topic.unwrap_or_default().partitions);
                described.push((topic, partitions));
            }
            Done::Described(described)
        })
    }
}

impl Future for Work {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let done = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        // The task is never aborted while it is waited for, so this is the runtime's end.
        Poll::Ready(done.unwrap_or(Done::Ended))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open_tail(client: &Client, channel: Channel, request: v1::TailRequest) -> Result<Tail> {
    let open = |request| {
        let mut logs = client.logs_over(channel);
        async move {
            let mut stream = logs.tail(request).await?.into_inner();
            let first = stream.message().await?;
            Ok(tonic::Response::new((stream, first)))
        }
    };
    let (stream, first) = client.call_once(request, open).await?;
    match first.and_then(|first| first.kind) {
        Some(Kind::Opened(opened)) => Ok(Tail {
            id: opened.tail_id,
            stream,
            positions: opened.positions,
        }),
        _ => Err(Error::Unavailable {
            connected: true,
            server: client.config().server.clone(),
            message: Arc::from("the tail ended before it began"),
        }),
    }
}
