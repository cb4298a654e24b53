use comlog_client::v1::append_result;
use comlog_client::v1::start_at::At;
use comlog_client::v1::tail_change::Change;
use comlog_client::v1::tail_response::Kind;
use tokio::sync::oneshot;

use super::*;

/// As the real server has it.
const TAIL_PARTITIONS_MAX: usize = 1_000;

/// A change of a running tail.
pub struct Update {
    changes: Vec<v1::TailChange>,
    answer: oneshot::Sender<Vec<v1::TailPosition>>,
}

#[tonic::async_trait]
impl v1::log_service_server::LogService for Service {
    type AppendStreamStream = BoxStream<v1::AppendStreamResponse>;
    type TailStream = BoxStream<v1::TailResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (answers, outgoing) = mpsc::channel(64);
        let service = self.clone();
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            let lost = answers.clone();
            tokio::select! {
                () = service.take_batches(request.into_inner(), answers) => {}
                _ = stopped.wait_for(|stop| *stop) => {
                    drop(lost.try_send(Err(status(Reason::ShuttingDown, ""))));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn tail(
        &self,
        request: Request<v1::TailRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let request = request.into_inner();
        let mut tail = Tail {
            service: self.clone(),
            followed: Vec::new(),
            generation: 0,
        };
        if request.partitions.len() > TAIL_PARTITIONS_MAX {
            return Err(status(Reason::Overloaded, ""));
        }
        for start in request.partitions {
            tail.follow(&start.topic, start.partition, start.at)?;
        }
        let (updates_in, updates) = mpsc::channel(4);
        let tail_id = {
            let mut world = self.world();
            world.tails_opened += 1;
            let id = format!("tail-{}", world.tails_opened);
            world.tails.insert(id.clone(), updates_in);
            id
        };
        let (messages, outgoing) = mpsc::channel(1);
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            let opened = v1::TailOpened {
                tail_id,
                positions: tail.positions(),
            };
            let opened = tail.service.message(Kind::Opened(opened));
            if messages.send(Ok(opened)).await.is_err() {
                return;
            }
            let lost = messages.clone();
            tokio::select! {
                () = tail.run(updates, messages) => {}
                _ = stopped.wait_for(|stop| *stop) => {
                    drop(lost.try_send(Err(status(Reason::ShuttingDown, ""))));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn update_tail(
        &self,
        request: Request<v1::UpdateTailRequest>,
    ) -> Result<Response<v1::UpdateTailResponse>, Status> {
        let request = request.into_inner();
        let updates = self.world().tails.get(&request.tail_id).cloned();
        let missing = || status(Reason::TailNotFound, "");
        let (answer, answered) = oneshot::channel();
        let update = Update {
            changes: request.changes,
            answer,
        };
        let updates = updates.ok_or_else(missing)?;
        updates.send(update).await.map_err(|_| missing())?;
        let positions = answered.await.map_err(|_| missing())?;
        let mut updated = v1::UpdateTailResponse { positions };
        apply(&mut self.world().twist_update, &mut updated);
        Ok(Response::new(updated))
    }

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world();
        let (producer_id, producer_epoch) = match request.producer_id {
            Some(id) => (id, request.producer_epoch.unwrap_or(0) + 1),
            None => {
                world.next_producer_id += 1;
                (world.next_producer_id, 0)
            }
        };
        let mut given = v1::InitProducerIdResponse {
            producer_id,
            producer_epoch,
        };
        apply(&mut world.twist_identity, &mut given);
        Ok(Response::new(given))
    }

    async fn append(
        &self,
        _: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn append_batches(
        &self,
        _: Request<v1::AppendBatchesRequest>,
    ) -> Result<Response<v1::AppendBatchesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn read(
        &self,
        _: Request<v1::ReadRequest>,
    ) -> Result<Response<v1::ReadResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_offsets(
        &self,
        _: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let offsets = self.world().offsets_found.clone();
        Ok(Response::new(v1::ListOffsetsResponse { offsets }))
    }

    async fn trim(
        &self,
        _: Request<v1::TrimRequest>,
    ) -> Result<Response<v1::TrimResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn sync(
        &self,
        _: Request<v1::SyncRequest>,
    ) -> Result<Response<v1::SyncResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fence(
        &self,
        _: Request<v1::FenceRequest>,
    ) -> Result<Response<v1::FenceResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

impl Service {
    async fn take_batches(
        &self,
        mut incoming: Streaming<v1::AppendStreamRequest>,
        answers: mpsc::Sender<Result<v1::AppendStreamResponse, Status>>,
    ) {
        let mut suspended = HashSet::new();
        while let Ok(Some(request)) = incoming.message().await {
            let lane = (request.topic.clone(), request.partition);
            if request.resume {
                suspended.remove(&lane);
            }
            let (id, fault) = (request.id, self.fault(&request));
            let result = if suspended.contains(&lane) {
                Err(error(Reason::Suspended, None))
            } else if let Fault::Refuse(reason) = fault {
                Err(error(reason, None))
            } else if fault == Fault::LoseBefore {
                drop(answers.send(Err(Status::unavailable("scripted"))).await);
                return;
            } else {
                self.append_batch(request)
            };
            match fault {
                Fault::LoseAfter => {
                    drop(answers.send(Err(Status::unavailable("scripted"))).await);
                    return;
                }
                Fault::Swallow => continue,
                Fault::Delay(delay) => tokio::time::sleep(delay).await,
                _ => {}
            }
            if result.is_err() {
                suspended.insert(lane);
            }
            let result = match result {
                Ok(appended) => append_result::Result::Appended(appended),
                Err(error) => append_result::Result::Error(error),
            };
            let result = Some(v1::AppendResult {
                result: Some(result),
            });
            let mut answer = v1::AppendStreamResponse { id, result };
            apply(&mut self.world().twist_append, &mut answer);
            if answers.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }

    fn message(&self, kind: Kind) -> v1::TailResponse {
        let mut message = v1::TailResponse { kind: Some(kind) };
        apply(&mut self.world().twist_tail, &mut message);
        message
    }

    fn fault(&self, request: &v1::AppendStreamRequest) -> Fault {
        let mut world = self.world();
        world.arrived += 1;
        world
            .script
            .as_mut()
            .map_or(Fault::None, |script| script(request))
    }

    fn append_batch(&self, request: v1::AppendStreamRequest) -> Result<v1::Appended, v1::Error> {
        let mut bytes = request.batch;
        let batch = RecordBatch::decode(&mut bytes, &Limits::DEFAULT)
            .map_err(|_| error(Reason::InvalidRecordBatch, None))?;
        batch
            .header()
            .check_from_client(&Limits::DEFAULT)
            .map_err(|_| error(Reason::InvalidRecordBatch, None))?;
        let count = i64::from(batch.header().record_count);
        let mut world = self.world();
        if world
            .batch_bytes_max
            .is_some_and(|max| batch.total_len() > max as usize)
        {
            return Err(error(Reason::BatchTooLarge, None));
        }
        world.topics.entry(request.topic.clone()).or_insert(1);
        let log = world
            .logs
            .entry((request.topic, request.partition))
            .or_default();
        if let Some(expected) = request.expected_offset
            && expected != log.end
        {
            return Err(error(Reason::UnexpectedOffset, Some(log.end)));
        }
        let (base_offset, duplicate) = log
            .check_and_append(batch)
            .map_err(|reason| error(reason, None))?;
        drop(world);
        self.shared.1.notify_waiters();
        Ok(v1::Appended {
            base_offset,
            next_offset: base_offset + count,
            append_time_ms: None,
            duplicate,
            durable: true,
        })
    }
}

struct Following {
    position: v1::TailPosition,
    failed: bool,
}

struct Tail {
    service: Service,
    followed: Vec<Following>,
    generation: u64,
}

impl Tail {
    fn positions(&self) -> Vec<v1::TailPosition> {
        self.followed.iter().map(|f| f.position.clone()).collect()
    }

    fn follow(
        &mut self,
        topic: &str,
        partition: u32,
        at: Option<v1::StartAt>,
    ) -> Result<(), Status> {
        let world = self.service.world();
        let Some(log) = world.logs.get(&(topic.to_owned(), partition)) else {
            return Err(status(Reason::TopicNotFound, topic));
        };
        let offset = match at.and_then(|at| at.at) {
            Some(At::Offset(offset)) => offset,
            Some(At::Earliest(_)) => log.start,
            _ => log.end,
        };
        drop(world);
        self.generation += 1;
        self.followed.push(Following {
            position: v1::TailPosition {
                topic: topic.to_owned(),
                partition,
                offset,
                generation: self.generation,
                paused: false,
            },
            failed: false,
        });
        Ok(())
    }

    async fn run(
        mut self,
        mut updates: mpsc::Receiver<Update>,
        messages: mpsc::Sender<Result<v1::TailResponse, Status>>,
    ) {
        let shared = self.service.shared.clone();
        loop {
            let changed = shared.1.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = self.next_message();
            let ready = next.is_some();
            tokio::select! {
                biased;
                () = messages.closed() => return,
                update = updates.recv() => {
                    let Some(update) = update else { return };
                    if let Some(kind) = next {
                        // It was under way, if there was room, and is outdated now.
                        drop(messages.try_send(Ok(self.service.message(kind))));
                    }
                    self.update(update);
                }
                slot = messages.reserve(), if ready => {
                    let (Ok(slot), Some(kind)) = (slot, next) else { return };
                    self.sent(&kind);
                    slot.send(Ok(self.service.message(kind)));
                }
                () = &mut changed, if !ready => {}
            }
        }
    }

    fn next_message(&mut self) -> Option<Kind> {
        let world = self.service.world();
        for following in self
            .followed
            .iter()
            .filter(|f| !f.failed && !f.position.paused)
        {
            let at = &following.position;
            let log = world.logs.get(&(at.topic.clone(), at.partition))?;
            let fail = |reason, offset| {
                Some(Kind::Failed(v1::TailFailed {
                    topic: at.topic.clone(),
                    partition: at.partition,
                    generation: at.generation,
                    error: Some(error(reason, Some(offset))),
                }))
            };
            if at.offset < log.start || at.offset > log.end {
                return fail(Reason::OffsetOutOfRange, log.start);
            }
            let wanted = |batch: &&RecordBatch| batch.header().offsets().end.0 > at.offset;
            let Some(batch) = log.batches.iter().find(wanted) else {
                continue;
            };
            let offsets = batch.header().offsets();
            let mut encoded = batch.to_bytes().to_vec();
            if log.corrupt == Some(offsets.start.0) {
                *encoded.last_mut().unwrap() ^= 1;
            }
            // Chunk boundaries mean nothing.
            let encoded = Bytes::from(encoded);
            let (head, rest) = (encoded.slice(..7), encoded.slice(7..));
            let fetched = v1::Fetched {
                chunks: vec![head, rest],
                records: Vec::new(),
                next_offset: offsets.end.0,
                log_start_offset: log.start,
                high_watermark: log.end,
            };
            return Some(Kind::Fetched(v1::TailFetched {
                topic: at.topic.clone(),
                partition: at.partition,
                generation: at.generation,
                fetched: Some(fetched),
            }));
        }
        None
    }

    fn sent(&mut self, kind: &Kind) {
        let (topic, partition) = match kind {
            Kind::Fetched(fetched) => (&fetched.topic, fetched.partition),
            Kind::Failed(failed) => (&failed.topic, failed.partition),
            _ => return,
        };
        let is =
            |f: &&mut Following| f.position.topic == *topic && f.position.partition == partition;
        let following = self.followed.iter_mut().find(is).unwrap();
        match kind {
            Kind::Fetched(fetched) => {
                following.position.offset = fetched.fetched.as_ref().unwrap().next_offset;
            }
            _ => following.failed = true,
        }
    }

    fn update(&mut self, update: Update) {
        for change in update.changes {
            let is = |f: &Following| {
                f.position.topic == change.topic && f.position.partition == change.partition
            };
            let index = self.followed.iter().position(is);
            match (change.change, index) {
                (Some(Change::Add(at)), None) => {
                    if self
                        .follow(&change.topic, change.partition, Some(at))
                        .is_err()
                    {
                        return;
                    }
                }
                (Some(Change::Seek(at)), Some(index)) => {
                    self.followed.remove(index);
                    if self
                        .follow(&change.topic, change.partition, Some(at))
                        .is_err()
                    {
                        return;
                    }
                }
                (Some(Change::Remove(_)), Some(index)) => drop(self.followed.remove(index)),
                (Some(Change::Pause(paused)), Some(index)) => {
                    self.followed[index].position.paused = paused;
                }
                _ => return,
            }
        }
        drop(update.answer.send(self.positions()));
    }
}
