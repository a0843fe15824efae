//! The driver of the decision machine: performs its effects.

use super::cache::StateCache;
use super::joint::{Entered, Joint, Lead};
use super::machine::{DecisionOptions, DecisionStep, Entropy, decide_with};
use super::queues::StreamQueues;
use super::snapshot_writer::SnapshotWriter;
use super::{CommandContext, CommandError, CommandLogic, ExecutionOutcome, RetryPolicy, SnapshotPolicy};
use crate::{EventId, EventStore, SnapshotStore};
use std::fmt;
use std::sync::Arc;
use tracing::Instrument;

/// Executes commands against one store with one retry policy. Share it or clone it; clones share what it keeps.
///
/// Commands of one executor and its clones that were in each other's way on a stream queue up for it, first come, first
/// served, until nobody is left in the queue: on a hot stream they do not decide in vain again and again.
#[derive(Clone)]
pub struct CommandExecutor<S> {
    store: S,
    retry: RetryPolicy,
    /// One pointer, since handles are cloned for every request, and all cores count them.
    kept: Arc<Kept>,
}

/// What is kept between executions.
#[derive(Clone, Default)]
struct Kept {
    queues: Arc<StreamQueues>,
    snapshots: Option<Arc<SnapshotWriter>>,
    states: Option<States>,
}

/// States, and the commands that wait for each other to decide on them.
#[derive(Clone)]
struct States {
    cache: Arc<StateCache>,
    joint: Joint,
}

impl<S: EventStore> CommandExecutor<S> {
    /// An executor with the default retry policy. `store` is an adapter, a reference or an `Arc` of one.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, retry: RetryPolicy::default(), kept: Arc::default() }
    }

    /// Sets how often and how soon conflicts and an unavailable store are tried again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Takes snapshots of the states of commands that allow it ([`StateFold::with_snapshots`](super::StateFold)), and
    /// begins from them instead of reading whole streams.
    ///
    /// A snapshot is stored after the append that made it due, by a task of its own: the caller does not wait for it. One
    /// that is lost, damaged, of an older program or of another history of the log costs a read of all events and nothing
    /// else. What is queued is stored before the executor goes if [`shut_down`](Self::shut_down) is called. Those of states
    /// that no command has any more are removed by [`SnapshotStore::prune_snapshots`], when somebody calls it.
    ///
    /// ```
    /// # use eventcore::{CommandExecutor, SnapshotPolicy};
    /// # use eventcore_memory::MemoryEventStore;
    /// # async fn example() {
    /// let executor = CommandExecutor::new(MemoryEventStore::new()).snapshots(SnapshotPolicy::every(500));
    /// // ..
    /// executor.shut_down().await;
    /// # }
    /// ```
    #[must_use]
    pub fn snapshots(mut self, policy: SnapshotPolicy) -> Self
    where
        S: SnapshotStore + Clone + 'static,
    {
        let snapshots = SnapshotWriter::new(Arc::new(self.store.clone()), policy);
        Arc::make_mut(&mut self.kept).snapshots = Some(Arc::new(snapshots));
        self
    }

    /// Keeps the states of commands that allow it ([`StateFold::by_state`](super::StateFold)) in memory, at most so many
    /// (at least 1), those used lately: a command on streams that nobody else has changed needs no read. Their size in bytes
    /// is not limited.
    ///
    /// Commands that allow it ([`StateFold::timeless`](super::StateFold::timeless)) and have no command id queue up for each
    /// other's streams, and are decided one after the other on what those before them decided: what up to 64 of them
    /// decided is stored by one append. Once its events are 1 MiB, no further command is added.
    ///
    /// Only an append that finds every stream as it was folded is ever answered; a rejection or a decision to do nothing is
    /// decided again on a fresh read. So another process that appends too costs reads and nothing else. Do not use it where
    /// the log may be set back under a running process, as by a failover to a replica that lags: events that are lost then
    /// stay in states until the process starts anew.
    ///
    /// Commands that do not say so themselves are executed as without it:
    ///
    /// ```
    /// # use eventcore::*;
    /// # use eventcore_memory::MemoryEventStore;
    /// # use std::convert::Infallible;
    /// # #[derive(serde::Serialize, serde::Deserialize, Event)]
    /// # #[event(namespace = "counter")]
    /// # enum Counted { Once }
    /// #[derive(Debug, Default, Clone)]
    /// struct Count(u64);
    ///
    /// impl StreamState for Count {
    ///     type Event = Counted;
    ///
    ///     fn apply(&mut self, _: &RecordedEvent<Counted>) {
    ///         self.0 += 1;
    ///     }
    /// }
    ///
    /// #[derive(Command)]
    /// struct CountUp {
    ///     #[stream]
    ///     counter: StreamId,
    /// }
    ///
    /// impl CommandLogic for CountUp {
    ///     type Event = Counted;
    ///     type State = Count;
    ///     type Error = Infallible;
    ///
    ///     fn state_fold() -> StateFold<Self> {
    ///         StateFold::by_state().timeless()
    ///     }
    ///
    ///     fn apply(&self, count: &mut Count, event: &RecordedEvent<Counted>) {
    ///         StreamState::apply(count, event);
    ///     }
    ///
    ///     fn handle(&self, _: &Count, streams: &CountUpStreams) -> Result<NewEvents<Self>, Infallible> {
    ///         Ok(NewEvents::new().append(&streams.counter, Counted::Once))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let executor = CommandExecutor::new(MemoryEventStore::new()).state_cache(10_000);
    /// executor.execute(CountUp { counter: StreamId::new("visits")? }).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn state_cache(mut self, states: usize) -> Self {
        let states = States { cache: Arc::new(StateCache::new(states)), joint: Joint::default() };
        Arc::make_mut(&mut self.kept).states = Some(states);
        self
    }

    /// Waits until every snapshot that was due is stored or given up.
    pub async fn flush(&self) {
        if let Some(snapshots) = &self.kept.snapshots {
            snapshots.flush().await;
        }
    }

    /// Stores the snapshots that are queued, and takes none from now on. Commands are executed as before.
    pub async fn shut_down(&self) {
        if let Some(snapshots) = &self.kept.snapshots {
            snapshots.shut_down().await;
        }
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Executes a command without an identity: if the caller sends it twice, it has two effects.
    ///
    /// # Errors
    /// [`CommandError`], whose [`kind`](CommandError::kind) tells what a caller can do.
    pub async fn execute<C: CommandLogic>(&self, command: C) -> Result<ExecutionOutcome, CommandError<C::Error>> {
        self.execute_with(CommandContext::new(), command).await
    }

    /// Executes a command with an identity and metadata.
    ///
    /// Who drops the future before it is ready does not know whether the command had its effect; with a command id it can
    /// be executed again safely.
    ///
    /// # Errors
    /// [`CommandError`], whose [`kind`](CommandError::kind) tells what a caller can do.
    pub async fn execute_with<C: CommandLogic>(
        &self,
        context: CommandContext,
        command: C,
    ) -> Result<ExecutionOutcome, CommandError<C::Error>> {
        drive(&self.store, &self.kept, context, self.retry, command).await
    }
}

impl<S: fmt::Debug> fmt::Debug for CommandExecutor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandExecutor")
            .field("store", &self.store)
            .field("retry", &self.retry)
            .field("snapshots", &self.kept.snapshots.as_ref().map(|snapshots| snapshots.policy()))
            .finish_non_exhaustive()
    }
}

/// Executes a command against a store: reads its streams in one consistent read, decides, appends atomically, and does
/// so again when somebody else was faster.
///
/// # Errors
/// [`CommandError`], whose [`kind`](CommandError::kind) tells what a caller can do.
pub async fn execute<C: CommandLogic, S: EventStore + ?Sized>(
    store: &S,
    command: C,
) -> Result<ExecutionOutcome, CommandError<C::Error>> {
    drive(store, &Kept::default(), CommandContext::new(), RetryPolicy::default(), command).await
}

async fn drive<C: CommandLogic, S: EventStore + ?Sized>(
    store: &S,
    kept: &Kept,
    context: CommandContext,
    retry: RetryPolicy,
    command: C,
) -> Result<ExecutionOutcome, CommandError<C::Error>> {
    let span =
        tracing::debug_span!("execute", command = C::command_type(), command_id = context.id().map(|id| id.as_str()));
    async {
        let mut entropy = SystemEntropy;
        let (snapshots, states) = (kept.snapshots.as_deref(), kept.states.as_ref());
        let options =
            DecisionOptions { retry, snapshots: snapshots.map(SnapshotWriter::policy), cache: states.is_some() };
        let mut step = decide_with(command, context, options);
        let mut turn = None;
        let mut contended = None;
        let mut lead: Option<Lead> = None;
        loop {
            step = match step {
                DecisionStep::Recall(mut recalling) => {
                    if let Some(states) = states.filter(|_| lead.is_none() && recalling.is_joinable()) {
                        let entered = match states.joint.enter(recalling) {
                            Ok(entered) => entered,
                            // In a box, since mostly nobody waits, and the future of a command is to be small.
                            Err(waiter) => Box::pin(waiter.wait()).await,
                        };
                        match entered {
                            Entered::Leads(leads, again) => (lead, recalling) = (Some(leads), again),
                            Entered::GoesOn(next) => {
                                step = next;
                                continue;
                            }
                        }
                    }
                    if recalling.is_to_decide() {
                        // Whoever waits for his turn finds the state of the one before him.
                        drop(turn.take());
                        turn = Some(kept.queues.turn(recalling.streams(), contended.as_ref()).await);
                    }
                    let state = states.and_then(|states| states.cache.get(recalling.key()));
                    let found = state.is_some();
                    let next = recalling.recalled(state, &mut entropy);
                    if found && !matches!(next, DecisionStep::Append(_)) {
                        // It decides on what it reads, and perhaps nothing: nobody has to wait for that.
                        lead = None;
                    }
                    next
                }
                DecisionStep::Load(loading) => {
                    let loaded = match snapshots {
                        Some(snapshots) => snapshots.load(loading.key()).await,
                        None => Ok(None),
                    };
                    loading.loaded(loaded)
                }
                DecisionStep::Read(reading) => {
                    let request = reading.request();
                    // Nobody may hold a turn while he queues up for another one.
                    drop(turn.take());
                    let streams = request.streams().iter().map(|stream| &stream.stream_id);
                    turn = Some(kept.queues.turn(streams, contended.as_ref()).await);
                    let read = store.read_streams(request).await;
                    reading.read(read, &mut entropy)
                }
                DecisionStep::Append(mut appending) => {
                    if lead.as_ref().is_some_and(|lead| lead.follows_crowd(&mut appending)) {
                        tokio::task::yield_now().await;
                    }
                    let company = lead.as_mut().map(|lead| lead.gather(&mut appending, &mut entropy));
                    let appended = store.append(appending.request()).await;
                    let appended = match company {
                        Some(company) => company.answer(appended, &mut entropy),
                        None => Some(appended),
                    };
                    match appended {
                        Some(appended) => appending.appended(appended, &mut entropy),
                        None => appending.look(),
                    }
                }
                DecisionStep::Wait(waiting) => {
                    drop((turn.take(), lead.take()));
                    contended = waiting.contended().cloned().or(contended);
                    tracing::debug!(delay = ?waiting.delay(), "trying again");
                    tokio::time::sleep(waiting.delay()).await;
                    waiting.waited()
                }
                DecisionStep::Keep(mut keeping) => {
                    if let (Some(snapshots), Some(snapshot)) = (snapshots, keeping.snapshot()) {
                        snapshots.store(snapshot);
                    }
                    if let (Some(states), Some((key, state))) = (states, keeping.state()) {
                        states.cache.put(key, state);
                    }
                    keeping.kept()
                }
                DecisionStep::Done(result) => return result,
            };
        }
    }
    .instrument(span)
    .await
}

/// Ids and jitter from the system.
pub(super) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn event_id(&mut self) -> EventId {
        EventId::generate()
    }

    fn jitter(&mut self) -> f64 {
        fastrand::f64()
    }
}
