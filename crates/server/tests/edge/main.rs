//! The listener as the network sees it: bytes on a socket.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod bounds;
mod config;
mod pages;
mod stop;
mod support;
mod tls;
mod web;
