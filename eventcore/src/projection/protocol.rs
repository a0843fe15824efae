//! What the projection machine and its driver say to each other.

use super::parts::PageDone;
use crate::{Checkpoint, EventFilter, EventType, GlobalPosition, LineageId, LogCursor, RetryPolicy};
use std::time::Duration;

/// The rules of one run.
#[derive(Debug, Clone)]
pub struct ProjectionRules {
    /// Whether there is a stored checkpoint and one leader.
    pub durable: bool,
    /// Whether a page can be rolled back.
    pub transactional: bool,
    /// Whether several workers share the streams, so that a page is applied in parts. Never together with `transactional`.
    pub partitioned: bool,
    /// Whether to go on at the end of the log.
    pub continuous: bool,
    /// Whether to wait for the leadership rather than fail.
    pub wait_for_leadership: bool,
    /// Whether to go on from a checkpoint of another filter.
    pub accept_filter_change: bool,
    /// How long to wait at the end of the log before looking again.
    pub poll_interval: Duration,
    /// How long to wait while another instance leads before asking again.
    pub standby_interval: Duration,
    /// How long to wait after a fault of the store.
    pub failure_delay: Duration,
    /// How long a transactional page may stay open.
    pub hold_time: Duration,
    /// After how many pages the checkpoint is saved, unless the page is a transaction.
    pub checkpoint_pages: u32,
    /// After what time the checkpoint is saved, whatever the number of pages.
    pub checkpoint_interval: Duration,
    /// How long a batch may wait for the feed in all.
    pub batch_patience: Duration,
    /// The delays between attempts of one event.
    pub retry: RetryPolicy,
    /// How often an event is tried again.
    pub retries: u32,
    /// How many faults in a row are endured.
    pub max_failures: u32,
    /// Which events are wanted.
    pub filter: EventFilter,
    /// The log that is followed.
    pub lineage: LineageId,
}

/// What the machine needs to know of a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageShape {
    /// Where each event stands.
    pub events: Vec<LogCursor>,
    /// How far the page looked.
    pub end: Option<LogCursor>,
    /// Whether the next page should be read at once.
    pub more: bool,
}

/// What to do next.
#[derive(Debug)]
pub enum ProjectionEffect<X> {
    /// Take the leadership. Answer: [`Acquired`](ProjectionInput::Acquired).
    Acquire,
    /// Give the leadership up, with whatever page is open. Answer: [`Done`](ProjectionInput::Done).
    StepDown,
    /// Load the checkpoint. Answer: [`Resumed`](ProjectionInput::Resumed).
    Resume,
    /// Look for the first event that this filter wants. Answer: [`Probed`](ProjectionInput::Probed).
    Probe(EventFilter),
    /// Make sure that the log still holds this event. Answer: [`Done`](ProjectionInput::Done).
    Verify(LogCursor),
    /// Ask for the head of the log. Answer: [`Head`](ProjectionInput::Head).
    Head,
    /// Read a page. Answer: [`Read`](ProjectionInput::Read).
    Read {
        /// After which position.
        after: Option<GlobalPosition>,
    },
    /// Open a context. Answer: [`Done`](ProjectionInput::Done).
    Begin,
    /// Apply a stretch of the page, event by event, at least the first. It may end after any of them, and ends after one that
    /// failed, that had to wait, or during which a signal came. Answer: [`Applied`](ProjectionInput::Applied).
    Apply {
        /// The first one, from 0.
        index: usize,
        /// The first one behind the stretch.
        until: usize,
        /// The how-manieth attempt that of the first one is, from 1. The others have not been tried yet.
        attempt: u32,
    },
    /// Keep a dead letter about an event of the page, in the open context. Answer: [`Done`](ProjectionInput::Done).
    Park {
        /// Which one, from 0: the one that was applied last.
        index: usize,
    },
    /// Apply a stretch of the page, split over the workers. Answer: [`AppliedParts`](ProjectionInput::AppliedParts).
    ApplyParts {
        /// Its first event, from 0.
        from: usize,
        /// The first one behind it.
        until: usize,
    },
    /// Close the context and save the checkpoint. Answer: [`Done`](ProjectionInput::Done).
    Commit(LogCursor),
    /// Close the context without effect. Answer: [`Done`](ProjectionInput::Done).
    Rollback,
    /// Wait for a wake-up, at most so long. Answer: [`Waited`](ProjectionInput::Waited).
    Wait(Duration),
    /// Pause for so long, or until told to stop. Answer: [`Waited`](ProjectionInput::Waited).
    Pause(Duration),
    /// The run has ended.
    Finish(Result<(), ProjectionStop<X>>),
}

/// Why a run ended.
#[derive(Debug)]
pub enum ProjectionStop<X> {
    /// An error of the store or the projector.
    Failed(X),
    /// The leadership is no longer sure.
    LeadershipLost,
    /// The checkpoint is of another log.
    OtherLog(LineageId),
    /// The checkpoint is of another filter.
    OtherFilter,
    /// There are events of new types before the checkpoint.
    NewTypesInHistory(EventType, GlobalPosition),
    /// The feed did not reach the head in time.
    NotCaughtUp(GlobalPosition, Option<GlobalPosition>),
    /// The driver answered something that was not asked.
    OutOfStep,
}

/// The result of an effect.
#[derive(Debug)]
pub enum ProjectionInput<X> {
    /// The first input of a run.
    Start,
    /// The leadership was taken, or not.
    Acquired(Result<(), Fault<X>>),
    /// The stored checkpoint.
    Resumed(Result<Option<Checkpoint>, Fault<X>>),
    /// The first event of the probe.
    Probed(Result<Option<(EventType, GlobalPosition)>, Fault<X>>),
    /// The head of the log.
    Head(Result<Option<GlobalPosition>, Fault<X>>),
    /// A page.
    Read(Result<PageShape, Fault<X>>),
    /// Which event of a stretch was tried last, and what became of it. Those before it were applied.
    Applied(usize, Applied<X>),
    /// What became of a stretch of the page.
    AppliedParts(PageDone<X>),
    /// An effect that has nothing to tell.
    Done(Result<(), Fault<X>>),
    /// The wait is over.
    Waited,
}

/// What became of an event.
#[derive(Debug)]
pub enum Applied<X> {
    /// It was applied.
    Ok,
    /// It failed, and is to be tried again.
    Retry(X),
    /// It failed, and is to be tried again; when its attempts are used up, it becomes a dead letter.
    RetryThenDeadLetter,
    /// It failed, and is to be left out.
    Skip,
    /// It failed, and becomes a dead letter.
    DeadLetter,
    /// It failed, and the run with it.
    Fatal(X),
    /// The store failed beneath it, and its page is given up. Never in parts.
    Fault(Fault<X>),
}

/// A failed effect.
#[derive(Debug)]
pub enum Fault<X> {
    /// Trying again may help.
    Transient(X),
    /// Another instance leads.
    Busy(X),
    /// This instance led, and another one took over.
    Fenced(X),
    /// Nothing helps.
    Fatal(X),
}

/// What the machine is told beside results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// How long the run has lasted.
    pub now: Duration,
    /// The run is to stop.
    pub stop: bool,
    /// The leadership is no longer sure.
    pub lost: bool,
}
