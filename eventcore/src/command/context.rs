//! What the caller knows about one execution.

use crate::{CausationId, CommandId, CorrelationId, EventMetadata, UserId, ValidationError};

/// The identity of an execution and what is stored with its events.
///
/// ```
/// use eventcore::{CommandContext, CommandId, UserId};
///
/// let context = CommandContext::new()
///     .command_id(CommandId::new("transfer-17")?)
///     .user(UserId::new("alice")?);
/// # let _ = context;
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandContext {
    command_id: Option<CommandId>,
    correlation: Option<CorrelationId>,
    causation: Option<CausationId>,
    user: Option<UserId>,
    metadata: EventMetadata,
}

impl CommandContext {
    /// A context without anything in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the command an identity: executed again, even at once elsewhere, it has no second effect.
    ///
    /// Another type of command or other streams under the same id are an error. Other values are not noticed: the command
    /// counts as executed.
    #[must_use]
    pub fn command_id(mut self, id: CommandId) -> Self {
        self.command_id = Some(id);
        self
    }

    /// Stores what the events belong to.
    #[must_use]
    pub fn correlation(mut self, id: CorrelationId) -> Self {
        self.correlation = Some(id);
        self
    }

    /// Stores what caused the events. Without it, that is the command id if there is one.
    #[must_use]
    pub fn causation(mut self, id: CausationId) -> Self {
        self.causation = Some(id);
        self
    }

    /// Stores on whose behalf the events are written.
    #[must_use]
    pub fn user(mut self, id: UserId) -> Self {
        self.user = Some(id);
        self
    }

    /// Stores further metadata. What the other methods say goes before what is in here.
    #[must_use]
    pub fn metadata(mut self, metadata: EventMetadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The command's identity.
    #[must_use]
    pub const fn id(&self) -> Option<&CommandId> {
        self.command_id.as_ref()
    }

    /// The metadata that every event of the execution is stored with.
    ///
    /// # Errors
    /// [`ValidationError`] if all of it is too large.
    pub fn event_metadata(&self) -> Result<EventMetadata, ValidationError> {
        let mut builder = self.metadata.to_builder();
        if let Some(id) = &self.correlation {
            builder = builder.correlation_id(id.clone());
        }
        let by_command = || self.command_id.as_ref().and_then(|id| CausationId::new(id.as_str()).ok());
        let causation = self.causation.clone().or_else(|| self.metadata.causation_id().cloned()).or_else(by_command);
        if let Some(id) = causation {
            builder = builder.causation_id(id);
        }
        if let Some(id) = &self.user {
            builder = builder.user_id(id.clone());
        }
        builder.build()
    }
}
