//! A dump, restored elsewhere.

use crate::fixtures::{Log, PATIENCE, append_to, stream};
use crate::pages::Tally;
use eventcore::{
    EventFilter, EventReader, EventStore, EventStoreError, ExpectedVersion, PageSize, ProjectionConfig, run_projection,
};
use std::process::{Command, Stdio};

/// `pg_dump | psql` from one database of a server into another.
fn copy(from: &str, to: &str, schema: &str) {
    let mut dump = Command::new("pg_dump").args([from, "-n", schema]).stdout(Stdio::piped()).spawn().unwrap();
    let restore = Command::new("psql")
        .args([to, "-q", "-v", "ON_ERROR_STOP=1"])
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(dump.wait().unwrap().success() && restore.success());
}

#[tokio::test]
async fn projections_resume_in_a_restored_database_and_a_diverged_log_is_noticed() {
    // Databases of its own: a dump reads catalogs, in which other tests make and drop schemas meanwhile.
    let server = Log::new().unwrap();
    let (place, _) = server.url.rsplit_once('/').unwrap();
    let [original, database] = ["original", "restored"].map(|name| format!("{name}_{}", uuid::Uuid::now_v7().simple()));
    server.run(&format!("create database {original}")).await.unwrap();
    server.run(&format!("create database {database}")).await.unwrap();
    let log = Log::at(format!("{place}/{original}")).unwrap();
    let store = log.open().await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    for round in 0..50 {
        store.append(append_to(&stream(format!("s-{}", round % 7)), ExpectedVersion::Any)).await.unwrap();
    }
    let tally = || Tally::of(&log.schema);
    assert_eq!(run_projection(tally(), &store, ProjectionConfig::default()).await.unwrap().applied, 50);
    for _ in 0..5 {
        store.append(append_to(&stream("s-0"), ExpectedVersion::Any)).await.unwrap();
    }

    let restored = Log { url: format!("{place}/{database}"), schema: log.schema.clone() };
    copy(&log.url, &restored.url, log.schema.as_str());
    let copied = restored.open().await.unwrap();
    assert_eq!(copied.lineage(), store.lineage());
    copied.append(append_to(&stream("s-1"), ExpectedVersion::StreamExists)).await.unwrap();
    let outcome = run_projection(tally(), &copied, ProjectionConfig::default()).await.unwrap();
    assert_eq!(outcome.applied, 6, "five events since the checkpoint, and a new one");
    assert_eq!(restored.number(Tally::WRONG).await, 0);
    copied.close().await.unwrap();

    // The other way round: what this store remembers is gone, as after a failover to a copy that lagged behind.
    let all = EventFilter::all();
    let page = store.read_page(&all, None, PageSize::default()).await.unwrap();
    assert_eq!(page.events.len(), 55);
    log.run("alter table @.events disable trigger all; delete from @.events where position > 50").await.unwrap();
    let after = page.position();
    let deadline = std::time::Instant::now() + PATIENCE;
    let error = loop {
        match store.read_page(&all, after, PageSize::default()).await {
            Err(error) => break error,
            Ok(_) => assert!(std::time::Instant::now() < deadline, "nobody noticed"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(matches!(error, EventStoreError::LogDiverged { found: None, .. }), "{error:?}");
    let verified = store.verify_cursor(&page.cursor.unwrap()).await;
    assert!(matches!(verified, Err(EventStoreError::LogDiverged { .. })), "{verified:?}");
    store.close().await.unwrap();
    for database in [original, database] {
        server.run(&format!("drop database {database} with (force)")).await.unwrap();
    }
}
