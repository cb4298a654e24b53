//! Ends a step that hangs, with all that it started.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// Watches one process; to drop it is to let the process live.
pub(crate) struct Watchdog {
    ended: Arc<AtomicBool>,
    /// Its end tells the watching thread that there is nothing left to watch.
    _done: Sender<()>,
}

impl Watchdog {
    /// Ends the process `id` and its descendants once `limit` has passed.
    pub(crate) fn start(id: u32, limit: Duration) -> Watchdog {
        let ended = Arc::new(AtomicBool::new(false));
        let (done, watched) = mpsc::channel::<()>();
        let noted = Arc::clone(&ended);
        std::thread::spawn(move || {
            if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                noted.store(true, Ordering::SeqCst);
                end(id);
            }
        });
        Watchdog { ended, _done: done }
    }

    /// Whether the limit passed.
    pub(crate) fn ended_it(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Kills a process and its descendants, each by its own id. They are stopped first, from the top,
/// so that none starts another, or is left without a parent to find it by, in between.
fn end(id: u32) {
    let mut ids = vec![id];
    let mut at = 0;
    while let Some(&parent) = ids.get(at) {
        signal("-STOP", parent);
        ids.extend(children(parent));
        at += 1;
    }
    for id in ids {
        signal("-KILL", id);
    }
}

fn signal(name: &str, id: u32) {
    if let Err(error) = Command::new("kill").args([name, &id.to_string()]).status() {
        eprintln!("xtask: cannot send {name} to process {id}: {error}");
    }
}

/// Those whose parent `id` is.
fn children(id: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|&child| parent_of(child) == Some(id)).collect()
}

/// The fourth field of `/proc/ID/stat`; the second, a name in brackets, may hold spaces.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        // The pipe ends when the last process that holds it does: the grandchild, too.
        let child = Command::new("sh")
            .args(["-c", "sh -c 'sleep 600; true' & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let watchdog = Watchdog::start(child.id(), Duration::from_millis(300));
        let output = child.wait_with_output().expect("ends");
        assert!(!output.status.success());
        assert!(watchdog.ended_it());
    }

    #[test]
    fn what_ends_in_time_is_left_alone() {
        let mut child = Command::new("true").spawn().expect("starts");
        let watchdog = Watchdog::start(child.id(), Duration::from_secs(600));
        assert!(child.wait().expect("ends").success());
        assert!(!watchdog.ended_it());
    }
}
