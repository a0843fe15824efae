//! The group-commit writer: one task, a bounded queue, many callers, one commit.
//!
//! It takes what is waiting, after those callers who can run have come, never waits for more, and hands the group to the
//! adapter, which answers with a verdict per request. While one group is being committed the next one gathers.

mod appender;
mod company;
mod handle;
mod run;

pub use appender::{GroupAppender, GroupFailure, GroupLimits, Verdict};
pub use company::let_callers_come;
pub use handle::{WriterHandle, WriterJoin};
pub use run::{QueueCapacity, spawn_writer, spawn_writer_thread};
