//! Keeps the message of a panic, which ends in a trap that says nothing.

use std::sync::{Mutex, PoisonError};

use wasm_bindgen::prelude::wasm_bindgen;

static LAST: Mutex<String> = Mutex::new(String::new());

/// Runs when the module is instantiated.
#[cfg_attr(target_arch = "wasm32", wasm_bindgen(start))]
#[cfg_attr(
    not(target_arch = "wasm32"),
    allow(dead_code, reason = "called by JavaScript")
)]
fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// What the last panic of this instance said; empty when there was none.
#[wasm_bindgen(js_name = lastPanic)]
#[must_use]
pub fn last_panic() -> String {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
