//! What happened: all of it as a hash, the end of it as text.

use std::collections::VecDeque;
use std::fmt;

/// Steps shown when a promise is broken.
const LINES_KEPT: usize = 40;

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed that leads to it.
    pub seed: u64,
    /// The number of the step, from 0.
    pub step: u32,
    /// Which promise, and what was found instead.
    pub broken: String,
    /// The last steps.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} step {}: {}", self.seed, self.step, self.broken)?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "replay: cargo run --release -p comlog-sim -- --seed {} --steps {} --verbose",
            self.seed,
            self.step + 1
        )
    }
}

impl std::error::Error for Failure {}

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    verbose: bool,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
            verbose,
        }
    }

    /// FNV-1a: the same on every machine.
    pub(crate) fn note(&mut self, line: String) {
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.verbose {
            println!("{line}");
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
