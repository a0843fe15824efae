//! The file: whose it is, its schema version, its migrations and its identity.

use crate::connection;
use crate::store_file::StoreFile;
use crate::{OpenError, SqliteConfig};
use eventcore::LineageId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Marks the files of this library in SQLite's header: "EvCo".
pub(crate) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"EvCo");

/// The header of every SQLite database.
const HEADER_BYTES: u64 = 100;

/// The migrations in order; the schema version of a file is how many of them it has. A published one never changes, and
/// each comes with a fixture in `tests/fixtures` that all later versions open.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/0001_initial.sql"), include_str!("../migrations/0002_following.sql")];

/// The newest schema version this library knows.
pub(crate) const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// A file that was found to be a store, or made one.
pub(crate) struct Opened {
    pub(crate) file: StoreFile,
    /// A connection for the writer.
    pub(crate) writer: Connection,
}

/// Opens or creates a store and brings its schema up to date. Anything else than a store is left as it is.
pub(crate) fn open(path: &Path, config: &SqliteConfig) -> Result<Opened, OpenError> {
    let found = look(path, config)?;
    let without_links = path.canonicalize();
    let has_log = connection::write_ahead_log(without_links.as_deref().unwrap_or(path)).exists();
    let failed = |source| OpenError::from_sqlite(path.to_owned(), source);
    let mut writer = match found {
        Found::Nothing => connection::create(path, config).map_err(failed)?,
        Found::File => connection::write(path, config).map_err(failed)?,
    };
    if let Err(refused) = migrate(&mut writer, path) {
        if has_log {
            // It is not moved into a file that is not ours. Without it, closing leaves nothing behind.
            writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        }
        return Err(refused);
    }
    use_write_ahead_log(&writer, path, config.busy_timeout)?;
    let lineage = lineage(&writer, path)?;
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file = path.canonicalize().and_then(|path| StoreFile::new(path, lineage)).map_err(io)?;
    Ok(Opened { file, writer })
}

enum Found {
    Nothing,
    /// A store, or what may be one: then the file's lock has to be taken to tell.
    File,
}

/// Refuses what can be refused without taking the file's lock, which would leave traces beside some files.
fn look(path: &Path, config: &SqliteConfig) -> Result<Found, OpenError> {
    let path_buf = || path.to_owned();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(OpenError::NotAFile { path: path_buf() }),
        Ok(metadata) if names(&metadata) > 1 => {
            Err(OpenError::SeveralNames { path: path_buf(), names: names(&metadata) })
        }
        Ok(metadata) if metadata.permissions().readonly() => {
            Err(OpenError::ReadOnly { path: path_buf(), source: None })
        }
        Ok(metadata) if metadata.len() == 0 => nothing(path, config),
        // SQLite takes a file of one byte for an empty one.
        Ok(metadata) if metadata.len() < HEADER_BYTES => {
            Err(OpenError::NotADatabase { path: path_buf(), source: None })
        }
        Ok(_) => match Header::read(path) {
            Ok(header) if header.application_id != 0 => header.check(path).map(|()| Found::File),
            // A store looks like this while another process makes it or moves its log into the file, or was killed then.
            _ => Ok(Found::File),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            if directory.is_some_and(|directory| !directory.is_dir()) {
                return Err(OpenError::MissingDirectory { path: path_buf() });
            }
            if path.file_name().is_none() {
                return Err(OpenError::NotAFile { path: path_buf() });
            }
            nothing(path, config)
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(OpenError::MissingDirectory { path: path_buf() })
        }
        Err(source) => Err(OpenError::Io { path: path_buf(), source }),
    }
}

/// How many names a file has, as far as the system tells.
#[cfg(unix)]
fn names(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn names(_: &std::fs::Metadata) -> u64 {
    1
}

fn nothing(path: &Path, config: &SqliteConfig) -> Result<Found, OpenError> {
    if config.create_if_missing { Ok(Found::Nothing) } else { Err(OpenError::NotFound { path: path.to_owned() }) }
}

/// What the file says about itself.
struct Header {
    application_id: i32,
    user_version: i32,
}

impl Header {
    /// Reads the file's own header through SQLite. Closing a file of one's own would drop the locks that another store in
    /// this process holds on it; a connection that takes the file as immutable neither locks nor writes anything.
    fn read(path: &Path) -> rusqlite::Result<Self> {
        Self::of(&connection::immutable(path)?)
    }

    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            application_id: connection.query_row("pragma application_id", [], |row| row.get(0))?,
            user_version: connection.query_row("pragma user_version", [], |row| row.get(0))?,
        })
    }

    fn check(&self, path: &Path) -> Result<(), OpenError> {
        let path = path.to_owned();
        if self.application_id != APPLICATION_ID {
            return Err(OpenError::ForeignDatabase { path, application_id: self.application_id });
        }
        if self.user_version > SCHEMA_VERSION {
            return Err(OpenError::NewerSchema { path, found: self.user_version, supported: SCHEMA_VERSION });
        }
        Ok(())
    }
}

/// Brings the schema up to date in one transaction. Of several processes one does it, the others find it done.
///
/// A new file is still in rollback mode here, so that its header is complete with the first commit.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::from_sqlite(path.to_owned(), source);
    // Several reads as of one moment, since another process may be making the store right now.
    let now = connection.unchecked_transaction().map_err(failed)?;
    if check(&now, path)? == SCHEMA_VERSION {
        return Ok(());
    }
    drop(now);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(failed)?;
    let version = check(&transaction, path)?;
    let pending = MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default());
    for migration in pending {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    if version == 0 {
        let lineage = LineageId::generate().as_uuid();
        let insert = "insert into eventcore_meta (key, value) values ('lineage', ?1)";
        transaction.execute(insert, [lineage.as_bytes()]).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// The schema version of a store; 0 for a file without any content. To be called within a transaction.
fn check(connection: &Connection, path: &Path) -> Result<i32, OpenError> {
    let failed = |source| OpenError::from_sqlite(path.to_owned(), source);
    let header = Header::of(connection).map_err(failed)?;
    let objects: i64 =
        connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if header.application_id == 0 && header.user_version == 0 && objects == 0 {
        return Ok(0);
    }
    header.check(path)?;
    if header.user_version < 1 {
        let what = format!("schema version {} does not exist", header.user_version);
        return Err(OpenError::Damaged { path: path.to_owned(), what, source: None });
    }
    Ok(header.user_version)
}

fn use_write_ahead_log(connection: &Connection, path: &Path, patience: Duration) -> Result<(), OpenError> {
    let failed = |source| OpenError::from_sqlite(path.to_owned(), source);
    let since = Instant::now();
    loop {
        match connection.query_row("pragma journal_mode = wal", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(OpenError::NoWriteAheadLog { path: path.to_owned(), mode }),
            // Two processes that create one file meet here, and SQLite does not wait by itself.
            Err(error) => match OpenError::from_sqlite(path.to_owned(), error) {
                OpenError::Busy { .. } if since.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                OpenError::Busy { source, .. } => return Err(failed(source)),
                other => return Err(other),
            },
        }
    }
}

fn lineage(connection: &Connection, path: &Path) -> Result<LineageId, OpenError> {
    let damaged = |source| OpenError::Damaged {
        path: path.to_owned(),
        what: "the identity of its log is missing".to_owned(),
        source,
    };
    find_lineage(connection).map_err(|source| damaged(Some(source)))?.ok_or_else(|| damaged(None))
}

/// The identity of the log in a store; `None` if there is nothing that can be one.
pub(crate) fn find_lineage(connection: &Connection) -> rusqlite::Result<Option<LineageId>> {
    let select = "select value from eventcore_meta where key = 'lineage'";
    let bytes: Option<Vec<u8>> = connection.query_row(select, [], |row| row.get(0)).optional()?;
    Ok(bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()).map(LineageId::from_uuid))
}
