//! What reading costs the server while it knows nothing of a log yet: statistics come with the first autovacuum, a minute or
//! more after the first events. Counted in blocks, by the server.

use crate::fixtures::{Log, event_of, stream};
use eventcore::{
    AppendRequest, EventFilter, EventReader, EventStore, EventType, GlobalPosition, PageSize, ReadStreams,
    StreamPrefix, StreamVersion,
};
use eventcore_postgres::PostgresEventStore;
use eventcore_testing::postgres::Cluster;
use sqlx::Row;

const EVENTS: u64 = 20_000;

/// The rest, after a first event: half of them in one stream, of two types by turns.
const FILL: &str = "insert into @.events \
    (position, stream, version, event_id, type, schema_version, content_type, payload_json, recorded_at) \
    select i, case when i % 2 = 0 then 'long' else 'short-' || i % 101 end, case when i % 2 = 0 then i / 2 else i end, \
           (lpad(to_hex(i), 12, '0') || '7' || '0008' || lpad('', 15, '0'))::uuid, \
           case when i % 4 < 2 then 'test.One' else 'test.Other' end, 1, 'application/json', \
           json_build_object('text', repeat('x', 180)), now() \
    from generate_series(2, 20000) i; \
    select setval('@.positions', 20000)";

/// What the server did for the statements that bring events: blocks looked at, and blocks of sorts that had no room in memory.
async fn cost(log: &Log) -> (i64, i64) {
    let mut connection = log.connection().await;
    let row = sqlx::query(
        "select coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint, coalesce(sum(temp_blks_written), 0)::bigint \
         from pg_stat_statements where query like '%payload_json%' and query not like '%pg_stat_statements%'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    (row.get(0), row.get(1))
}

async fn read_pages(store: &PostgresEventStore, filter: &EventFilter, until: u64) -> u64 {
    let last = GlobalPosition::try_new(until).ok();
    let (mut after, mut seen) = (None, 0);
    while after < last {
        let page = store.read_page(filter, after, PageSize::try_new(1_000).unwrap()).await.unwrap();
        assert!(page.position() > after, "{filter:?} does not move on");
        seen += page.events.len() as u64;
        after = page.position();
    }
    seen
}

async fn read_stream(store: &PostgresEventStore) -> u64 {
    let (mut after, mut more) = (StreamVersion::default(), true);
    while more {
        let page = store.read_stream(&stream("long"), after, PageSize::try_new(1_000).unwrap()).await.unwrap();
        after = page.events.last().map_or(after, |event| event.version());
        more = page.more;
    }
    after.get()
}

/// Every way to read many events, by a name, and how many it brings from a full log.
async fn read_all_ways(store: &PostgresEventStore, until: u64, mut done: impl AsyncFnMut(&str, u64, u64)) {
    let types: [EventType; 2] = ["test.One".parse().unwrap(), "test.Other".parse().unwrap()];
    let prefix = StreamPrefix::new("long").unwrap();
    for (what, filter, wanted) in [
        ("everything", EventFilter::all(), EVENTS),
        ("two types", EventFilter::all().types(types.clone()), EVENTS),
        ("one type", EventFilter::all().types(types[..1].to_vec()), EVENTS / 2),
        ("a prefix", EventFilter::all().stream_prefix(prefix.clone()), EVENTS / 2),
        ("types of a prefix", EventFilter::all().stream_prefix(prefix).types(types.clone()), EVENTS / 2),
        ("streams", EventFilter::all().streams([stream("long")]), EVENTS / 2),
        ("types of streams", EventFilter::all().streams([stream("long")]).types(types), EVENTS / 2),
    ] {
        let seen = read_pages(store, &filter, until).await;
        done(what, seen, wanted).await;
    }
    let seen = read_stream(store).await;
    done("a stream by pages", seen, EVENTS / 2).await;
    for (what, streams) in [("a stream", vec![stream("long")]), ("two streams", vec![stream("long"), stream("none")])] {
        let read = store.read_streams(ReadStreams::new(streams).unwrap()).await.unwrap();
        assert!(read.events.is_sorted_by_key(|event| event.version()), "{what}");
        done(what, read.events.len() as u64, EVENTS / 2).await;
    }
}

#[tokio::test]
async fn events_of_a_young_log_are_looked_at_once() {
    let settings = [
        ("fsync", "off"),
        ("autovacuum", "off"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track", "top"),
    ];
    let cluster = Cluster::start(&settings).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    log.run("create extension pg_stat_statements").await.unwrap();
    // One store has prepared its statements, and planned them for good, when there was next to nothing.
    let early = log.open().await.unwrap();
    let first = AppendRequest::builder().event(stream("short-1"), event_of("test.One", "{}")).build().unwrap();
    early.append(first).await.unwrap();
    for _ in 0..8 {
        read_all_ways(&early, 1, async |_, _, _| {}).await;
    }
    log.run(FILL).await.unwrap();
    // It was filled past the stores, which ask for its end now.
    early.head().await.unwrap();
    let late = log.open().await.unwrap();
    let blocks = log.number("select pg_total_relation_size('@.events') / 8192").await;
    log.run("select pg_stat_statements_reset()").await.unwrap();
    let mut dear = Vec::new();
    for (when, store) in [("early", &early), ("late", &late)] {
        read_all_ways(store, EVENTS, async |what, seen, wanted| {
            assert_eq!(seen, wanted, "{what}");
            let (looked_at, sorted) = cost(&log).await;
            assert!(looked_at > 0, "{what}: the server counts nothing");
            let told = format!("{when}, {what}: {looked_at} of {blocks} blocks looked at, {sorted} written to sort");
            println!("{told}");
            if sorted > 0 || looked_at > 2 * blocks {
                dear.push(told);
            }
            log.run("select pg_stat_statements_reset()").await.unwrap();
        })
        .await;
    }
    assert_eq!(dear, Vec::<String>::new());
    early.close().await.unwrap();
    late.close().await.unwrap();
}
