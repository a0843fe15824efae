//! What a user writes to have a read model rebuilt side by side.

use super::super::Projector;
use std::future::Future;

/// A [`Projector`] whose read model can be built anew beside the one that serves. It is made for one version, and keeps
/// what it has in places named by that version.
///
/// Each of these functions runs in a transaction of its own, which also records that it was done; it may be tried again
/// after the transaction was rolled back. Keep them short: where the store has one writer, appends wait meanwhile.
///
/// It is run by [`run_versioned_projection`](super::run_versioned_projection), or by a manager that it was
/// [registered](crate::ProjectionManagerBuilder::register_versioned) with as one with versions. As a mere [`Projector`] it
/// would write to the place of whatever version it was made for, without that having been prepared.
///
/// `SqliteContext` of `eventcore-sqlite` has an example that runs.
pub trait VersionedProjector: Projector {
    /// Makes, empty, what this version is kept in.
    ///
    /// # Errors
    /// Its own error. The rebuild is given up if it stays; the version in force goes on to serve.
    fn prepare(&mut self, context: &mut Self::Context) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes this version the one that readers find, in the transaction of the swap.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn activate(&mut self, context: &mut Self::Context) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes what this version was kept in, after another one has come into force or the build was given up. Readers
    /// that began before may still be at it.
    ///
    /// # Errors
    /// Its own error. It is logged and tried again when the projection is started next, and before the next rebuild.
    fn retire(&mut self, context: &mut Self::Context) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
