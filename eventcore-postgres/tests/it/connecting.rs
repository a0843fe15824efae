//! What a store says when it cannot be used.

use crate::fixtures::{Log, append_to, stream};
use eventcore::{EventStore, EventStoreError, ExpectedVersion};
use eventcore_postgres::{ConnectError, PostgresConfig, PostgresEventStore, SCHEMA_VERSION};
use eventcore_testing::postgres::Cluster;
use sqlx::postgres::PgPoolOptions;
use std::error::Error;

async fn refused(url: &str, config: PostgresConfig) -> ConnectError {
    PostgresEventStore::connect(url, config).await.expect_err("the store opened")
}

/// The server's log of this test, with another user, password or database in its URL.
fn url_with(url: &str, login: &str, database: &str) -> String {
    let place = url.rsplit_once('@').map_or(url, |(_, place)| place);
    let host = place.split_once('/').map_or(place, |(host, _)| host);
    format!("postgres://{login}@{host}/{database}")
}

#[tokio::test]
async fn what_is_no_url_is_told() {
    let error = refused("postgres//nowhere", PostgresConfig::default()).await;
    assert!(matches!(error, ConnectError::InvalidUrl { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let error = refused("postgres://app@127.0.0.1:1/db", PostgresConfig::default()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.source().is_some());
}

/// On a large log the planner would have pages compiled, which takes longer than reading them.
#[tokio::test]
async fn the_store_s_own_sessions_compile_no_statements() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let jit: String = sqlx::query_scalar("show jit").fetch_one(store.pool()).await.unwrap();
    assert_eq!(jit, "off");
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_a_missing_database_and_a_full_server_are_told_apart() {
    let cluster = Cluster::start(&[("fsync", "off"), ("max_connections", "12")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create role guarded login password 'right'; create role crowded login connection limit 0").await.unwrap();
    let config = PostgresConfig::default();

    let wrong = refused(&url_with(&log.url, "guarded:wrong", "postgres"), config.clone()).await;
    assert!(matches!(wrong, ConnectError::WrongCredentials { .. }), "{wrong:?}");
    let missing = refused(&cluster.url("nowhere"), config.clone()).await;
    assert!(matches!(missing, ConnectError::NoSuchDatabase { .. }), "{missing:?}");
    let crowded = refused(&url_with(&log.url, "crowded", "postgres"), config.clone()).await;
    assert!(matches!(crowded, ConnectError::TooManyConnections { .. }), "{crowded:?}");
    let right = refused(&url_with(&log.url, "guarded:right", "postgres"), config).await;
    assert!(matches!(right, ConnectError::SchemaMissing { .. }), "{right:?}");
}

#[tokio::test]
async fn a_schema_that_is_missing_old_newer_or_damaged_is_told() {
    let log = Log::new().unwrap();
    let config = log.config().migrate_on_connect(false);
    let missing = refused(&log.url, config.clone()).await;
    assert!(matches!(missing, ConnectError::SchemaMissing { .. }), "{missing:?}");

    log.open().await.unwrap().close().await.unwrap();
    log.run("insert into @.migrations values (1000, now())").await.unwrap();
    for config in [config.clone(), log.config()] {
        let newer = refused(&log.url, config).await;
        let known = SCHEMA_VERSION;
        assert!(
            matches!(newer, ConnectError::SchemaNewer { found: 1000, supported, .. } if supported == known),
            "{newer:?}"
        );
    }
    log.run("delete from @.migrations").await.unwrap();
    let old = refused(&log.url, config.clone()).await;
    assert!(matches!(old, ConnectError::SchemaOutdated { found: 0, .. }), "{old:?}");

    let up_to_date = format!("insert into @.migrations values ({SCHEMA_VERSION}, now()); delete from @.log");
    log.run(&up_to_date).await.unwrap();
    let damaged = refused(&log.url, config).await;
    assert!(matches!(damaged, ConnectError::Damaged { .. }), "{damaged:?}");
    log.remove().await.unwrap();
}

#[tokio::test]
async fn what_the_order_stands_on_is_checked() {
    let log = Log::new().unwrap();
    log.open().await.unwrap().close().await.unwrap();
    for setting in ["cache 10", "cycle", "increment 2"] {
        log.run(&format!("alter sequence @.positions {setting}")).await.unwrap();
        let error = refused(&log.url, log.config()).await;
        assert!(matches!(error, ConnectError::PositionSequence { .. }), "{setting}: {error:?}");
        log.run("alter sequence @.positions cache 1 no cycle increment 1").await.unwrap();
    }
    // As logical replication leaves it: the next events would land below those that followers have read.
    log.run("insert into @.events values (7, 's', 1, gen_random_uuid(), 't', 1, 'application/json', '{}', null, null, now())")
        .await
        .unwrap();
    let behind = refused(&log.url, log.config()).await;
    assert!(matches!(behind, ConnectError::Damaged { .. }), "{behind:?}");
    log.run("select setval('@.positions', 7)").await.unwrap();
    log.open().await.unwrap().close().await.unwrap();
    let with = |option: &str| format!("{}?options=-c%20{option}", log.url);
    let serializable = refused(&with("default_transaction_isolation=serializable"), log.config()).await;
    assert!(matches!(serializable, ConnectError::Isolation { .. }), "{serializable:?}");
    let read_only = refused(&with("default_transaction_read_only=on"), log.config()).await;
    assert!(matches!(read_only, ConnectError::ReadOnly), "{read_only:?}");
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_database_in_another_encoding_and_a_standby_are_refused() {
    let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create database latin encoding 'LATIN1' template template0").await.unwrap();
    let latin = refused(&cluster.url("latin"), log.config()).await;
    assert!(matches!(latin, ConnectError::Encoding { .. }), "{latin:?}");

    let store = log.open().await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    store.close().await.unwrap();
    cluster.crash().unwrap();
    cluster.start_as_standby().unwrap();
    let standby = refused(&log.url, log.config()).await;
    assert!(matches!(standby, ConnectError::Standby), "{standby:?}");
}

#[tokio::test]
async fn a_server_that_turns_read_only_refuses_appends_and_goes_on_reading() {
    let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let pool = PgPoolOptions::new().max_connections(4).connect(&log.url).await.unwrap();
    let store = PostgresEventStore::with_pool(pool.clone(), log.config()).await.unwrap();
    let a = stream("a");
    store.append(append_to(&a, ExpectedVersion::Any)).await.unwrap();
    log.run("alter system set default_transaction_read_only = on").await.unwrap();
    cluster.crash().unwrap();
    cluster.start_again().unwrap();
    let refused = loop {
        match store.append(append_to(&a, ExpectedVersion::Any)).await {
            // On a connection that the crash broke, it may have happened.
            Err(EventStoreError::OutcomeUnknown { .. }) => {}
            answer => break answer,
        }
    };
    assert!(matches!(refused, Err(EventStoreError::ReadOnly { .. })), "{refused:?}");
    assert_eq!(store.stream_version(&a).await.unwrap().get(), 1);
    store.close().await.unwrap();
    assert!(!pool.is_closed(), "the pool is the caller's");
}
