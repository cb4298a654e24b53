//! What a topic may be called.

use comlog_proto::v1::Reason;

use crate::status::ServiceError;

const NAME_LEN_MAX: usize = 249;
/// Topics that comlog keeps for itself begin with this.
const RESERVED_PREFIX: &str = "__";

/// As Kafka: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub(crate) fn check(name: &str) -> Result<(), ServiceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name.bytes().all(allowed)
        && name != "."
        && name != "..";
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_LEN_MAX).collect();
    let message = format!(
        "topic name {shown:?} is not 1 to {NAME_LEN_MAX} of [a-zA-Z0-9._-], or is \".\" or \"..\""
    );
    Err(ServiceError::new(Reason::InvalidTopicName, message))
}

/// Whether comlog keeps this topic for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// [`check`], and not one of comlog's own.
pub(crate) fn check_writable(name: &str) -> Result<(), ServiceError> {
    check(name)?;
    if is_reserved(name) {
        let message = format!("topic {name:?}: names beginning with \"__\" are comlog's own");
        return Err(ServiceError::new(Reason::InvalidTopicName, message).at_topic(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_kafka() {
        for good in [
            "a",
            "A.b-c_9",
            "...",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "ü",
            "a\0",
            &"x".repeat(250),
        ] {
            let error = check(bad).expect_err(bad);
            assert_eq!(error.reason, Reason::InvalidTopicName);
        }
        assert!(check_writable("_fine").is_ok());
        assert!(check_writable("__mine").is_err());
    }
}
