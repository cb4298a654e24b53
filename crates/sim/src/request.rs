//! What producers send: mostly right, sometimes late, twice, out of order or malformed.

use bytes::Bytes;
use comlog_log::{AppendRequest, Durability};
use comlog_record::{
    BatchBuilder, Compression, Limits, Offset, ProducerIds, RecordBatch, Timestamp,
};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::drive::Broken;
use crate::model::{Expected, Model};

const CONTROL: i16 = 0x20;
/// New producers get ids up to this.
const PRODUCERS_MAX: i64 = 12;

/// Makes the requests of one group, each in view of those before it.
#[derive(Debug)]
pub(crate) struct Producers<'a> {
    pub(crate) rng: &'a mut StdRng,
    pub(crate) limits: Limits,
    pub(crate) now: Timestamp,
    /// Whether records may hold whole batches, which a scan could take for the log's own.
    pub(crate) decoys: bool,
}

impl Producers<'_> {
    /// Up to six requests; `model` is what the log holds before them.
    pub(crate) fn group(&mut self, model: &Model) -> Result<Vec<AppendRequest>, Broken> {
        let mut view = model.clone();
        let mut group = Vec::new();
        for _ in 0..self.rng.random_range(1..=6) {
            let request = self.request(&view)?;
            if view.expect(&request, &self.limits) == Expected::Append {
                let mut batch = request.batch.clone();
                batch.assign(view.end(), view.epoch);
                view.push(batch, &request.batch)?;
            }
            group.push(request);
        }
        Ok(group)
    }

    /// A request without conditions or producer, which nothing can refuse but a failed log.
    pub(crate) fn plain(&mut self, model: &Model) -> Result<AppendRequest, Broken> {
        let mut request = AppendRequest::new(self.batch(model, None)?);
        request.fencing_token = (model.token != 0).then_some(model.token);
        Ok(request)
    }

    fn request(&mut self, model: &Model) -> Result<AppendRequest, Broken> {
        let mut request = AppendRequest::new(self.any_batch(model)?);
        if self.rng.random_bool(0.3) {
            request.durability = Durability::Durable;
        }
        request.expected_offset = match self.rng.random_range(0..20) {
            0..3 => Some(model.end()),
            3 => Some(Offset(model.end().0 + self.rng.random_range(-3..=3))),
            _ => None,
        };
        if model.token != 0 {
            request.fencing_token = match self.rng.random_range(0..20) {
                0 => None,
                1 => Some(model.token - 1),
                2 => Some(model.token + 1),
                _ => Some(model.token),
            };
        }
        Ok(request)
    }

    fn any_batch(&mut self, model: &Model) -> Result<RecordBatch, Broken> {
        let known = model.producers();
        let producer = known.choose(self.rng).copied();
        match (self.rng.random_range(0..100), producer) {
            (0..20, _) => {
                let ids = self.newcomer(model);
                self.batch(model, ids)
            }
            (20..50, Some((id, epoch, next))) => self.batch(model, Some(ids(id, epoch, next))),
            (50..65, Some(_)) => match self.earlier(model) {
                Some(batch) => Ok(batch),
                None => self.batch(model, None),
            },
            (65..70, Some((id, epoch, next))) => {
                let gap = next + self.rng.random_range(1..10);
                self.batch(model, Some(ids(id, epoch, gap)))
            }
            (70..73, Some((id, epoch, _))) => self.batch(model, Some(ids(id, epoch + 1, 0))),
            (73..76, Some((id, epoch, next))) => {
                self.batch(model, Some(ids(id, (epoch - 1).max(0), next)))
            }
            (76..79, _) => self.control_batch(model),
            _ => self.batch(model, None),
        }
    }

    fn newcomer(&mut self, model: &Model) -> Option<ProducerIds> {
        let id = model.next_producer_id();
        let first = if self.rng.random_bool(0.8) { 0 } else { 40 };
        (id < PRODUCERS_MAX).then_some(ids(id, 0, first))
    }

    /// A batch that was sent before, as a producer whose answer was lost sends it.
    fn earlier(&mut self, model: &Model) -> Option<RecordBatch> {
        let recent = model.entries.len().saturating_sub(30);
        let sent: Vec<&RecordBatch> = model.entries[recent..]
            .iter()
            .map(|entry| &entry.sent)
            .filter(|batch| batch.header().producer_id >= 0)
            .filter(|batch| !model.retired.contains(&batch.header().producer_id))
            .collect();
        sent.choose(self.rng).map(|batch| (*batch).clone())
    }

    fn batch(
        &mut self,
        model: &Model,
        producer: Option<ProducerIds>,
    ) -> Result<RecordBatch, Broken> {
        let mut builder = BatchBuilder::new(self.limits);
        for _ in 0..self.rng.random_range(1..=4) {
            let value = self.value(model);
            let timestamp = Timestamp(self.now.0 + self.rng.random_range(-500..=500));
            let key = self.rng.random_bool(0.5).then_some(&b"key"[..]);
            let pushed = builder.push(timestamp, key, Some(&value), [].into_iter());
            if pushed.is_err() {
                break; // the batch is full
            }
        }
        let codec = if self.rng.random_bool(0.1) {
            Compression::Lz4
        } else {
            Compression::None
        };
        builder
            .build(codec, producer)
            .map_err(|error| format!("the simulator's own batch: {error}"))
    }

    /// Mostly short, sometimes long, sometimes with a whole batch inside that a scan could take
    /// for the log's.
    fn value(&mut self, model: &Model) -> Vec<u8> {
        if self.decoys
            && self.rng.random_bool(0.05)
            && let Some(entry) = model.entries.choose(self.rng)
            && entry.batch.total_len() < self.limits.batch_bytes_max / 2
        {
            let mut inner = entry.batch.clone();
            let ahead = self.rng.random_range(0..6);
            inner.assign(Offset(model.end().0 + ahead), model.epoch);
            return inner.to_bytes().to_vec();
        }
        let most = if self.rng.random_bool(0.1) {
            1_500
        } else {
            120
        };
        let mut value = vec![0; self.rng.random_range(0..most)];
        self.rng.fill(&mut value[..]);
        value
    }

    /// What a client may not send.
    fn control_batch(&mut self, model: &Model) -> Result<RecordBatch, Broken> {
        let batch = self.batch(model, None)?;
        let mut header = *batch.header();
        header.attributes |= CONTROL;
        header.crc = header.compute_crc(std::slice::from_ref(batch.body()));
        let mut bytes = Bytes::from([&header.encode()[..], batch.body()].concat());
        RecordBatch::decode(&mut bytes, &self.limits)
            .map_err(|error| format!("the simulator's own control batch: {error}"))
    }
}

fn ids(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> ProducerIds {
    ProducerIds {
        producer_id,
        producer_epoch,
        base_sequence,
    }
}
