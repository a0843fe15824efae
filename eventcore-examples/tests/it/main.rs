//! The bank: its domain, its import, and the program itself, run as a process.

// The lints allow these inside of test functions only; helpers of tests are meant as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
mod decisions;
mod generated_file;
mod import;
mod money;
mod postgres;
mod program;
mod readme;
mod rows;
