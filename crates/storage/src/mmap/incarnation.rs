//! Tells one boot of the machine, and one mount of the file system, from another.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, StatxFlags};

/// A random number that the kernel makes at its start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// `STATX_MNT_ID_UNIQUE`: the id of the mount, never given again until the machine restarts. Since
/// Linux 6.8.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The kernel's boot id and the id of the mount that `dir` lies on. A forced unmount, or a device
/// that went away, loses pages and leaves the boot id, so `None` when either cannot be had. Blocks.
pub(super) fn of(dir: &Path) -> Option<Bytes> {
    let boot = fs::read_to_string(BOOT_ID).ok()?;
    let found = rustix::fs::statx(CWD, dir, AtFlags::empty(), MNT_ID_UNIQUE).ok()?;
    let known = found.stx_mask & MNT_ID_UNIQUE.bits() != 0;
    known.then(|| Bytes::from(format!("{}/{}", boot.trim(), found.stx_mnt_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_as_long_as_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path()), of(dir.path()));
        assert_eq!(of(&dir.path().join("missing")), None);
        let Some(found) = of(dir.path()) else {
            return; // an older kernel
        };
        // Another file system: another mount.
        if let Some(other) = of(Path::new("/proc")) {
            assert_ne!(found, other);
        }
    }
}
