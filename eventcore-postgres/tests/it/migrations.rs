//! The schema: how it comes about, what it refuses, and what later versions have to open.

use crate::fixtures::{Log, append_to, event_of, stream};
use eventcore::{
    AppendRequest, CommandId, DeadLetterStore, EventFilter, EventReader, EventStore, ExpectedVersion, PageSize,
    ReadStreams,
};
use eventcore_postgres::{PostgresEventStore, SCHEMA_VERSION, migrate, schema_sql};
use eventcore_testing::postgres::Cluster;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_instances_migrate_at_once() {
    let log = Log::new().unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { migrate(&mut log.connection().await, &log.schema).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), SCHEMA_VERSION);
    }
    assert_eq!(log.number("select count(*) from @.migrations").await, i64::from(SCHEMA_VERSION));
    assert_eq!(log.number("select count(*) from @.log").await, 1);
    log.remove().await.unwrap();
}

#[tokio::test]
async fn tables_of_the_application_are_not_touched() {
    let log = Log::new().unwrap();
    // The application keeps migrations of its own where `search_path` leads.
    let setup = "create schema @; create table @._sqlx_migrations (version bigint); create table @.orders (id int)";
    log.run(setup).await.unwrap();
    let store = log.open().await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(log.number("select count(*) from @._sqlx_migrations").await, 0);
    log.remove().await.unwrap();
}

#[tokio::test]
async fn the_printed_schema_is_the_one_that_migrating_makes() {
    let (printed, migrated) = (Log::new().unwrap(), Log::new().unwrap());
    printed.run(&schema_sql(&printed.schema)).await.unwrap();
    migrate(&mut migrated.connection().await, &migrated.schema).await.unwrap();
    // Nothing is left to do, and what was printed works.
    assert_eq!(migrate(&mut printed.connection().await, &printed.schema).await.unwrap(), SCHEMA_VERSION);
    let store = PostgresEventStore::connect(&printed.url, printed.config().migrate_on_connect(false)).await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::NoStream)).await.unwrap();
    store.close().await.unwrap();
    for what in ["pg_catalog.pg_class where relnamespace", "pg_catalog.pg_proc where pronamespace"] {
        let count = format!("select count(*) from {what} = '@'::regnamespace");
        assert_eq!(printed.number(&count).await, migrated.number(&count).await);
    }
    printed.remove().await.unwrap();
    migrated.remove().await.unwrap();
}

#[tokio::test]
async fn the_database_refuses_to_change_events() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    let copy = "select position, stream, version, event_id, type, schema_version, content_type, payload_json, payload_bytes, \
                metadata, recorded_at, command_id from @.events";
    let replacing = format!("insert into @.events {copy} on conflict (position) do update set type = 'forged'");
    for statement in [
        "update @.events set type = 'forged'",
        "update @.events set type = 'forged' where false",
        "delete from @.events",
        "truncate @.events",
        "set session_replication_role = replica; delete from @.events",
        &replacing,
    ] {
        let error = log.run(statement).await.expect_err(statement);
        assert!(error.to_string().contains("stored events never change"), "{statement}: {error}");
    }
    let events = store.read_streams(ReadStreams::new([stream("a")]).unwrap()).await.unwrap().events;
    assert_eq!(events.iter().map(|e| e.event_type().as_str()).collect::<Vec<_>>(), ["test.Counted"]);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_role_with_the_documented_grants_can_do_everything_and_cannot_migrate() {
    let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    migrate(&mut log.connection().await, &log.schema).await.unwrap();
    let grants =
        include_str!("../../grants.sql").replace(":\"schema\"", log.schema.as_str()).replace(":\"role\"", "app");
    log.run(&format!("create role app login; {grants}")).await.unwrap();

    let url = log.url.replace("postgres@", "app@");
    let refused = PostgresEventStore::connect(&url, log.config()).await;
    assert!(refused.is_ok(), "a schema that is up to date needs no privilege: {refused:?}");
    let store = PostgresEventStore::connect(&url, log.config().migrate_on_connect(false)).await.unwrap();
    crate::pages::everything_works(&store).await;
    for forbidden in
        ["delete from @.events", "drop table @.events", "select setval('@.positions', 1)", "create table @.x ()"]
    {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let error = sqlx::raw_sql(AssertSqlSafe(log.sql(forbidden))).execute(&mut connection).await;
        let denied = error.err().and_then(|e| e.as_database_error().and_then(|e| e.code().map(|c| c.into_owned())));
        assert_eq!(denied.as_deref(), Some("42501"), "{forbidden}");
    }
    store.close().await.unwrap();
}

/// Every version of the schema that was ever released is opened by all later ones.
#[tokio::test]
async fn dumps_of_all_versions_open() {
    let dumps = [
        (include_str!("../../fixtures/schema_v1.sql"), 0),
        (include_str!("../../fixtures/schema_v2.sql"), 1),
        (include_str!("../../fixtures/schema_v3.sql"), 1),
        (include_str!("../../fixtures/schema_v4.sql"), 1),
    ];
    for (dump, dead_letters) in dumps {
        let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
        let log = Log::at(cluster.url("postgres")).unwrap();
        log.run(dump).await.unwrap();
        let log = Log { schema: "eventcore".parse().unwrap(), ..log };
        let store = log.open().await.unwrap();
        let id = CommandId::new("command-1").unwrap();
        let read = ReadStreams::new([stream("account-1"), stream("account-2")]).unwrap().with_receipt_of(Some(id));
        let read = store.read_streams(read).await.unwrap();
        let told: Vec<_> =
            read.events.iter().map(|e| (e.stream_id().as_str(), e.version().get(), e.payload().bytes())).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0].2.as_ref(), br#"{"b":1, "a":"\u0000"}"#);
        assert_eq!(told[2].2.as_ref(), b"\x00\xff");
        assert_eq!(read.receipt.unwrap().events.len(), 2);
        let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
        assert_eq!(page.events, read.events);
        let next = AppendRequest::builder().event(stream("account-1"), event_of("test.Next", "{}")).build().unwrap();
        assert_eq!(store.append(next).await.unwrap().events[0].version.get(), 3);
        let letters = store.dead_letters(None, None, PageSize::default()).await.unwrap();
        assert_eq!(letters.len(), dead_letters);
        assert!(letters.iter().all(|letter| letter.attempts == 3 && letter.errors == ["outer", "inner"]));
        store.close().await.unwrap();
    }
}
