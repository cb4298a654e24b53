//! The producer's public face: takes records, hands out deliveries.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comlog_record::{HeaderRef, Timestamp};
use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use crate::accumulator::{Accumulator, Pushed, RecordParts};
use crate::routes::{self, Described, Routes};
use crate::sender::Sender;
use crate::{Client, Delivered, Delivery, DeliveryCallback, Error, ProducerConfig, Result};

/// Failures kept for a slow reader of [`Producer::errors`]; the oldest go first.
const ERRORS_MAX: usize = 128;

/// A record to produce, borrowed: its bytes are copied once, into the batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; default: by the key as Kafka does, or without a key one that is kept for a
    /// whole batch.
    pub partition: Option<u32>,
    /// What it is partitioned by; absent is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The payload; absent is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [HeaderRef<'a>],
    /// Default: now.
    pub timestamp: Option<Timestamp>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with a value and nothing else.
    #[must_use]
    pub fn new(topic: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            value: Some(value.as_ref()),
            ..ProducerRecord::default()
        }
    }

    /// A record with a key and a value.
    #[must_use]
    pub fn keyed(
        topic: &'a str,
        key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> ProducerRecord<'a> {
        ProducerRecord {
            key: Some(key.as_ref()),
            ..ProducerRecord::new(topic, value)
        }
    }

    /// The same with headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [HeaderRef<'a>]) -> ProducerRecord<'a> {
        self.headers = headers;
        self
    }

    /// The same for this partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> ProducerRecord<'a> {
        self.partition = Some(partition);
        self
    }

    /// The same with this timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> ProducerRecord<'a> {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Records of one batch that were not delivered.
#[derive(Debug, Clone)]
pub struct DeliveryError {
    /// Their topic.
    pub topic: Arc<str>,
    /// Their partition.
    pub partition: u32,
    /// How many.
    pub records: u32,
    /// Why.
    pub error: Error,
}

/// Sends records in batches, in order per partition, each exactly once.
///
/// Cloning is cheap; all clones share one buffer and one task. Order is that of the calls per
/// partition. When the last clone is dropped without [`close`](Producer::close), what is not
/// acknowledged fails with [`Error::Abandoned`].
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    shared: Arc<Shared>,
    delivery_timeout: Duration,
    runtime: Handle,
    task: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the producer's handles and its task share. The lock is never held over anything slow.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// For the task: there is something new.
    pub(crate) wake: Notify,
    /// For callers: batches were finished.
    progress: Notify,
    errors: broadcast::Sender<DeliveryError>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) accumulator: Accumulator,
    pub(crate) routes: Routes,
    closed: bool,
    first_failure: Option<Error>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self, error: DeliveryError) {
        let mut state = self.lock();
        state.first_failure.get_or_insert(error.error.clone());
        drop(state);
        // Nobody may listen.
        drop(self.errors.send(error));
    }

    /// Notes what a topic says of itself; `None` when it does not exist.
    pub(crate) fn learn(&self, topic: &str, described: Option<Described>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let accumulator = &mut state.accumulator;
        state.routes.learn(topic, described, now(), accumulator);
    }

    pub(crate) fn finish(&self, number: u64, bytes: usize) {
        self.lock().accumulator.finish(number, bytes);
        self.progress.notify_waiters();
    }

    /// The sender is gone: what is not acknowledged fails, and nothing more is taken.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        if !state.accumulator.is_finished(u64::MAX) {
            state.first_failure.get_or_insert(Error::Abandoned);
        }
        let gathered = state.accumulator.abandon();
        drop(state);
        // Calls back, so not under the lock.
        drop(gathered);
        self.progress.notify_waiters();
    }

    /// Waits until `done` says so; it is asked again after every finished batch.
    async fn wait_until<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut progress = pin!(self.progress.notified());
            progress.as_mut().enable();
            if let Some(value) = done() {
                return value;
            }
            progress.await;
        }
    }
}

impl Producer {
    /// A producer over `client`, on a connection of its own.
    ///
    /// # Errors
    /// [`Error::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(client: &Client, config: ProducerConfig) -> Result<Producer> {
        config.validate()?;
        let (errors, _) = broadcast::channel(ERRORS_MAX);
        let state = State {
            accumulator: Accumulator::new(config.bounds()),
            routes: Routes::new(config.metadata_age_max),
            closed: false,
            first_failure: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Notify::new(),
            progress: Notify::new(),
            errors,
        });
        let delivery_timeout = config.delivery_timeout;
        let sender = Sender::new(client.clone(), config, shared.clone())?;
        let runtime = Handle::current();
        let inner = Inner {
            client: client.clone(),
            shared,
            delivery_timeout,
            task: runtime.spawn(sender.run()),
            runtime,
        };
        Ok(Producer {
            inner: Arc::new(inner),
        })
    }

    /// Takes a record; the delivery resolves when it is acknowledged. Waits only while the buffer
    /// is full, or the partitions of a new topic are asked for, at most for the delivery timeout.
    ///
    /// Cancel safe: a future that is dropped has not taken the record.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::Closed`], and failures to learn the topic's partitions.
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery> {
        let (pushed, _) = self.push_waiting(&record).await?;
        Ok(Delivery::new(pushed.completion, pushed.index))
    }

    /// Like [`send`](Producer::send), but calls back, on the producer's task, exactly once.
    ///
    /// # Errors
    /// As [`send`](Producer::send); `callback` is then not called.
    pub async fn send_with(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<Delivered>) + Send + 'static,
    ) -> Result<()> {
        let (pushed, _) = self.push_waiting(&record).await?;
        call_back(pushed, Box::new(callback));
        Ok(())
    }

    /// Takes a record without ever waiting.
    ///
    /// # Errors
    /// [`Error::BufferFull`]; [`Error::TopicNotPrepared`] for a topic that was not
    /// [prepared](Producer::prepare), unless the record names its partition;
    /// [`Error::Encode`], [`Error::Closed`].
    pub fn try_send(&self, record: ProducerRecord<'_>) -> Result<Delivery> {
        let (pushed, _) = self.push(&record)?;
        Ok(Delivery::new(pushed.completion, pushed.index))
    }

    /// Like [`try_send`](Producer::try_send), but calls back, on the producer's task, exactly once.
    ///
    /// # Errors
    /// As [`try_send`](Producer::try_send); `callback` is then not called.
    pub fn try_send_with(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<Delivered>) + Send + 'static,
    ) -> Result<()> {
        let (pushed, _) = self.push(&record)?;
        call_back(pushed, Box::new(callback));
        Ok(())
    }

    /// Sends a record without linger and waits until it is acknowledged.
    ///
    /// # Errors
    /// As [`send`](Producer::send), and why it was not delivered.
    pub async fn append(&self, record: ProducerRecord<'_>) -> Result<Delivered> {
        let (pushed, queue) = self.push_waiting(&record).await?;
        self.inner.shared.lock().accumulator.hurry(queue);
        self.inner.shared.wake.notify_one();
        Delivery::new(pushed.completion, pushed.index).await
    }

    /// Learns how many partitions a topic has, so that [`try_send`](Producer::try_send) can choose
    /// one. A topic that does not exist counts as one of one partition, since the server may make
    /// it when the first record arrives; it is asked again a second later.
    ///
    /// # Errors
    /// Failures of the call.
    pub async fn prepare(&self, topic: &str) -> Result<()> {
        let described = routes::describe(&self.inner.client, topic).await?;
        self.inner.shared.learn(topic, described);
        Ok(())
    }

    /// From now on every batch for this partition carries the fencing token; `None` ends that.
    ///
    /// # Errors
    /// [`Error::Config`] for a partition number that no topic has.
    pub fn set_fencing_token(&self, topic: &str, partition: u32, token: Option<u64>) -> Result<()> {
        let mut guard = self.inner.shared.lock();
        let state = &mut *guard;
        let queue = state
            .routes
            .queue(topic, partition, &mut state.accumulator)?;
        state.routes.partitions[queue].fencing_token = token;
        Ok(())
    }

    /// From now on records for this partition are appended only if they land at `offset` and then
    /// one behind the other, which needs a single writer; `None` ends that. After a failure with
    /// `UNEXPECTED_OFFSET` all that follow fail too, until this is called again.
    ///
    /// # Errors
    /// [`Error::Config`] for a partition number that no topic has.
    pub fn expect_offset(&self, topic: &str, partition: u32, offset: Option<i64>) -> Result<()> {
        let mut guard = self.inner.shared.lock();
        let state = &mut *guard;
        let queue = state
            .routes
            .queue(topic, partition, &mut state.accumulator)?;
        state.accumulator.seal(queue);
        state.routes.partitions[queue].expected_offset = offset;
        Ok(())
    }

    /// Bytes of records that are not acknowledged.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.inner.shared.lock().accumulator.buffered()
    }

    /// Sends what is gathered and waits until everything taken before the call is acknowledged or
    /// has failed. Cancel safe.
    ///
    /// # Errors
    /// The first failure of a batch since the last flush, whether or not it was noticed elsewhere.
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let through = shared.lock().accumulator.flush();
        shared.wake.notify_one();
        let done = || shared.lock().accumulator.is_finished(through).then_some(());
        shared.wait_until(done).await;
        match shared.lock().first_failure.take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Takes no more records, sends what is gathered and waits as [`flush`](Producer::flush) does.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub async fn close(&self) -> Result<()> {
        self.inner.shared.lock().closed = true;
        // Those who wait for room learn of it.
        self.inner.shared.progress.notify_waiters();
        let flushed = self.flush().await;
        self.inner.task.abort();
        flushed
    }

    /// Batches that fail from now on. A reader that lags loses the oldest.
    pub fn errors(&self) -> impl Stream<Item = DeliveryError> + Send + Unpin + use<> {
        let errors = BroadcastStream::new(self.inner.shared.errors.subscribe());
        errors.filter_map(Result::ok)
    }

    /// A record that is not taken in the time that its delivery may take will not be delivered.
    async fn prepare_in_time(&self, topic: &str) -> Result<()> {
        let timeout = self.inner.delivery_timeout;
        let in_time = tokio::time::timeout(timeout, self.prepare(topic)).await;
        in_time.unwrap_or_else(|_| {
            let message = format!("no description of topic {topic:?} for {timeout:?}");
            let error = Error::Timeout(Arc::from(message));
            Err(Error::DeliveryTimeout(Some(Box::new(error))))
        })
    }

    async fn push_waiting(&self, record: &ProducerRecord<'_>) -> Result<(Pushed, usize)> {
        loop {
            match self.push(record) {
                Err(Error::BufferFull { .. }) => {}
                Err(Error::TopicNotPrepared(topic)) => {
                    self.prepare_in_time(&topic).await?;
                    continue;
                }
                result => return result,
            }
            let room = || match self.push(record) {
                Err(Error::BufferFull { .. }) => None,
                result => Some(result),
            };
            match self.inner.shared.wait_until(room).await {
                Err(Error::TopicNotPrepared(_)) => {}
                result => return result,
            }
        }
    }

    fn push(&self, record: &ProducerRecord<'_>) -> Result<(Pushed, usize)> {
        let parts = RecordParts {
            timestamp: record.timestamp.unwrap_or_else(unix_time),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let mut guard = self.inner.shared.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Error::Closed);
        }
        let accumulator = &mut state.accumulator;
        let (queue, stale) = state.routes.route(record, now, accumulator)?;
        let expected = &mut state.routes.partitions[queue].expected_offset;
        let pushed = accumulator.push(queue, now, *expected, &parts);
        if pushed.is_ok()
            && let Some(expected) = expected
        {
            *expected += 1;
        }
        drop(guard);
        if stale {
            self.refresh(record.topic);
        }
        let pushed = pushed?;
        if pushed.wake {
            self.inner.shared.wake.notify_one();
        }
        Ok((pushed, queue))
    }

    /// Asks again for a topic's partitions; records go on meanwhile.
    fn refresh(&self, topic: &str) {
        let (client, topic) = (self.inner.client.clone(), topic.to_owned());
        let shared = Arc::downgrade(&self.inner.shared);
        self.inner.runtime.spawn(async move {
            let described = match routes::describe(&client, &topic).await {
                Ok(described) => described,
                Err(error) => return tracing::debug!(%error, topic, "cannot refresh the topic"),
            };
            if let Some(shared) = shared.upgrade() {
                shared.learn(&topic, described);
            }
        });
    }
}

fn call_back(pushed: Pushed, callback: DeliveryCallback) {
    pushed.completion.on_complete(pushed.index, callback);
}

fn now() -> Instant {
    // Tokio's, so that paused time works in tests.
    tokio::time::Instant::now().into_std()
}

fn unix_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as i64))
}
