//! A seeded simulator: the real log, on a disk that fails, held to its promises.
//!
//! [`run`] makes a world from a seed, takes random steps in it (appends, retries, reads, rolls,
//! trims, truncations, clean closes, power cuts and kills at any await point, errors, a full
//! disk, flipped bits) and compares what the log says with a model that knows what was
//! promised. Everything follows from the seed: the same seed gives the same trace.
//!
//! There is one thread, no runtime and no clock: futures are polled in a loop, and dropped where a
//! crash wants it.

mod append;
mod check;
mod damage;
mod drive;
mod model;
mod recovery;
mod request;
mod steps;
mod trace;
mod world;

pub use trace::Failure;
use world::World;

/// What a run is made of, beside its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Steps to take (default 150).
    pub steps: u32,
    /// Print each step as it is taken.
    pub verbose: bool,
    /// Break the disk, to see that the simulator sees it.
    pub sabotage: Option<Sabotage>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: 150,
            verbose: false,
            sabotage: None,
        }
    }
}

/// A broken promise of the storage, which the log cannot make good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Syncs succeed and do nothing.
    SyncsLie,
}

/// What a run did: equal for equal seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Over every step and its result.
    pub hash: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Power cuts and kills survived.
    pub restarts: u64,
    /// Reads compared with the model.
    pub reads: u64,
}

impl Summary {
    /// Both runs together.
    #[must_use]
    pub fn plus(self, other: Summary) -> Summary {
        Summary {
            hash: self.hash.rotate_left(1) ^ other.hash,
            batches: self.batches + other.batches,
            restarts: self.restarts + other.restarts,
            reads: self.reads + other.reads,
        }
    }
}

/// Takes `options.steps` steps in the world of `seed`.
///
/// # Errors
/// The first broken promise, with the steps that led to it.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, *options);
    match world.run() {
        Ok(()) => Ok(world.summary()),
        Err(broken) => Err(Box::new(world.failure(seed, broken))),
    }
}
