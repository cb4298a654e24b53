//! The steps of a world.

use comlog_log::{
    AppendError, AppendRequest, Appended, Durability, ErrorKind, LogError, LogReader,
};
use comlog_record::{
    BatchStream, LeaderEpoch, Limits, Offset, RecordBatch, Timestamp, TimestampType,
};
use comlog_storage::FaultPlan;
use rand::Rng;

use crate::check::{check_damaged, check_fetched, check_positions, check_read_error, ensure};
use crate::drive::{Broken, drive};
use crate::model::{Expected, Model};
use crate::request::Producers;
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

    fn append(&mut self) -> Result<(), Broken> {
        let group = self.group()?;
        let mut log = self.log.take().ok_or("no log is open")?;
        let reader = log.reader();
        let budget = self.budget();
        let mut seen = Vec::new();
        let (floor, end) = (self.floor(), self.model.end());
        let background = &mut self.background;
        let appending = log.append(group.clone());
        let results = drive(appending, budget, || {
            Background::nudge(background);
            observe(&reader, floor, end, &mut seen)
        })?;
        self.observed.append(&mut seen);
        match results {
            Some(results) => {
                self.log = Some(log);
                self.take_results(&group, results)
            }
            None => {
                self.note(format_args!("append of {} cut", group.len()));
                self.put_in_doubt(&group)?;
                drop((log, reader));
                self.restart()
            }
        }
    }

    fn take_results(
        &mut self,
        group: &[AppendRequest],
        results: Vec<Result<Appended, AppendError>>,
    ) -> Result<(), Broken> {
        self.note(format_args!("append: {}", summarize(&results)));
        ensure!(
            group.len() == results.len(),
            "{} requests, {} answers",
            group.len(),
            results.len()
        );
        let failed = results
            .iter()
            .position(|result| matches!(result, Err(AppendError::Failed(_))));
        let mut spoiled = false;
        for (request, result) in group.iter().zip(&results) {
            spoiled |= self.take_result(request, result, spoiled)?;
        }
        let Some(failed) = failed else {
            return self.check_observed(self.model.end());
        };
        self.put_in_doubt(&group[failed..])?;
        self.after_failure()
    }

    /// Checks one answer; true when it is a failure that makes the answers behind it uncertain.
    fn take_result(
        &mut self,
        request: &AppendRequest,
        result: &Result<Appended, AppendError>,
        spoiled: bool,
    ) -> Result<bool, Broken> {
        let expected = self.model.expect(request, &self.config.limits);
        match (result, &expected) {
            (Ok(appended), Expected::Append) if !appended.duplicate => {
                self.take_appended(request, appended)?;
            }
            (Ok(appended), Expected::Duplicate { offsets, .. }) if appended.duplicate => {
                ensure!(
                    appended.offsets == *offsets,
                    "a retry of {offsets} was answered with {}",
                    appended.offsets
                );
                self.check_level(request, appended)?;
            }
            (Err(AppendError::NoSpace), _) => {
                ensure!(self.full_for > 0, "no space, but there is some");
                return Ok(true);
            }
            (Err(AppendError::Failed(_)), _) => {
                ensure!(
                    self.faults != FaultPlan::default(),
                    "failed without a fault: {result:?}"
                );
                return Ok(true);
            }
            (Err(_), _) if spoiled => {}
            (Err(error), Expected::Refuse | Expected::Duplicate { must: false, .. }) => ensure!(
                self.model.explains(error, request),
                "refused with {error}, which does not fit {:?}",
                request.batch.header()
            ),
            _ => {
                let header = request.batch.header();
                return Err(format!(
                    "expected {expected:?} of {header:?}, got {result:?}"
                ));
            }
        }
        Ok(false)
    }

    fn take_appended(
        &mut self,
        request: &AppendRequest,
        appended: &Appended,
    ) -> Result<(), Broken> {
        let mut batch = request.batch.clone();
        batch.assign(appended.offsets.start, self.model.epoch);
        ensure!(
            batch.header().offsets() == appended.offsets,
            "{} records were appended at {}",
            batch.header().record_count,
            appended.offsets
        );
        let stamps = self.config.timestamp_type == TimestampType::LogAppendTime;
        ensure!(
            appended.append_time.is_some() == stamps,
            "append time {:?} where stamping is {stamps}",
            appended.append_time
        );
        if let Some(time) = appended.append_time {
            batch.stamp_log_append_time(time);
        }
        self.summary.batches += 1;
        self.model.push(batch, &request.batch)?;
        self.check_level(request, appended)
    }

    fn check_level(&mut self, request: &AppendRequest, appended: &Appended) -> Result<(), Broken> {
        let asked = request.durability.max(self.floor());
        ensure!(
            appended.durable || asked == Durability::Memory,
            "acknowledged {} before it was durable",
            appended.offsets
        );
        if appended.durable {
            self.model.promise(appended.offsets.end);
        }
        Ok(())
    }

    /// Notes what `group` would have become, had it been appended whole.
    fn put_in_doubt(&mut self, group: &[AppendRequest]) -> Result<(), Broken> {
        let mut view = self.model.clone();
        for request in group {
            if view.expect(request, &self.config.limits) == Expected::Append {
                let mut batch = request.batch.clone();
                batch.assign(view.end(), view.epoch);
                view.push(batch.clone(), &request.batch)?;
                self.doubt.batches.push(batch);
            }
        }
        Ok(())
    }

    /// An error was final: nothing is appended any more, everything visible can still be read.
    fn after_failure(&mut self) -> Result<(), Broken> {
        self.doubt.errors = true;
        self.faults = FaultPlan::default();
        self.set_plan();
        let request = self.plain_request()?;
        ensure!(
            self.log()?.failure().is_some(),
            "failed, but it does not say so"
        );
        let results = self.append_one(&request)?;
        ensure!(
            matches!(results[..], [Err(AppendError::Failed(_))]),
            "failed earlier, yet an append is answered with {results:?}"
        );
        let visible = self.reader()?.positions().high_watermark;
        if visible <= self.model.end() {
            self.read_all()?;
        }
        self.restart()
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

    fn group(&mut self) -> Result<Vec<AppendRequest>, Broken> {
        self.produce(|producers, model| producers.group(model))
    }

    fn plain_request(&mut self) -> Result<AppendRequest, Broken> {
        self.produce(|producers, model| producers.plain(model))
    }

    fn append_one(
        &mut self,
        request: &AppendRequest,
    ) -> Result<Vec<Result<Appended, AppendError>>, Broken> {
        let mut log = self.log.take().ok_or("no log is open")?;
        let results = self.finish(log.append(vec![request.clone()]))?;
        self.log = Some(log);
        Ok(results)
    }

    fn produce<T>(
        &mut self,
        make: impl FnOnce(&mut Producers<'_>, &Model) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let mut producers = Producers {
            rng: &mut self.rng,
            limits: self.config.limits,
            now: Timestamp(self.now),
            // Behind damage no rule tells a decoy from a batch.
            decoys: !self.harmful,
        };
        make(&mut producers, &self.model)
    }
}

/// Looks at the log while an append is under way; keeps what it sees behind `end`.
fn observe(
    reader: &LogReader,
    floor: Durability,
    end: Offset,
    seen: &mut Vec<RecordBatch>,
) -> Result<(), Broken> {
    let positions = reader.positions();
    check_positions(&positions, floor)?;
    let from = seen
        .last()
        .map_or(end, |batch| batch.header().next_offset());
    if positions.high_watermark <= from {
        return Ok(());
    }
    let Ok(Some(fetched)) = reader.try_read(from, 1_000) else {
        return Ok(());
    };
    let mut stream = BatchStream::new(fetched.chunks);
    while let Some(batch) = stream
        .next_batch(&Limits::DEFAULT)
        .map_err(|error| format!("a batch just appended does not decode: {error}"))?
    {
        seen.push(batch);
    }
    Ok(())
}

fn summarize(results: &[Result<Appended, AppendError>]) -> String {
    let word = |result: &Result<Appended, AppendError>| match result {
        Ok(appended) if appended.duplicate => format!("again {}", appended.offsets),
        Ok(appended) if appended.durable => format!("{}", appended.offsets),
        Ok(appended) => format!("{} in memory", appended.offsets),
        Err(error) => format!("({error})"),
    };
    results.iter().map(word).collect::<Vec<_>>().join(", ")
}
