//! Events that a handler gave up on, and the port that keeps them until somebody replays or discards them.

use super::{CheckpointError, Epoch, EventStoreError, PageSize, ProjectionName};
use crate::{EventHeader, EventId, EventType, GlobalPosition, StreamId, Timestamp};
use async_trait::async_trait;
use std::error::Error as StdError;
use std::fmt;

/// What names a dead letter: who failed, and on which event. One handler has one letter per event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadLetterId {
    /// Who failed: the name of a projection or another follower.
    pub handler: ProjectionName,
    /// Where the event stands.
    pub position: GlobalPosition,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.handler, self.position)
    }
}

/// An event that a handler failed on for good. The event itself stays in the log; the letter tells which one and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Who failed, and where the event stands.
    pub id: DeadLetterId,
    /// The event.
    pub event_id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// The stream it belongs to.
    pub stream_id: StreamId,
    /// How often it was tried, replays included.
    pub attempts: u32,
    /// What went wrong the last time: the error and its causes, outermost first. See [`chain`](Self::chain).
    pub errors: Vec<String>,
    /// When it was parked last. Set by the store; what a caller puts here is not kept.
    pub parked_at: Timestamp,
}

impl DeadLetter {
    /// The most errors that are kept of a chain.
    pub const MAX_ERRORS: usize = 16;
    /// The most characters that are kept of one error.
    pub const MAX_ERROR_CHARS: usize = 1_000;

    /// The letter about an event that `handler` failed on.
    #[must_use]
    pub fn new(handler: ProjectionName, event: &EventHeader, attempts: u32, error: &dyn StdError) -> Self {
        Self {
            id: DeadLetterId { handler, position: event.position },
            event_id: event.id,
            event_type: event.event_type.clone(),
            stream_id: event.stream_id.clone(),
            attempts,
            errors: Self::chain(error),
            parked_at: Timestamp::now(),
        }
    }

    /// An error and its causes in words, outermost first: at most [`MAX_ERRORS`](Self::MAX_ERRORS), each cut after
    /// [`MAX_ERROR_CHARS`](Self::MAX_ERROR_CHARS), so that no error makes a letter too large to be kept.
    ///
    /// ```
    /// use eventcore::{DeadLetter, EventStoreError};
    ///
    /// let error = EventStoreError::unavailable(std::io::Error::other("connection refused"));
    /// assert_eq!(DeadLetter::chain(&error), [error.to_string(), "connection refused".to_owned()]);
    /// ```
    #[must_use]
    pub fn chain(error: &dyn StdError) -> Vec<String> {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        causes.take(Self::MAX_ERRORS).map(|error| cut(error.to_string())).collect()
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(DeadLetter::MAX_ERROR_CHARS) {
        text.truncate(end);
    }
    text
}

/// The port that keeps dead letters.
///
/// An implementer guarantees that a letter is durable when the call that parked it returns, and that it stays until it is
/// discarded. Replaying one is [`replay_dead_letter`](crate::replay_dead_letter).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use eventcore::{Backend, PageSize};
/// use eventcore_memory::MemoryEventStore;
///
/// /// Shows what every handler gave up on.
/// async fn show(store: &dyn Backend) -> Result<(), eventcore::EventStoreError> {
///     let mut after = None;
///     loop {
///         let letters = store.dead_letters(None, after.as_ref(), PageSize::default()).await?;
///         for letter in &letters {
///             println!("{}: {} after {} attempts: {:?}", letter.id, letter.event_type, letter.attempts, letter.errors);
///         }
///         match letters.last() {
///             Some(last) => after = Some(last.id.clone()),
///             None => return Ok(()),
///         }
///     }
/// }
/// show(&MemoryEventStore::new()).await?;
/// # Ok::<(), eventcore::EventStoreError>(())
/// # }).unwrap();
/// ```
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Keeps a letter. It replaces the one that its handler has about the same event.
    ///
    /// With an `epoch`, it is kept only if that one is in force for the handler, judged in one atomic step as for
    /// [`save_checkpoint`](super::CheckpointStore::save_checkpoint). Handlers without a leader have none.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over, else what the store says.
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError>;

    /// The letters of one handler, or of all, by handler and position; of those after `after` as many as `limit` allows.
    ///
    /// # Errors
    /// [`EventStoreError::Corrupt`] if what is stored cannot be understood, else what the store says.
    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError>;

    /// One letter; `None` if there is none.
    ///
    /// # Errors
    /// [`EventStoreError::Corrupt`] if what is stored cannot be understood, else what the store says.
    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError>;

    /// Throws a letter away, and tells whether there was one. Its event is then left out for good.
    ///
    /// # Errors
    /// What the store says.
    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError>;

    /// Throws away the letters of a handler about events after a position, or all, and tells how many. Followers do so
    /// before they read on from there: these events come again.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] as for parking, else what the store says.
    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError>;
}
