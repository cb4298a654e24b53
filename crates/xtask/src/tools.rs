//! What the steps need and a fresh machine may lack. Everything is installed outside the checkout:
//! into rustup's home, or into `$XDG_CACHE_HOME/comlog` (`~/.cache/comlog`).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::Result;

const CARGO_DENY: &str = "0.20.2";
/// The version of the crate in Cargo.toml: the two must agree.
const WASM_BINDGEN: &str = "0.2.130";

/// The top of the checkout, as `cargo run` says: what was compiled in may be another checkout's,
/// when two share a target directory.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").ok_or("run this as `cargo xtask`")?;
    let crates = Path::new(&manifest_dir).parent();
    let root = crates.and_then(Path::parent).map(Path::to_path_buf);
    root.ok_or_else(|| "this crate is not in a checkout".to_owned())
}

/// Where tools are kept between runs and checkouts.
pub(crate) fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let home = || env::home_dir().unwrap_or_else(env::temp_dir).join(".cache");
    base.unwrap_or_else(home).join("comlog")
}

/// `PATH` with our own tools in front.
pub(crate) fn path() -> OsString {
    let ours = cache().join("tools/bin");
    let theirs = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(ours).chain(env::split_paths(&theirs));
    env::join_paths(all).unwrap_or(theirs)
}

/// The binary in the profile of this program's own build: what the drills of `test` run.
pub(crate) fn debug_binary() -> Result<PathBuf> {
    Ok(target()?.join("debug/comlog"))
}

/// Builds the binary as the tests do, so that nothing is compiled twice.
pub(crate) fn build_debug() -> Result<()> {
    run(
        "cargo",
        &[
            "test",
            "--workspace",
            "--all-features",
            "--no-run",
            "--quiet",
        ],
    )
}

/// Builds the bench, and builds and installs what a run of it with these arguments needs; says where
/// the bench is.
pub(crate) fn build_bench(args: &[String]) -> Result<PathBuf> {
    run("cargo", &["build", "--release", "-p", "comlog-bench"])?;
    let bench = target()?.join("release/comlog-bench");
    let output = Command::new(&bench)
        .args(args)
        .arg("--needs")
        .output()
        .map_err(|error| format!("cannot start {}: {error}", bench.display()))?;
    // Arguments that it refuses, or answers with its help, are its own matter: it is run next.
    let lines = String::from_utf8_lossy(&output.stdout);
    let needs = |what: &'static str| {
        lines
            .lines()
            .filter_map(move |line| line.strip_prefix("needs ")?.strip_prefix(what))
    };
    for options in needs("build ") {
        let words: Vec<&str> = options.split_whitespace().collect();
        run("cargo", &[&["build", "--release"], &words[..]].concat())?;
    }
    // Each brings a program of its own name.
    let missing: Vec<&str> = needs("package ")
        .filter(|program| !is_in_path(program))
        .collect();
    if !missing.is_empty() {
        apt_install(&missing)?;
    }
    Ok(bench)
}

/// Builds the binary in the release profile and says where it is.
pub(crate) fn build_release() -> Result<PathBuf> {
    run("cargo", &["build", "--release", "-p", "comlog-cli"])?;
    Ok(target()?.join("release/comlog"))
}

/// The target directory: this program lies in its `debug`.
pub(crate) fn target() -> Result<PathBuf> {
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let target = this.parent().and_then(Path::parent);
    target
        .map(Path::to_path_buf)
        .ok_or_else(|| "xtask is not in a target directory".to_owned())
}

/// The standard library for wasm32. (`targets` in rust-toolchain.toml does not install it where
/// rustup's automatic installs are off.)
pub(crate) fn wasm_target() -> Result<()> {
    let output = Command::new("rustc")
        .args([
            "--print",
            "target-libdir",
            "--target",
            "wasm32-unknown-unknown",
        ])
        .output()
        .map_err(|error| format!("cannot start rustc: {error}"))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && libdir.is_dir() {
        return Ok(());
    }
    run("rustup", &["target", "add", "wasm32-unknown-unknown"])
}

/// `cargo deny`.
pub(crate) fn cargo_deny() -> Result<()> {
    install("cargo-deny", "cargo-deny", CARGO_DENY, &["--locked"])
}

/// `wasm-bindgen` and `wasm-bindgen-test-runner`.
pub(crate) fn wasm_bindgen() -> Result<()> {
    wasm_target()?;
    install("wasm-bindgen-cli", "wasm-bindgen", WASM_BINDGEN, &[])
}

/// Chromium, and the driver through which tests command it.
pub(crate) fn chromium() -> Result<()> {
    if is_in_path("chromium") && is_in_path("chromedriver") {
        return Ok(());
    }
    apt_install(&["chromium", "chromium-driver"])
}

/// npm, and the Node it comes with.
pub(crate) fn npm() -> Result<()> {
    if is_in_path("npm") {
        return Ok(());
    }
    apt_install(&["nodejs", "npm"])
}

/// Whether a step would find a program of this name.
pub(crate) fn is_in_path(name: &str) -> bool {
    env::split_paths(&path()).any(|dir| dir.join(name).is_file())
}

/// Installs packages of Debian.
fn apt_install(packages: &[&str]) -> Result<()> {
    run("apt-get", &["update"])?;
    run("apt-get", &[&["install", "-y"], packages].concat())
}

/// A tool that [`install`] put into the cache.
pub(crate) fn installed(binary: &str) -> String {
    cache().join("tools/bin").join(binary).display().to_string()
}

/// Installs a binary crate of this very version into the cache, unless it is there.
fn install(name: &str, binary: &str, version: &str, options: &[&str]) -> Result<()> {
    let root = cache().join("tools");
    let receipts = std::fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    if root.join("bin").join(binary).is_file() && receipts.contains(&format!("\"{name} {version} "))
    {
        return Ok(());
    }
    let root = root.display().to_string();
    let target = cache().join("tools-target").display().to_string();
    let mut words = vec!["install", name, "--version", version, "--debug"];
    words.extend(["--root", &root, "--target-dir", &target]);
    words.extend(options);
    run("cargo", &words)
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let line = format!("{program} {}", args.join(" "));
    let status = Command::new(program)
        .args(args)
        .status()
        .map_err(|error| format!("cannot start `{line}`: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{line}` failed ({status})"))
    }
}
