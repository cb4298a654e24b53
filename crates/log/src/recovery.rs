//! What a log holds after it was closed, or after a crash.
//!
//! State up to the recovery point comes from the checkpoint; what lies behind the point is
//! scanned. Segments before it are not opened: a start costs the same with two or two thousand.

use comlog_record::{BatchHeader, LeaderEpoch, Offset, OffsetRange, Timestamp};
use comlog_storage::{SegmentMeta, SegmentReader, Storage, StorageError};

use crate::checkpoint::{CHECKPOINT, CHECKPOINT_NAME, Checkpoint, RecoveryPoint};
use crate::epoch::EpochTable;
use crate::fence::Fence;
use crate::frame::{Owner, Unusable};
use crate::mark::Marks;
use crate::producer_state::ProducerState;
use crate::scan::{Offsets, Scanner, Step, Valid};
use crate::segment::{
    Indexes, Segment, SegmentEnd, cut_name, parse_index_name, remove_segment, write_indexes,
};
use crate::watermark::DAMAGED_MAX;
use crate::{Cut, DamagedRange, Durability, LogConfig, RecoveryReport};

/// Without a checkpoint the leader epoch is raised by this much: of the reigns before, those whose
/// batches were all taken back have left no trace.
const UNKNOWN_EPOCHS: i32 = 1_000;
/// So many offsets are given up when the active segment is gone, and what was in it is not known.
const UNKNOWN_OFFSETS: i64 = 1 << 32;
/// Most bytes that are kept of what recovery cuts.
const CUT_BYTES_MAX: u64 = 64 << 20;

/// What was found, and where appending goes on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
    /// As it is now: its recovery point is the end of the log.
    pub(crate) state: Checkpoint,
    /// Of the last segment.
    pub(crate) indexes: Indexes,
    pub(crate) sealed: Vec<Segment>,
    pub(crate) tail: Tail,
    /// The largest number of a mark.
    pub(crate) mark_number: u64,
    /// The blob `fence` as it is.
    pub(crate) fence: Fence,
}

/// The segment that appending goes on in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// One that does not exist yet.
    Create,
    /// An existing one, of which the recovery point's bytes are kept.
    Reopen,
}

/// Finds out what `storage` holds. Removes what a trim left behind and cuts the zeros that a roll
/// left; the torn tail is cut when the caller reopens the last segment at the point returned.
pub(crate) async fn recover(
    storage: &dyn Storage,
    config: &LogConfig,
    now: Timestamp,
) -> Result<Recovered, StorageError> {
    let mut listed = storage.list().await?;
    let mut report = RecoveryReport::default();
    let loaded = load_checkpoint(storage, config.owner).await?;
    let slots = storage.read_marks().await?;
    let known = loaded.as_ref().ok().map(|(state, _)| state);
    let marks = Marks::of(&slots, config.owner, known);
    let same_life = known.is_some_and(|state| {
        state.incarnation.is_some() && state.incarnation == storage.incarnation()
    });
    let fresh = listed.is_empty() && !marks.any && matches!(loaded, Err(Unusable::Missing));
    let lost_checkpoint = loaded.is_err() && !fresh;
    let (mut state, indexes) = match loaded {
        Ok(loaded) => loaded,
        Err(reason) => {
            if !fresh {
                tracing::error!(%reason, "no usable checkpoint: the log is scanned, and fencing token and log start are lost");
                report.rebuilt.push(format!(
                    "checkpoint: {reason} (fencing token and log start are lost)"
                ));
            }
            (unknown_state(listed.first(), config), Indexes::default())
        }
    };
    let fence = Fence::load(storage, config.owner).await?;
    compare_fence(&mut state, &fence, lost_checkpoint, &mut report);
    let mut fence = fence.unwrap_or(Fence::NONE);
    fence.generation = fence.generation.max(state.fence);
    remove_trimmed(storage, &mut listed, state.start).await?;
    if marks.checkpoint_older {
        let what =
            "the checkpoint is an older copy: what was acknowledged goes beyond the newest one";
        tracing::error!(what, "files of the log contradict each other");
        report.contradictions.push(what.to_owned());
    }
    let untouched = is_untouched(&listed, state.point) && !marks.checkpoint_older;
    state.clean |= fresh;
    report.clean = fresh || state.clean && untouched;
    // Marks that were written after it are newer than the one that comes next.
    state.generation = state.generation.max(marks.checkpoint);
    let mut recovery = Recovery {
        storage,
        config,
        now,
        report,
        state,
        indexes,
        sealed: Vec::new(),
        marks,
        same_life,
    };
    let mut tail = recovery.run(&listed).await?;
    if recovery.reach_mark(&listed) {
        tail = Tail::Create;
    }
    if !recovery.report.clean {
        recovery.after_crash(&listed).await?;
    }
    recovery.state.damaged.truncate(DAMAGED_MAX);
    Ok(Recovered {
        report: recovery.report,
        state: recovery.state,
        indexes: recovery.indexes,
        sealed: recovery.sealed,
        tail,
        mark_number: marks.number,
        fence,
    })
}

/// The checkpoint, or why it is of no use. One of a newer format is an error: rebuilding it would
/// lose what only it holds.
async fn load_checkpoint(
    storage: &dyn Storage,
    owner: Owner,
) -> Result<Result<(Checkpoint, Indexes), Unusable>, StorageError> {
    let Some(content) = storage.read_blob(CHECKPOINT_NAME).await? else {
        return Ok(Err(Unusable::Missing));
    };
    match Checkpoint::decode_of(owner, &content) {
        Err(Unusable::Format(found)) if found > CHECKPOINT.format => {
            Err(StorageError::UnknownFormat {
                path: CHECKPOINT_NAME.into(),
                found: found.to_string(),
                supported: CHECKPOINT.format,
            })
        }
        decoded => Ok(decoded),
    }
}

/// Takes log start and fencing token from their second place where the checkpoint is lost or older.
fn compare_fence(
    state: &mut Checkpoint,
    fence: &Result<Fence, Unusable>,
    lost_checkpoint: bool,
    report: &mut RecoveryReport,
) {
    let mut contradict = |what: String| {
        tracing::warn!(what, "files of the log contradict each other");
        report.contradictions.push(what);
    };
    match fence {
        Ok(fence) => {
            if lost_checkpoint {
                tracing::warn!(start = %fence.start, token = fence.token,
                    "log start and fencing token are taken from their second place");
            } else if fence.generation < state.fence {
                contradict(
                    "the second place of log start and fencing token is an older copy".to_owned(),
                );
            }
            state.start = state.start.max(fence.start);
            state.fencing_token = state.fencing_token.max(fence.token);
            state.fence = state.fence.max(fence.generation);
        }
        Err(Unusable::Missing) if state.fence == 0 => {}
        Err(reason) => contradict(format!(
            "the second place of log start and fencing token: {reason}"
        )),
    }
}

/// Where to start when there is no checkpoint: before everything.
fn unknown_state(first: Option<&SegmentMeta>, config: &LogConfig) -> Checkpoint {
    let start = first.map_or(Offset::ZERO, |segment| segment.base_offset);
    Checkpoint {
        owner: config.owner,
        generation: 0,
        clean: false,
        durability: config.durability,
        group_bytes_max: config.group_bytes_limit() as u64,
        start,
        fencing_token: 0,
        point: RecoveryPoint {
            segment: start,
            position: 0,
            offset: start,
        },
        active_since: None,
        fence: 0,
        incarnation: None,
        epochs: EpochTable::new(start),
        damaged: Vec::new(),
        producers: ProducerState::new(),
    }
}

/// Whether the last segment is the one the point lies in, and holds at least what it held.
fn is_untouched(listed: &[SegmentMeta], point: RecoveryPoint) -> bool {
    listed
        .last()
        .is_some_and(|last| last.base_offset == point.segment && last.len >= point.position)
}

/// Removes the segments that lie wholly below the log start.
async fn remove_trimmed(
    storage: &dyn Storage,
    listed: &mut Vec<SegmentMeta>,
    start: Offset,
) -> Result<(), StorageError> {
    while listed.len() > 1 && listed[1].base_offset <= start {
        let segment = listed.remove(0);
        remove_segment(storage, segment.base_offset).await?;
    }
    Ok(())
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    config: &'a LogConfig,
    now: Timestamp,
    report: RecoveryReport,
    /// At first as the checkpoint says, then moved along by what is scanned.
    state: Checkpoint,
    /// Of the segment that the recovery point lies in.
    indexes: Indexes,
    sealed: Vec<Segment>,
    marks: Marks,
    /// Only the process ended: every byte that was written is there, durable or not.
    same_life: bool,
}

/// How the damage at the end of a log is to be taken.
enum Verdict {
    /// Something that was acknowledged is damaged.
    Corrupt,
    /// What was being written when the crash came, and whole batches behind it.
    Tear { batches: Option<OffsetRange> },
}

impl Recovery<'_> {
    async fn run(&mut self, listed: &[SegmentMeta]) -> Result<Tail, StorageError> {
        let point = self.state.point;
        self.check_head(listed.first());
        let older = listed.partition_point(|segment| segment.base_offset < point.segment);
        for (at, segment) in listed[..older].iter().enumerate() {
            let next = listed.get(at + 1).map(|next| next.base_offset);
            let end = next.map_or(point.segment, |next| next.min(point.segment));
            self.push_sealed(*segment, end);
        }
        let newer = &listed[older..];
        if self.report.clean && !newer.is_empty() {
            return Ok(Tail::Reopen);
        }
        self.check_point_segment(newer.first(), point);
        for (at, segment) in newer.iter().enumerate() {
            let next = newer.get(at + 1).map(|next| next.base_offset);
            if segment.base_offset == point.segment && segment.len < point.position {
                self.cut_short(*segment, next.unwrap_or(point.offset))
                    .await?;
                if next.is_none() {
                    self.start_segment(point.offset);
                    return Ok(Tail::Create);
                }
                continue;
            }
            if segment.base_offset != self.state.point.segment {
                self.start_segment(segment.base_offset);
            }
            match next {
                Some(next) => self.recover_sealed(*segment, next).await?,
                None => self.recover_tail(*segment).await?,
            }
        }
        if newer.is_empty() {
            self.start_segment(self.state.point.offset);
            return Ok(Tail::Create);
        }
        Ok(Tail::Reopen)
    }

    fn push_sealed(&mut self, segment: SegmentMeta, end: Offset) {
        let sealed = Segment::sealed(SegmentEnd {
            base: segment.base_offset,
            end,
            len: segment.len,
        });
        sealed.set_max_timestamp(segment.max_timestamp);
        self.sealed.push(sealed);
    }

    /// Segments between the log start and the first one there is may be gone.
    fn check_head(&mut self, first: Option<&SegmentMeta>) {
        let point = self.state.point.segment;
        let first = first.map_or(point, |first| first.base_offset.min(point));
        if first > self.state.start {
            self.damage(DamagedRange {
                offsets: OffsetRange::new(self.state.start, first),
                segment: self.state.start,
                positions: 0..0,
                reason: "segments are missing".to_owned(),
            });
        }
    }

    /// The segment that the recovery point lies in may be gone altogether.
    fn check_point_segment(&mut self, first: Option<&SegmentMeta>, point: RecoveryPoint) {
        if first.is_some_and(|first| first.base_offset == point.segment) {
            return;
        }
        let end = match (first, self.sure()) {
            (Some(first), _) => first.base_offset,
            (None, Some(sure)) => sure.1.offset.max(point.offset),
            // What was appended to it can no longer be known, so none of it is given out again.
            (None, None) if !self.state.clean => {
                Offset(point.offset.0.saturating_add(UNKNOWN_OFFSETS))
            }
            (None, None) => point.offset,
        };
        // What was trimmed is no loss.
        let lost = OffsetRange::new(point.segment.max(self.state.start), end);
        if !lost.is_empty() {
            self.damage(DamagedRange {
                offsets: lost,
                segment: point.segment,
                positions: 0..point.position,
                reason: "the segment is missing".to_owned(),
            });
        }
        if first.is_none() {
            self.state.point.offset = end;
        }
    }

    /// The segment that was active, and the end of what was acknowledged in it and cannot have been
    /// taken back since.
    fn sure(&self) -> Option<(Offset, Valid)> {
        let newest = self.marks.newest?;
        // A power cut may take back what was acknowledged and not yet durable.
        let end = if self.same_life {
            newest.end
        } else {
            newest.durable
        };
        Some((newest.segment, end))
    }

    /// Up to which position of `segment` any damage is corruption.
    fn sure_position(&self, segment: Offset) -> u64 {
        self.sure()
            .filter(|(marked, _)| *marked == segment)
            .map_or(0, |(_, end)| end.position)
    }

    /// When the log ends before what was acknowledged: reports it, and goes on behind, in a new
    /// segment. What is left of the last one is kept as it is.
    fn reach_mark(&mut self, listed: &[SegmentMeta]) -> bool {
        let Some((_, sure)) = self.sure().filter(|_| !self.report.clean) else {
            return false;
        };
        let point = self.state.point;
        if sure.offset <= point.offset {
            return false;
        }
        let segment = listed
            .last()
            .filter(|last| last.base_offset == point.segment);
        let len = segment.map_or(0, |last| last.len);
        self.damage(DamagedRange {
            offsets: OffsetRange::new(point.offset.max(self.state.start), sure.offset),
            segment: point.segment,
            positions: point.position..len.max(point.position),
            reason: "acknowledged records are damaged or missing at the end of the log".to_owned(),
        });
        if let Some(last) = segment {
            self.push_sealed(*last, sure.offset);
        }
        self.start_segment(sure.offset);
        true
    }

    /// Goes on in a segment that starts at `base`.
    fn start_segment(&mut self, base: Offset) {
        self.state.point = RecoveryPoint {
            segment: base,
            position: 0,
            offset: base,
        };
        self.indexes = Indexes::default();
        self.state.active_since = None;
    }

    /// A segment that lost durable bytes: what is left of it is kept as it is, the rest is fenced.
    async fn cut_short(&mut self, segment: SegmentMeta, end: Offset) -> Result<(), StorageError> {
        let reader = self.storage.open(segment.base_offset).await?;
        let start = Valid {
            position: 0,
            offset: segment.base_offset,
        };
        let lost = Valid {
            position: segment.len,
            offset: end,
        };
        let mut scanner = Scanner::new(&*reader, Offsets::Rising, start, lost);
        while let Step::Batch { .. } = scanner.step().await? {}
        self.report.scanned_bytes += scanner.bytes_read;
        let at = scanner.at();
        self.damage(DamagedRange {
            offsets: OffsetRange::new(at.offset, end),
            segment: segment.base_offset,
            positions: at.position..self.state.point.position.max(segment.len),
            reason: "the segment was cut short".to_owned(),
        });
        self.push_sealed(segment, end);
        Ok(())
    }

    /// A segment with another behind it was synced whole before that one was created, so damage
    /// in it is never a tear.
    async fn recover_sealed(
        &mut self,
        segment: SegmentMeta,
        next_base: Offset,
    ) -> Result<(), StorageError> {
        let reader = self.storage.open(segment.base_offset).await?;
        let mut scanner = self.scanner(&*reader, Offsets::Rising, next_base);
        let mut len = scanner.end().position;
        loop {
            match self.next_step(&mut scanner).await? {
                Step::Batch { .. } => {}
                Step::End => break,
                Step::Damage(reason) => {
                    let at = scanner.at();
                    if scanner.content_end(at.position).await? == at.position {
                        len = at.position;
                        break;
                    }
                    if !self.fence(&mut scanner, reason).await? {
                        break;
                    }
                }
            }
        }
        self.report.scanned_bytes += scanner.bytes_read;
        let at = scanner.at();
        if at.offset < next_base && !self.is_damaged(at.offset) {
            self.damage(DamagedRange {
                offsets: OffsetRange::new(at.offset, next_base),
                segment: segment.base_offset,
                positions: at.position..len,
                reason: "records are missing at the end of the segment".to_owned(),
            });
        }
        drop(scanner);
        drop(reader);
        // Even if its length is right: a cut that a kill interrupted may not be durable.
        let writer = self.storage.reopen(segment.base_offset, len, len).await?;
        writer.seal().await?;
        self.keep_indexes(segment.base_offset, next_base, len).await
    }

    /// Writes the indexes of a segment that was sealed, or nearly, when the crash came.
    async fn keep_indexes(
        &mut self,
        base: Offset,
        end: Offset,
        len: u64,
    ) -> Result<(), StorageError> {
        let ends = SegmentEnd { base, end, len };
        self.push_sealed(
            SegmentMeta {
                base_offset: base,
                len,
                max_timestamp: None,
            },
            end,
        );
        write_indexes(self.storage, self.config.owner, ends, &self.indexes).await;
        Ok(())
    }

    /// The last segment: a torn tail is left behind the point, other damage is fenced.
    async fn recover_tail(&mut self, segment: SegmentMeta) -> Result<(), StorageError> {
        let reader = self.storage.open(segment.base_offset).await?;
        let mut scanner = self.scanner(&*reader, Offsets::Contiguous, Offset(i64::MAX));
        loop {
            match self.next_step(&mut scanner).await? {
                Step::Batch { .. } => {}
                Step::End => break,
                Step::Damage(reason) => {
                    let at = scanner.at();
                    let content_end = scanner.content_end(at.position).await?;
                    if content_end == at.position {
                        break;
                    }
                    if let Verdict::Tear { batches } = self.judge(&mut scanner).await? {
                        self.report.cut = Some(Cut {
                            end: at.offset,
                            bytes: content_end - at.position,
                            batches,
                        });
                        if let Some(batches) = batches {
                            self.keep_cut(&*reader, at.position..content_end, batches)
                                .await?;
                        }
                        break;
                    }
                    // Without a batch behind it, what the mark says decides.
                    if scanner.resync(at.position + 1).await?.is_none()
                        || !self.fence(&mut scanner, reason).await?
                    {
                        break;
                    }
                }
            }
        }
        self.report.scanned_bytes += scanner.bytes_read;
        Ok(())
    }

    /// Below the mark nothing is torn. Above it at most one group was being written: what starts
    /// further on than a group is long was written after the damaged one was acknowledged.
    async fn judge(&self, scanner: &mut Scanner<'_>) -> Result<Verdict, StorageError> {
        let at = scanner.at().position;
        let sure = self.sure_position(self.state.point.segment);
        if at < sure {
            return Ok(Verdict::Corrupt);
        }
        let Some(first) = scanner.resync(at + 1).await? else {
            return Ok(Verdict::Tear { batches: None });
        };
        if let Some(beyond) = self.beyond(at)
            && scanner.resync(beyond.max(at + 1)).await?.is_some()
        {
            return Ok(Verdict::Corrupt);
        }
        let end = whole_until(scanner, first).await?;
        let batches = Some(OffsetRange::new(first.offset, end));
        Ok(Verdict::Tear { batches })
    }

    /// Where a batch that follows damage at `at` proves that the damage is no tear; `None` when none
    /// does.
    fn beyond(&self, at: u64) -> Option<u64> {
        let group = self.state.group_bytes_max;
        match (self.same_life, self.state.durability) {
            // The kill came into one write, whose end was the end of all.
            (true, _) if !self.marks.any => Some(at),
            // Of writes that were not synced any part may be lost.
            (false, Durability::Memory) => None,
            _ => Some(at.saturating_add(group)),
        }
    }

    /// Keeps bytes of whole batches that are cut from the log.
    async fn keep_cut(
        &self,
        reader: &dyn SegmentReader,
        positions: std::ops::Range<u64>,
        batches: OffsetRange,
    ) -> Result<(), StorageError> {
        let name = cut_name(self.state.point.segment);
        tracing::error!(offsets = %batches, blob = name,
            "whole batches behind a torn one are cut from the log; their bytes are kept beside it");
        let end = positions
            .end
            .min(positions.start.saturating_add(CUT_BYTES_MAX));
        let content = match reader.read(positions.start..end).await {
            Ok(chunks) => chunks.concat(),
            Err(error) => {
                tracing::error!(%error, "the bytes that are cut cannot be read");
                return Ok(());
            }
        };
        match self.storage.write_blob(&name, content.into()).await {
            Err(StorageError::NoSpace { .. }) => {
                tracing::error!("no space to keep the bytes that are cut");
                Ok(())
            }
            written => written,
        }
    }

    /// Notes damage up to the next valid batch and goes on there; false when there is none.
    async fn fence(
        &mut self,
        scanner: &mut Scanner<'_>,
        reason: String,
    ) -> Result<bool, StorageError> {
        let at = scanner.at();
        let next = scanner.resync(at.position + 1).await?;
        let end = next.unwrap_or(scanner.end());
        self.damage(DamagedRange {
            offsets: OffsetRange::new(at.offset, end.offset),
            segment: self.state.point.segment,
            positions: at.position..end.position,
            reason,
        });
        if next.is_some() {
            scanner.jump(end);
        }
        Ok(next.is_some())
    }

    fn scanner<'r>(
        &self,
        reader: &'r dyn SegmentReader,
        kind: Offsets,
        offset_max: Offset,
    ) -> Scanner<'r> {
        let point = self.state.point;
        let from = Valid {
            position: point.position,
            offset: point.offset,
        };
        let end = Valid {
            position: u64::MAX,
            offset: offset_max,
        };
        Scanner::new(reader, kind, from, end)
    }

    /// One step; a batch moves the state along.
    async fn next_step(&mut self, scanner: &mut Scanner<'_>) -> Result<Step, StorageError> {
        let step = scanner.step().await?;
        if let Step::Batch { position, header } = &step {
            self.note_batch(*position, header);
            self.state.point.position = scanner.at().position;
            self.state.point.offset = scanner.at().offset;
        }
        Ok(step)
    }

    fn note_batch(&mut self, position: u64, header: &BatchHeader) {
        self.indexes
            .note(header, position, self.config.index_interval_bytes);
        let state = &mut self.state;
        state.epochs.raise(header.leader_epoch, header.base_offset);
        if header.producer_id >= 0 && !header.is_control() {
            state.producers.record(header, self.now);
            state.producers.bound(self.config.producers_max);
        }
        if state.active_since.is_none() {
            state.active_since = Some(self.now);
        }
    }

    fn is_damaged(&self, offset: Offset) -> bool {
        let mut ranges = self.state.damaged.iter();
        ranges.any(|range| range.offsets.contains(offset))
    }

    fn damage(&mut self, range: DamagedRange) {
        tracing::error!(offsets = %range.offsets, reason = range.reason, "part of the log is damaged");
        self.report.damaged.push(range.clone());
        if !self.state.damaged.contains(&range) {
            self.state.damaged.push(range);
            self.state
                .damaged
                .sort_unstable_by_key(|range| range.offsets.start);
        }
    }

    async fn after_crash(&mut self, listed: &[SegmentMeta]) -> Result<(), StorageError> {
        let cut_batches = self.report.cut.is_some_and(|cut| cut.batches.is_some());
        if self.state.durability == Durability::Memory || cut_batches {
            let raise = if self.report.rebuilt.is_empty() {
                1
            } else {
                UNKNOWN_EPOCHS
            };
            let next = LeaderEpoch(self.state.epochs.current().0.saturating_add(raise));
            self.state.epochs.raise(next, self.state.point.offset);
            self.report.epoch_raised = true;
        }
        // Indexes of segments that a trim or truncate removed just before the crash.
        for name in self.storage.list_blobs().await? {
            let orphan = parse_index_name(&name).is_some_and(|base| {
                listed
                    .binary_search_by_key(&base, |segment| segment.base_offset)
                    .is_err()
            });
            if orphan {
                self.storage.remove_blob(&name).await?;
            }
        }
        Ok(())
    }
}

/// Behind the last whole batch from `first` on, over further damage; the scanner is put back.
async fn whole_until(scanner: &mut Scanner<'_>, first: Valid) -> Result<Offset, StorageError> {
    let before = scanner.at();
    scanner.jump(first);
    loop {
        match scanner.step().await? {
            Step::Batch { .. } => {}
            Step::End => break,
            Step::Damage(_) => match scanner.resync(scanner.at().position + 1).await? {
                Some(next) => scanner.jump(next),
                None => break,
            },
        }
    }
    let end = scanner.at().offset;
    scanner.jump(before);
    Ok(end)
}
