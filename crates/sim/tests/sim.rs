//! The simulator on some seeds; `cargo xtask sim` runs many.
#![allow(clippy::unwrap_used)]

use comlog_sim::{Options, Sabotage, run};

#[test]
fn the_log_keeps_its_promises() {
    for seed in 0..60 {
        if let Err(failure) = run(seed, &Options::default()) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_005 {
        let first = run(seed, &Options::default()).unwrap();
        assert_eq!(first, run(seed, &Options::default()).unwrap());
        assert_ne!(first, run(seed + 500, &Options::default()).unwrap());
    }
}

#[test]
fn a_disk_whose_syncs_lie_is_seen() {
    let options = Options {
        sabotage: Some(Sabotage::SyncsLie),
        ..Options::default()
    };
    let seen = (0..20).filter(|&seed| run(seed, &options).is_err()).count();
    assert!(seen >= 15, "seen in {seen} of 20 worlds");
}
