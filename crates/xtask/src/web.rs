//! What is made with npm, in the order in which one part needs the other: npm's packages, the
//! package `comlog`, the page. Nothing is made anew that is newer than all it is made from: the
//! server embeds the page, and would be compiled anew as well.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::step::Result;
use crate::tools::{self, run};
use crate::wasm;

/// The workspace.
const WEB: &str = "web";
/// Written by `npm ci`.
const INSTALLED: &str = "web/node_modules/.package-lock.json";
const LOCK: &str = "web/package-lock.json";
const CLIENT: &str = "web/packages/comlog/dist";
const CLIENT_SOURCES: [&str; 7] = [
    "proto/comlog",
    "web/packages/comlog/src",
    "web/packages/comlog/package.json",
    "web/packages/comlog/tsconfig.json",
    "web/packages/comlog/buf.gen.yaml",
    "web/packages/comlog/licences.mjs",
    INSTALLED,
];
const PAGE: &str = "web/page/dist/index.html";
const PAGE_SOURCES: [&str; 6] = [
    "web/page/src",
    "web/page/public",
    "web/page/index.html",
    "web/page/vite.config.ts",
    "web/page/package.json",
    CLIENT,
];

/// Whether npm is there; without it the server is built with its status page alone.
pub(crate) fn has_npm() -> bool {
    tools::is_in_path("npm")
}

/// npm's packages, as the lock file has them.
fn packages() -> Result<()> {
    tools::npm()?;
    if is_newer(INSTALLED, &[LOCK]) {
        return Ok(());
    }
    run("npm", &["ci", "--prefix", WEB])
}

/// The npm package `comlog`.
pub(crate) fn client() -> Result<()> {
    packages()?;
    wasm::module()?;
    if is_newer("web/packages/comlog/dist/index.js", &CLIENT_SOURCES) {
        return Ok(());
    }
    run(
        "npm",
        &["run", "build", "--prefix", WEB, "--workspace", "comlog"],
    )
}

/// The page, which the server embeds when it is compiled.
pub(crate) fn page() -> Result<()> {
    client()?;
    if is_newer(PAGE, &PAGE_SOURCES) {
        return Ok(());
    }
    run(
        "npm",
        &[
            "run",
            "build",
            "--prefix",
            WEB,
            "--workspace",
            "comlog-page",
        ],
    )
}

/// What measures the log in WebAssembly and the client in a page, with all it needs built.
pub(crate) fn bench() -> Result<Command> {
    client()?;
    tools::chromium()?;
    let binary = tools::build_release()?;
    let native = ["-p", "comlog-wasm", "--example", "native"];
    run("cargo", &[&["build", "--release"], &native[..]].concat())?;
    let mut command = Command::new("node");
    command
        .arg("web/packages/comlog/bench/table.mjs")
        .env("COMLOG_NATIVE", binary.with_file_name("examples/native"))
        .env("COMLOG_BIN", binary);
    Ok(command)
}

/// Whether a file is there, and everything it is made from is older.
fn is_newer(made: &str, sources: &[&str]) -> bool {
    let Ok(made) = fs::metadata(made).and_then(|made| made.modified()) else {
        return false;
    };
    let newest = sources
        .iter()
        .filter_map(|source| newest(Path::new(source)));
    newest.max().is_none_or(|newest| newest <= made)
}

/// When a file, or the last of those in a folder, was written.
fn newest(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_dir() {
        return metadata.modified().ok();
    }
    let entries = fs::read_dir(path).ok()?.filter_map(|entry| entry.ok());
    entries.filter_map(|entry| newest(&entry.path())).max()
}
