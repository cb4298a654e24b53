//! The broker through real clients and a real socket on port 0.

mod append;
mod append_stream;
mod bounds;
mod common;
mod damage;
mod disk;
mod group_commit;
mod groups;
mod legacy;
mod lost_files;
mod producer_ids;
mod read;
mod restart;
mod shutdown;
mod tail;
mod topics;
