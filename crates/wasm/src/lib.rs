//! The log in a browser tab: reserved, empty until its turn comes.
//!
//! What it will stand on compiles for wasm32 today, which `cargo xtask verify` checks:
//! `comlog-record`, `comlog-storage` without features, and `comlog-log`.
