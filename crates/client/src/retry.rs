//! What may be sent again, and when.

use std::time::Duration;

use comlog_proto::v1::Reason;
use tonic::Code;

use crate::config::check_span;
use crate::{Error, ServerError};

/// How long to wait between attempts: exponential, with jitter.
///
/// The wait before attempt `n + 1` is drawn evenly from the upper half of
/// `[0, min(backoff_max, backoff_min * 2^(n - 1))]`, so that clients that failed together do not
/// come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Bound of the first wait (default 50 ms).
    pub backoff_min: Duration,
    /// Bound of every wait (default 2 s).
    pub backoff_max: Duration,
    /// How often a unary call is tried in all (default 10; 1 means no retry). Records are tried
    /// until their delivery timeout instead.
    pub attempts_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            attempts_max: 10,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after `failures` failed attempts in a row (1 or more); `dice` is random.
    #[must_use]
    pub fn backoff(&self, failures: u32, dice: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self
            .backoff_min
            .saturating_mul(1 << doublings)
            .min(self.backoff_max);
        let half = bound / 2;
        half + half.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return Err(Error::config(
                "retry: backoff_min must be above 0 and at most backoff_max",
            ));
        }
        check_span("retry: backoff_max", self.backoff_max)?;
        if self.attempts_max == 0 {
            return Err(Error::config("retry: attempts_max must be at least 1"));
        }
        Ok(())
    }
}

/// What to do with a batch that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchVerdict {
    /// Send it again, with the same sequence.
    Again,
    /// It is in the log, though its offset is not known any more.
    InLog,
    /// What came before it is not in the log, so it is not either: number it anew, under a new
    /// epoch, and send it again.
    Renumber,
    /// It is not in the log, but the halves of it may get there.
    Split,
    /// It is not in the log and never will be.
    Fail,
}

/// Judges the refusal of a batch; `idempotent` when it carried a sequence.
pub(crate) fn judge_batch(error: &ServerError, idempotent: bool) -> BatchVerdict {
    match error.reason {
        Reason::DuplicateSequence => BatchVerdict::InLog,
        Reason::OutOfOrderSequence if idempotent => BatchVerdict::Renumber,
        Reason::BatchTooLarge => BatchVerdict::Split,
        Reason::Suspended | Reason::StorageFull | Reason::Overloaded | Reason::ShuttingDown => {
            BatchVerdict::Again
        }
        Reason::Unspecified if is_transient(error.code) => BatchVerdict::Again,
        _ => BatchVerdict::Fail,
    }
}

/// Whether a call that failed this way may succeed later. Whether it may be made twice at all is
/// for the caller to know.
pub(crate) fn may_retry_call(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::Timeout(_) => true,
        Error::Server(error) => match error.reason {
            Reason::ShuttingDown | Reason::Overloaded => true,
            Reason::Unspecified => is_transient(error.code),
            _ => false,
        },
        _ => false,
    }
}

fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, reason: Reason) -> ServerError {
        ServerError {
            code,
            reason,
            message: String::new(),
            topic: None,
            partition: None,
            offset: None,
        }
    }

    #[test]
    fn waits_double_up_to_the_bound_and_never_fall_below_half() {
        let policy = RetryPolicy {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(350),
            attempts_max: 5,
        };
        let bounds = [100, 200, 350, 350].map(Duration::from_millis);
        for (failures, bound) in (1..).zip(bounds) {
            assert_eq!(policy.backoff(failures, 0), bound / 2);
            assert_eq!(policy.backoff(failures, u32::MAX), bound);
        }
        assert_eq!(policy.backoff(u32::MAX, u32::MAX), bounds[3]);
    }

    #[test]
    fn every_reason_has_its_verdict() {
        use BatchVerdict::{Again, Fail, InLog, Renumber, Split};
        let table = [
            (Code::InvalidArgument, Reason::InvalidRequest, Fail),
            (Code::InvalidArgument, Reason::InvalidTopicName, Fail),
            (Code::InvalidArgument, Reason::InvalidRecordBatch, Fail),
            (Code::InvalidArgument, Reason::BatchTooLarge, Split),
            (Code::NotFound, Reason::TopicNotFound, Fail),
            (Code::NotFound, Reason::PartitionNotFound, Fail),
            (Code::AlreadyExists, Reason::DuplicateSequence, InLog),
            (Code::FailedPrecondition, Reason::UnexpectedOffset, Fail),
            (Code::FailedPrecondition, Reason::Fenced, Fail),
            (Code::FailedPrecondition, Reason::ProducerFenced, Fail),
            (
                Code::FailedPrecondition,
                Reason::OutOfOrderSequence,
                Renumber,
            ),
            (Code::Aborted, Reason::Suspended, Again),
            (Code::ResourceExhausted, Reason::StorageFull, Again),
            (Code::ResourceExhausted, Reason::Overloaded, Again),
            (Code::Internal, Reason::PartitionFailed, Fail),
            (Code::Internal, Reason::Internal, Fail),
            (Code::Unavailable, Reason::ShuttingDown, Again),
            (Code::Unavailable, Reason::Unspecified, Again),
            (Code::DeadlineExceeded, Reason::Unspecified, Again),
            (Code::Internal, Reason::Unspecified, Fail),
            (Code::PermissionDenied, Reason::Unspecified, Fail),
        ];
        for (code, reason, verdict) in table {
            assert_eq!(
                judge_batch(&error(code, reason), true),
                verdict,
                "{reason:?}"
            );
        }
        let out_of_order = error(Code::FailedPrecondition, Reason::OutOfOrderSequence);
        assert_eq!(judge_batch(&out_of_order, false), Fail);
    }

    #[test]
    fn calls_are_repeated_only_when_that_can_help() {
        let call = |code, reason| may_retry_call(&Error::Server(error(code, reason).into()));
        assert!(call(Code::Unavailable, Reason::ShuttingDown));
        assert!(call(Code::ResourceExhausted, Reason::Overloaded));
        assert!(call(Code::Unavailable, Reason::Unspecified));
        assert!(!call(Code::ResourceExhausted, Reason::StorageFull));
        assert!(!call(Code::NotFound, Reason::TopicNotFound));
        assert!(!call(Code::Internal, Reason::Internal));
        assert!(may_retry_call(&Error::Timeout("".into())));
        assert!(!may_retry_call(&Error::Closed));
    }
}
