//! The steps of a world.

use comlog_log::{Durability, ErrorKind, LogError};
use comlog_record::{LeaderEpoch, Offset, Timestamp};
use comlog_storage::FaultPlan;
use rand::Rng;

use crate::check::{check_damaged, check_fetched, check_positions, check_read_error, ensure};
use crate::drive::{Broken, drive};
use crate::world::{Background, World};

/// Calls a method of the log, which a crash may cut: `None` then, and the log is gone.
macro_rules! call {
    ($world:expr, $method:ident($($argument:expr),*)) => {{
        let mut log = $world.log.take().ok_or("no log is open")?;
        let budget = $world.budget();
        let background = &mut $world.background;
        let outcome = drive(log.$method($($argument),*), budget, || {
            Background::nudge(background);
            Ok(())
        })?;
        if outcome.is_some() {
            $world.log = Some(log);
        }
        outcome
    }};
}

impl World {
    pub(crate) fn take_step(&mut self) -> Result<(), Broken> {
        self.pass_time();
        match self.rng.random_range(0..100) {
            0..6 => self.read()?,
            6..10 => self.find_timestamp()?,
            10..12 => self.start_background()?,
            12..13 => self.verify()?,
            13..15 => self.read_all()?,
            15..18 => self.restart()?,
            18..20 => self.close()?,
            20..22 => self.fill_disk(),
            22..26 => self.fail_device()?,
            26..30 if self.harmful => self.harm()?,
            _ => self.change()?,
        }
        self.poll_background()?;
        self.drain_disk()?;
        self.settle()
    }

    /// One change of the log, whatever else goes on.
    fn change(&mut self) -> Result<(), Broken> {
        match self.rng.random_range(0..100) {
            0..70 => self.append(),
            70..76 => self.sync(),
            76..81 => self.roll(),
            81..86 => self.trim(),
            86..87 => self.truncate(),
            87..93 => self.maintain(),
            93..95 => self.fence(),
            95..97 => self.raise_epoch(),
            _ => self.reconfigure(),
        }
    }

    fn pass_time(&mut self) {
        let passed = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(0..30_000),
            1 => -self.rng.random_range(0..1_000),
            _ => self.rng.random_range(0..100),
        };
        self.now += passed;
        self.clock.set(Timestamp(self.now));
    }

    fn fill_disk(&mut self) {
        let steps = self.rng.random_range(1..8);
        self.full_for = steps;
        self.note(format_args!("disk full for {steps} steps"));
        self.set_plan();
    }

    /// Counts down a full disk; when there is room again, appends go on.
    fn drain_disk(&mut self) -> Result<(), Broken> {
        if self.full_for == 0 {
            return Ok(());
        }
        self.full_for -= 1;
        if self.full_for > 0 {
            return Ok(());
        }
        self.set_plan();
        let request = self.plain_request()?;
        self.note(format_args!("room again"));
        let results = self.append_one(&request)?;
        ensure!(
            matches!(results[..], [Ok(_)]),
            "there is room again, but {results:?}"
        );
        self.take_results(&[request], results)
    }

    /// A change while the device fails.
    fn fail_device(&mut self) -> Result<(), Broken> {
        let faults = match self.rng.random_range(0..3) {
            0 => FaultPlan {
                append_error: 0.7,
                ..FaultPlan::default()
            },
            1 => FaultPlan {
                sync_error: 0.7,
                ..FaultPlan::default()
            },
            _ => FaultPlan {
                name_error: 0.4,
                ..FaultPlan::default()
            },
        };
        self.faults = faults;
        self.note(format_args!("device fails: {faults:?}"));
        self.set_plan();
        self.change()?;
        self.faults = FaultPlan::default();
        self.set_plan();
        Ok(())
    }

    /// What an error of another operation may be; true when the log is as it was, or nearly.
    fn take_error(&mut self, what: &str, error: &LogError) -> Result<bool, Broken> {
        self.note(format_args!("{what} failed: {error}"));
        let failed = self.log()?.failure().is_some();
        if error.kind() == ErrorKind::NoSpace {
            ensure!(self.full_for > 0, "{what}: no space, but there is some");
            ensure!(!failed, "{what}: a full disk is not final");
            return Ok(true);
        }
        ensure!(
            matches!(error, LogError::Storage(_)) && self.faults != FaultPlan::default(),
            "{what} failed without a fault: {error}"
        );
        self.doubt.errors = true;
        if failed {
            self.after_failure()?;
        }
        Ok(!failed)
    }

    fn sync(&mut self) -> Result<(), Broken> {
        match call!(self, sync()) {
            None => self.restart(),
            Some(Ok(end)) => {
                self.note(format_args!("sync: {end}"));
                ensure!(
                    end == self.model.end(),
                    "synced up to {end}, the log ends at {}",
                    self.model.end()
                );
                self.model.promise(end);
                Ok(())
            }
            Some(Err(error)) => self.take_error("sync", &error).map(|_| ()),
        }
    }

    fn roll(&mut self) -> Result<(), Broken> {
        match call!(self, roll()) {
            None => self.restart(),
            Some(Ok(())) => {
                self.note(format_args!("roll"));
                Ok(())
            }
            Some(Err(error)) => self.take_error("roll", &error).map(|_| ()),
        }
    }

    fn trim(&mut self) -> Result<(), Broken> {
        let target = self.any_visible_offset()?;
        let target = target.max(self.model.start);
        self.doubt.start = self.doubt.start.max(Some(target));
        match call!(self, trim(target)) {
            None => self.restart(),
            Some(Ok(start)) => {
                self.note(format_args!("trim {target}: {start}"));
                ensure!(start == target, "trimmed at {target}, starts at {start}");
                self.model.start = start;
                Ok(())
            }
            Some(Err(error)) => self.take_trim_error("trim", &error),
        }
    }

    fn take_trim_error(&mut self, what: &str, error: &LogError) -> Result<(), Broken> {
        if self.take_error(what, error)? {
            let start = self.reader()?.positions().start;
            let most = self.doubt.start.unwrap_or(self.model.start);
            ensure!(
                self.model.start <= start && start <= most,
                "{what} failed, the log starts at {start}"
            );
            self.model.start = start;
        }
        Ok(())
    }

    fn truncate(&mut self) -> Result<(), Broken> {
        let target = Offset(
            self.rng
                .random_range(self.model.start.0..=self.model.end().0),
        );
        let kept = self.model.index_of(target);
        let boundary = self.model.entries[..kept]
            .last()
            .map_or(Offset::ZERO, |e| e.offsets().end);
        if boundary < self.model.start || self.model.is_damaged() {
            return Ok(());
        }
        self.background = None;
        self.model.retire_producers();
        self.doubt.end = Some(boundary);
        match call!(self, truncate(target)) {
            None => self.restart(),
            Some(Ok(end)) => {
                self.note(format_args!("truncate {target}: {end}"));
                ensure!(
                    end == boundary,
                    "cut at {target}: ends at {end}, not {boundary}"
                );
                self.model.truncate(end);
                self.doubt.end = None;
                Ok(())
            }
            // The lower end is visible before it is noted: without room for that it is final.
            Some(Err(error)) if self.full_for > 0 && self.log()?.failure().is_some() => {
                self.note(format_args!("truncate failed: {error}"));
                self.restart()
            }
            Some(Err(error)) => {
                if self.take_error("truncate", &error)? {
                    let end = self.reader()?.positions().end;
                    self.model.truncate(end);
                }
                Ok(())
            }
        }
    }

    fn maintain(&mut self) -> Result<(), Broken> {
        self.doubt.start = self.doubt.start.max(Some(self.model.end()));
        match call!(self, maintain()) {
            None => self.restart(),
            Some(Ok(removed)) => {
                self.note(format_args!("maintain: {} removed", removed.len()));
                let start = self.reader()?.positions().start;
                let keeps =
                    self.config.retention_bytes.is_none() && self.config.retention_age.is_none();
                ensure!(
                    removed.is_empty() || !keeps,
                    "removed without a policy: {removed:?}"
                );
                let behind = removed
                    .last()
                    .map_or(self.model.start, |last| last.end_offset);
                ensure!(
                    start == behind.max(self.model.start),
                    "starts at {start} after removing up to {behind}"
                );
                self.model.start = start;
                Ok(())
            }
            Some(Err(error)) => self.take_trim_error("maintain", &error),
        }
    }

    fn fence(&mut self) -> Result<(), Broken> {
        let token = self.model.token + self.rng.random_range(0..3);
        self.doubt.tokens.push(token);
        match call!(self, fence(token)) {
            None => return self.restart(),
            Some(Ok(())) => {
                ensure!(token > self.model.token, "token {token} was taken twice");
                self.model.token = token;
            }
            Some(Err(LogError::StaleToken { .. })) => {
                ensure!(token <= self.model.token, "token {token} is not stale");
                // Nothing was written: an earlier token may still come up.
                self.doubt.tokens.pop();
                return Ok(());
            }
            Some(Err(error)) => {
                if self.take_error("fence", &error)? {
                    let actual = self.log()?.fencing_token();
                    ensure!(
                        actual == self.model.token || actual == token,
                        "token {actual} after a failed fence at {token}"
                    );
                    self.model.token = actual;
                }
                return Ok(());
            }
        }
        self.doubt.tokens.clear();
        self.note(format_args!("fence {token}"));
        Ok(())
    }

    fn raise_epoch(&mut self) -> Result<(), Broken> {
        let epoch = LeaderEpoch(self.model.epoch.0 + 1);
        self.doubt.epoch = Some(epoch);
        match call!(self, set_leader_epoch(epoch)) {
            None => self.restart(),
            Some(Ok(())) => {
                self.note(format_args!("epoch {epoch}"));
                self.model.epoch = epoch;
                self.doubt.epoch = None;
                Ok(())
            }
            Some(Err(error)) => {
                if self.take_error("epoch", &error)? {
                    let actual = self.reader()?.positions().leader_epoch;
                    ensure!(
                        actual == self.model.epoch || actual == epoch,
                        "epoch {actual} after a failed raise to {epoch}"
                    );
                    self.model.epoch = actual;
                }
                Ok(())
            }
        }
    }

    fn reconfigure(&mut self) -> Result<(), Broken> {
        let mut config = self.config.clone();
        // Where bits flip, damage must be told from tears by one rule.
        if !self.harmful {
            config.durability = match self.rng.random_range(0..2) {
                0 => Durability::Durable,
                _ => Durability::Memory,
            };
        }
        config.segment_bytes_max = 1 << self.rng.random_range(12..17);
        match call!(self, set_config(config.clone())) {
            None => self.restart(),
            Some(Ok(())) => {
                self.note(format_args!("now {:?}", config.durability));
                if config.durability == Durability::Durable {
                    self.model.promise(self.model.end());
                }
                self.config = config;
                Ok(())
            }
            Some(Err(error)) => {
                if self.take_error("config", &error)? {
                    self.config = self.log()?.config().clone();
                }
                Ok(())
            }
        }
    }

    fn read(&mut self) -> Result<(), Broken> {
        let from = self.any_visible_offset()?;
        let bytes_max = self.rng.random_range(0..8_000);
        let reader = self.reader()?;
        let tried = if self.rng.random_bool(0.5) {
            reader.try_read(from, bytes_max).transpose()
        } else {
            None
        };
        let result = match tried {
            Some(result) => result,
            None => self.finish(reader.read(from, bytes_max))?,
        };
        self.summary.reads += 1;
        let next = match result {
            Ok(fetched) => check_fetched(&self.model, from, bytes_max, &fetched)?,
            Err(error) => check_read_error(&self.model, from, &error)?,
        };
        self.note(format_args!("read [{from}, {next})"));
        let visible = reader.positions().high_watermark;
        ensure!(
            next > from || from == visible,
            "nothing read at {from}, visible up to {visible}"
        );
        Ok(())
    }

    fn find_timestamp(&mut self) -> Result<(), Broken> {
        let timestamp = Timestamp(self.now - self.rng.random_range(-1_000..60_000));
        let reader = self.reader()?;
        let found = self.finish(reader.offset_for_timestamp(timestamp))?;
        let visible = reader.positions().high_watermark;
        let expected = self.model.find_timestamp(timestamp, visible);
        self.note(format_args!("timestamp {timestamp}: {expected:?}"));
        match found {
            Err(_) if self.model.is_damaged() => Ok(()),
            Err(error) => Err(format!("looking for {timestamp}: {error}")),
            Ok(found) => {
                let found = found.map(|found| (found.offset, found.timestamp));
                ensure!(
                    found == expected,
                    "timestamp {timestamp} is at {expected:?}, found {found:?}"
                );
                Ok(())
            }
        }
    }

    /// Verification finds all damage, and nothing else.
    fn verify(&mut self) -> Result<(), Broken> {
        let reader = self.reader()?;
        let found = self.finish(reader.verify())?;
        let found = found.map_err(|error| format!("verifying: {error}"))?;
        self.note(format_args!("verify: {} damaged", found.len()));
        for range in &found {
            check_damaged(&self.model, range.offsets.start, range.offsets.end)?;
        }
        let visible = &self.model.entries[self.model.index_of(self.model.start)..];
        for entry in visible.iter().filter(|entry| entry.damaged) {
            let covered = |range: &comlog_log::DamagedRange| {
                range.offsets.start <= entry.offsets().start
                    && entry.offsets().end <= range.offsets.end
            };
            ensure!(
                found.iter().any(covered),
                "verify does not see the damage at {}: {found:?}",
                entry.offsets()
            );
        }
        Ok(())
    }

    /// What holds after every step.
    fn settle(&mut self) -> Result<(), Broken> {
        let positions = self.reader()?.positions();
        check_positions(&positions, self.floor())?;
        let model = &self.model;
        ensure!(
            positions.end == model.end() && positions.start == model.start,
            "{positions:?}, expected [{}, {})",
            model.start,
            model.end()
        );
        ensure!(
            positions.high_watermark == positions.end,
            "at rest, yet not all is visible: {positions:?}"
        );
        ensure!(
            positions.leader_epoch == model.epoch,
            "{positions:?}, expected epoch {}",
            model.epoch
        );
        ensure!(
            positions.durable >= model.durable_end(),
            "{positions:?}, promised durable up to {}",
            model.durable_end()
        );
        let id_max = model.producer_id_max;
        let known = self.log()?.producer_id_max();
        ensure!(
            known >= id_max,
            "producer id {id_max} is in the log, {known} is known"
        );
        self.model.promise(positions.durable);
        self.observed.clear();
        Ok(())
    }
}
