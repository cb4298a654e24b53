//! Checks one folder of segments and the small files beside them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use comlog_archive::{ARCHIVE_BLOB, Catalog};
use comlog_log::frame::Owner;
use comlog_log::{Inspected, InspectedCheckpoint, SegmentItem};
use comlog_record::{Offset, OffsetRange, RecordBatch};
use comlog_storage::{MemoryStorage, Storage, parse_segment_name};
use futures_util::FutureExt;

use crate::blob;
use crate::error::{CliError, Result};
use crate::segment_file::{FILE_LIMITS, SegmentFile};

/// The log's state at its recovery point.
const CHECKPOINT: &str = comlog_log::CHECKPOINT_BLOB;

/// What was found in one folder of segments.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) segments: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// From the first segment's name to the last batch.
    pub(crate) offsets: Option<OffsetRange>,
    /// Bytes behind the last batch of the last segment that a start would cut.
    pub(crate) torn_bytes: u64,
    pub(crate) damage: Vec<Damage>,
    /// Small files that cannot be used, and why; nothing is lost by it.
    pub(crate) unusable: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) file: PathBuf,
    pub(crate) position: u64,
    pub(crate) bytes: u64,
    /// The offsets that are missing or cannot be read; open at the end when nothing follows.
    pub(crate) start: Offset,
    pub(crate) end: Option<Offset>,
    pub(crate) reason: String,
}

impl Damage {
    /// Offsets for which there are no bytes.
    fn nothing(file: &Path, start: Offset, end: Option<Offset>, reason: &str) -> Damage {
        Damage {
            file: file.to_path_buf(),
            position: 0,
            bytes: 0,
            start,
            end,
            reason: reason.to_owned(),
        }
    }
}

/// The files of a folder.
#[derive(Debug, Default)]
struct Files {
    segments: BTreeMap<Offset, PathBuf>,
    checkpoint: Option<InspectedCheckpoint>,
    /// Where segments end that are in the archive too, by base offset.
    archived: BTreeMap<Offset, Offset>,
}

/// Whether a file of this name is found beside segments only.
pub(crate) fn is_of_partition(name: &str) -> bool {
    parse_segment_name(name).is_some()
        || name == CHECKPOINT
        || name == ARCHIVE_BLOB
        || is_index(name)
}

fn is_index(name: &str) -> bool {
    name.ends_with(".index") || name.ends_with(".timeindex")
}

/// Checks `folder`.
pub(crate) fn partition(folder: &Path) -> Result<Partition> {
    let error = |error| CliError::file(folder.display(), &error);
    let mut partition = Partition::default();
    let mut files = Files::default();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(base) = parse_segment_name(&name) {
            files.segments.insert(base, path);
        } else if name == ARCHIVE_BLOB {
            match archived(&path)? {
                Ok(archived) => files.archived = archived,
                Err(reason) => partition.damage.push(Damage::nothing(
                    &path,
                    Offset::ZERO,
                    None,
                    &format!("it is not known what is in the archive only: {reason}"),
                )),
            }
        } else if name == CHECKPOINT || is_index(&name) {
            match read(folder, &path) {
                Ok(Inspected::Checkpoint(found)) => files.checkpoint = Some(*found),
                Ok(_) => {}
                Err(reason) => partition.unusable.push(reason),
            }
        }
    }
    let has_checkpoint = folder.join(CHECKPOINT).exists();
    if !has_checkpoint && Owner::parse_topic_id(&topic_of(folder)).is_some() {
        let path = folder.join(CHECKPOINT);
        partition
            .unusable
            .push(format!("{}: missing", path.display()));
    }
    segments(&mut partition, folder, &files)?;
    Ok(partition)
}

/// One of the log's small files, which must be this partition's.
fn read(folder: &Path, path: &Path) -> Result<Inspected, String> {
    let inspected = blob::read(path).map_err(|error| error.to_string())?;
    let owner = match &inspected {
        Inspected::OffsetIndex { segment, .. } | Inspected::TimeIndex { segment, .. } => {
            segment.owner
        }
        Inspected::Checkpoint(found) => found.owner,
        _ => return Ok(inspected),
    };
    let number = folder.file_name().unwrap_or_default().to_string_lossy();
    let expected = Owner::parse_topic_id(&topic_of(folder)).zip(number.parse().ok());
    match expected {
        Some((topic, number)) if owner != Owner::partition(topic, number) => {
            Err(format!("{}: belongs to {owner}", path.display()))
        }
        _ => Ok(inspected),
    }
}

/// The name of the folder that `folder` lies in.
fn topic_of(folder: &Path) -> String {
    let parent = folder.parent().and_then(Path::file_name);
    parent.unwrap_or_default().to_string_lossy().into_owned()
}

fn archived(path: &Path) -> Result<Result<BTreeMap<Offset, Offset>, String>> {
    let content = std::fs::read(path).map_err(|error| CliError::file(path.display(), &error))?;
    let read = async {
        let storage = MemoryStorage::new();
        storage.write_blob(ARCHIVE_BLOB, content.into()).await?;
        Catalog::kept(&storage).await
    };
    // Memory makes nobody wait.
    let kept = match read.now_or_never() {
        Some(kept) => kept.map_err(|error| error.to_string()),
        None => Err("it cannot be read".to_owned()),
    };
    let ends = |entry: &comlog_archive::SegmentEntry| {
        (Offset(entry.base_offset), Offset(entry.end_offset))
    };
    Ok(kept.map(|kept| kept.iter().map(ends).collect()))
}

fn segments(partition: &mut Partition, folder: &Path, files: &Files) -> Result<()> {
    let local = files.segments.keys();
    let bases: std::collections::BTreeSet<Offset> =
        local.chain(files.archived.keys()).copied().collect();
    let checkpoint = files.checkpoint.as_ref();
    let Some(first) = bases.first().copied() else {
        return nothing_left(partition, folder, checkpoint);
    };
    let log_start = checkpoint.map_or(first, |checkpoint| checkpoint.log_start_offset);
    let mut next = first.min(log_start);
    let last_local = files.segments.keys().next_back().copied();
    let mut following = bases.iter().skip(1);
    for base in &bases {
        let file = files.segments.get(base);
        let shown = file.map_or(folder, PathBuf::as_path);
        if *base != next {
            let reason = if *base > next {
                "a segment is missing"
            } else {
                "the segment overlaps the one before"
            };
            let (start, end) = (next.min(*base), Some(next.max(*base)));
            let damage = Damage::nothing(shown, start, end, reason);
            partition.damage.push(damage);
        }
        let end = following.next().copied();
        next = match (file, files.archived.get(base)) {
            (Some(file), _) => {
                let is_last = Some(*base) == last_local;
                let durable = durable_bytes(*base, is_last, checkpoint);
                segment(partition, file, *base, end, durable)?
            }
            (None, archived) => archived.copied().unwrap_or(*base),
        };
    }
    if let Some(checkpoint) = checkpoint {
        against_checkpoint(partition, folder, files, next, checkpoint);
    }
    partition.offsets = Some(OffsetRange::new(first, next));
    Ok(())
}

/// A folder without any segment.
fn nothing_left(
    partition: &mut Partition,
    folder: &Path,
    checkpoint: Option<&InspectedCheckpoint>,
) -> Result<()> {
    let Some(checkpoint) = checkpoint else {
        return Ok(());
    };
    let (start, end) = (checkpoint.log_start_offset, checkpoint.recovery_offset);
    if start < end || !may_be_missing(checkpoint) {
        let reason = "every segment is missing";
        let damage = Damage::nothing(folder, start, Some(end).filter(|end| *end > start), reason);
        partition.damage.push(damage);
    }
    partition.offsets = Some(OffsetRange::new(end, end));
    Ok(())
}

/// Whether the segment that a checkpoint calls active need not be there: it was empty when the log
/// was closed, or restored (no group was ever written then).
fn may_be_missing(checkpoint: &InspectedCheckpoint) -> bool {
    let was_ended = checkpoint.clean || checkpoint.group_bytes_max == 0;
    was_ended && checkpoint.recovery_position == 0
}

fn against_checkpoint(
    partition: &mut Partition,
    folder: &Path,
    files: &Files,
    next: Offset,
    checkpoint: &InspectedCheckpoint,
) {
    let (active, promised) = (checkpoint.recovery_segment, checkpoint.recovery_offset);
    if !files.segments.contains_key(&active) && !may_be_missing(checkpoint) {
        let reason = "the segment that the checkpoint calls active is missing";
        let end = Some(promised).filter(|promised| *promised > active);
        let damage = Damage::nothing(folder, active, end, reason);
        partition.damage.push(damage);
    } else if next < promised && partition.damage.is_empty() {
        let reason = "the log ends before its checkpoint";
        let last = files.segments.values().next_back();
        let file = last.map_or(folder, PathBuf::as_path);
        let damage = Damage::nothing(file, next, Some(promised), reason);
        partition.damage.push(damage);
    } else if next > promised && checkpoint.clean {
        let reason = format!(
            "{}: says that the log ends at {promised}, and it ends at {next}",
            folder.join(CHECKPOINT).display()
        );
        partition.unusable.push(reason);
    }
}

/// Bytes of a segment that no crash can have torn: only behind them does a start cut.
fn durable_bytes(base: Offset, is_last: bool, checkpoint: Option<&InspectedCheckpoint>) -> u64 {
    match checkpoint {
        _ if !is_last => u64::MAX,
        Some(checkpoint) if checkpoint.clean => u64::MAX,
        Some(checkpoint) if checkpoint.recovery_segment == base => checkpoint.recovery_position,
        _ => 0,
    }
}

/// Checks one segment, which ends before `end`, and returns the offset behind its last batch.
fn segment(
    partition: &mut Partition,
    file: &Path,
    base: Offset,
    end: Option<Offset>,
    durable_bytes: u64,
) -> Result<Offset> {
    let opened = SegmentFile::open(file)?;
    let mut check = SegmentCheck {
        partition,
        file,
        next: base,
        unread: None,
    };
    opened.scan(base, end.unwrap_or(Offset(i64::MAX)), |item| {
        check.item(item);
        Ok(())
    })?;
    check.partition.segments += 1;
    match check.unread.take() {
        // Nothing valid follows at the end of the log: the tear of a crash, cut at the next start.
        Some(tear) if tear.position >= durable_bytes => check.partition.torn_bytes = tear.bytes,
        other => check.partition.damage.extend(other),
    }
    Ok(check.next)
}

/// Where the check of one segment stands.
struct SegmentCheck<'a> {
    partition: &'a mut Partition,
    file: &'a Path,
    /// The offset behind the last batch.
    next: Offset,
    /// Damage behind which nothing was found yet.
    unread: Option<Damage>,
}

impl SegmentCheck<'_> {
    fn item(&mut self, item: SegmentItem) {
        match item {
            SegmentItem::Batch { position, batch } => self.batch(position, &batch),
            SegmentItem::Damage {
                positions,
                first,
                next,
                reason,
            } => {
                let damage = Damage {
                    start: first,
                    ..self.damage(positions, next, reason)
                };
                match next {
                    Some(next) => {
                        self.partition.damage.push(damage);
                        self.next = next;
                    }
                    None => self.unread = Some(damage),
                }
            }
            SegmentItem::Zeros { .. } => {}
        }
    }

    fn batch(&mut self, position: u64, batch: &RecordBatch) {
        let header = batch.header();
        let positions = position..position + batch.total_len() as u64;
        if header.base_offset != self.next {
            let missing = "offsets are missing".to_owned();
            let gap = self.damage(position..position, Some(header.base_offset), missing);
            self.partition.damage.push(gap);
        }
        self.next = header.base_offset;
        if let Err(reason) = batch.check_records(&FILE_LIMITS) {
            let next = Some(header.next_offset());
            let whole = self.damage(positions.clone(), next, reason.to_string());
            self.partition.damage.push(whole);
        }
        self.partition.batches += 1;
        self.partition.records += u64::try_from(header.record_count).unwrap_or(0);
        self.partition.bytes += positions.end - positions.start;
        self.next = header.next_offset();
    }

    /// Damage from the next offset on.
    fn damage(&self, positions: Range<u64>, end: Option<Offset>, reason: String) -> Damage {
        Damage {
            file: self.file.to_path_buf(),
            position: positions.start,
            bytes: positions.end - positions.start,
            start: self.next,
            end,
            reason,
        }
    }
}
