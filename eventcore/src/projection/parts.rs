//! A page split by stream over several workers, as pure machines.
//!
//! Every stream belongs to one worker, which applies its events in order; workers do not wait for each other. A page is done
//! when all of its parts are, so that one checkpoint means the same whatever the number of workers.

use super::protocol::{Applied, Fault};
use crate::validation::check_range;
use crate::{RetryPolicy, StreamId, ValidationError};
use nutype::nutype;
use std::time::Duration;

fn check_partitions(value: &u32) -> Result<(), ValidationError> {
    check_range("Partitions", u64::from(*value), 1, 256)
}

/// How many workers share a projection: 1 to 256, by default 1.
///
/// It may change from run to run: the checkpoint does not depend on it.
#[nutype(
    validate(with = check_partitions, error = ValidationError),
    default = 1,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct Partitions(u32);

impl Partitions {
    /// The number of workers.
    #[must_use]
    pub fn get(self) -> usize {
        self.into_inner() as usize
    }

    /// The worker that a stream belongs to, from 0. The same in every process and in every version of this library.
    ///
    /// ```
    /// use eventcore::{Partitions, StreamId};
    ///
    /// let eight = Partitions::try_new(8)?;
    /// let account = StreamId::new("account-1")?;
    /// assert_eq!(eight.of(&account), eight.of(&account));
    /// assert!(eight.of(&account) < 8);
    /// # Ok::<(), eventcore::ValidationError>(())
    /// ```
    #[must_use]
    pub fn of(self, stream_id: &StreamId) -> usize {
        // FNV-1a, and its halves folded together, since the lowest bits of it depend on the lowest bits of the text alone.
        let bytes = stream_id.as_str().bytes();
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        ((hash ^ (hash >> 32)) % self.get() as u64) as usize
    }
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartEffect {
    /// Apply an event of the page. Answer: [`Applied`](PartInput::Applied).
    Apply {
        /// Which one, from 0.
        index: usize,
        /// The how-manieth attempt, from 1.
        attempt: u32,
    },
    /// Pause for so long, or until all workers are to halt. Answer: [`Waited`](PartInput::Waited).
    Pause(Duration),
    /// The part has ended: call [`finish`](PartMachine::finish).
    Finish,
}

/// The result of a worker's effect.
#[derive(Debug)]
pub enum PartInput<X> {
    /// The first input.
    Start,
    /// What became of an event.
    Applied(Applied<X>),
    /// The pause is over.
    Waited,
}

/// The machine of one worker's part of a page.
#[derive(Debug)]
pub struct PartMachine<X> {
    /// The events of the part: their places in the page, rising.
    events: Vec<usize>,
    retry: RetryPolicy,
    retries: u32,
    /// Which of them comes next.
    next: usize,
    /// How often that one was tried.
    tried: u32,
    left_out: Vec<usize>,
    parked: Vec<usize>,
    failed: Option<X>,
}

/// What became of one worker's part of a page.
#[derive(Debug)]
pub struct PartDone<X> {
    /// The place in the page of the first event of the part that is not done.
    pub undone: Option<usize>,
    /// The places of those skipped after a failure.
    pub left_out: Vec<usize>,
    /// The places of those that become dead letters.
    pub parked: Vec<usize>,
    /// The error of the event that is not done, if that one failed for good.
    pub failed: Option<X>,
}

/// What became of a page, or of a stretch of one.
#[derive(Debug)]
pub struct PageDone<X> {
    /// How far the page is done without a gap: the place of the first event that is not.
    pub done: usize,
    /// How many before that were skipped after a failure.
    pub left_out: u64,
    /// The places of those before that which become dead letters, rising.
    pub parked: Vec<usize>,
    /// The error of the first event that failed for good.
    pub failed: Option<X>,
}

impl<X> PartMachine<X> {
    /// The machine of a part: the places of its events in the page, rising.
    #[must_use]
    pub const fn new(events: Vec<usize>, retry: RetryPolicy, retries: u32) -> Self {
        Self { events, retry, retries, next: 0, tried: 0, left_out: Vec::new(), parked: Vec::new(), failed: None }
    }

    /// Goes on with the result of the last effect. When all workers are to `halt`, no event is begun any more. `jitter` from
    /// 0.0 to 1.0 is the random part of a pause.
    pub fn step(&mut self, input: PartInput<X>, halt: bool, jitter: f64) -> PartEffect {
        if let PartInput::Applied(applied) = input {
            self.tried += 1;
            match applied {
                Applied::Ok => self.leave(),
                Applied::Skip => {
                    self.left_out.extend(self.events.get(self.next));
                    self.leave();
                }
                // Its stream waits with it, and so does what else is in the part; the other workers do not.
                Applied::Retry(_) | Applied::RetryThenDeadLetter if self.tried <= self.retries => {
                    return PartEffect::Pause(self.retry.delay(self.tried, 0.5 + jitter / 2.0));
                }
                Applied::RetryThenDeadLetter | Applied::DeadLetter => {
                    self.parked.extend(self.events.get(self.next));
                    self.leave();
                }
                Applied::Retry(error) | Applied::Fatal(error) => self.failed = Some(error),
                Applied::Fault(
                    Fault::Transient(error) | Fault::Busy(error) | Fault::Fenced(error) | Fault::Fatal(error),
                ) => self.failed = Some(error),
            }
        }
        match self.events.get(self.next) {
            Some(index) if !halt && self.failed.is_none() => {
                PartEffect::Apply { index: *index, attempt: self.tried + 1 }
            }
            _ => PartEffect::Finish,
        }
    }

    const fn leave(&mut self) {
        self.next += 1;
        self.tried = 0;
    }

    /// What became of the part.
    #[must_use]
    pub fn finish(self) -> PartDone<X> {
        let Self { events, next, left_out, parked, failed, .. } = self;
        PartDone { undone: events.get(next).copied(), left_out, parked, failed }
    }
}

impl<X> PartDone<X> {
    /// A part that was not worked at, or nobody knows how far.
    pub(super) const fn failed(undone: Option<usize>, error: X) -> Self {
        Self { undone, left_out: Vec::new(), parked: Vec::new(), failed: Some(error) }
    }
}

impl<X> PageDone<X> {
    /// What became of a page that ends before the place `end`, from what became of its parts.
    #[must_use]
    pub fn of(end: usize, parts: impl IntoIterator<Item = PartDone<X>>) -> Self {
        let mut done = end;
        let (mut left_out, mut parked) = (Vec::new(), Vec::new());
        let mut failed: Option<(usize, X)> = None;
        for part in parts {
            let undone = part.undone.unwrap_or(end);
            done = done.min(undone);
            left_out.extend(part.left_out);
            parked.extend(part.parked);
            if let Some(error) = part.failed
                && failed.as_ref().is_none_or(|(first, _)| undone < *first)
            {
                failed = Some((undone, error));
            }
        }
        let left_out = left_out.into_iter().filter(|index| *index < done).count() as u64;
        parked.retain(|index| *index < done);
        parked.sort_unstable();
        Self { done, left_out, parked, failed: failed.map(|(_, error)| error) }
    }
}
