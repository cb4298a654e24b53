//! Crashes, kills and closes, and what must be there afterwards.

use std::sync::Arc;

use comlog_log::{Durability, Log, LogError, RecoveryReport};
use comlog_record::{Offset, OffsetRange, RecordBatch};
use comlog_storage::FaultPlan;
use rand::Rng;

use crate::check::{check_damaged, check_fetched, check_read_error, ensure};
use crate::drive::{Broken, drive, finish};
use crate::model::same_batch;
use crate::world::{Doubt, World};

/// Opening is disturbed at most so often before it is left in peace.
const DISTURBED_MAX: u32 = 3;

impl World {
    /// Ends the process, by a power cut or a kill, and opens the log again.
    pub(crate) fn restart(&mut self) -> Result<(), Broken> {
        self.end_process();
        self.open(false)
    }

    fn end_process(&mut self) {
        self.background = None;
        self.reader = None;
        self.log = None;
        self.full_for = 0;
        self.faults = FaultPlan::default();
        self.set_plan();
        self.summary.restarts += 1;
        if self.rng.random_bool(0.6) {
            self.note(format_args!("power cut"));
            self.storage.crash();
            self.doubt.power = true;
        } else {
            self.note(format_args!("kill"));
            self.storage.kill();
        }
    }

    /// Opens the log, possibly with crashes and errors half way, and checks what it holds.
    pub(crate) fn open(&mut self, clean: bool) -> Result<(), Broken> {
        let mut clean = clean;
        let mut disturbed = 0;
        let (log, report) = loop {
            let peace = disturbed == DISTURBED_MAX;
            if !peace && self.rng.random_bool(0.1) {
                self.faults.sync_error = 0.3;
                self.faults.name_error = 0.2;
                self.set_plan();
            }
            let budget = if peace { None } else { self.budget() };
            let storage = Arc::new(self.storage.clone());
            let opening = Log::open(storage, self.config.clone(), self.clock.clone());
            let faulty = self.faults != FaultPlan::default();
            match drive(opening, budget, || Ok(()))? {
                Some(Ok(opened)) => break opened,
                Some(Err(error)) => {
                    ensure!(faulty, "the log does not open: {error}");
                    ensure!(
                        matches!(error, LogError::Storage(_)),
                        "the log does not open: {error}"
                    );
                    self.note(format_args!("opening failed: {error}"));
                    self.doubt.errors = true;
                }
                None => self.note(format_args!("crash while opening")),
            }
            clean = false;
            disturbed += 1;
            self.doubt.disturbed = true;
            self.end_process();
        };
        self.faults = FaultPlan::default();
        self.set_plan();
        self.reader = Some(log.reader());
        self.log = Some(log);
        self.note(format_args!("opened: {report:?}"));
        self.note_segments()?;
        self.forgive()?;
        self.check_report(&report, clean)?;
        self.adopt(&report)?;
        self.observed.clear();
        self.doubt = Doubt::default();
        self.check_scars()?;
        self.read_all()
    }

    fn note_segments(&mut self) -> Result<(), Broken> {
        let segments: Vec<String> = self
            .reader()?
            .segments()
            .iter()
            .map(|segment| format!("{}: {} bytes", segment.base_offset, segment.len))
            .collect();
        self.note(format_args!("segments: {}", segments.join(", ")));
        Ok(())
    }

    /// After a device error pages may be lost that were acknowledged in memory: the log reports them
    /// as damaged then, and does not give their offsets out again.
    fn forgive(&mut self) -> Result<(), Broken> {
        if !self.doubt.errors {
            return Ok(());
        }
        // Not only what was reported now: an opening that was cut short may have noted it.
        let all = OffsetRange::new(Offset::ZERO, Offset(i64::MAX));
        let damaged = self.reader()?.known_damage(all);
        let mut lost = false;
        for range in &damaged {
            let within = |offset| range.offsets.contains(offset);
            let entries = self.model.entries.iter_mut();
            for entry in entries.filter(|entry| !entry.durable && within(entry.offsets().start)) {
                entry.damaged = true;
                lost = true;
            }
        }
        if lost {
            // What producers sent last may be among it.
            self.model.retire_producers();
            let known = self.log()?.producer_id_max();
            self.model.producer_id_max = self.model.producer_id_max.min(known);
        }
        Ok(())
    }

    fn check_report(&self, report: &RecoveryReport, clean: bool) -> Result<(), Broken> {
        if clean {
            ensure!(
                report.clean && report.cut.is_none() && !report.epoch_raised,
                "closed cleanly, yet opening reports {report:?}"
            );
        }
        for range in &report.damaged {
            check_damaged(&self.model, range.offsets.start, range.offsets.end)?;
        }
        Ok(())
    }

    /// Compares positions with what may be there, and takes them over.
    fn adopt(&mut self, report: &RecoveryReport) -> Result<(), Broken> {
        let positions = self.reader()?.positions();
        let end = positions.end;
        self.check_end(end)?;
        let lost = end < self.model.end() && self.doubt.end.is_none();
        ensure!(
            !lost || self.doubt.forgetful || positions.leader_epoch > self.model.epoch,
            "visible batches were lost, the leader epoch stayed {}",
            self.model.epoch
        );
        self.model.truncate(end);
        for batch in std::mem::take(&mut self.doubt.batches) {
            if self.model.end() < end {
                if self.is_given_up(self.model.end())? {
                    self.adopt_lost(&batch)?;
                    continue;
                }
                let read = self.read_one(self.model.end())?;
                ensure!(
                    same_batch(&read, &batch),
                    "in place of {:?} there is {:?}",
                    batch.header(),
                    read.header()
                );
                self.model.push(read, &batch)?;
            }
        }
        ensure!(
            self.model.end() == end,
            "the log ends at {end}, whole batches at {}",
            self.model.end()
        );
        self.check_observed(end)?;
        self.adopt_state(report)
    }

    /// Whether a device error cost a batch that was under way after the log had marked its end:
    /// reported as damaged, its offsets not given again.
    fn is_given_up(&self, offset: Offset) -> Result<bool, Broken> {
        let at = OffsetRange::new(offset, offset.next());
        Ok(self.doubt.errors && !self.reader()?.known_damage(at).is_empty())
    }

    /// Takes a batch over whose offsets are all that is left of it.
    fn adopt_lost(&mut self, batch: &RecordBatch) -> Result<(), Broken> {
        let mut lost = batch.clone();
        lost.assign(self.model.end(), self.model.epoch);
        self.model.push(lost, batch)?;
        if let Some(entry) = self.model.entries.last_mut() {
            entry.damaged = true;
        }
        self.model.retire_producers();
        let known = self.log()?.producer_id_max();
        self.model.producer_id_max = self.model.producer_id_max.min(known);
        Ok(())
    }

    /// A crash may take back only what was not promised, and add only what was under way.
    fn check_end(&self, end: Offset) -> Result<(), Broken> {
        let model = &self.model;
        let promised = if self.doubt.power || self.doubt.errors {
            model.durable_end()
        } else {
            model.end()
        };
        let least = self.doubt.end.map_or(promised, |cut| cut.min(promised));
        ensure!(
            least <= end,
            "the log ends at {end}, promised up to {least} (durable {}, acknowledged {})",
            model.durable_end(),
            model.end()
        );
        Ok(())
    }

    /// What a reader saw of batches under way is still there, if it was durable.
    pub(crate) fn check_observed(&self, end: Offset) -> Result<(), Broken> {
        let may_go = self.floor() == Durability::Memory || self.doubt.end.is_some();
        for seen in &self.observed {
            let offsets = seen.header().offsets();
            if offsets.end > end && may_go {
                continue;
            }
            let entry = self.model.entries.get(self.model.index_of(offsets.start));
            ensure!(
                entry.is_some_and(|entry| entry.batch == *seen || entry.damaged),
                "a reader saw {:?}, which was taken back",
                seen.header()
            );
        }
        Ok(())
    }

    fn adopt_state(&mut self, report: &RecoveryReport) -> Result<(), Broken> {
        let positions = self.reader()?.positions();
        let token = self.log()?.fencing_token();
        let forgetful = self.doubt.forgetful;
        let start_max = self.doubt.start.unwrap_or(self.model.start);
        ensure!(
            forgetful || self.model.start <= positions.start && positions.start <= start_max,
            "log start {}, promised {} to {start_max}",
            positions.start,
            self.model.start
        );
        ensure!(
            forgetful || token == self.model.token || self.doubt.tokens.contains(&token),
            "fencing token {token}, promised {}",
            self.model.token
        );
        let epoch = positions.leader_epoch;
        let expected = epoch == self.model.epoch
            || Some(epoch) == self.doubt.epoch
            || self.doubt.disturbed && epoch > self.model.epoch;
        ensure!(
            forgetful || report.epoch_raised && epoch > self.model.epoch || expected,
            "leader epoch {epoch}, promised {}",
            self.model.epoch
        );
        if forgetful {
            self.model.producer_id_max = self.log()?.producer_id_max();
        }
        self.model.start = positions.start;
        self.model.token = token;
        self.model.epoch = epoch;
        self.model.promise(positions.durable);
        Ok(())
    }

    /// Closes the log and opens it again, which must not lose a thing.
    pub(crate) fn close(&mut self) -> Result<(), Broken> {
        let log = self.log.take().ok_or("no log is open")?;
        self.background = None;
        let budget = self.budget();
        let full = self.full_for > 0;
        let faulty = full || self.faults != FaultPlan::default();
        match drive(log.close(), budget, || Ok(()))? {
            Some(Ok(())) => {
                self.note(format_args!("closed"));
                self.model.promise(self.model.end());
                self.reader = None;
                self.calm();
                // Without room for a checkpoint the next start scans.
                self.open(!full)
            }
            Some(Err(error)) => {
                ensure!(faulty, "closing failed: {error}");
                self.note(format_args!("closing failed: {error}"));
                self.doubt.errors = true;
                self.restart()
            }
            None => self.restart(),
        }
    }

    /// Reads everything that is visible, as a consumer does, and compares it.
    pub(crate) fn read_all(&mut self) -> Result<(), Broken> {
        let reader = self.reader()?;
        let end = reader.positions().high_watermark;
        let mut from = reader.positions().start;
        while from < end {
            let bytes_max = self.rng.random_range(0..20_000);
            self.summary.reads += 1;
            let next = match self.finish(reader.read(from, bytes_max))? {
                Ok(fetched) => check_fetched(&self.model, from, bytes_max, &fetched)?,
                Err(error) => check_read_error(&self.model, from, &error)?,
            };
            ensure!(
                next > from,
                "a read at {from} does not go on, the log ends at {end}"
            );
            from = next;
        }
        ensure!(from == end, "read up to {from}, visible up to {end}");
        Ok(())
    }

    /// The batch at `from`, which must be undamaged.
    fn read_one(&self, from: Offset) -> Result<RecordBatch, Broken> {
        let read = finish(self.reader()?.read(from, 0))?;
        let fetched = read.map_err(|error| format!("reading {from}: {error}"))?;
        let mut stream = comlog_record::BatchStream::new(fetched.chunks);
        let batch = stream.next_batch(&comlog_record::Limits::DEFAULT);
        batch
            .map_err(|error| format!("decoding {from}: {error}"))?
            .ok_or_else(|| format!("nothing at {from}"))
    }
}
