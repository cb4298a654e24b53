//! The clock that is passed in.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use comlog_record::Timestamp;

/// Tells the time. The core never reads a real clock.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Now, in Unix milliseconds. May go backwards, as real clocks do.
    fn now(&self) -> Timestamp;

    /// Now, for what is removed by its age: records past retention, silent producers. A clock that
    /// may be wrong answers what [`SettledTime`] makes of it.
    fn settled(&self) -> Timestamp {
        self.now()
    }
}

/// A wall clock that jumps ahead is not believed at once: what was written a moment ago would look
/// years old, and be removed.
///
/// A jump is a wall clock that is more than [`SettledTime::JUMP_MAX`] ahead of the last look and of
/// what a steady clock says has passed since. Time then goes on by the steady clock alone, until the
/// wall clock is back, or has stood by its jump for the whole of the wait: so the longest that a
/// right clock (one that was wrong before) is not followed is the wait. A clock that is set back is
/// followed at once, since that removes nothing.
#[derive(Debug)]
pub struct SettledTime {
    wait: Duration,
    /// The last look that was believed: wall clock and steady clock.
    last: Option<(Timestamp, Duration)>,
    jump: Option<Jump>,
}

/// A jump that is not believed yet.
#[derive(Debug, Clone, Copy)]
struct Jump {
    /// By the steady clock.
    since: Duration,
    /// In milliseconds.
    ahead: i64,
}

impl SettledTime {
    /// What the wall clock may be ahead at once: as much as one that is set right now and then.
    pub const JUMP_MAX: Duration = Duration::from_secs(60);

    /// Believes a jump after `wait`; zero believes every one.
    #[must_use]
    pub fn new(wait: Duration) -> SettledTime {
        SettledTime {
            wait,
            last: None,
            jump: None,
        }
    }

    /// The time to go by. `steady` is what has passed since any fixed moment; it never jumps.
    pub fn look(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        let Some((last_wall, last_steady)) = self.last else {
            return self.believe(wall, steady);
        };
        let expected = last_wall
            .0
            .saturating_add(millis(steady.saturating_sub(last_steady)));
        let ahead = wall.0.saturating_sub(expected);
        if ahead <= millis(SettledTime::JUMP_MAX) {
            if self.jump.is_some() {
                tracing::info!(wall_ms = wall.0, "the clock is back from its jump");
            }
            return self.believe(wall, steady);
        }
        let jump = self.jump.filter(|jump| {
            ahead.saturating_sub(jump.ahead).saturating_abs() <= millis(SettledTime::JUMP_MAX)
        });
        let jump = jump.unwrap_or_else(|| {
            tracing::warn!(ahead_ms = ahead, wall_ms = wall.0, wait = ?self.wait,
                "the clock jumped ahead: nothing is removed by its age for the jump's sake until it \
                 has stood so for the wait (clock_jump_wait_ms), or the server is started anew");
            Jump {
                since: steady,
                ahead,
            }
        });
        if steady.saturating_sub(jump.since) >= self.wait {
            tracing::warn!(
                wall_ms = wall.0,
                "the clock stands by its jump, and is believed now"
            );
            return self.believe(wall, steady);
        }
        self.jump = Some(jump);
        Timestamp(expected)
    }

    fn believe(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        self.last = Some((wall, steady));
        self.jump = None;
        wall
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that stands still until it is set; for tests, simulation and replay.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock(AtomicI64::new(now.0))
    }

    /// Sets the time.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const YEARS: i64 = 10 * 365 * 24 * 3_600_000;

    fn at(time: &mut SettledTime, wall: i64, steady_s: u64) -> i64 {
        time.look(Timestamp(wall), Duration::from_secs(steady_s)).0
    }

    #[test]
    fn a_jump_ahead_counts_only_as_far_as_the_steady_clock_has_moved() {
        let mut time = SettledTime::new(HOUR);
        assert_eq!(at(&mut time, 1_000_000, 5), 1_000_000);
        assert_eq!(
            at(&mut time, 1_010_500, 15),
            1_010_500,
            "small steps are followed"
        );
        assert_eq!(at(&mut time, 1_020_500 + YEARS, 25), 1_020_500);
        assert_eq!(at(&mut time, 1_120_500 + YEARS, 125), 1_120_500);
        assert_eq!(at(&mut time, 1_130_000, 135), 1_130_000, "it is back");
    }

    #[test]
    fn a_jump_that_stands_is_believed_after_the_wait_and_not_before() {
        let mut time = SettledTime::new(HOUR);
        at(&mut time, 0, 0);
        assert_eq!(at(&mut time, YEARS, 10), 10_000);
        assert_eq!(at(&mut time, YEARS + 3_599_000, 3_609), 3_609_000);
        assert_eq!(at(&mut time, YEARS + 3_600_000, 3_610), YEARS + 3_600_000);
        assert_eq!(at(&mut time, YEARS + 3_601_000, 3_611), YEARS + 3_601_000);
    }

    #[test]
    fn a_second_jump_waits_anew() {
        let mut time = SettledTime::new(HOUR);
        at(&mut time, 0, 0);
        at(&mut time, YEARS, 10);
        assert_eq!(at(&mut time, 3 * YEARS, 3_605), 3_605_000);
        assert_eq!(at(&mut time, 3 * YEARS, 3_615), 3_615_000);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_and_no_time_is_out_of_bounds() {
        let mut time = SettledTime::new(HOUR);
        at(&mut time, YEARS, 0);
        assert_eq!(at(&mut time, 0, 1), 0);
        assert_eq!(at(&mut time, i64::MIN, 2), i64::MIN);
        assert_eq!(at(&mut time, i64::MAX, 3), i64::MIN + 1_000);
        assert_eq!(
            at(&mut SettledTime::new(Duration::ZERO), i64::MAX, 3),
            i64::MAX
        );
    }
}
