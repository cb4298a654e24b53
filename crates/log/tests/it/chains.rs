//! Order within a group where one of a chain is refused; and that an owner can be spawned.

use comlog_log::{AppendError, AppendRequest, Log, LogConfig};
use comlog_record::Offset;

use crate::support::*;

fn chained(chain: u64, value: &str) -> AppendRequest {
    AppendRequest {
        chain: Some(chain),
        ..request(batch(&[value]))
    }
}

#[async_test]
async fn behind_a_refusal_only_its_own_chain_is_suspended() {
    let (mut log, _) = open(&memory(), LogConfig::default()).await;
    let refused = AppendRequest {
        expected_offset: Some(Offset(9)),
        ..chained(1, "refused")
    };
    let group = vec![
        chained(1, "first"),
        refused,
        chained(1, "behind it"),
        chained(2, "another chain"),
        request(batch(&["no chain"])),
    ];
    let answers = log.append(group).await;
    let offset = |index: usize| answers[index].as_ref().unwrap().offsets.start;
    assert_eq!(offset(0), Offset(0));
    assert!(matches!(
        answers[1],
        Err(AppendError::UnexpectedOffset { .. })
    ));
    assert!(matches!(answers[2], Err(AppendError::Suspended)));
    assert_eq!((offset(3), offset(4)), (Offset(1), Offset(2)));
    let answers = log.append(vec![chained(1, "the next group")]).await;
    assert!(answers[0].is_ok(), "a chain ends with its group");
}

#[sync_test]
fn the_futures_of_a_log_can_move_between_threads() {
    fn check<T: Send>(_: impl FnOnce(&'static mut Log) -> T) {}
    check(|log| log.append(Vec::new()));
    check(|log| log.sync());
    check(|log| log.roll());
    check(|log| log.trim(Offset(0)));
    check(|log| log.truncate(Offset(0)));
    check(|log| log.maintain());
    check(|log| log.fence(1));
    check(|log| log.set_config(LogConfig::default()));
}
