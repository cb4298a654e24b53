//! How a server archives.

use serde::{Deserialize, Serialize};

/// The second home of the records: sealed segments on an object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Where: `s3://bucket/path`, `gs://`, `az://`, `file:///path` or `memory:///`; empty (the default)
    /// means none. Credentials come from the environment, never from here.
    pub url: String,
    /// The operator promises that no other server writes to the archive: needed where the store
    /// ignores conditional writes, or has none (`file://`).
    pub single_writer: bool,
    /// An active segment is rolled, and so archived, when its first record is this old
    /// (default 600,000 ms): what a lost disk can cost.
    pub roll_interval_ms: u64,
    /// How often it looks for something to do (default 1,000 ms).
    pub interval_ms: u64,
    /// Most partitions that are worked on at once (default 4).
    pub uploads_max: u32,
    /// Most bytes of archived blocks in memory (default 256 MiB).
    pub cache_bytes_max: u64,
    /// Bytes fetched ahead of a sequential reader (default 16 MiB); 0 fetches nothing ahead.
    pub prefetch_bytes: u64,
    /// How long one request to the store may take, beside what its bytes need (default 30,000 ms).
    pub request_timeout_ms: u64,
    /// After a failure it waits a second, then twice as long each time, at most this
    /// (default 60,000 ms).
    pub backoff_max_ms: u64,
    /// Objects that no manifest names are removed when they were seen for this long
    /// (default 86,400,000 ms, a day).
    pub orphan_grace_ms: u64,
    /// How often it looks for such objects (default 3,600,000 ms, an hour).
    pub orphan_scan_interval_ms: u64,
}

impl Default for ArchiveConfig {
    fn default() -> ArchiveConfig {
        ArchiveConfig {
            url: String::new(),
            single_writer: false,
            roll_interval_ms: 600_000,
            interval_ms: 1_000,
            uploads_max: 4,
            cache_bytes_max: 256 << 20,
            prefetch_bytes: 16 << 20,
            request_timeout_ms: 30_000,
            backoff_max_ms: 60_000,
            orphan_grace_ms: 86_400_000,
            orphan_scan_interval_ms: 3_600_000,
        }
    }
}

impl ArchiveConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn validate(&self) -> Result<(), String> {
        let at_least_one = [
            ("roll_interval_ms", self.roll_interval_ms),
            ("interval_ms", self.interval_ms),
            ("uploads_max", self.uploads_max.into()),
            ("request_timeout_ms", self.request_timeout_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("orphan_scan_interval_ms", self.orphan_scan_interval_ms),
        ];
        match at_least_one.iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(format!("archive.{field}: must be at least 1")),
            // It may be printed, and secrets may not.
            None if self.url.contains('@') && self.url.contains(':') && has_password(&self.url) => {
                Err("archive.url: must not hold a password; use the environment".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// Whether there is a colon in what stands before an `@` in the host.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}
