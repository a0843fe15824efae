//! Files that are no store, and are left as they are.

use crate::support::{Home, append};
use eventcore::{EventReader, EventStore, LeadershipError, ProjectionName, ProjectorCoordinator};
use eventcore_sqlite::{OpenError, SqliteConfig, SqliteEventStore};
use rusqlite::Connection;
use std::fs;
use std::path::Path;

async fn refused(path: &Path) -> OpenError {
    let before = fs::read(path).ok();
    let entries = || fs::read_dir(path.parent().unwrap()).map(|dir| dir.count()).unwrap_or_default();
    let count = entries();
    let error = SqliteEventStore::open(path).await.expect_err("the file is no store");
    assert!(error.to_string().contains(&format!("{path:?}")), "{error} does not name the file");
    assert_eq!(fs::read(path).ok(), before, "the file was changed");
    assert_eq!(entries(), count, "files were left beside it");
    error
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let home = Home::new();
    for content in ["x", "SQLite format 3", &"some text, long enough for a header ".repeat(300)] {
        fs::write(home.path(), content).unwrap();
        let error = refused(&home.path()).await;
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_database_of_another_program() {
    for wal in [false, true] {
        for id in [0, 4711] {
            let home = Home::new();
            let raw = home.raw();
            raw.pragma_update(None, "application_id", id).unwrap();
            if wal {
                raw.pragma_update(None, "journal_mode", "wal").unwrap();
            }
            raw.execute_batch("create table eventcore_events (x); insert into eventcore_events values (1)").unwrap();
            raw.close().unwrap();
            let error = refused(&home.path()).await;
            assert!(
                matches!(error, OpenError::ForeignDatabase { application_id, .. } if application_id == id),
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_database_that_another_program_left_in_the_middle() {
    for id in [0, 4711] {
        let home = Home::new();
        let raw = home.raw();
        raw.pragma_update(None, "journal_mode", "wal").unwrap();
        raw.pragma_update(None, "application_id", id).unwrap();
        raw.execute_batch("create table t (x); pragma wal_checkpoint(truncate); insert into t values (1)").unwrap();
        // As if the program had crashed: its write-ahead log holds what the file does not.
        let (file, log) = (home.join("crashed.db"), home.join("crashed.db-wal"));
        fs::copy(home.path(), &file).unwrap();
        fs::copy(home.join("store.db-wal"), &log).unwrap();
        let (before, log_before) = (fs::read(&file).unwrap(), fs::read(&log).unwrap());
        let error = SqliteEventStore::open(&file).await.unwrap_err();
        assert!(matches!(error, OpenError::ForeignDatabase { .. }), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_eq!(fs::read(&log).unwrap(), log_before);
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "s", "1").await.unwrap();
    store.close().await.unwrap();
    let raw = home.raw();
    raw.pragma_update(None, "user_version", 99).unwrap();
    raw.close().unwrap();
    let error = refused(&home.path()).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 99, supported: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_that_a_newer_version_has_open() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    // The file's own header does not tell yet, only the write-ahead log does.
    let raw = home.raw();
    raw.pragma_update(None, "user_version", 99).unwrap();
    let error = refused(&home.path()).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 99, .. }), "{error:?}");
    drop(raw);
}

#[tokio::test]
async fn a_file_that_cannot_be_written() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    let writable = fs::metadata(home.path()).unwrap().permissions();
    let mut read_only = writable.clone();
    read_only.set_readonly(true);
    fs::set_permissions(home.path(), read_only).unwrap();
    let error = refused(&home.path()).await;
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    fs::set_permissions(home.path(), writable).unwrap();
    append(&home.open().await, "s", "1").await.unwrap();
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let home = Home::new();
    let error = SqliteEventStore::open(home.join("missing").join("store.db")).await.unwrap_err();
    assert!(matches!(error, OpenError::MissingDirectory { .. }), "{error:?}");
    fs::write(home.join("file"), "").unwrap();
    let error = SqliteEventStore::open(home.join("file").join("store.db")).await.unwrap_err();
    assert!(matches!(error, OpenError::MissingDirectory { .. }), "{error:?}");
    fs::create_dir(home.join("directory")).unwrap();
    let error = refused(&home.join("directory")).await;
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
    let error = SqliteEventStore::open("").await.unwrap_err();
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
    let never = SqliteConfig::default().create_if_missing(false);
    let error = SqliteEventStore::open_with(home.path(), never).await.unwrap_err();
    assert!(matches!(error, OpenError::NotFound { .. }), "{error:?}");
    assert!(!home.path().exists());
}

#[cfg(unix)]
#[tokio::test]
async fn other_names_of_a_file() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "s", "1").await.unwrap();
    std::os::unix::fs::symlink(home.path(), home.join("symbolic.db")).unwrap();
    let same = SqliteEventStore::open(home.join("symbolic.db")).await.unwrap();
    assert_eq!(append(&same, "s", "2").await.unwrap().events[0].position.get(), 2);
    let name = ProjectionName::new("p").unwrap();
    let leading = store.acquire(&name).await.unwrap();
    assert!(matches!(same.acquire(&name).await, Err(LeadershipError::Busy { .. })));
    drop(leading);

    fs::hard_link(home.path(), home.join("hard.db")).unwrap();
    let error = refused(&home.join("hard.db")).await;
    assert!(matches!(error, OpenError::SeveralNames { names: 2, .. }), "{error:?}");
    fs::remove_file(home.join("hard.db")).unwrap();
    assert_eq!(append(&home.open().await, "s", "3").await.unwrap().events[0].position.get(), 3);
}

#[tokio::test]
async fn a_damaged_store() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "s", "1").await.unwrap();
    store.close().await.unwrap();
    // All but the first page, which says whose file it is.
    let mut bytes = fs::read(home.path()).unwrap();
    bytes[4096..].fill(0xAB);
    fs::write(home.path(), bytes).unwrap();
    let error = SqliteEventStore::open(home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_without_its_identity() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    let raw = home.raw();
    raw.execute_batch("drop trigger eventcore_meta_delete; delete from eventcore_meta").unwrap();
    raw.close().unwrap();
    let error = SqliteEventStore::open(home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_file_and_an_odd_name_become_a_store() {
    let home = Home::new();
    let path = home.join("a b?c#d%41'é.db");
    fs::write(&path, "").unwrap();
    let store = SqliteEventStore::open(&path).await.unwrap();
    append(&store, "s", "1").await.unwrap();
    store.close().await.unwrap();
    let store = SqliteEventStore::open(&path).await.unwrap();
    assert_eq!(store.head().await.unwrap().unwrap().get(), 1);
}

#[tokio::test]
async fn racing_openers_make_one_store() {
    let home = Home::new();
    let path = home.path();
    let openers: Vec<_> = (0..8)
        .map(|n| {
            let path = path.clone();
            tokio::spawn(async move {
                let store = SqliteEventStore::open(path).await.unwrap();
                append(&store, "s", &n.to_string()).await.unwrap();
                store.lineage()
            })
        })
        .collect();
    let mut lineages = Vec::new();
    for opener in openers {
        lineages.push(opener.await.unwrap());
    }
    lineages.dedup();
    assert_eq!(lineages.len(), 1);
    let store = home.open().await;
    assert_eq!(store.head().await.unwrap().unwrap().get(), 8);
}

#[tokio::test]
async fn the_header_names_its_program_and_schema() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    let raw = Connection::open(home.path()).unwrap();
    let pragma = |name: &str| raw.query_row(&format!("pragma {name}"), [], |row| row.get::<_, i32>(0)).unwrap();
    assert_eq!(pragma("application_id"), i32::from_be_bytes(*b"EvCo"));
    assert_eq!(pragma("user_version"), 2);
}

#[tokio::test]
async fn a_store_whose_process_was_killed_in_the_middle_of_a_checkpoint() {
    let home = Home::new();
    let store = home.open().await;
    for number in 0..100 {
        append(&store, &format!("s-{number}"), &format!("{:?}", "x".repeat(1_000))).await.unwrap();
    }
    let [db, wal] = ["store.db", "store.db-wal"].map(|name| fs::read(home.join(name)).unwrap());
    store.close().await.unwrap();
    let raw = home.raw();
    raw.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    raw.close().unwrap();
    let settled = fs::read(home.path()).unwrap();

    // A checkpoint writes page after page. After the first one the header tells of pages that are only in the log yet.
    let crashed = Home::new();
    assert!(settled.len() > db.len());
    fs::write(crashed.path(), [&settled[..4096], &db[4096..]].concat()).unwrap();
    fs::write(crashed.join("store.db-wal"), wal).unwrap();
    let store = crashed.open().await;
    assert_eq!(store.head().await.unwrap().map(|position| position.get()), Some(100));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_whose_process_was_killed_while_it_was_made() {
    let home = Home::new();
    let raw = home.raw();
    // So little memory that the unfinished transaction spills into the file, beside which its journal lies.
    raw.execute_batch("pragma cache_size = 1; begin; create table t (x)").unwrap();
    for _ in 0..100 {
        raw.execute("insert into t values (randomblob(2000))", []).unwrap();
    }
    let crashed = Home::new();
    for (from, to) in [("store.db", "store.db"), ("store.db-journal", "store.db-journal")] {
        fs::copy(home.join(from), crashed.join(to)).unwrap();
    }
    assert!(fs::metadata(crashed.path()).unwrap().len() > 4096, "nothing was spilled");
    let store = crashed.open().await;
    append(&store, "s", "1").await.unwrap();
    store.close().await.unwrap();
}
