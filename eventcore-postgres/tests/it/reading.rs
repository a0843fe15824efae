//! Reads that the contract suite does not see the inside of.

use crate::fixtures::{Log, PATIENCE, append_to, event, event_of, stream};
use eventcore::{
    AppendRequest, EventFilter, EventReader, EventStore, ExpectedVersion, GlobalPosition, PageSize, ReadStreams,
    StreamPrefix,
};
use sqlx::{AssertSqlSafe, Connection};

/// A log with many common events and few rare ones, made past the store.
async fn large_log() -> Log {
    let log = Log::new().unwrap();
    log.open().await.unwrap().close().await.unwrap();
    log.run(
        "insert into @.events (position, stream, version, event_id, type, schema_version, content_type, payload_json, recorded_at) \
         select i, 'common-' || i % 1000, (i - 1) / 1000 + 1, \
                (lpad(to_hex(i), 12, '0') || '7' || '0008' || lpad('', 15, '0'))::uuid, \
                case when i % 50000 = 0 or i = 500 then 'test.Rare' else 'test.Common' end, 1, 'application/json', '{}', now() \
         from generate_series(1, 250000) i; \
         select setval('@.positions', 250000); analyze @.events",
    )
    .await
    .unwrap();
    log
}

#[tokio::test]
async fn filters_are_found_by_their_indexes_and_windows_are_crossed() {
    let log = large_log().await;
    let store = log.open().await.unwrap();
    let rare = AppendRequest::builder().event(stream("a_rare"), event_of("test.Common", "{}")).build().unwrap();
    let last = store.append(rare).await.unwrap().events[0].position;
    let page_size = PageSize::try_new(2).unwrap();
    for (filter, wanted) in [
        (EventFilter::all().types(["test.Rare".parse().unwrap()]), 6),
        (EventFilter::all().stream_prefix(StreamPrefix::new("a_").unwrap()), 1),
        (EventFilter::all().streams([stream("common-7"), stream("a_rare")]), 251),
        (EventFilter::all().stream_prefix(StreamPrefix::new("common-77").unwrap()), 2_750),
        (EventFilter::all().stream_prefix(StreamPrefix::new("nothing").unwrap()), 0),
    ] {
        let (mut after, mut seen, mut pages): (Option<GlobalPosition>, Vec<_>, _) = (None, Vec::new(), 0);
        while after < Some(last) {
            let page = store.read_page(&filter, after, page_size).await.unwrap();
            assert!(page.position() > after, "{filter:?} does not move on");
            assert!(page.events.iter().all(|e| filter.matches(e.stream_id(), e.event_type())));
            seen.extend(page.events.iter().map(|e| e.position()));
            after = page.position();
            pages += 1;
        }
        assert_eq!(seen.len(), wanted, "{filter:?}");
        assert!(seen.is_sorted(), "{filter:?}");
        assert!(pages <= wanted / 2 + 5, "{filter:?}: {pages} pages");
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// Positions that were drawn in vain leave gaps, of any width.
#[tokio::test]
async fn a_gap_wider_than_a_window_is_crossed() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let mut positions = Vec::new();
    for gap in [0, 99_998, 250_000, 5_000_000_000_i64] {
        log.run(&format!("select setval('@.positions', nextval('@.positions') + {gap})")).await.unwrap();
        for _ in 0..3 {
            let appended = store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
            positions.push(appended.events[0].position);
        }
    }
    for size in [2, 3, 1_000] {
        let (mut after, mut seen) = (None, Vec::new());
        while after < positions.last().copied() {
            let page = store.read_page(&EventFilter::all(), after, PageSize::try_new(size).unwrap()).await.unwrap();
            assert!(page.position() > after, "pages of {size} do not move on");
            seen.extend(page.events.iter().map(|event| event.position()));
            after = page.position();
        }
        assert_eq!(seen, positions, "pages of {size}");
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// Wanted events are looked for near the cursor and then by type; both together fill one page.
#[tokio::test]
async fn a_page_found_near_and_far_is_no_larger_than_others() {
    const LARGE: usize = 1_000_000;
    let log = Log::new().unwrap();
    log.open().await.unwrap().close().await.unwrap();
    log.run(&format!(
        "insert into @.events (position, stream, version, event_id, type, schema_version, content_type, payload_bytes, recorded_at) \
         select i, 'stream-' || i, 1, (lpad(to_hex(i), 12, '0') || '7' || '0008' || lpad('', 15, '0'))::uuid, \
                case when i <= 7 or i > 5000 then 'test.Large' else 'test.Small' end, 1, 'application/octet-stream', \
                case when i <= 7 or i > 5000 then convert_to(repeat('x', {LARGE}), 'UTF8') else ''::bytea end, now() \
         from generate_series(1, 5010) i; \
         select setval('@.positions', 5010)"
    ))
    .await
    .unwrap();
    let store = log.open().await.unwrap();
    let filter = EventFilter::all().types(["test.Large".parse().unwrap()]);
    let page = store.read_page(&filter, None, PageSize::default()).await.unwrap();
    let bytes: usize = page.events.iter().map(|event| event.size()).sum();
    assert!(page.events.len() > 7 && page.more, "{} events", page.events.len());
    assert!(bytes <= PageSize::FULL_BYTES + LARGE, "{bytes} bytes");
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// The rows that the server looked at beyond what it answered, told by its own execution.
#[tokio::test]
async fn a_rare_type_is_read_by_its_index() {
    let log = large_log().await;
    let mut connection = log.connection().await;
    let plan = async |connection: &mut sqlx::PgConnection, sql: &str| {
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("explain {}", log.sql(sql)))).fetch_all(connection).await.unwrap();
        rows.join("\n")
    };
    let rare = "select k.position from unnest(array['test.Rare']) t(name) cross join lateral (select x.position from @.events x \
                where (x.type, x.position) > (t.name, 0) and (x.type, x.position) <= (t.name, 250000) order by x.type, x.position limit 1000) k";
    let told = plan(&mut connection, rare).await;
    assert!(told.contains("events_type_position") && !told.contains("Seq Scan"), "{told}");

    connection.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_that_share_a_statement_get_their_own_answers() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    for n in 0..30 {
        for _ in 0..=n {
            store.append(append_to(&stream(format!("s-{n}")), ExpectedVersion::Any)).await.unwrap();
        }
    }
    let reads: Vec<_> = (0..300)
        .map(|index| {
            let store = store.clone();
            let (n, m) = (index % 30, index * 7 % 31);
            tokio::spawn(async move {
                let request = ReadStreams::new([stream(format!("s-{n}")), stream(format!("s-{m}"))]).unwrap();
                (n, m, store.read_streams(request).await.unwrap())
            })
        })
        .collect();
    for read in reads {
        let (n, m, read) = read.await.unwrap();
        // There is no stream 30, and one named twice is read once.
        let version = |n: u64| if n == 30 { 0 } else { n + 1 };
        let expected = if n == m { vec![version(n)] } else { vec![version(n), version(m)] };
        assert_eq!(read.versions.iter().map(|v| v.get()).collect::<Vec<_>>(), expected);
        assert_eq!(read.events.len() as u64, expected.iter().sum::<u64>());
        assert!(read.events.is_sorted_by_key(|e| e.position()));
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// Another writer that registers while an append draws its positions holds the horizon in the middle of that append. Here
/// one is registered by hand, at every place within it.
#[tokio::test]
async fn a_page_may_end_within_an_append_that_is_there_as_a_whole() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let (a, b) = (stream("a"), stream("b"));
    let all = EventFilter::all();
    let mut after: Option<GlobalPosition> = None;
    for shown in 0..4_usize {
        // Registered below the position that comes after those shown.
        let mut other = log.connection().await;
        let register = "select pg_advisory_lock_shared('@.positions'::regclass::oid::bigint::bit(32)::integer, \
                        (coalesce(pg_sequence_last_value('@.positions'::regclass), 0) + OFFSET)::bit(32)::integer)";
        let register = log.sql(&register.replace("OFFSET", &shown.to_string()));
        sqlx::query(AssertSqlSafe(register)).execute(&mut other).await.unwrap();
        let request = [&a, &b, &a, &b].into_iter().fold(AppendRequest::builder(), |r, s| r.event(s.clone(), event()));
        let appended = store.append(request.build().unwrap()).await.unwrap();
        let positions: Vec<_> = appended.events.iter().map(|event| event.position).collect();

        // The streams show all of it, which is acknowledged; the log shows it up to there, for as long as that lasts.
        let read = store.read_streams(ReadStreams::new([a.clone(), b.clone()]).unwrap()).await.unwrap();
        let last: Vec<_> = read.events.iter().map(|e| e.position()).skip(shown * 4).collect();
        assert_eq!(last, positions);
        assert_eq!(store.head().await.unwrap(), positions.last().copied());
        for _ in 0..3 {
            let page = store.read_page(&all, after, PageSize::default()).await.unwrap();
            let seen: Vec<_> = page.events.iter().map(|e| e.position()).collect();
            assert_eq!(seen, positions[..shown]);
            assert_eq!((page.position(), page.more), (positions[..shown].last().copied(), false));
        }

        // The next page goes on with the rest, with nothing twice.
        let page = store.read_page(&all, after, PageSize::default()).await.unwrap();
        after = page.position().or(after);
        other.close().await.unwrap();
        let mut rest = Vec::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while after < positions.last().copied() {
            assert!(std::time::Instant::now() < deadline, "the log is held back by nobody");
            let page = store.read_page(&all, after, PageSize::default()).await.unwrap();
            after = page.position().or(after);
            rest.extend(page.events.iter().map(|e| e.position()));
        }
        assert_eq!(rest, positions[shown..]);
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
