//! What a page of a projection is applied in.

use super::{
    Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Epoch, ProjectionName,
};
use async_trait::async_trait;
use std::error::Error as StdError;

/// The type of a projector's context, which chooses its guarantee.
pub trait ProjectionContext: Send + 'static {
    /// Whether effects outlive the process: there is a stored checkpoint and one leader.
    const DURABLE: bool;
    /// Whether effects and checkpoint are committed together, so that a page can be rolled back: exactly-once.
    const TRANSACTIONAL: bool;
}

/// The context of a read model in memory: no stored checkpoint and no leader; it starts at the beginning of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InMemory;

impl ProjectionContext for InMemory {
    const DURABLE: bool = false;
    const TRANSACTIONAL: bool = false;
}

/// The context of a projector with durable effects of its own: at-least-once, with a stored checkpoint and one leader.
impl ProjectionContext for () {
    const DURABLE: bool = true;
    const TRANSACTIONAL: bool = false;
}

/// Begins and ends what the pages of a projection are applied in.
///
/// Every store with checkpoints and dead letters does so for [`InMemory`] and for `()`; an adapter adds its own transaction type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no pages in the context `{C}`",
    label = "this store cannot run a projector with that context",
    note = "the `Context` of a projector is `InMemory`, `()`, or the transaction type of the adapter it runs on"
)]
#[async_trait]
pub trait UnitOfWork<C: ProjectionContext>: DeadLetterStore {
    /// The checkpoint to resume from.
    ///
    /// # Errors
    /// As [`CheckpointStore::load_checkpoint`].
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError>;

    /// Begins a page. A transactional context makes sure that `epoch` is in force and stays so until the page ends.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over, else what the store says.
    async fn begin(&self, name: &ProjectionName, epoch: Epoch) -> Result<C, CheckpointError>;

    /// Ends a page: what was done in the context and the checkpoint become durable, together where the context is
    /// transactional.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over; then a transactional context has done nothing.
    async fn commit(&self, context: C, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError>;

    /// Ends a page without effect, as far as the context can: only a transactional one can undo.
    ///
    /// # Errors
    /// What the store says.
    async fn rollback(&self, context: C) -> Result<(), CheckpointError>;

    /// Whether an event that failed with `error` did so by itself. It did not if the store failed beneath it: a transaction
    /// whose connection is gone, or a full disk. Then the projector is not asked what is to happen with the event; the page
    /// is given up, and comes again when the store is back. By default every failure is the event's own.
    ///
    /// # Errors
    /// What the store failed with.
    async fn is_sound(
        &self,
        _context: &mut C,
        _error: &(dyn StdError + Send + Sync + 'static),
    ) -> Result<(), CheckpointError> {
        Ok(())
    }

    /// Keeps a dead letter, replacing the one about the same event: with the page where the context is transactional, else
    /// at once.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over, else what the store says.
    async fn park(&self, context: &mut C, letter: &DeadLetter, epoch: Epoch) -> Result<(), CheckpointError>;

    /// Throws a dead letter away that was replayed, and tells whether there was one: with the page where the context is
    /// transactional, else at once.
    ///
    /// # Errors
    /// What the store says.
    async fn unpark(&self, context: &mut C, id: &DeadLetterId) -> Result<bool, CheckpointError>;
}

#[async_trait]
impl<S: CheckpointStore + DeadLetterStore + ?Sized> UnitOfWork<InMemory> for S {
    async fn resume(&self, _name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        Ok(None)
    }

    async fn begin(&self, _name: &ProjectionName, _epoch: Epoch) -> Result<InMemory, CheckpointError> {
        Ok(InMemory)
    }

    async fn commit(&self, _context: InMemory, _: &Checkpoint, _epoch: Epoch) -> Result<(), CheckpointError> {
        Ok(())
    }

    async fn rollback(&self, _context: InMemory) -> Result<(), CheckpointError> {
        Ok(())
    }

    async fn park(&self, _context: &mut InMemory, letter: &DeadLetter, _epoch: Epoch) -> Result<(), CheckpointError> {
        // Every instance has a read model of its own, and none of them leads.
        self.park_dead_letter(letter, None).await
    }

    async fn unpark(&self, _context: &mut InMemory, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        Ok(self.discard_dead_letter(id).await?)
    }
}

#[async_trait]
impl<S: CheckpointStore + DeadLetterStore + ?Sized> UnitOfWork<()> for S {
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.load_checkpoint(name).await
    }

    async fn begin(&self, _name: &ProjectionName, _epoch: Epoch) -> Result<(), CheckpointError> {
        Ok(())
    }

    async fn commit(&self, _context: (), checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        self.save_checkpoint(checkpoint, epoch).await
    }

    async fn rollback(&self, _context: ()) -> Result<(), CheckpointError> {
        Ok(())
    }

    async fn park(&self, (): &mut (), letter: &DeadLetter, epoch: Epoch) -> Result<(), CheckpointError> {
        self.park_dead_letter(letter, Some(epoch)).await
    }

    async fn unpark(&self, (): &mut (), id: &DeadLetterId) -> Result<bool, CheckpointError> {
        Ok(self.discard_dead_letter(id).await?)
    }
}
