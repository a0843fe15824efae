//! Which version of a read model is read, and the port that changes it.

use super::{Checkpoint, CheckpointError, Epoch, ProjectionContext, ProjectionName, UnitOfWork};
use crate::ValidationError;
use crate::validation::check_range;
use async_trait::async_trait;
use nutype::nutype;

fn check_version(value: &u64) -> Result<(), ValidationError> {
    check_range("ReadModelVersion", *value, 1, i64::MAX as u64)
}

/// The number of one build of a read model: the first is 1, and each that stands beside another one is higher than it. What
/// a read model is kept in carries it in its name, for example `balances_v3`.
#[nutype(
    validate(with = check_version, error = ValidationError),
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Into)
)]
pub struct ReadModelVersion(u64);

impl ReadModelVersion {
    /// The name of the checkpoint of a version that is being built: `balances@3`.
    ///
    /// # Errors
    /// [`ValidationError`] if the name of the projection is too long for that.
    pub fn checkpoint_name(self, projection: &ProjectionName) -> Result<ProjectionName, ValidationError> {
        ProjectionName::new(format!("{projection}@{self}"))
    }

    fn after(versions: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let highest = versions.into_iter().flatten().max().map_or(0, Self::into_inner);
        Self::try_new(highest.checked_add(1)?).ok()
    }
}

/// The versions of one read model.
///
/// A rebuild is a row of [changes](VersionChange), each committed together with what the projector does for it:
///
/// ```
/// use eventcore::{ReadModel, VersionChange, VersionStep};
///
/// let mut model = ReadModel { requested: true, ..ReadModel::default() };
/// assert!(matches!(model.next_step(), VersionStep::Begin(first) if first.to_string() == "1"));
/// for change in [VersionChange::Begin, VersionChange::Swap] {
///     model = model.after(&change).ok_or("it does not fit")?;
/// }
/// assert!(matches!(model.next_step(), VersionStep::Follow(first) if first.to_string() == "1"));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadModel {
    /// The one that readers find; `None` until the first has caught up.
    pub in_force: Option<ReadModelVersion>,
    /// The one that is built beside it.
    pub building: Option<ReadModelVersion>,
    /// The one that is no longer needed, and not removed yet.
    pub retired: Option<ReadModelVersion>,
    /// Whether a rebuild was asked for and has not begun.
    pub requested: bool,
    /// Why the last rebuild was given up.
    pub failure: Option<String>,
}

/// A step from one [`ReadModel`] to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionChange {
    /// The next version begins to be built.
    Begin,
    /// The version that was built is in force, at its own checkpoint, and the one before it is retired.
    Swap,
    /// What was built or asked for is given up, for this reason.
    Abandon(String),
    /// The retired version has been removed.
    Forget,
}

/// What whoever leads a projection has to do for its read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStep {
    /// Begin to build this version.
    Begin(ReadModelVersion),
    /// Go on to build this version.
    Build(ReadModelVersion),
    /// Remove this version.
    Retire(ReadModelVersion),
    /// Follow the log with this version, which is in force.
    Follow(ReadModelVersion),
    /// There is no number left for another version.
    Exhausted,
}

impl ReadModel {
    /// What to do next.
    #[must_use]
    pub fn next_step(&self) -> VersionStep {
        match (self.building, self.retired, self.in_force) {
            (Some(version), ..) => VersionStep::Build(version),
            (None, Some(version), _) => VersionStep::Retire(version),
            (None, None, Some(version)) if !self.requested => VersionStep::Follow(version),
            (None, None, _) => self.next_version().map_or(VersionStep::Exhausted, VersionStep::Begin),
        }
    }

    /// What stands after a change; `None` if it does not fit.
    #[must_use]
    pub fn after(&self, change: &VersionChange) -> Option<Self> {
        match change {
            VersionChange::Begin if self.building.is_none() && self.retired.is_none() => {
                let building = Some(self.next_version()?);
                Some(Self { building, requested: false, failure: None, ..self.clone() })
            }
            VersionChange::Swap if self.retired.is_none() => {
                let in_force = Some(self.building?);
                Some(Self { in_force, building: None, retired: self.in_force, ..self.clone() })
            }
            VersionChange::Abandon(why) if self.building.is_none() || self.retired.is_none() => {
                let (retired, failure) = (self.retired.or(self.building), Some(why.clone()));
                Some(Self { building: None, retired, requested: false, failure, ..self.clone() })
            }
            VersionChange::Forget if self.retired.is_some() => Some(Self { retired: None, ..self.clone() }),
            _ => None,
        }
    }

    fn next_version(&self) -> Option<ReadModelVersion> {
        ReadModelVersion::after([self.in_force, self.building, self.retired])
    }
}

/// The port that remembers the versions of read models.
#[async_trait]
pub trait ReadModelStore: Send + Sync {
    /// The versions of a read model; `None` if it never had one.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] if what is stored cannot be understood, else what the store says.
    async fn read_model(&self, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError>;

    /// Asks whoever leads the projection, here or elsewhere, to build the read model anew; if nobody does, it begins when
    /// somebody leads again. While one is being built already, nothing more is asked for. Returns what stands then.
    ///
    /// The store does not know which projections there are: a name that none has is remembered like any other, and nothing
    /// comes of it.
    ///
    /// # Errors
    /// As [`read_model`](Self::read_model).
    async fn request_rebuild(&self, name: &ProjectionName) -> Result<ReadModel, CheckpointError>;
}

/// A [`UnitOfWork`] that can build a version of a read model beside another one. One leadership, that of the projection,
/// fences all of its versions.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot build read models of the context `{C}` side by side",
    label = "this store has no versions of a read model kept in `{C}`",
    note = "only the transaction type of an adapter can swap a read model and its checkpoint at once"
)]
#[async_trait]
pub trait VersionedUnitOfWork<C: ProjectionContext>: UnitOfWork<C> + ReadModelStore {
    /// Ends a page of a version that is being built, as [`commit`](UnitOfWork::commit) does. The checkpoint has
    /// [the name of the version](ReadModelVersion::checkpoint_name); `epoch` is the one that `leader`, the projection,
    /// was given.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over; then nothing was done.
    async fn commit_version(
        &self,
        context: C,
        checkpoint: &Checkpoint,
        leader: &ProjectionName,
        epoch: Epoch,
    ) -> Result<(), CheckpointError>;

    /// Ends a transaction, begun for the projection, with a change of its read model's versions: what was done in the
    /// context, [what stands afterwards](ReadModel::after), and the checkpoints, all or nothing.
    ///
    /// [`Swap`](VersionChange::Swap) makes the checkpoint and the dead letters of the version that was built those of the
    /// projection, and throws away the letters of the version before. [`Begin`](VersionChange::Begin) and
    /// [`Forget`](VersionChange::Forget) make sure that the version begun, or forgotten, has neither.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over, [`CheckpointError::VersionChange`] if the change does not
    /// fit; then nothing was done.
    async fn commit_change(
        &self,
        context: C,
        name: &ProjectionName,
        change: &VersionChange,
        epoch: Epoch,
    ) -> Result<ReadModel, CheckpointError>;
}
