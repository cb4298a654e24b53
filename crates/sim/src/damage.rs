//! Harm to bytes that were durable: what the log must notice, report and leave alone.

use std::ops::Range;

use comlog_log::{Durability, SegmentInfo};
use comlog_record::Offset;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::check::ensure;
use crate::drive::{Broken, finish};
use crate::world::World;
use comlog_storage::Storage;

/// Most batches harmed in one world.
const SCARS_MAX: usize = 3;
/// What cannot be read for one bad page.
const PAGE: u64 = 4096;
/// Magic and format number of a blob: one of a newer format is refused, not rebuilt.
const BLOB_HEAD: usize = 12;
/// The leader epoch in a batch: no checksum covers it, so nobody can notice.
const UNCHECKED: Range<u64> = 12..16;

/// Bytes as they were left by a flipped bit.
#[derive(Debug)]
pub(crate) struct Scar {
    segment: Offset,
    position: u64,
    content: Vec<u8>,
}

/// A batch, and where it lies.
#[derive(Debug, Clone)]
struct Target {
    index: usize,
    segment: Offset,
    positions: Range<u64>,
}

impl World {
    /// Flips a bit in a durable batch, makes its page unreadable, or harms a blob.
    pub(crate) fn harm(&mut self) -> Result<(), Broken> {
        if self.rng.random_bool(0.4) {
            return self.harm_blob();
        }
        if self.scars.len() >= SCARS_MAX {
            return Ok(());
        }
        let targets = self.targets()?;
        let Some(target) = targets.choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        if self.rng.random_bool(0.2) {
            self.spoil_page(&target, &targets)
        } else {
            self.flip_bit(&target)
        }
    }

    /// Durable batches whose damage cannot be taken for a torn tail.
    fn targets(&self) -> Result<Vec<Target>, Broken> {
        let mut targets = Vec::new();
        for segment in self.reader()?.segments() {
            let safe_end = self.safe_end(&segment);
            let mut position = 0;
            for index in self.model.index_of(segment.base_offset)..self.model.entries.len() {
                let entry = &self.model.entries[index];
                if entry.offsets().start >= segment.end_offset {
                    break;
                }
                let end = position + entry.batch.total_len() as u64;
                let whole = entry.durable && entry.offsets().start >= self.model.start;
                if whole && end <= safe_end {
                    targets.push(Target {
                        index,
                        segment: segment.base_offset,
                        positions: position..end,
                    });
                }
                position = end;
            }
        }
        Ok(targets)
    }

    /// In the active segment only what lies well before the last group is safe from being cut.
    fn safe_end(&self, segment: &SegmentInfo) -> u64 {
        if segment.sealed {
            return segment.len;
        }
        if self.floor() == Durability::Memory {
            return 0;
        }
        let group = self
            .config
            .group_bytes_max
            .max(self.config.limits.batch_bytes_max) as u64;
        segment.len.saturating_sub(3 * group)
    }

    fn flip_bit(&mut self, target: &Target) -> Result<(), Broken> {
        let len = target.positions.end - target.positions.start;
        let within = self.rng.random_range(0..len);
        if UNCHECKED.contains(&within) || self.model.entries[target.index].damaged {
            return Ok(());
        }
        let position = target.positions.start + within;
        let mask = 1 << self.rng.random_range(0..8);
        ensure!(
            self.storage.corrupt(target.segment, position, mask),
            "the model and the disk disagree about {target:?}"
        );
        self.scar(target)?;
        self.note(format_args!(
            "flip {mask:#x} at {position} of {}, byte {within} of batch {}",
            target.segment,
            self.model.entries[target.index].offsets()
        ));
        Ok(())
    }

    fn spoil_page(&mut self, target: &Target, targets: &[Target]) -> Result<(), Broken> {
        let start = target.positions.start / PAGE * PAGE;
        let page = start..start + PAGE;
        let hit = |other: &&Target| {
            other.segment == target.segment
                && other.positions.start < page.end
                && page.start < other.positions.end
        };
        let hit: Vec<&Target> = targets.iter().filter(hit).collect();
        // Every batch in the page must be one that may be harmed.
        let covered = hit
            .first()
            .is_some_and(|first| first.positions.start <= page.start)
            && hit
                .last()
                .is_some_and(|last| last.positions.end >= page.end);
        if !covered {
            return Ok(());
        }
        let damaged = self.storage.damage(target.segment, page.clone());
        damaged.map_err(|error| format!("the disk has no {target:?}: {error}"))?;
        for target in hit {
            self.scar(target)?;
        }
        self.note(format_args!("spoil {page:?} of {}", target.segment));
        Ok(())
    }

    fn scar(&mut self, target: &Target) -> Result<(), Broken> {
        let disk = self.storage.content(target.segment);
        let disk = disk.map_err(|error| format!("the disk has no {target:?}: {error}"))?;
        let range = target.positions.start as usize..target.positions.end as usize;
        self.model.entries[target.index].damaged = true;
        self.scars.push(Scar {
            segment: target.segment,
            position: target.positions.start,
            content: disk[range].to_vec(),
        });
        Ok(())
    }

    /// That damaged bytes are still as the damage left them, where their segment still is.
    pub(crate) fn check_scars(&self) -> Result<(), Broken> {
        for scar in &self.scars {
            let Ok(disk) = self.storage.content(scar.segment) else {
                continue;
            };
            let start = scar.position as usize;
            let now = disk.get(start..start + scar.content.len());
            ensure!(
                now == Some(&scar.content),
                "damage at {start} of segment {} was overwritten",
                scar.segment
            );
        }
        Ok(())
    }

    /// Indexes are hints: harm to them must not show. A lost checkpoint may cost what only it knew.
    fn harm_blob(&mut self) -> Result<(), Broken> {
        let names = finish(self.storage.list_blobs())?;
        let names = names.map_err(|error| error.to_string())?;
        let Some(name) = names.choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        let is_hint = name.ends_with("index");
        if !is_hint && self.rng.random_bool(0.7) {
            return Ok(());
        }
        let content = finish(self.storage.read_blob(&name))?;
        let len = content.ok().flatten().map_or(0, |content| content.len());
        if len <= BLOB_HEAD {
            return Ok(());
        }
        let position = self.rng.random_range(BLOB_HEAD..len);
        self.storage
            .corrupt_blob(&name, position, 1 << self.rng.random_range(0..8));
        self.note(format_args!("flip a bit of blob {name} at {position}"));
        if is_hint {
            return Ok(());
        }
        self.doubt.forgetful = true;
        self.model.retire_producers();
        self.restart()
    }
}
