//! How many statements a command costs, counted on the server.

use crate::fixtures::{CountBoth, CountUp, Log, PATIENCE, append_to, stream};
use crate::watching::{listeners, until_listeners};
use eventcore::{
    CommandContext, CommandExecutor, CommandId, EventFilter, EventReader, EventStore, ExpectedVersion, PageSize,
};
use eventcore_postgres::PostgresEventStore;
use eventcore_testing::postgres::Cluster;
use sqlx::Row;
use std::time::Duration;

/// Statements of clients since the last reset: commands', and those that are sent whether there are commands or not.
async fn count(log: &Log) -> (i64, i64, Vec<String>) {
    let mut connection = log.connection().await;
    let rows = sqlx::query(
        "select s.calls, s.query from pg_stat_statements s join pg_database d on d.oid = s.dbid \
         where d.datname = current_database() and s.query not like '%pg_stat_statements%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let (mut commands, mut beats, mut told) = (0, 0, Vec::new());
    for row in rows {
        let (calls, query): (i64, String) = (row.get(0), row.get(1));
        let background =
            ["pg_notify", "LISTEN", "pg_advisory_lock_shared", ".leases"].iter().any(|s| query.contains(s));
        *(if background { &mut beats } else { &mut commands }) += calls;
        told.push(format!("{calls} x {}", query.chars().take(60).collect::<String>()));
    }
    (commands, beats, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_costs_two_statements_and_many_share_theirs() {
    let settings =
        [("fsync", "off"), ("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track", "top")];
    let cluster = Cluster::start(&settings).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create extension pg_stat_statements").await.unwrap();
    let store = log.open().await.unwrap();
    let executor = CommandExecutor::new(store.clone());
    let reset = async || log.run("select pg_stat_statements_reset()").await.unwrap();

    for warm in [true, false] {
        reset().await;
        for round in 0..100 {
            executor.execute(CountUp { counter: stream(format!("single-{}", round % 9)) }).await.unwrap();
        }
        let (commands, beats, told) = count(&log).await;
        println!("single-stream: {:.2} statements per command, {beats} for heartbeats", commands as f64 / 100.0);
        assert!(warm || commands <= 200, "{told:#?}");
    }
    reset().await;
    for round in 0..100 {
        let both = CountBoth { one: stream(format!("one-{round}")), two: stream(format!("two-{round}")) };
        executor.execute(both).await.unwrap();
    }
    let (commands, beats, told) = count(&log).await;
    println!("two-stream: {:.2} statements per command, {beats} for heartbeats", commands as f64 / 100.0);
    assert!(commands <= 200, "{told:#?}");

    reset().await;
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let executor = CommandExecutor::new(store.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    executor.execute(CountUp { counter: stream(format!("task-{task}")) }).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (commands, beats, told) = count(&log).await;
    println!("64 at once: {:.3} statements per command, {beats} for heartbeats", commands as f64 / 1_600.0);
    assert!(commands * 4 <= 1_600, "{told:#?}");

    // A hundred followers at the end of the log ask for it together. What a store has found out is young for an hour, and
    // only one that has just been opened has to ask, so that the count does not depend on how long all of this takes.
    let all = EventFilter::all();
    let head = store.head().await.unwrap();
    let config = log.config().poll_interval(Duration::from_secs(3_600)).notifications(false).migrate_on_connect(false);
    let mut asked = 0;
    let mut told = Vec::new();
    for _ in 0..5 {
        let store = PostgresEventStore::connect(&log.url, config.clone()).await.unwrap();
        reset().await;
        let followers: Vec<_> = (0..100)
            .map(|_| {
                let (store, all) = (store.clone(), all.clone());
                tokio::spawn(async move { store.read_page(&all, head, PageSize::default()).await.unwrap() })
            })
            .collect();
        for follower in followers {
            assert!(follower.await.unwrap().events.is_empty());
        }
        let (commands, _, queries) = count(&log).await;
        asked += commands;
        told.extend(queries);
        store.close().await.unwrap();
    }
    println!("500 polls by 100 followers at the end: {asked} statements");
    assert!(asked <= 50, "{told:#?}");
    store.close().await.unwrap();
}

/// Who only reads a page now and then finds the end of the log when he asks; those who append do not look for it on his
/// behalf. Who waits for news is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_look_for_the_end_of_the_log_only_while_somebody_waits() {
    let settings =
        [("fsync", "off"), ("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track", "top")];
    let cluster = Cluster::start(&settings).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create extension pg_stat_statements").await.unwrap();
    // What a store has found out is young for an hour, so that nobody looks because of the time.
    let store =
        PostgresEventStore::connect(&log.url, log.config().poll_interval(Duration::from_secs(3_600))).await.unwrap();
    let looks = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements where query like '%@.horizon(%'";
    let append = async || store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    let page = async || store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap().events.len();

    append().await;
    assert_eq!(page().await, 1);
    let before = log.number(looks).await;
    for _ in 0..50 {
        append().await;
    }
    assert_eq!(log.number(looks).await, before, "nobody waited");
    assert_eq!(page().await, 51, "who reads finds what was acknowledged");
    assert_eq!(log.number(looks).await, before + 1);

    let mut watch = store.watch_log();
    // What there was before; then what is appended now.
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    append().await;
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    store.close().await.unwrap();
}

/// Pages are no reason to listen, nor to look for the end of the log before somebody wants what is behind it, even if somebody
/// has followed before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_pages_keeps_a_store_neither_listening_nor_looking() {
    let settings =
        [("fsync", "off"), ("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track", "top")];
    let cluster = Cluster::start(&settings).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create extension pg_stat_statements").await.unwrap();
    let store =
        PostgresEventStore::connect(&log.url, log.config().poll_interval(Duration::from_millis(1))).await.unwrap();
    let looks = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements where query like '%@.horizon(%'";
    // From the beginning, where there is something to show without asking how far the log has come.
    let page = async || store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap().events.len();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    assert_eq!(page().await, 1);

    let watch = store.watch_log();
    until_listeners(&log, 1).await;
    drop(watch);
    let stopped = async {
        while listeners(&log).await > 0 {
            assert_eq!(page().await, 1);
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("it listens for who only reads pages");
    let before = log.number(looks).await;
    for _ in 0..200 {
        assert_eq!(page().await, 1);
    }
    assert_eq!(log.number(looks).await, before, "nobody wanted to know");
    // Who follows again wakes it.
    let mut watch = store.watch_log();
    until_listeners(&log, 1).await;
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    while page().await < 2 {
        tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }
    store.close().await.unwrap();
}

/// Statements are prepared while the log is empty, and their plans stay as it grows: they must not be those of a small table.
#[tokio::test]
async fn receipts_are_read_by_their_index_from_the_first_command_on() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let executor = CommandExecutor::new(store.clone());
    for round in 0..100 {
        let context = || CommandContext::new().command_id(CommandId::new(format!("command-{round}")).unwrap());
        for replayed in [false, true] {
            let command = CountUp { counter: stream(format!("counter-{round}")) };
            assert_eq!(executor.execute_with(context(), command).await.unwrap().replayed(), replayed);
        }
    }
    // Sessions report what they did at their end, a moment later.
    store.close().await.unwrap();
    let scans = |kind: &str| format!("select {kind} from pg_stat_user_tables where relid = '@.receipts'::regclass");
    let deadline = std::time::Instant::now() + PATIENCE;
    while log.number(&scans("coalesce(idx_scan, 0) + seq_scan")).await < 300 {
        assert!(std::time::Instant::now() < deadline, "the server counts no scans");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let whole_table = log.number(&scans("seq_scan")).await;
    assert!(whole_table < 20, "{whole_table} times the whole table was read");
    log.remove().await.unwrap();
}
