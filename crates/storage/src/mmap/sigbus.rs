//! The SIGBUS guard: a file cut short under a mapping must not end the process.
//!
//! Touching a page of a mapping that its file no longer backs raises SIGBUS. The handler looks
//! the address up in a fixed table of our mappings, puts a page of zeros there, and marks the
//! mapping as damaged; the interrupted load then reads zeros, which no checksum accepts. A fault
//! anywhere else goes to whoever handled the signal before.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most mappings the guard can watch; more are read without a mapping.
pub(super) const MAPS_MAX: usize = 8192;

/// One watched mapping; free while `start` is 0. Written under no lock, read by the handler.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    damaged: AtomicBool,
}

static SLOTS: [Slot; MAPS_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        damaged: AtomicBool::new(false),
    }
}; MAPS_MAX];
/// Marks a slot that is being filled: no mapping starts there.
const TAKEN: usize = usize::MAX;

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static PAGE_LEN: AtomicUsize = AtomicUsize::new(4096);

/// A mapping under watch; no longer once this is dropped, which must be before it is unmapped.
#[derive(Debug)]
pub(super) struct Watch {
    slot: usize,
}

impl Watch {
    /// Watches `len` bytes from address `start`; `None` when the table is full.
    pub(super) fn new(start: usize, len: usize) -> Option<Watch> {
        let take = |slot: &Slot| {
            slot.start
                .compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let slot = SLOTS.iter().position(take)?;
        SLOTS[slot].len.store(len, Ordering::Relaxed);
        SLOTS[slot].damaged.store(false, Ordering::Relaxed);
        SLOTS[slot].start.store(start, Ordering::Release);
        Some(Watch { slot })
    }

    /// Whether a fault was caught in the mapping.
    pub(super) fn damaged(&self) -> bool {
        SLOTS[self.slot].damaged.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SLOTS[self.slot].start.store(0, Ordering::Release);
    }
}

/// Installs the guard for the whole process; the second call does nothing.
///
/// Meant for the binary: a library must not take a signal from the program around it.
///
/// # Errors
/// What `sigaction` says.
pub fn install_sigbus_guard() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    PAGE_LEN.store(rustix::param::page_size(), Ordering::Relaxed);
    // SAFETY: both structures are plain data for which zero is valid, and the handler has the
    // signature that SA_SIGINFO asks for and calls only async-signal-safe functions.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) != 0 {
            return Err(io::Error::last_os_error());
        }
        if PREVIOUS.set(previous).is_err() {
            return Ok(());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_sigbus;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and SIGBUS sets its address.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace_page(address) {
        restore_previous();
    }
}

/// Puts zeros at the page of `address` if it lies in a watched mapping. Async-signal-safe.
fn replace_page(address: usize) -> bool {
    let hit = SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start != 0
            && start != TAKEN
            && address
                .checked_sub(start)
                .is_some_and(|at| at < slot.len.load(Ordering::Relaxed))
    });
    let Some(slot) = hit else { return false };
    let page_len = PAGE_LEN.load(Ordering::Relaxed);
    let page = address & !(page_len - 1);
    // SAFETY: the page lies inside a live read-only mapping of ours (its slot is freed before it
    // is unmapped); replacing it keeps the mapping's extent and its protection.
    let mapped = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            page_len,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    slot.damaged.store(true, Ordering::Release);
    mapped != libc::MAP_FAILED
}

/// Hands the signal back: the faulting load runs again and meets the handler of before.
fn restore_previous() {
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` came from sigaction itself; sigaction is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()) };
    }
}
