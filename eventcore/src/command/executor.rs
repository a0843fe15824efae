//! The driver of the decision machine: performs its effects.

use super::machine::{DecisionStep, Entropy, decide};
use super::queues::StreamQueues;
use super::{CommandContext, CommandError, CommandLogic, ExecutionOutcome, RetryPolicy};
use crate::{EventId, EventStore};
use std::sync::Arc;
use tracing::Instrument;

/// Executes commands against one store with one retry policy. Share it or clone it.
///
/// Commands of one executor and its clones that were in each other's way on a stream queue up for it, first come, first
/// served, until nobody is left in the queue: on a hot stream they do not decide in vain again and again.
#[derive(Debug, Clone)]
pub struct CommandExecutor<S> {
    store: S,
    retry: RetryPolicy,
    queues: Arc<StreamQueues>,
}

impl<S: EventStore> CommandExecutor<S> {
    /// An executor with the default retry policy. `store` is an adapter, a reference or an `Arc` of one.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, retry: RetryPolicy::default(), queues: Arc::default() }
    }

    /// Sets how often and how soon conflicts and an unavailable store are tried again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
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
        drive(&self.store, &self.queues, context, self.retry, command).await
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
    drive(store, &StreamQueues::default(), CommandContext::new(), RetryPolicy::default(), command).await
}

async fn drive<C: CommandLogic, S: EventStore + ?Sized>(
    store: &S,
    queues: &StreamQueues,
    context: CommandContext,
    retry: RetryPolicy,
    command: C,
) -> Result<ExecutionOutcome, CommandError<C::Error>> {
    let span =
        tracing::debug_span!("execute", command = C::command_type(), command_id = context.id().map(|id| id.as_str()));
    async {
        let mut entropy = SystemEntropy;
        let mut step = decide(command, context, retry);
        let mut turn = None;
        let mut contended = None;
        loop {
            step = match step {
                DecisionStep::Read(reading) => {
                    let request = reading.request();
                    // Nobody may hold a turn while he queues up for another one.
                    drop(turn.take());
                    let streams = request.streams().iter().map(|stream| &stream.stream_id);
                    turn = Some(queues.turn(streams, contended.as_ref()).await);
                    let read = store.read_streams(request).await;
                    reading.read(read, &mut entropy)
                }
                DecisionStep::Append(appending) => {
                    let appended = store.append(appending.request()).await;
                    appending.appended(appended, &mut entropy)
                }
                DecisionStep::Wait(waiting) => {
                    drop(turn.take());
                    contended = waiting.contended().cloned().or(contended);
                    tracing::debug!(delay = ?waiting.delay(), "trying again");
                    tokio::time::sleep(waiting.delay()).await;
                    waiting.waited()
                }
                DecisionStep::Done(result) => return result,
            };
        }
    }
    .instrument(span)
    .await
}

/// Ids and jitter from the system.
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn event_id(&mut self) -> EventId {
        EventId::generate()
    }

    fn jitter(&mut self) -> f64 {
        fastrand::f64()
    }
}
