//! The segments that readers share: opened when first needed, a bounded number at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use comlog_record::{BatchHeader, Offset, OffsetRange, Timestamp};
use comlog_storage::{SegmentReader, Storage, StorageError};

use crate::offset_index::IndexEntry;
use crate::scan::{Offsets, Scanner, Step, Valid};
use crate::segment::{
    Indexes, Resident, Segment, decode_indexes, decode_time_index, offset_index_name, read_lock,
    time_index_name, write_indexes, write_lock,
};
use crate::watermark::{View, add_damage};
use crate::{DamagedRange, LogConfig, Owner, ReadError};

/// Sealed segments kept open.
const RESIDENT_MAX: usize = 256;
/// Bytes of their indexes.
const INDEX_BYTES_MAX: usize = 32 << 20;

/// What the readers of one log share.
#[derive(Debug)]
pub(crate) struct Library {
    storage: Arc<dyn Storage>,
    owner: Owner,
    pub(crate) view: Arc<RwLock<View>>,
    config: RwLock<LogConfig>,
    /// Counts uses of segments.
    uses: AtomicU64,
}

impl Library {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        view: Arc<RwLock<View>>,
        config: &LogConfig,
    ) -> Library {
        Library {
            storage,
            owner: config.owner,
            view,
            config: RwLock::new(config.clone()),
            uses: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_config(&self, config: &LogConfig) {
        write_lock(&self.config).clone_from(config);
    }

    pub(crate) fn look_ahead_bytes(&self) -> u64 {
        read_lock(&self.config).look_ahead_bytes
    }

    /// What reading `segment` needs, if it is open.
    pub(crate) fn at_hand(&self, segment: &Segment) -> Option<Arc<Resident>> {
        let resident = segment.resident()?;
        if segment.end().is_some() {
            segment.touch(self.uses.fetch_add(1, Ordering::Relaxed));
        }
        Some(resident)
    }

    /// What reading `segment` needs; opened if need be.
    pub(crate) async fn resident(
        &self,
        segment: &Arc<Segment>,
    ) -> Result<Arc<Resident>, ReadError> {
        if let Some(resident) = self.at_hand(segment) {
            return Ok(resident);
        }
        // No lock: readers that come together do it together, but none waits for a future that
        // nobody polls.
        let resident = self.load(segment).await?;
        self.make_room(&resident);
        segment.set_resident(Some(Arc::clone(&resident)));
        segment.touch(self.uses.fetch_add(1, Ordering::Relaxed));
        Ok(resident)
    }

    async fn load(&self, segment: &Arc<Segment>) -> Result<Arc<Resident>, ReadError> {
        let reader = self.storage.open(segment.base).await.map_err(storage)?;
        // Only sealed segments are ever not open.
        let Some(end) = segment.end() else {
            return Err(ReadError::Closed);
        };
        let offsets = self.blob(&offset_index_name(segment.base)).await?;
        let times = self.blob(&time_index_name(segment.base)).await?;
        match decode_indexes(self.owner, end, &offsets, &times) {
            Ok(indexes) if end.len == reader.len() => Ok(Resident::new(reader, indexes)),
            _ => {
                let resident = Resident::new(reader, Indexes::default());
                self.scan(segment, &resident).await?;
                Ok(resident)
            }
        }
    }

    async fn blob(&self, name: &str) -> Result<bytes::Bytes, ReadError> {
        let content = self.storage.read_blob(name).await.map_err(storage)?;
        Ok(content.unwrap_or_default())
    }

    /// Closes the segments least in use while there are too many with `coming`.
    fn make_room(&self, coming: &Resident) {
        let segments = Arc::clone(&read_lock(&self.view).segments);
        let mut open: Vec<_> = segments
            .iter()
            .filter(|segment| segment.end().is_some())
            .filter_map(|segment| {
                let resident = segment.resident()?;
                let size = read_lock(&resident.indexes).size();
                Some((segment.last_used(), size, segment))
            })
            .collect();
        open.sort_unstable_by_key(|(last_used, ..)| *last_used);
        let mut count = open.len() + 1;
        let mut bytes =
            read_lock(&coming.indexes).size() + open.iter().map(|(_, size, _)| size).sum::<usize>();
        for (_, size, segment) in open {
            if count <= RESIDENT_MAX && bytes <= INDEX_BYTES_MAX {
                break;
            }
            segment.set_resident(None);
            count -= 1;
            bytes -= size;
        }
    }

    /// The largest timestamp in `segment`, from its time index if it was not opened yet.
    pub(crate) async fn max_timestamp(
        &self,
        segment: &Arc<Segment>,
    ) -> Result<Option<Timestamp>, ReadError> {
        let known = segment.max_timestamp();
        let Some(end) = segment.end().filter(|_| known.is_none()) else {
            return Ok(known);
        };
        let blob = self.blob(&time_index_name(segment.base)).await?;
        if let Ok(times) = decode_time_index(self.owner, end, &blob) {
            segment.set_max_timestamp(times.max());
        } else {
            self.resident(segment).await?;
        }
        Ok(segment.max_timestamp())
    }

    /// Scans the visible part of `segment`, notes what is damaged, and makes its indexes anew.
    pub(crate) async fn inspect(
        &self,
        segment: &Arc<Segment>,
    ) -> Result<Vec<DamagedRange>, ReadError> {
        let resident = self.resident(segment).await?;
        self.scan(segment, &resident).await
    }

    async fn scan(
        &self,
        segment: &Arc<Segment>,
        resident: &Resident,
    ) -> Result<Vec<DamagedRange>, ReadError> {
        let limit = read_lock(&self.view).place(segment).limit;
        let interval = read_lock(&self.config).index_interval_bytes;
        let reader = &*resident.reader;
        let (indexes, damaged) = scan_segment(reader, segment.base, limit, interval, |_| {})
            .await
            .map_err(storage)?;
        add_damage(&self.view, &damaged);
        let Some(end) = segment.end() else {
            // The owner keeps the active segment's indexes itself.
            return Ok(damaged);
        };
        let changed = *read_lock(&resident.indexes) != indexes;
        if changed && damaged.is_empty() {
            tracing::info!(segment = %segment.base, "indexes were rebuilt");
            write_indexes(&*self.storage, self.owner, end, &indexes).await;
        }
        *write_lock(&resident.indexes) = indexes;
        Ok(damaged)
    }
}

/// Goes through a segment up to `limit`: its indexes, and what is damaged. `each` is called with
/// the header of every good batch, in order.
pub(crate) async fn scan_segment(
    reader: &dyn SegmentReader,
    base: Offset,
    limit: IndexEntry,
    interval: u32,
    mut each: impl FnMut(&BatchHeader) + Send,
) -> Result<(Indexes, Vec<DamagedRange>), StorageError> {
    let start = Valid {
        position: 0,
        offset: base,
    };
    let end = Valid {
        position: limit.position,
        offset: limit.offset,
    };
    let mut scanner = Scanner::new(reader, Offsets::Rising, start, end);
    let mut indexes = Indexes::default();
    let mut damaged = Vec::new();
    loop {
        let reason = match scanner.step().await? {
            Step::Batch { position, header } => {
                indexes.note(&header, position, interval);
                each(&header);
                continue;
            }
            Step::End if scanner.at().offset >= limit.offset => break,
            Step::End => "records are missing at the end of the segment".to_owned(),
            Step::Damage(reason) => reason,
        };
        let at = scanner.at();
        let next = scanner.resync(at.position + 1).await?;
        let end = next.unwrap_or(Valid {
            position: limit.position.max(at.position),
            offset: limit.offset,
        });
        damaged.push(DamagedRange {
            offsets: OffsetRange::new(at.offset, end.offset),
            segment: base,
            positions: at.position..end.position,
            reason,
        });
        if next.is_none() {
            break;
        }
        scanner.jump(end);
    }
    Ok((indexes, damaged))
}

fn storage(error: StorageError) -> ReadError {
    ReadError::Storage(Arc::new(error))
}
