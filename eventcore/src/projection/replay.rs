//! Dead letters of projections, given another try.

use super::attempt::{self, Failed};
use super::{ProjectionError, Projector};
use crate::{
    Checkpoint, DeadLetter, DeadLetterId, ErrorKind, EventFilter, EventReader, EventStore, EventStoreError,
    GlobalPosition, Leadership, LogCursor, PageSize, ProjectionContext, ProjectionName, ProjectorCoordinator,
    RecordedEvent, UnitOfWork,
};
use std::error::Error as StdError;
use thiserror::Error;
use tracing::Instrument;

/// What [`replay_dead_letters`] did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplayOutcome<P> {
    /// The projector.
    pub projector: P,
    /// How many events were applied; their letters are gone.
    pub replayed: u64,
    /// How many events failed again; their letters tell why.
    pub failed: u64,
}

/// Why a dead letter was not replayed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError<E: StdError + 'static> {
    /// There is no such letter, or it was replayed or discarded meanwhile.
    #[error("there is no dead letter {id}; if there was one, it was replayed or discarded")]
    NoSuchLetter {
        /// The letter asked for.
        id: DeadLetterId,
    },
    /// The projection has still to come to the event, as after a reset. A read model in memory always has: it starts at
    /// the beginning.
    #[error("dead letter {id} is ahead of its projection's checkpoint: run the projection, and the event comes again")]
    Ahead {
        /// The letter.
        id: DeadLetterId,
    },
    /// The event failed again, and its letter tells so; or the store failed, or another instance runs the projection.
    #[error(transparent)]
    Projection(#[from] ProjectionError<E>),
}

impl<E: StdError + 'static> ReplayError<E> {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchLetter { .. } | Self::Ahead { .. } => ErrorKind::BadInput,
            Self::Projection(error) => error.kind(),
        }
    }
}

/// Applies the event of one dead letter, and throws the letter away.
///
/// The projection must not be running anywhere: its leadership is taken meanwhile. One that a
/// [`ProjectionManager`](crate::ProjectionManager) runs is [paused](crate::ProjectionManager::pause) for that; until its run has ended
/// the answer is that another instance leads. In a transactional context the effects of
/// the event are committed with the end of its letter, exactly once; with effects of the projector's own they come before
/// it, at least once. The checkpoint stays where it is. The event is applied after events that came later in the log, so
/// replay only what does not depend on their order.
///
/// An event that fails again stays a dead letter, with one more attempt and the new errors.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use eventcore::{CommandLogic, Command, NewEvents, StreamId, execute};
/// use eventcore::{
///     DeadLetterStore, Event, FailureContext, FailureStrategy, PageSize, ProjectionConfig, Projector, RecordedEvent,
///     replay_dead_letter, run_projection,
/// };
/// use eventcore_memory::MemoryEventStore;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "shop")]
/// enum ShopEvent {
///     OrderPlaced { mail: String },
/// }
/// # #[derive(Command)]
/// # struct Place { #[stream] order: StreamId, mail: String }
/// # impl CommandLogic for Place {
/// #     type Event = ShopEvent;
/// #     type State = ();
/// #     type Error = std::convert::Infallible;
/// #     fn apply(&self, _: &mut (), _: &RecordedEvent<ShopEvent>) {}
/// #     fn handle(&self, _: &(), streams: &PlaceStreams) -> Result<NewEvents<Self>, Self::Error> {
/// #         Ok(NewEvents::new().append(&streams.order, ShopEvent::OrderPlaced { mail: self.mail.clone() }))
/// #     }
/// # }
///
/// struct Confirmations {
///     mail_server_is_up: bool,
/// }
///
/// impl Projector for Confirmations {
///     type Event = ShopEvent;
///     type Error = std::io::Error;
///     type Context = ();
///
///     fn name(&self) -> &str {
///         "confirmations"
///     }
///
///     async fn apply(&mut self, event: &RecordedEvent<ShopEvent>, (): &mut ()) -> Result<(), Self::Error> {
///         let ShopEvent::OrderPlaced { mail } = event.payload();
///         if self.mail_server_is_up { Ok(()) } else { Err(std::io::Error::other(format!("no mail to {mail}"))) }
///     }
///
///     fn on_error(&mut self, _: &FailureContext<'_, Self::Error>) -> FailureStrategy {
///         FailureStrategy::DeadLetter
///     }
/// }
///
/// let store = MemoryEventStore::new();
/// # execute(&store, Place { order: StreamId::new("order-1")?, mail: "a@example.org".into() }).await?;
/// let outcome = run_projection(Confirmations { mail_server_is_up: false }, &store, ProjectionConfig::default()).await?;
/// assert_eq!((outcome.applied, outcome.parked), (0, 1));
///
/// let letters = store.dead_letters(None, None, PageSize::default()).await?;
/// assert_eq!(letters[0].errors.last().map(String::as_str), Some("no mail to a@example.org"));
///
/// replay_dead_letter(Confirmations { mail_server_is_up: true }, &store, letters[0].id.position).await?;
/// assert!(store.dead_letters(None, None, PageSize::default()).await?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`ReplayError::Projection`] with the error of the event, or with [`Leadership`](ProjectionError::Leadership) if an
/// instance runs the projection; the other [`ReplayError`]s if there is nothing to replay.
pub async fn replay_dead_letter<P, B>(
    projector: P,
    backend: &B,
    position: GlobalPosition,
) -> Result<P, ReplayError<P::Error>>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    let mut replay = Replay::begin(projector, backend).await?;
    let id = DeadLetterId { handler: replay.leadership.name().clone(), position };
    let span = tracing::debug_span!("replay", letter = %id);
    let replayed = async {
        let letter = backend.dead_letter(&id).await.map_err(ProjectionError::from)?;
        replay.letter(letter.ok_or(ReplayError::NoSuchLetter { id })?).await
    };
    let replayed = replayed.instrument(span).await;
    let projector = replay.end().await;
    replayed.map(|()| projector)
}

/// Applies the events of all dead letters of a projection, in the order of the log, each as by [`replay_dead_letter`].
///
/// One that fails again is counted and stays a dead letter; the others go on.
///
/// # Errors
/// As [`replay_dead_letter`], but for events that fail. What was replayed before stays replayed.
pub async fn replay_dead_letters<P, B>(projector: P, backend: &B) -> Result<ReplayOutcome<P>, ReplayError<P::Error>>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    let mut replay = Replay::begin(projector, backend).await?;
    let span = tracing::debug_span!("replay", handler = replay.leadership.name().as_str());
    let counts = replay.all().instrument(span).await;
    let projector = replay.end().await;
    counts.map(|(replayed, failed)| ReplayOutcome { projector, replayed, failed })
}

struct Replay<'b, P, B: ?Sized> {
    projector: P,
    backend: &'b B,
    leadership: Leadership,
    /// As it is stored; it goes with every page, and stays the same.
    checkpoint: Option<Checkpoint>,
}

type Failure<P> = ReplayError<<P as Projector>::Error>;

impl<'b, P, B> Replay<'b, P, B>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    /// How many letters are held in memory at once.
    const PAGE: u32 = 100;

    async fn begin(mut projector: P, backend: &'b B) -> Result<Self, Failure<P>> {
        let name = ProjectionName::new(projector.name()).map_err(ProjectionError::Name)?;
        let leadership = backend.acquire(&name).await.map_err(ProjectionError::from)?;
        projector.leading(leadership.epoch());
        let mut replay = Self { projector, backend, leadership, checkpoint: None };
        match backend.resume(&name).await {
            Ok(checkpoint) => {
                replay.checkpoint = checkpoint;
                Ok(replay)
            }
            Err(error) => {
                replay.end().await;
                Err(ProjectionError::from(error).into())
            }
        }
    }

    async fn end(self) -> P {
        if let Err(error) = self.backend.release(self.leadership).await {
            tracing::warn!(error = &error as &dyn StdError, "the leadership could not be released");
        }
        self.projector
    }

    async fn all(&mut self) -> Result<(u64, u64), Failure<P>> {
        let (mut replayed, mut failed) = (0, 0);
        let name = self.leadership.name().clone();
        let limit = PageSize::try_new(Self::PAGE).unwrap_or_default();
        let mut after = None;
        loop {
            let letters = self.backend.dead_letters(Some(&name), after.as_ref(), limit).await;
            let letters = letters.map_err(ProjectionError::from)?;
            let Some(last) = letters.last() else { return Ok((replayed, failed)) };
            after = Some(last.id.clone());
            for letter in letters {
                match self.letter(letter).await {
                    Ok(()) => replayed += 1,
                    Err(ReplayError::Projection(ProjectionError::Apply { .. } | ProjectionError::Decode { .. })) => {
                        failed += 1;
                    }
                    Err(ReplayError::NoSuchLetter { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn letter(&mut self, letter: DeadLetter) -> Result<(), Failure<P>> {
        let checkpoint = self
            .checkpoint
            .take_if(|checkpoint| checkpoint.cursor.is_some_and(|cursor| cursor.position >= letter.id.position));
        let Some(checkpoint) = checkpoint else { return Err(ReplayError::Ahead { id: letter.id }) };
        if self.leadership.lost().is_cancelled() {
            return Err(ProjectionError::LeadershipLost { name: letter.id.handler }.into());
        }
        let replayed = self.apply(letter, &checkpoint).await;
        self.checkpoint = Some(checkpoint);
        replayed
    }

    async fn apply(&mut self, letter: DeadLetter, checkpoint: &Checkpoint) -> Result<(), Failure<P>> {
        let event = self.event(&letter).await?;
        let (backend, epoch) = (self.backend, self.leadership.epoch());
        let name = self.leadership.name().clone();
        let mut context: P::Context = backend.begin(&name, epoch).await.map_err(ProjectionError::from)?;
        let (position, attempts) = (letter.id.position, letter.attempts.saturating_add(1));
        let applied = match attempt::apply(&mut self.projector, &event, None, &mut context).await {
            Ok(()) => Ok(()),
            Err(Failed::Decode(source)) => Err(ProjectionError::Decode { position, source }),
            Err(Failed::Apply(source)) => {
                // If the store failed, nothing is known of the event, and its letter stays as it is.
                if let Err(error) = backend.is_sound(&mut context, &source).await {
                    backend.rollback(context).await.map_err(ProjectionError::from)?;
                    return Err(ProjectionError::from(error).into());
                }
                Err(ProjectionError::Apply { position, event_type: event.event_type().clone(), attempts, source })
            }
        };
        let Err(error) = applied else {
            // Somebody else may have discarded the letter just now. A transaction can still do as they wished.
            let there = backend.unpark(&mut context, &letter.id).await.map_err(ProjectionError::from)?;
            if !there && P::Context::TRANSACTIONAL {
                backend.rollback(context).await.map_err(ProjectionError::from)?;
                return Err(ReplayError::NoSuchLetter { id: letter.id });
            }
            self.commit(context, checkpoint).await?;
            tracing::info!(position = position.get(), "a dead letter was replayed");
            return Ok(());
        };
        // What the event did before it failed must not stay; what is known of the failure does.
        backend.rollback(context).await.map_err(ProjectionError::from)?;
        tracing::warn!(
            position = position.get(),
            attempts,
            error = &error as &dyn StdError,
            "a dead letter failed again"
        );
        let again = DeadLetter::new(name.clone(), event.header(), attempts, &error);
        let mut context: P::Context = backend.begin(&name, epoch).await.map_err(ProjectionError::from)?;
        backend.park(&mut context, &again, epoch).await.map_err(ProjectionError::from)?;
        self.commit(context, checkpoint).await?;
        Err(error.into())
    }

    async fn commit(&self, context: P::Context, checkpoint: &Checkpoint) -> Result<(), ProjectionError<P::Error>> {
        Ok(self.backend.commit(context, checkpoint, self.leadership.epoch()).await?)
    }

    /// The event of a letter, if the log still holds it.
    async fn event(&self, letter: &DeadLetter) -> Result<RecordedEvent, ProjectionError<P::Error>> {
        let cursor = LogCursor { position: letter.id.position, event_id: letter.event_id };
        self.backend.verify_cursor(&cursor).await?;
        // Asked for its head, a store makes sure that its feed goes on to there.
        self.backend.head().await?;
        let before = GlobalPosition::try_new(cursor.position.get() - 1).ok();
        let one = PageSize::try_new(1).unwrap_or_default();
        let page = self.backend.read_page(&EventFilter::all(), before, one).await?;
        let event = page.events.into_iter().find(|event| event.id() == cursor.event_id);
        let late = || EventStoreError::unavailable("the feed has not come to the event of the dead letter yet");
        Ok(event.ok_or_else(late)?)
    }
}
