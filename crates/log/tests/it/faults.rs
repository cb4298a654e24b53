//! A full disk, a failing disk, a dropped call.

use std::sync::Arc;

use comlog_log::{AppendError, ErrorKind, LogConfig};
use comlog_record::Offset;
use comlog_storage::{FaultPlan, FaultyStorage, Storage};

use crate::support::*;

fn faulty() -> (FaultyStorage, Arc<dyn Storage>) {
    let faulty = FaultyStorage::new(5);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    (faulty, storage)
}

#[async_test]
async fn a_full_disk_refuses_the_group_and_keeps_nothing_of_it() {
    let (disk, storage) = faulty();
    for config in [LogConfig::default(), small()] {
        let (mut log, _) = open(&storage, config).await;
        let end = log.positions().end.0;
        append_numbers(&mut log, end + 20, 4).await;
        append(&mut log, batch_of((end, 0, 0), &["a"])).await;
        disk.set_plan(FaultPlan {
            no_space: 1.0,
            ..FaultPlan::default()
        });
        let before = log.positions();
        let group = [1, 2, 3].map(|n| request(batch_of((end, 0, n), &["b"])));
        for answer in log.append(group.into()).await {
            assert!(matches!(answer, Err(AppendError::NoSpace)), "{answer:?}");
        }
        assert_eq!(log.positions(), before);
        assert!(log.failure().is_none());
        let read = log.reader().read(Offset(0), 100).await.unwrap();
        assert!(read.len > 0);
        disk.set_plan(FaultPlan::default());
        // The producer's sequence stands where it stood.
        let again = append(&mut log, batch_of((end, 0, 1), &["b"])).await;
        assert_eq!(again.offsets.start, before.end);
        assert!(!again.duplicate);
        log.close().await.unwrap();
    }
}

#[async_test]
async fn a_retry_of_a_batch_refused_for_space_in_the_same_group_is_refused_too() {
    let (disk, storage) = faulty();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 4, 4).await;
    disk.set_plan(FaultPlan {
        no_space: 1.0,
        ..FaultPlan::default()
    });
    let group = [0, 0].map(|n| request(batch_of((9, 0, n), &["b"])));
    for answer in log.append(group.into()).await {
        assert!(matches!(answer, Err(AppendError::NoSpace)), "{answer:?}");
    }
}

#[async_test]
async fn a_failed_write_or_sync_is_final_and_reads_go_on() {
    let plans = [
        FaultPlan {
            append_error: 1.0,
            ..FaultPlan::default()
        },
        FaultPlan {
            sync_error: 1.0,
            ..FaultPlan::default()
        },
    ];
    for plan in plans {
        let (disk, storage) = faulty();
        let (mut log, _) = open(&storage, LogConfig::default()).await;
        append_numbers(&mut log, 20, 4).await;
        disk.set_plan(plan);
        let answer = log.append(vec![request(batch(&["lost"]))]).await.remove(0);
        assert!(matches!(answer, Err(AppendError::Failed(_))), "{answer:?}");
        disk.set_plan(FaultPlan::default());
        let answer = log.append(vec![request(batch(&["lost"]))]).await.remove(0);
        assert!(matches!(answer, Err(AppendError::Failed(_))), "{answer:?}");
        assert_eq!(log.failure().unwrap().kind(), ErrorKind::Internal);
        assert!(log.sync().await.is_err() && log.roll().await.is_err());
        assert_eq!(log.positions().high_watermark, Offset(20));
        assert_eq!(records(&log.reader()).await, numbers(0, 20));
        assert!(log.close().await.is_err());
        disk.crash();
        let (log, _) = open(&storage, LogConfig::default()).await;
        let end = log.positions().end.0;
        assert!((20..=21).contains(&end), "{end}");
        let mut read = records(&log.reader()).await;
        read.truncate(20);
        assert_eq!(read, numbers(0, 20));
    }
}

#[async_test]
async fn a_dropped_append_leaves_the_log_failed() {
    let (disk, storage) = faulty();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 4, 4).await;
    disk.set_plan(FaultPlan {
        pause_polls_max: 1_000,
        ..FaultPlan::default()
    });
    {
        let append = std::pin::pin!(log.append(vec![request(batch(&["x"]))]));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(append.poll(&mut context).is_pending());
    }
    disk.set_plan(FaultPlan::default());
    let answer = log.append(vec![request(batch(&["y"]))]).await.remove(0);
    assert!(matches!(answer, Err(AppendError::Failed(_))), "{answer:?}");
}

#[async_test]
async fn without_room_for_an_index_or_a_checkpoint_a_log_still_closes() {
    let (disk, storage) = faulty();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 20, 4).await;
    disk.set_plan(FaultPlan {
        no_space: 1.0,
        ..FaultPlan::default()
    });
    log.close().await.unwrap();
    // A full disk does not keep a log from being opened and read either.
    let (log, report) = open(&storage, LogConfig::default()).await;
    assert!(!report.clean);
    assert_eq!(records(&log.reader()).await, numbers(0, 20));
}
