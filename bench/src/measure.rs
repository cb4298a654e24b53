//! What one run costs: wall time, CPU and memory of each side, bytes written; and what many runs say.

use std::time::Duration;

use serde::Serialize;

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Bytes the process caused to be sent to the disk.
    pub(crate) written: u64,
}

impl Usage {
    /// Of process `pid`; zeros once it is gone.
    pub(crate) fn of(pid: u32) -> Usage {
        Usage {
            cpu: cpu(pid).unwrap_or_default(),
            written: written(pid).unwrap_or_default(),
        }
    }

    /// Of this process.
    pub(crate) fn own() -> Usage {
        Usage::of(std::process::id())
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(
        (user + system) as f64 / per_second as f64,
    ))
}

fn written(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.parse().ok()
}

/// Memory of process `pid` beside the page cache, in bytes.
pub(crate) fn rss_anon(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// Several runs of one figure.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Samples {
    values: Vec<f64>,
}

impl Samples {
    /// Adds one run.
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        percentile(&mut self.values.clone(), 0.5)
    }

    /// The smallest and the largest.
    pub(crate) fn range(&self) -> (f64, f64) {
        let fold =
            |start: f64, pick: fn(f64, f64) -> f64| self.values.iter().copied().fold(start, pick);
        (
            fold(f64::INFINITY, f64::min),
            fold(f64::NEG_INFINITY, f64::max),
        )
    }
}

/// The value below which `share` (0 to 1) of `values` lie; sorts them; NaN when there are none.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
