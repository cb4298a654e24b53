//! One simulated machine: its disk, its clock, its log, and the model beside them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use comlog_log::{Durability, Fetched, Log, LogConfig, LogReader, ManualClock, ReadError};
use comlog_record::{LeaderEpoch, Limits, Offset, RecordBatch, Timestamp, TimestampType};
use comlog_storage::{FaultPlan, FaultyStorage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::{check_fetched, check_read_error, ensure};
use crate::damage::Scar;
use crate::drive::{Broken, drive};
use crate::model::Model;
use crate::trace::{Failure, Trace};
use crate::{Options, Sabotage, Summary};

/// What was under way when the last crash came, and may or may not have happened.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// Batches in the order they were given, as the log would assign them.
    pub(crate) batches: Vec<RecordBatch>,
    /// The furthest trim, or end that retention could have gone to, since the log was opened. One
    /// that failed may come up after a crash.
    pub(crate) start: Option<Offset>,
    /// A truncation to here.
    pub(crate) end: Option<Offset>,
    /// Fencing tokens that were to be set.
    pub(crate) tokens: Vec<u64>,
    pub(crate) epoch: Option<LeaderEpoch>,
    /// The power was cut: what was not synced may be lost.
    pub(crate) power: bool,
    /// An opening was cut or failed: it may have raised the leader epoch.
    pub(crate) disturbed: bool,
    /// The checkpoint was harmed: what only it knew may be lost.
    pub(crate) forgetful: bool,
    /// A device error came: pages may be lost though the machine did not crash.
    pub(crate) errors: bool,
}

type Reading = Pin<Box<dyn Future<Output = Result<Fetched, ReadError>>>>;

/// A read that goes on while other things happen.
pub(crate) struct Background {
    from: Offset,
    bytes_max: usize,
    reading: Reading,
    result: Option<Result<Fetched, ReadError>>,
}

impl Background {
    /// Polls the read once. Whoever else waits must do this too: it may hold a lock.
    pub(crate) fn nudge(background: &mut Option<Background>) {
        let Some(background) = background.as_mut().filter(|read| read.result.is_none()) else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = background.reading.as_mut().poll(&mut context) {
            background.result = Some(result);
        }
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) storage: FaultyStorage,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) now: i64,
    pub(crate) config: LogConfig,
    pub(crate) log: Option<Log>,
    pub(crate) reader: Option<LogReader>,
    pub(crate) model: Model,
    pub(crate) doubt: Doubt,
    /// Batches behind the model's end that a reader saw while they were being appended.
    pub(crate) observed: Vec<RecordBatch>,
    pub(crate) background: Option<Background>,
    pub(crate) scars: Vec<Scar>,
    /// No space is left for so many steps.
    pub(crate) full_for: u32,
    /// Device errors of this step.
    pub(crate) faults: FaultPlan,
    pub(crate) step: u32,
    pub(crate) trace: Trace,
    pub(crate) summary: Summary,
    pub(crate) options: Options,
    /// What makes this world slow, whatever else fails.
    quiet: FaultPlan,
    /// Whether this world's disk flips bits.
    pub(crate) harmful: bool,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let config = random_config(&mut rng);
        let quiet = FaultPlan {
            pause_polls_max: rng.random_range(0..=3),
            try_read_misses: [0.0, 0.2][rng.random_range(0..2)],
            writeback: [0.0, 0.3][rng.random_range(0..2)],
            sync_lies: options.sabotage == Some(Sabotage::SyncsLie),
            ..FaultPlan::default()
        };
        let harmful = rng.random_bool(0.25);
        World {
            storage: FaultyStorage::new(rng.random()),
            rng,
            clock: Arc::new(ManualClock::new(Timestamp(0))),
            now: 1_700_000_000_000,
            config,
            log: None,
            reader: None,
            model: Model::new(),
            doubt: Doubt::default(),
            observed: Vec::new(),
            background: None,
            scars: Vec::new(),
            full_for: 0,
            faults: FaultPlan::default(),
            step: 0,
            trace: Trace::new(options.verbose),
            summary: Summary::default(),
            options,
            quiet,
            harmful,
        }
    }

    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        self.clock.set(Timestamp(self.now));
        self.trace.note(format!("world: {:?}", self.config));
        self.open(true)?;
        while self.step < self.options.steps {
            self.take_step()?;
            self.step += 1;
        }
        self.calm();
        self.close()?;
        self.read_all()
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            hash: self.trace.hash(),
            ..self.summary
        }
    }

    pub(crate) fn failure(&self, seed: u64, broken: Broken) -> Failure {
        Failure {
            seed,
            step: self.step,
            broken,
            lines: self.trace.lines(),
        }
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(format!("{:4} {what}", self.step));
    }

    /// Tells the disk what fails in this step.
    pub(crate) fn set_plan(&mut self) {
        let mut plan = self.faults;
        plan.pause_polls_max = self.quiet.pause_polls_max;
        plan.try_read_misses = self.quiet.try_read_misses;
        plan.writeback = self.quiet.writeback;
        plan.sync_lies = self.quiet.sync_lies;
        plan.no_space = if self.full_for > 0 { 1.0 } else { 0.0 };
        self.storage.set_plan(plan);
    }

    /// Nothing fails from now on.
    pub(crate) fn calm(&mut self) {
        self.faults = FaultPlan::default();
        self.full_for = 0;
        self.set_plan();
    }

    pub(crate) fn log(&mut self) -> Result<&mut Log, Broken> {
        self.log.as_mut().ok_or_else(|| "no log is open".to_owned())
    }

    pub(crate) fn reader(&self) -> Result<LogReader, Broken> {
        self.reader
            .clone()
            .ok_or_else(|| "no log is open".to_owned())
    }

    /// How often a future may be polled before a crash drops it; mostly to its end.
    pub(crate) fn budget(&mut self) -> Option<u32> {
        self.rng
            .random_bool(0.04)
            .then(|| self.rng.random_range(0..40))
    }

    pub(crate) fn floor(&self) -> Durability {
        self.config.durability
    }

    /// Starts a read that later steps go on with.
    pub(crate) fn start_background(&mut self) -> Result<(), Broken> {
        let reader = self.reader()?;
        let from = self.any_visible_offset()?;
        let bytes_max = self.rng.random_range(0..10_000);
        let reading: Reading = Box::pin(async move { reader.read(from, bytes_max).await });
        self.note(format_args!("background read at {from}"));
        self.background = Some(Background {
            from,
            bytes_max,
            reading,
            result: None,
        });
        Ok(())
    }

    /// Goes on with the background read, and checks it when it ends.
    pub(crate) fn poll_background(&mut self) -> Result<(), Broken> {
        Background::nudge(&mut self.background);
        let Some(read) = self.background.take_if(|read| read.result.is_some()) else {
            return Ok(());
        };
        let (from, bytes_max) = (read.from, read.bytes_max);
        let Some(result) = read.result else {
            return Ok(());
        };
        match result {
            Ok(fetched) => {
                self.summary.reads += 1;
                check_fetched(&self.model, from, bytes_max, &fetched).map(|_| ())
            }
            Err(ReadError::OutOfRange { .. })
                if from < self.model.start || from > self.model.end() =>
            {
                Ok(())
            }
            Err(error) => check_read_error(&self.model, from, &error).map(|_| ()),
        }
    }

    /// Polls `future` to its end, and the background read with it.
    pub(crate) fn finish<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Broken> {
        let background = &mut self.background;
        let nudge = || {
            Background::nudge(background);
            Ok(())
        };
        drive(future, None, nudge)?.ok_or_else(|| "polled to no end".to_owned())
    }

    pub(crate) fn any_visible_offset(&mut self) -> Result<Offset, Broken> {
        let positions = self.reader()?.positions();
        let (start, end) = (positions.start.0, positions.high_watermark.0);
        ensure!(
            start <= end,
            "start {start} is behind the high watermark {end}"
        );
        Ok(Offset(self.rng.random_range(start..=end)))
    }
}

fn random_config(rng: &mut StdRng) -> LogConfig {
    let limits = Limits {
        batch_bytes_max: 4 << 10,
        batch_records_max: 100,
        decompressed_bytes_max: 64 << 10,
        ..Limits::DEFAULT
    };
    let choose = |rng: &mut StdRng, from: &[u64]| from[rng.random_range(0..from.len())];
    LogConfig {
        segment_bytes_max: choose(rng, &[4 << 10, 16 << 10, 64 << 10]),
        segment_age_max: rng
            .random_bool(0.3)
            .then_some(Duration::from_millis(20_000)),
        index_interval_bytes: choose(rng, &[0, 512, 4 << 10]) as u32,
        group_bytes_max: choose(rng, &[4 << 10, 8 << 10]) as usize,
        durability: if rng.random_bool(0.7) {
            Durability::Durable
        } else {
            Durability::Memory
        },
        timestamp_type: if rng.random_bool(0.25) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        limits,
        checkpoint_bytes: choose(rng, &[1 << 10, 8 << 10, 1 << 20]),
        retention_bytes: rng.random_bool(0.2).then_some(40 << 10),
        retention_age: rng
            .random_bool(0.2)
            .then_some(Duration::from_millis(60_000)),
        ..LogConfig::default()
    }
}
