//! Appends: what is sent, and what the log must answer.

use comlog_log::{AppendError, AppendRequest, Appended, Durability, LogReader};
use comlog_record::{BatchStream, Limits, Offset, RecordBatch, Timestamp, TimestampType};
use comlog_storage::FaultPlan;

use crate::check::{check_positions, ensure};
use crate::drive::{Broken, drive};
use crate::model::{Expected, Model};
use crate::request::Producers;
use crate::world::{Background, World};

impl World {
    pub(crate) fn append(&mut self) -> Result<(), Broken> {
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

    pub(crate) fn take_results(
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
    pub(crate) fn after_failure(&mut self) -> Result<(), Broken> {
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

    fn group(&mut self) -> Result<Vec<AppendRequest>, Broken> {
        self.produce(|producers, model| producers.group(model))
    }

    pub(crate) fn plain_request(&mut self) -> Result<AppendRequest, Broken> {
        self.produce(|producers, model| producers.plain(model))
    }

    pub(crate) fn append_one(
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
