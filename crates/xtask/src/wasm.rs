//! The WebAssembly of the npm package: `crates/wasm`, compiled, bound to JavaScript, made small.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::step::Result;
use crate::tools;

const MODULE: &str = "web/packages/comlog/dist/comlog.wasm";
const GLUE: &str = "web/packages/comlog/src/log/gen/glue.ts";
/// What rustc uses by default; `--all-features` makes modules that Chromium refuses.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-reference-types",
];

/// Builds `dist/comlog.wasm` and `src/log/gen/glue.ts` of the package, if what they are made of has
/// changed. Needs the node modules of `web/`.
pub(crate) fn module() -> Result<()> {
    tools::wasm_bindgen()?;
    tools::run(
        "cargo",
        &[
            "build",
            "--package",
            "comlog-wasm",
            "--profile",
            "wasm",
            "--target",
            "wasm32-unknown-unknown",
        ],
    )?;
    let target = tools::target()?;
    let compiled = target.join("wasm32-unknown-unknown/wasm/comlog_wasm.wasm");
    let since = changed(&compiled).ok_or_else(|| format!("{} is missing", compiled.display()))?;
    let is_fresh = |path: &str| changed(Path::new(path)).is_some_and(|made| made > since);
    if is_fresh(MODULE) && is_fresh(GLUE) {
        return Ok(());
    }
    let bound = target.join("wasm-bindgen");
    bind(
        &compiled.display().to_string(),
        &bound.display().to_string(),
    )?;
    shrink(&bound.join("comlog_bg.wasm").display().to_string())?;
    write_glue(&bound.join("comlog.js"))
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn bind(compiled: &str, out: &str) -> Result<()> {
    let options = [
        "--target",
        "no-modules",
        "--no-typescript",
        "--out-name",
        "comlog",
    ];
    let mut words = options.to_vec();
    words.extend(["--out-dir", out, compiled]);
    tools::run(&tools::installed("wasm-bindgen"), &words)
}

fn shrink(bound: &str) -> Result<()> {
    make_parent(MODULE)?;
    let mut words = vec![
        "web/node_modules/binaryen/bin/wasm-opt",
        "-Oz",
        "--converge",
    ];
    words.extend(FEATURES);
    words.extend([
        "--strip-producers",
        "--strip-target-features",
        bound,
        "-o",
        MODULE,
    ]);
    tools::run("node", &words)
}

/// Makes a function of what is one instance by itself: each call gives another.
fn write_glue(bound: &Path) -> Result<()> {
    let body = fs::read_to_string(bound)
        .map_err(|error| format!("cannot read {}: {error}", bound.display()))?;
    let glue = format!(
        "// Made by `cargo xtask` from crates/wasm.\n// @ts-nocheck\n\
         import type {{ Glue }} from '../glue.js';\n\
         /** The classes of one WebAssembly instance that is yet to be made. */\n\
         export function makeGlue(): Glue {{\n{body}\nreturn wasm_bindgen;\n}}\n"
    );
    make_parent(GLUE)?;
    fs::write(GLUE, glue).map_err(|error| format!("cannot write {GLUE}: {error}"))
}

fn make_parent(path: &str) -> Result<()> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))
}
