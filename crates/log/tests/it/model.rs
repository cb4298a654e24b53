//! Random calls against a log and a plain vector, over each storage.

use std::sync::Arc;

use comlog_log::{Durability, Log, LogConfig};
use comlog_record::{Offset, Timestamp};

use comlog_storage::{FaultPlan, FaultyStorage, Storage};
use proptest::prelude::*;

use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    /// Batches of so many records; whether each is to be durable.
    Append(Vec<(usize, bool)>),
    Roll,
    Sync,
    /// At this part of the log, in percent.
    Trim(i64),
    Truncate(i64),
    Read(i64, usize),
    Find(i64),
    Close,
    Crash,
    CrashWithoutCheckpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((1..9_usize, any::<bool>()), 1..8).prop_map(Step::Append),
        1 => Just(Step::Roll),
        1 => Just(Step::Sync),
        1 => (0..=100_i64).prop_map(Step::Trim),
        1 => (0..=100_i64).prop_map(Step::Truncate),
        4 => ((0..=100_i64), 1..2_000_usize).prop_map(|(at, max_bytes)| Step::Read(at, max_bytes)),
        2 => (0..=100_i64).prop_map(Step::Find),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashWithoutCheckpoint),
    ]
}

fn config(durability: Durability) -> LogConfig {
    LogConfig {
        durability,
        checkpoint_bytes: 700,
        ..small()
    }
}

/// What the log should hold.
#[derive(Debug, Default)]
struct Model {
    start: i64,
    values: Vec<String>,
    /// Where each batch starts, and where the last one ends.
    boundaries: Vec<i64>,
    durable: i64,
    /// Makes every value new.
    counter: i64,
}

impl Model {
    fn end(&self) -> i64 {
        self.values.len() as i64
    }

    /// The offset at `percent` of what is kept.
    fn at(&self, percent: i64) -> i64 {
        self.start + (self.end() - self.start) * percent / 100
    }

    fn boundary_below(&self, offset: i64) -> i64 {
        let below = self.boundaries.iter().filter(|at| **at <= offset);
        below.copied().max().unwrap_or(0)
    }

    fn cut(&mut self, end: i64) {
        self.values.truncate(end as usize);
        self.boundaries.retain(|at| *at <= end);
        self.durable = self.durable.min(end);
        self.start = self.start.min(end);
    }

    fn records_from(&self, offset: i64) -> Vec<(i64, String)> {
        (offset..self.end())
            .map(|at| (at, self.values[at as usize].clone()))
            .collect()
    }
}

/// A storage, and how to crash it.
struct Bench {
    storage: Arc<dyn Storage>,
    crash: Box<dyn Fn()>,
    durability: Durability,
}

impl Bench {
    async fn run(&self, steps: Vec<Step>) {
        let (mut log, _) = open(&self.storage, config(self.durability)).await;
        let mut model = Model {
            boundaries: vec![0],
            ..Model::default()
        };
        for step in steps {
            log = self.step(log, &mut model, step).await;
            let positions = log.positions();
            assert_eq!(positions.end, Offset(model.end()));
            assert_eq!(positions.high_watermark, positions.end);
            assert_eq!(positions.start, Offset(model.start));
            model.durable = positions.durable.0;
        }
        assert_eq!(log.reader().verify().await.unwrap(), []);
    }

    async fn step(&self, mut log: Log, model: &mut Model, step: Step) -> Log {
        match step {
            Step::Append(group) => append_group(&mut log, model, group).await,
            Step::Roll => log.roll().await.unwrap(),
            Step::Sync => assert_eq!(log.sync().await.unwrap(), Offset(model.end())),
            Step::Trim(at) => {
                model.start = model.at(at);
                let start = log.trim(Offset(model.start)).await.unwrap();
                assert_eq!(start, Offset(model.start));
            }
            Step::Truncate(at) => {
                let end = model.boundary_below(model.at(at)).max(model.start);
                if model.boundaries.contains(&end) {
                    assert_eq!(log.truncate(Offset(end)).await.unwrap(), Offset(end));
                    model.cut(end);
                }
            }
            Step::Read(at, max_bytes) => {
                let from = model.at(at);
                let read = records_from(&log.reader(), from, max_bytes).await;
                let begin = model.boundary_below(from);
                assert_eq!(read, model.records_from(begin));
            }
            Step::Find(at) => find(&log, model, model.at(at)).await,
            Step::Close => {
                log.close().await.unwrap();
                return self.reopen(model, false).await;
            }
            Step::Crash | Step::CrashWithoutCheckpoint => {
                drop(log);
                (self.crash)();
                let lose = matches!(step, Step::CrashWithoutCheckpoint) && model.start == 0;
                return self.reopen(model, lose).await;
            }
        }
        log
    }

    async fn reopen(&self, model: &mut Model, lose_checkpoint: bool) -> Log {
        if lose_checkpoint {
            self.storage.remove_blob("checkpoint").await.unwrap();
        }
        let (log, report) = open(&self.storage, config(self.durability)).await;
        assert_eq!(report.damaged, []);
        let end = log.positions().end.0;
        assert!(model.durable <= end && end <= model.end());
        assert_eq!(model.boundary_below(end), end);
        model.cut(end);
        assert_eq!(log.positions().start.0, model.start);
        let begin = model.boundary_below(model.start);
        assert_eq!(records(&log.reader()).await, model.records_from(begin));
        log
    }
}

async fn append_group(log: &mut Log, model: &mut Model, group: Vec<(usize, bool)>) {
    let mut requests = Vec::new();
    for (count, durable) in group {
        let values: Vec<String> = (0..count as i64)
            .map(|n| format!("{}-{}", model.end() + n, model.counter))
            .collect();
        model.counter += 1;
        let plain: Vec<&str> = values.iter().map(String::as_str).collect();
        // The timestamp is the base offset.
        let mut request = request(batch_at(model.end(), &plain));
        if durable {
            request.durability = Durability::Durable;
        }
        requests.push((request, model.end()));
        model.values.extend(values);
        model.boundaries.push(model.end());
    }
    let (requests, starts): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    let levels: Vec<_> = requests.iter().map(|request| request.durability).collect();
    let answers = log.append(requests).await;
    for ((answer, start), level) in answers.into_iter().zip(starts).zip(levels) {
        let appended = answer.unwrap();
        assert_eq!(appended.offsets.start, Offset(start));
        assert!(appended.durable || level.max(log.config().durability) == Durability::Memory);
    }
}

/// Every batch has its base offset as its timestamp.
async fn find(log: &Log, model: &Model, timestamp: i64) {
    let found = log
        .reader()
        .offset_for_timestamp(Timestamp(timestamp))
        .await
        .unwrap();
    let end = model.end();
    let batch = model.boundaries.iter().find(|at| **at >= timestamp);
    let expected = batch.filter(|at| **at < end).copied();
    assert_eq!(found.map(|found| found.offset.0), expected);
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future);
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Durable), Just(Durability::Memory)]
}

/// A failure prints its steps; no file of seeds is kept.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[sync_test]
    fn over_memory(steps in prop::collection::vec(step(), 1..40), durability in durability()) {
        let bench = Bench { storage: memory(), crash: Box::new(|| {}), durability };
        block_on(bench.run(steps));
    }

    #[sync_test]
    fn over_a_disk_that_loses_what_was_not_synced(
        steps in prop::collection::vec(step(), 1..40),
        durability in durability(),
        seed in any::<u64>(),
    ) {
        let disk = FaultyStorage::new(seed);
        disk.set_plan(FaultPlan { try_read_misses: 0.3, writeback: 0.3, pause_polls_max: 1, ..FaultPlan::default() });
        let storage = Arc::new(disk.clone());
        let bench = Bench { storage, crash: Box::new(move || disk.crash()), durability };
        block_on(bench.run(steps));
    }
}

#[cfg(not(target_arch = "wasm32"))]
proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn over_the_local_disk(steps in prop::collection::vec(step(), 1..30), durability in durability()) {
        let dir = tempfile::tempdir().unwrap();
        let options = comlog_storage::DiskOptions::default();
        let data = comlog_storage::DataDir::open(dir.path(), options).unwrap();
        let bench = Bench { storage: data.storage("log").unwrap(), crash: Box::new(|| {}), durability };
        block_on(bench.run(steps));
    }
}
