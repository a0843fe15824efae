//! Whether a path still leads to the store that was opened.

use crate::error::store_error;
use crate::schema;
use eventcore::{EventStoreError, LineageId};
use rusqlite::Connection;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

/// The file of an open store. Connections are opened by its path, some of them days later, when a backup or another store
/// may lie there. What they would read must not be put together with what the older ones read and write.
#[derive(Debug, Clone)]
pub(crate) struct StoreFile {
    /// Where it is, without links, so that everybody derives the same names from it.
    pub(crate) path: PathBuf,
    pub(crate) lineage: LineageId,
    /// Which file it is, as far as the system tells: a backup of the store has its lineage too.
    number: Option<FileNumber>,
}

/// The device and the file's number on it. No other file gets them as long as a connection has this one open.
type FileNumber = (u64, u64);

impl StoreFile {
    /// The file at `path`, which a connection has open.
    pub(crate) fn new(path: PathBuf, lineage: LineageId) -> io::Result<Self> {
        let number = number(&path.metadata()?);
        Ok(Self { path, lineage, number })
    }

    /// Another connection to it, made by `connect`.
    ///
    /// # Errors
    /// [`EventStoreError::Corrupt`] if another file or none is in its place, else what the system or SQLite says.
    pub(crate) fn connect(
        &self,
        connect: impl FnOnce(&Path) -> rusqlite::Result<Connection>,
    ) -> Result<Connection, EventStoreError> {
        // Before, since SQLite would take this store's write-ahead log for that of the other file; and after, since it may
        // have been replaced in between.
        self.check_number()?;
        let connection = connect(&self.path).map_err(store_error)?;
        self.check_number()?;
        match schema::find_lineage(&connection).map_err(store_error)? {
            Some(lineage) if lineage == self.lineage => Ok(connection),
            _ => Err(self.replaced()),
        }
    }

    fn check_number(&self) -> Result<(), EventStoreError> {
        match self.path.metadata() {
            Ok(metadata) if number(&metadata) == self.number => Ok(()),
            Ok(_) => Err(self.replaced()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.replaced()),
            Err(error) => Err(EventStoreError::storage(error)),
        }
    }

    fn replaced(&self) -> EventStoreError {
        EventStoreError::corrupt(format!(
            "{:?} was removed, or replaced by another file or log, while the store was open; close the store and open it again",
            self.path
        ))
    }
}

#[cfg(unix)]
fn number(metadata: &Metadata) -> Option<FileNumber> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

/// Elsewhere an open file cannot be replaced.
#[cfg(not(unix))]
fn number(_: &Metadata) -> Option<FileNumber> {
    None
}
