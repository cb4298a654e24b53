//! Producers that retry: nothing twice, nothing out of order, across a crash too.

use comlog_log::{AppendError, Durability, LogConfig};
use comlog_record::Offset;

use crate::support::*;

#[async_test]
async fn a_retry_is_answered_with_its_first_offsets() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    let first = append(&mut log, batch_of((7, 0, 0), &["a", "b"])).await;
    append(&mut log, batch_of((7, 0, 2), &["c"])).await;
    let again = append(&mut log, batch_of((7, 0, 0), &["a", "b"])).await;
    assert!(again.duplicate && again.durable && !first.duplicate);
    assert_eq!(again.offsets, first.offsets);
    assert_eq!(log.positions().end, Offset(3));
    assert_eq!(log.producer_id_max(), 7);
}

#[async_test]
async fn a_retry_in_the_same_group_is_seen() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    let group = [(0, "a"), (0, "a"), (1, "b"), (3, "d")];
    let group = group.map(|(sequence, value)| request(batch_of((7, 0, sequence), &[value])));
    let answers = log.append(group.into()).await;
    let plain: Vec<_> = answers
        .iter()
        .map(|answer| {
            answer
                .as_ref()
                .map(|at| (at.offsets.start.0, at.duplicate))
                .ok()
        })
        .collect();
    assert_eq!(
        plain,
        [Some((0, false)), Some((0, true)), Some((1, false)), None]
    );
    assert!(matches!(
        answers[3],
        Err(AppendError::OutOfOrderSequence {
            expected: 2,
            found: 3,
            ..
        })
    ));
}

#[async_test]
async fn a_retry_after_a_crash_is_seen_with_or_without_the_checkpoint() {
    for lose_checkpoint in [false, true] {
        let storage = memory();
        let (mut log, _) = open(&storage, small()).await;
        for n in 0..30 {
            append(&mut log, batch_of((7, 2, n), &["some value"])).await;
        }
        drop(log);
        if lose_checkpoint {
            storage.remove_blob("checkpoint").await.unwrap();
        }
        let (mut log, report) = open(&storage, small()).await;
        assert_eq!(report.rebuilt.is_empty(), !lose_checkpoint);
        for n in 25..30 {
            let again = append(&mut log, batch_of((7, 2, n), &["some value"])).await;
            assert!(again.duplicate);
            assert_eq!(again.offsets.start, Offset(i64::from(n)));
        }
        let old = log
            .append(vec![request(batch_of((7, 2, 3), &["some value"]))])
            .await;
        assert!(matches!(old[0], Err(AppendError::DuplicateSequence { .. })));
        let fenced = log
            .append(vec![request(batch_of((7, 1, 30), &["some value"]))])
            .await;
        assert!(matches!(
            fenced[0],
            Err(AppendError::ProducerFenced { current: 2, .. })
        ));
        assert_eq!(log.producer_id_max(), 7);
        assert!(
            !append(&mut log, batch_of((7, 2, 30), &["next"]))
                .await
                .duplicate
        );
    }
}

#[async_test]
async fn a_durable_retry_of_an_undurable_batch_is_synced_first() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    let (mut log, _) = open(&storage, config).await;
    assert!(!append(&mut log, batch_of((7, 0, 0), &["a"])).await.durable);
    let mut retry = request(batch_of((7, 0, 0), &["a"]));
    retry.durability = Durability::Durable;
    let answer = log.append(vec![retry]).await.remove(0).unwrap();
    assert!(answer.duplicate && answer.durable);
    assert_eq!(log.positions().durable, Offset(1));
}
