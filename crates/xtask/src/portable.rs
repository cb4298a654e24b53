//! The crates that also live in a browser: they compile for wasm32, and nothing that compiles
//! there but cannot run there (memmap2, for one) gets into their tree.

use crate::step::{Result, command};

/// The portable crates; `storage` without its features.
const PACKAGES: [&str; 5] = [
    "comlog-record",
    "comlog-storage",
    "comlog-log",
    "comlog-proto",
    "comlog-wasm",
];
const TARGET: &str = "wasm32-unknown-unknown";
/// Memory maps, sockets, OpenSSL, and C code.
const FORBIDDEN: [&str; 7] = [
    "memmap2",
    "mio",
    "socket2",
    "openssl",
    "openssl-sys",
    "native-tls",
    "zstd-sys",
];

fn cargo(verb: &str, options: &[&str]) -> Result<std::process::Command> {
    let mut words = vec!["cargo", verb, "--target", TARGET, "--no-default-features"];
    words.extend_from_slice(options);
    for package in PACKAGES {
        words.extend(["-p", package]);
    }
    command(&words)
}

/// Compiles them for wasm32.
pub(crate) fn check() -> Result<()> {
    let status = cargo("check", &[])?
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo check failed ({status})"))
    }
}

/// Looks through their tree of dependencies.
pub(crate) fn check_tree() -> Result<()> {
    let output = cargo("tree", &["-e", "normal", "--prefix", "none"])?
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("cargo tree failed ({})", output.status));
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    let names = || {
        tree.lines()
            .filter_map(|line| line.split_whitespace().next())
    };
    if let Some(missing) = PACKAGES
        .iter()
        .find(|package| !names().any(|name| name == **package))
    {
        return Err(format!(
            "cargo tree does not show {missing}, so it proves nothing"
        ));
    }
    match names().find(|name| FORBIDDEN.contains(name)) {
        Some(name) => Err(format!(
            "{name} is in the tree of the portable crates, see `cargo tree --target {TARGET} -i {name}`"
        )),
        None => Ok(()),
    }
}
