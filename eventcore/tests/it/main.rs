//! The tests of the core, in one binary.

// The lints allow these inside of test functions only; helpers of tests are meant as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod decision_machine;
mod decoding_ahead;
mod derive_command;
mod derive_event;
mod feed;
mod hot_streams;
mod idle;
mod joint_appends;
mod manager;
mod partitions;
mod projection_machine;
mod projection_progress;
mod shared_tail;
mod slow_consumers;
mod snapshot_writer;
mod snapshots;
mod troubled_store;
mod ui;
mod vocabulary;
mod watch;
mod writer;
