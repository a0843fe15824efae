//! Connections, each set up for what it is for.

use crate::SqliteConfig;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Memory of the writer's page cache, in KiB; appends to many streams touch many pages of the index.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
/// Memory of each reader's page cache, in KiB. The system caches the file besides.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// After so many pages the write-ahead log is moved into the file. A page that was written many times meanwhile is moved
/// once: at 1,000 pages, SQLite's own default, appends to a thousand streams took a third more of the writer's time.
const CHECKPOINT_PAGES: i64 = 4_000;
/// The write-ahead log is cut back to this size, in bytes, after a checkpoint found it larger.
pub(crate) const MAX_IDLE_WAL_BYTES: u64 = 64 * 1024 * 1024;
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// The write-ahead log of the database at `path`, which has to be without links, since SQLite follows them too.
pub(crate) fn write_ahead_log(path: &Path) -> PathBuf {
    let mut log = OsString::from(path);
    log.push("-wal");
    log.into()
}

/// A connection that writes to an existing file.
pub(crate) fn write(path: &Path, config: &SqliteConfig) -> rusqlite::Result<Connection> {
    open_to_write(path, config, OpenFlags::empty())
}

/// A connection that writes, to a file that need not exist.
pub(crate) fn create(path: &Path, config: &SqliteConfig) -> rusqlite::Result<Connection> {
    open_to_write(path, config, OpenFlags::SQLITE_OPEN_CREATE)
}

fn open_to_write(path: &Path, config: &SqliteConfig, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let mut connection = Connection::open_with_flags(absolute(path), flags)?;
    wait_when_busy(&mut connection, config.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    keep_plans(&connection)?;
    connection.pragma_update(None, "synchronous", config.synchronous.as_str())?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", MAX_IDLE_WAL_BYTES as i64, |_| Ok(()))?;
    if let Some(pages) = config.max_page_count {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(connection)
}

/// A connection that can only read.
pub(crate) fn read(path: &Path, config: &SqliteConfig) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(absolute(path), flags)?;
    wait_when_busy(&mut connection, config.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    keep_plans(&connection)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// A connection that reads the file as it lies on the disk, without its write-ahead log, and neither locks nor writes.
pub(crate) fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let path = absolute(path);
    let text = path.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(path.clone()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{}?immutable=1", percent_encoded(text)), flags)
}

/// Statements are planned once, whatever is bound to them. Otherwise SQLite plans those with a bound limit anew each time.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// An absolute path is never one of SQLite's special names, such as `:memory:` or the empty one.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn percent_encoded(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-~:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// SQLite's own way of waiting sleeps up to 100 ms at a time; a commit takes one or a few.
pub(crate) fn wait_when_busy(connection: &mut Connection, patience: Duration) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |attempt: i32| {
        if attempt == 0 {
            since = Instant::now();
        }
        let waiting = since.elapsed() < patience;
        if waiting {
            std::thread::sleep(Duration::from_micros(if attempt < 10 { 200 } else { 1_000 }));
        }
        waiting
    }))
}
