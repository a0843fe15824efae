//! How a command's state is folded, and whether it may be kept between executions.

use super::CommandLogic;
use super::cache::CachedState;
use super::known::Known;
use crate::{Event, RecordedEvent, SnapshotSchema, StreamState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::TypeId;
use std::error::Error as StdError;
use std::sync::Arc;
use uuid::Uuid;

/// A state that can be stored and read again later.
///
/// A snapshot is used only if name, version, Rust type and event types are those it was taken with. What nobody but you can
/// know is that the *fold* changed: then raise [`VERSION`](Self::VERSION), or commands decide on what the old code folded.
///
/// It is stored as JSON. `PartialEq` is asked for because a snapshot that does not come back equal is not stored: a field
/// that serde skips would else be lost.
pub trait SnapshotState: StreamState + PartialEq + Serialize + DeserializeOwned {
    /// The stable name of the state, part of the key that its snapshots are stored under: 1 to 200 characters.
    const NAME: &'static str;

    /// The version of its fields and of its fold. Raise it whenever either changes.
    const VERSION: u32;
}

/// How a command's state is folded from events: what [`CommandLogic::state_fold`] answers.
///
/// ```
/// use eventcore::{Command, CommandLogic, Event, NewEvents, RecordedEvent, SnapshotState, StateFold, StreamId, StreamState};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     MoneyDeposited { cents: u64 },
/// }
///
/// #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
/// struct Balance(u64);
///
/// impl StreamState for Balance {
///     type Event = BankEvent;
///
///     fn apply(&mut self, event: &RecordedEvent<BankEvent>) {
///         let BankEvent::MoneyDeposited { cents } = event.payload();
///         self.0 += cents;
///     }
/// }
///
/// impl SnapshotState for Balance {
///     const NAME: &'static str = "bank.Balance";
///     const VERSION: u32 = 1;
/// }
///
/// #[derive(Command)]
/// struct Deposit {
///     #[stream]
///     account: StreamId,
///     cents: u64,
/// }
///
/// impl CommandLogic for Deposit {
///     type Event = BankEvent;
///     type State = Balance;
///     type Error = std::convert::Infallible;
///
///     fn apply(&self, balance: &mut Balance, event: &RecordedEvent<BankEvent>) {
///         StreamState::apply(balance, event);
///     }
///
///     fn state_fold() -> StateFold<Self> {
///         StateFold::with_snapshots()
///     }
///
///     fn handle(&self, _: &Balance, streams: &DepositStreams) -> Result<NewEvents<Self>, Self::Error> {
///         Ok(NewEvents::new().append(&streams.account, BankEvent::MoneyDeposited { cents: self.cents }))
///     }
/// }
/// ```
pub struct StateFold<C: CommandLogic>(Option<OwnFold<C>>);

/// The fold of a state that does not depend on the command.
pub(crate) struct OwnFold<C: CommandLogic> {
    pub(crate) apply: fn(&mut C::State, &RecordedEvent<C::Event>),
    /// The type of the state.
    pub(crate) state: TypeId,
    /// Into the executor's cache, and out of it.
    pub(crate) cached: fn(Known<C::State>) -> CachedState,
    pub(crate) recall: fn(&CachedState) -> Option<Known<C::State>>,
    /// Out of what was put in and nobody else looks into.
    pub(crate) open: fn(CachedState) -> Option<Known<C::State>>,
    pub(crate) copy: fn(&Known<C::State>) -> Known<C::State>,
    /// Whether it looks at neither position nor time.
    pub(crate) timeless: bool,
    pub(crate) codec: Option<Codec<C>>,
}

/// How a state becomes bytes and comes back.
pub(crate) struct Codec<C: CommandLogic> {
    pub(crate) name: &'static str,
    pub(crate) schema: fn() -> SnapshotSchema,
    pub(crate) encode: fn(&C::State) -> Result<Vec<u8>, CodecError>,
    pub(crate) decode: fn(&[u8]) -> Result<C::State, CodecError>,
}

pub(crate) type CodecError = Box<dyn StdError + Send + Sync>;

impl<C: CommandLogic> StateFold<C> {
    /// By [`CommandLogic::apply`], which may look at the command: nothing is kept. The default.
    #[must_use]
    pub const fn by_command() -> Self {
        Self(None)
    }

    /// By [`StreamState::apply`], which knows nothing of the command. An executor with a
    /// [state cache](super::CommandExecutor::state_cache) keeps the state in memory.
    #[must_use]
    pub fn by_state() -> Self
    where
        C::State: StreamState<Event = C::Event>,
    {
        Self(Some(own(None)))
    }

    /// As [`by_state`](Self::by_state), and executors with [snapshots](super::CommandExecutor::snapshots) store the state.
    #[must_use]
    pub fn with_snapshots() -> Self
    where
        C::State: SnapshotState<Event = C::Event>,
    {
        let codec = Codec { name: C::State::NAME, schema: schema::<C::State>, encode, decode };
        Self(Some(own(Some(codec))))
    }

    /// Says that the fold looks at neither the position nor the time of an event, which only the store knows. Without effect
    /// on [`by_command`](Self::by_command).
    ///
    /// Then an executor with a [state cache](super::CommandExecutor::state_cache) decides commands that wait for each other
    /// on the same streams one after the other on what those before them decided, and stores all of it in one append.
    ///
    /// [`handle`](CommandLogic::handle) then runs in the task of whichever caller comes first: within his tracing span, with
    /// his task-locals. A panic reaches the caller of the command that panics.
    #[must_use]
    pub fn timeless(mut self) -> Self {
        if let Some(fold) = &mut self.0 {
            fold.timeless = true;
        }
        self
    }

    pub(crate) fn is_timeless(&self) -> bool {
        self.0.as_ref().is_some_and(|fold| fold.timeless)
    }

    pub(crate) const fn own(&self) -> Option<&OwnFold<C>> {
        self.0.as_ref()
    }

    pub(crate) fn codec(&self) -> Option<&Codec<C>> {
        self.0.as_ref().and_then(|fold| fold.codec.as_ref())
    }

    /// Folds one event.
    pub(crate) fn apply(&self, command: &C, state: &mut C::State, event: &RecordedEvent<C::Event>) {
        match &self.0 {
            Some(fold) => (fold.apply)(state, event),
            None => command.apply(state, event),
        }
    }
}

fn own<C: CommandLogic>(codec: Option<Codec<C>>) -> OwnFold<C>
where
    C::State: StreamState<Event = C::Event>,
{
    OwnFold {
        apply: StreamState::apply,
        state: TypeId::of::<C::State>(),
        cached: |known| CachedState(Arc::new(known)),
        recall: |cached| cached.0.downcast_ref::<Known<C::State>>().cloned(),
        open: |cached| Some(Arc::unwrap_or_clone(cached.0.downcast::<Known<C::State>>().ok()?)),
        copy: Clone::clone,
        timeless: false,
        codec,
    }
}

fn schema<T: SnapshotState>() -> SnapshotSchema {
    let mut text = format!("{}\n{}\n{}", T::NAME, T::VERSION, std::any::type_name::<T>());
    for event_type in T::Event::event_types() {
        text.push_str(&format!("\n{} {}", event_type.schema_version, event_type.name));
        event_type.aliases.iter().for_each(|alias| text.push_str(&format!("\n- {alias}")));
    }
    SnapshotSchema::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
}

fn encode<T: SnapshotState>(state: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = serde_json::to_vec(state)?;
    if decode::<T>(&bytes)? == *state {
        return Ok(bytes);
    }
    Err("the state does not come back equal from its own serde implementation".into())
}

fn decode<T: SnapshotState>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(serde_json::from_slice(bytes)?)
}
