//! The tables: what `verify`, `fix` and `test` run, in this order.

use crate::step::Run::{Call, Line};
use crate::step::Step;
use crate::{portable, tools, web};

/// Checks that write nothing (outside the target directory and the tool cache).
pub(crate) const VERIFY: &[Step] = &[
    Step::check("fmt", &[], Line("cargo fmt --all --check")),
    Step::check(
        "clippy",
        &[],
        Line("cargo clippy --locked --workspace --all-targets --all-features -- -Dwarnings"),
    ),
    Step::check(
        "doc",
        &[],
        Line("RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --all-features"),
    ),
    Step::check(
        "deny",
        &[tools::cargo_deny],
        Line(
            "cargo deny --all-features --locked --config ci/deny.toml check bans licenses sources",
        ),
    ),
    Step::check("wasm32", &[tools::wasm_target], Call(portable::check)),
    Step::check("wasm32-tree", &[], Call(portable::check_tree)),
];

/// Known vulnerabilities: apart, because the database comes from the network, and without it
/// this fails rather than passes.
pub(crate) const ADVISORIES: &[Step] = &[Step::check(
    "advisories",
    &[tools::cargo_deny],
    Line("cargo deny --all-features --config ci/deny.toml check advisories"),
)];

/// What can be put right by a program.
pub(crate) const FIX: &[Step] = &[
    Step::check(
        "clippy --fix",
        &[],
        Line(
            "cargo clippy --fix --allow-dirty --allow-staged --workspace --all-targets --all-features",
        ),
    ),
    Step::check("fmt", &[], Line("cargo fmt --all")),
];

/// Tests, behind [`VERIFY`]. The drills are short here; `cargo xtask drill` runs them in full.
pub(crate) const TEST: &[Step] = &[
    Step::test(
        // First, since the server embeds it.
        "workspace",
        &[web::page],
        Line("cargo test --workspace --all-features --no-fail-fast"),
        500,
        40,
    ),
    Step::test(
        "wasm32-node",
        &[tools::wasm_bindgen],
        Line(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
             cargo test --target wasm32-unknown-unknown -p comlog-storage -p comlog-log \
             --features comlog-storage/test-util --test memory --test fault --test it",
        ),
        60,
        20,
    ),
    Step::test(
        "wasm32-chromium",
        &[tools::wasm_bindgen, tools::chromium],
        Line(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
             WASM_BINDGEN_USE_BROWSER=1 \
             cargo test --target wasm32-unknown-unknown -p comlog-storage -p comlog-log \
             --features comlog-storage/test-util --test memory --test fault --test it",
        ),
        60,
        20,
    ),
    Step::test(
        "web-client",
        &[web::client, tools::chromium, tools::build_debug],
        Line("npm test --prefix web --workspace comlog"),
        90,
        20,
    ),
    Step::test(
        "page",
        &[web::page, tools::chromium, tools::build_debug],
        Line("npm test --prefix web --workspace comlog-page"),
        35,
        20,
    ),
    // It says itself how many seeds it ran, and fails below its minimum.
    Step::check(
        "sim",
        &[],
        Line("cargo run --release -p comlog-sim -- --seeds 2000 --seconds 120 --least 500"),
    ),
    Step::test("record-interop", &[], Line("ci/record-interop"), 1, 15),
    Step::test("fuzz", &[], Line("ci/fuzz --seconds 8 --least 1000"), 6, 20),
    Step::test(
        "legacy-api",
        &[tools::build_debug],
        Line("ci/drills/legacy-api"),
        15,
        10,
    ),
    Step::test(
        "proto-examples",
        &[tools::build_debug],
        Line("ci/drills/proto-examples"),
        1,
        10,
    ),
    Step::test(
        "dumpavail-kill",
        &[tools::build_debug],
        Line("ci/drills/dumpavail-kill --lines 60000 --kills 3 --seconds 20 --least 5"),
        5,
        15,
    ),
    Step::test(
        "power-cut",
        &[tools::build_debug],
        Line("ci/drills/power-cut --seconds 15 --least 3"),
        2,
        10,
    ),
    Step::test(
        "damage",
        &[tools::build_debug],
        Line("ci/drills/damage --seconds 75 --least 60"),
        60,
        15,
    ),
    Step::test(
        "abuse",
        &[tools::build_debug],
        Line("ci/drills/abuse"),
        20,
        10,
    ),
    Step::test("object-stores", &[], Line("ci/drills/object-stores"), 5, 25),
    Step::test(
        "archive",
        &[tools::build_debug],
        Line("ci/drills/archive"),
        50,
        15,
    ),
    Step::test(
        "archive-writers",
        &[tools::build_debug],
        Line("ci/drills/archive-writers"),
        15,
        10,
    ),
    Step::test(
        "archive-faults",
        &[tools::build_debug],
        Line("ci/drills/archive-faults"),
        50,
        10,
    ),
    Step::test(
        "archive-kill",
        &[tools::build_debug],
        Line("ci/drills/archive-kill --seconds 60 --least 5"),
        20,
        15,
    ),
    Step::test(
        "archive-outage",
        &[tools::build_debug],
        Line("ci/drills/archive-outage"),
        5,
        10,
    ),
];
