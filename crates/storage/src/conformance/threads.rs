//! What readers on other threads see: the part of the suite that needs threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;

use super::writer::create;
use super::{Fixture, pattern};
use crate::SegmentReader;

pub(super) async fn threads_read_while_the_writer_appends(fixture: impl Fixture) {
    let content = pattern(1, 400_000);
    let mut writer = create(&fixture, 0).await;
    let done = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| follow(writer.reader(), content.clone(), done.clone()))
        .collect();
    for start in (0..content.len()).step_by(1_000) {
        let chunk = content.slice(start..start + 1_000);
        writer.append(&[chunk]).await.unwrap();
    }
    done.store(true, Ordering::Release);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 400_000);
    }
}

/// Reads what can be had without waiting, again and again, and returns the length seen last.
fn follow(
    reader: Arc<dyn SegmentReader>,
    content: Bytes,
    done: Arc<AtomicBool>,
) -> thread::JoinHandle<u64> {
    let follow = move || {
        let mut seen = 0;
        loop {
            let last = done.load(Ordering::Acquire);
            let len = reader.len();
            assert!(len >= seen, "a reader's length went back");
            seen = len;
            let start = len.saturating_sub(5_000);
            if let Some(chunks) = reader.try_read(start..len).unwrap() {
                assert!(chunks.concat() == content[start as usize..len as usize]);
            }
            if last {
                return seen;
            }
        }
    };
    thread::Builder::new().spawn(follow).unwrap()
}
