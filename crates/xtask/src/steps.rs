//! The tables: what `verify`, `fix` and `test` run, in this order.

use crate::step::Run::{Call, Line};
use crate::step::Step;
use crate::{portable, tools, web};

/// Checks that write nothing (outside the target directory and the tool cache).
pub(crate) const VERIFY: &[Step] = &[
    Step {
        name: "fmt",
        needs: &[],
        run: Line("cargo fmt --all --check"),
    },
    Step {
        name: "clippy",
        needs: &[],
        run: Line("cargo clippy --locked --workspace --all-targets --all-features -- -Dwarnings"),
    },
    Step {
        name: "doc",
        needs: &[],
        run: Line("RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --all-features"),
    },
    Step {
        name: "deny",
        needs: &[tools::cargo_deny],
        run: Line(
            "cargo deny --all-features --locked --config ci/deny.toml check bans licenses sources",
        ),
    },
    Step {
        name: "wasm32",
        needs: &[tools::wasm_target],
        run: Call(portable::check),
    },
    Step {
        name: "wasm32-tree",
        needs: &[],
        run: Call(portable::check_tree),
    },
];

/// Known vulnerabilities: apart, because the database comes from the network, and without it
/// this fails rather than passes.
pub(crate) const ADVISORIES: &[Step] = &[Step {
    name: "advisories",
    needs: &[tools::cargo_deny],
    run: Line("cargo deny --all-features --config ci/deny.toml check advisories"),
}];

/// What can be put right by a program.
pub(crate) const FIX: &[Step] = &[
    Step {
        name: "clippy --fix",
        needs: &[],
        run: Line(
            "cargo clippy --fix --allow-dirty --allow-staged --workspace --all-targets --all-features",
        ),
    },
    Step {
        name: "fmt",
        needs: &[],
        run: Line("cargo fmt --all"),
    },
];

/// Tests, behind [`VERIFY`]. The drills are short here; `cargo xtask drill` runs them in full.
pub(crate) const TEST: &[Step] = &[
    Step {
        name: "workspace",
        // First, since the server embeds it.
        needs: &[web::page],
        run: Line("cargo test --workspace --all-features --no-fail-fast"),
    },
    Step {
        name: "wasm32-node",
        needs: &[tools::wasm_bindgen],
        run: Line(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
             cargo test --target wasm32-unknown-unknown -p comlog-storage -p comlog-log \
             --features comlog-storage/test-util --test memory --test fault --test it",
        ),
    },
    Step {
        name: "wasm32-chromium",
        needs: &[tools::wasm_bindgen, tools::chromium],
        run: Line(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
             WASM_BINDGEN_USE_BROWSER=1 \
             cargo test --target wasm32-unknown-unknown -p comlog-storage -p comlog-log \
             --features comlog-storage/test-util --test memory --test fault --test it",
        ),
    },
    Step {
        name: "web-client",
        needs: &[web::client, tools::chromium, tools::build_debug],
        run: Line("npm test --prefix web --workspace comlog"),
    },
    Step {
        name: "page",
        needs: &[web::page, tools::chromium, tools::build_debug],
        run: Line("npm test --prefix web --workspace comlog-page"),
    },
    Step {
        name: "sim",
        needs: &[],
        run: Line("cargo run --release -p comlog-sim -- --seeds 2000"),
    },
    Step {
        name: "record-interop",
        needs: &[],
        run: Line("ci/record-interop"),
    },
    Step {
        name: "fuzz",
        needs: &[],
        run: Line("ci/fuzz 10"),
    },
    Step {
        name: "legacy-api",
        needs: &[tools::build_debug],
        run: Line("ci/drills/legacy-api"),
    },
    Step {
        name: "proto-examples",
        needs: &[tools::build_debug],
        run: Line("ci/drills/proto-examples"),
    },
    Step {
        name: "dumpavail-kill",
        needs: &[tools::build_debug],
        run: Line("ci/drills/dumpavail-kill --lines 60000 --kills 3"),
    },
    Step {
        name: "power-cut",
        needs: &[tools::build_debug],
        run: Line("ci/drills/power-cut --cuts 3 --memory-cuts 3"),
    },
    Step {
        name: "abuse",
        needs: &[tools::build_debug],
        run: Line("ci/drills/abuse"),
    },
    Step {
        name: "object-stores",
        needs: &[],
        run: Line("ci/drills/object-stores"),
    },
    Step {
        name: "archive",
        needs: &[tools::build_debug],
        run: Line("ci/drills/archive"),
    },
    Step {
        name: "archive-writers",
        needs: &[tools::build_debug],
        run: Line("ci/drills/archive-writers"),
    },
    Step {
        name: "archive-faults",
        needs: &[tools::build_debug],
        run: Line("ci/drills/archive-faults"),
    },
    Step {
        name: "archive-kill",
        needs: &[tools::build_debug],
        run: Line("ci/drills/archive-kill"),
    },
    Step {
        name: "archive-outage",
        needs: &[tools::build_debug],
        run: Line("ci/drills/archive-outage"),
    },
];
