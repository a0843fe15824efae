//! Followers under attack: stalls, rollbacks, stopped processes and a crash, beside readers that get the protocol wrong.

use crate::fixtures::{Log, PATIENCE, append_to, stream};
use crate::processes::Process;
use eventcore::{EventFilter, EventReader, EventStore, ExpectedVersion, GlobalPosition, PageSize, StreamPrefix};
use eventcore_postgres::PostgresEventStore;
use eventcore_testing::postgres::Cluster;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How many events are written under attack.
const EVENTS: i64 = 3_000;

/// A reader past the store, in SQL, that pauses between its steps so that whatever can go wrong does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Takes whatever is visible behind its cursor.
    Naive,
    /// Asks who is registered before it asks for the head.
    LocksFirst,
    /// All in one statement, and so in the snapshot of its beginning.
    OneStatement,
    /// In the snapshot of its first statement.
    RepeatableRead,
    /// As the library does.
    Right,
}

impl Reader {
    const ALL: [Self; 5] = [Self::Naive, Self::LocksFirst, Self::OneStatement, Self::RepeatableRead, Self::Right];

    fn statements(self, log: &Log) -> Vec<String> {
        let head = "set attack.head = ''; select set_config('attack.head', (select case when is_called then last_value else \
                    last_value - 1 end from @.positions)::text, false)";
        let lows = "select set_config('attack.low', coalesce((select min(objid::bigint) from pg_locks where locktype = 'advisory' \
                    and classid = '@.positions'::regclass::oid and objsubid = 2)::text, '9999999'), false)";
        let pause = "select pg_sleep(0.01)";
        let page = "select position, event_id from @.events where position > CURSOR and position <= \
                    least(current_setting('attack.head')::bigint, current_setting('attack.low')::bigint) order by position";
        let steps: &[&str] = match self {
            Self::Naive => &["select position, event_id from @.events where position > CURSOR order by position"],
            Self::LocksFirst => &[lows, pause, head, page],
            Self::OneStatement => &["with paused as materialized (select pg_sleep(0.01)), \
                head as materialized (select case when is_called then last_value else last_value - 1 end as at from paused, @.positions), \
                low as materialized (select (select min(objid::bigint) from pg_locks where locktype = 'advisory' \
                and classid = '@.positions'::regclass::oid and objsubid = 2) as at from head) \
                select position, event_id from @.events, head, low where position > CURSOR and position <= least(head.at, low.at) \
                order by position"],
            Self::RepeatableRead => &["begin isolation level repeatable read", head, pause, lows, page, "commit"],
            Self::Right => &[head, pause, lows, pause, page],
        };
        steps.iter().map(|step| log.sql(step)).collect()
    }

    /// Reads until the log's end is told and reached. `progress` is its cursor, and how many events it saw.
    async fn run(self, log: Log, end: watch::Receiver<Option<i64>>, progress: Progress) -> Vec<(i64, Uuid)> {
        let (mut seen, mut cursor): (Vec<(i64, Uuid)>, i64) = (Vec::new(), 0);
        while end.borrow().is_none_or(|end| cursor < end) {
            // The server crashes on the way.
            let Ok(mut connection) = PgConnection::connect(&log.url).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while end.borrow().is_none_or(|end| cursor < end) {
                let Ok(page) = self.page(&log, &mut connection, cursor).await else { break };
                cursor = page.last().map_or(cursor, |(position, _)| *position);
                seen.extend(page);
                *progress.lock().unwrap() = (cursor, i64::try_from(seen.len()).unwrap());
            }
        }
        seen
    }

    async fn page(
        self,
        log: &Log,
        connection: &mut PgConnection,
        cursor: i64,
    ) -> Result<Vec<(i64, Uuid)>, sqlx::Error> {
        let mut page = Vec::new();
        for statement in self.statements(log) {
            let statement = statement.replace("CURSOR", &cursor.to_string());
            for row in sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection).await? {
                if let (Ok(position), Ok(id)) = (row.try_get(0), row.try_get(1)) {
                    page.push((position, id));
                }
            }
        }
        Ok(page)
    }
}

type Progress = Arc<Mutex<(i64, i64)>>;

/// Waits until the naive reader has missed something: else there is no attack.
async fn caught(log: &Log, naive: &Progress) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (cursor, seen) = *naive.lock().unwrap();
        let visible = log.number(&format!("select count(*) from @.events where position <= {cursor}")).await;
        if visible > seen {
            return;
        }
        assert!(Instant::now() < deadline, "nobody is caught");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Follows the log with the library until the log's end is told and reached.
fn follow(
    store: PostgresEventStore,
    filter: EventFilter,
    page: u32,
    end: watch::Receiver<Option<i64>>,
) -> JoinHandle<Vec<(i64, Uuid)>> {
    tokio::spawn(async move {
        let (mut seen, mut after): (Vec<(i64, Uuid)>, Option<GlobalPosition>) = (Vec::new(), None);
        let position = |after: Option<GlobalPosition>| after.map_or(0, |p| i64::try_from(p.get()).unwrap());
        let mut log = store.watch_log();
        while end.borrow().is_none_or(|end| position(after) < end) {
            let page =
                store.read_page(&filter, after, PageSize::try_new(page).unwrap()).await.expect("a follower failed");
            after = page.position().or(after);
            seen.extend(page.events.iter().map(|e| (position(Some(e.position())), e.id().as_uuid())));
            if !page.more {
                drop(tokio::time::timeout(Duration::from_millis(50), log.changed()).await);
            }
        }
        seen
    })
}

/// How many events a reader missed, saw twice, and saw out of order.
fn compare(seen: &[(i64, Uuid)], wanted: &HashSet<(i64, Uuid)>) -> (usize, usize, usize) {
    let known: HashSet<_> = seen.iter().copied().collect();
    let out_of_order = seen.windows(2).filter(|pair| pair[0].0 >= pair[1].0).count();
    (wanted.difference(&known).count(), seen.len() - known.len(), out_of_order)
}

async fn grown(log: &Log, to: i64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = log.number("select count(*) from @.events").await;
        if now >= to {
            return;
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "the log does not grow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_miss_nothing_under_attack() {
    let cluster = Cluster::start(&[]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let store = PostgresEventStore::connect(&log.url, log.config().max_connections(8)).await.unwrap();
    log.run("create table @.elsewhere (id int)").await.unwrap();
    let mut processes = [Process::start("attack", &log, 0), Process::start("attack", &log, 1)];

    let (tell_end, end) = watch::channel(None);
    let rare = || EventFilter::all().types(["test.Rare".parse().unwrap()]);
    let prefix = || EventFilter::all().stream_prefix(StreamPrefix::new("left_").unwrap());
    let exact = || EventFilter::all().streams((0..5).map(|n| crate::fixtures::stream(format!("right-0-{n}"))));
    let kinds = [
        ("all, pages of 1", EventFilter::all(), 1),
        ("all, pages of 7", EventFilter::all(), 7),
        ("all, pages of 1,000", EventFilter::all(), 1_000),
        ("a rare type, pages of 1", rare(), 1),
        ("a prefix, pages of 7", prefix(), 7),
        ("five streams, pages of 7", exact(), 7),
    ];
    let followers: Vec<_> =
        kinds.iter().map(|(_, filter, page)| follow(store.clone(), filter.clone(), *page, end.clone())).collect();
    let progress: [Progress; 5] = Default::default();
    let mut told = progress.iter();
    let readers = Reader::ALL.map(|reader| {
        let progress = told.next().cloned().unwrap_or_default();
        tokio::spawn(reader.run(log.clone(), end.clone(), progress))
    });

    // A session that wrote elsewhere, holds the oldest snapshot of the server, and does nothing more.
    let mut idle = log.connection().await;
    let mut elsewhere = idle.begin_with("begin isolation level repeatable read").await.unwrap();
    sqlx::query(AssertSqlSafe(log.sql("insert into @.elsewhere values (1)"))).execute(&mut *elsewhere).await.unwrap();

    processes.iter_mut().for_each(Process::go);
    grown(&log, EVENTS / 4).await;
    processes[0].signal("-STOP");
    grown(&log, EVENTS / 4 + 100).await;
    processes[0].signal("-CONT");
    grown(&log, EVENTS / 2).await;
    drop(elsewhere);
    cluster.crash().unwrap();
    cluster.start_again().unwrap();
    grown(&log, EVENTS).await;
    caught(&log, &progress[0]).await;
    for process in &mut processes {
        process.finish();
    }

    let head = store.head().await.unwrap().map(|p| i64::try_from(p.get()).unwrap());
    tell_end.send_replace(head);
    let mut connection = log.connection().await;
    let rows = sqlx::query(AssertSqlSafe(log.sql("select position, event_id, stream, type from @.events")))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let stored: Vec<_> = rows
        .iter()
        .map(|row| {
            let (stream, kind): (String, String) = (row.get(2), row.get(3));
            ((row.get(0), row.get(1)), crate::fixtures::stream(stream), kind.parse().unwrap())
        })
        .collect();
    for (follower, (name, filter, _)) in followers.into_iter().zip(&kinds) {
        let wanted =
            stored.iter().filter(|(_, stream, kind)| filter.matches(stream, kind)).map(|(at, _, _)| *at).collect();
        let seen = tokio::time::timeout(PATIENCE, follower).await.expect("a follower does not arrive").unwrap();
        let (missed, duplicated, out_of_order) = compare(&seen, &wanted);
        println!(
            "{name}: {} wanted, missed {missed}, duplicated {duplicated}, out of order {out_of_order}",
            wanted.len()
        );
        assert_eq!((missed, duplicated, out_of_order), (0, 0, 0), "{name}");
        assert!(!wanted.is_empty(), "{name}");
    }
    let everything: HashSet<_> = stored.iter().map(|(at, _, _)| *at).collect();
    for (reader, kind) in readers.into_iter().zip(Reader::ALL) {
        let seen = tokio::time::timeout(PATIENCE, reader).await.expect("a reader does not arrive").unwrap();
        let (missed, duplicated, out_of_order) = compare(&seen, &everything);
        println!(
            "{kind:?}: missed {missed} of {}, duplicated {duplicated}, out of order {out_of_order}",
            everything.len()
        );
        // How often the other wrong ones are caught depends on the machine; below it does not.
        match kind {
            Reader::Right => assert_eq!((missed, duplicated, out_of_order), (0, 0, 0), "{kind:?}"),
            Reader::Naive => assert!(missed > 0, "{kind:?}"),
            _ => {}
        }
    }
    store.close().await.unwrap();
}

/// When the first of two appends, which draws the lower position, ends while a reader is at work.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Before the reader's step of this number.
    Before(usize),
    /// Within its only step.
    Within,
}

/// Lets a reader read once while two appends go on, the first of which is open from before the step `open` until `end` and
/// the other one committed all the while, and then once more. Tells how many events it stepped over.
async fn stepped_over(reader: Reader, log: &Log, store: &PostgresEventStore, open: usize, end: End) -> i64 {
    let begin = log.number("select coalesce(max(position), 0) from @.events").await;
    let mut writer = log.connection().await;
    let mut reading = log.connection().await;
    let mut gate = log.connection().await;
    let pause = "pg_sleep(0.01)";
    let steps: Vec<_> = reader.statements(log).into_iter().filter(|step| step != &format!("select {pause}")).collect();
    let mut seen: Vec<i64> = Vec::new();
    for (turn, index) in [0, 1].into_iter().flat_map(|turn| (0..=steps.len()).map(move |index| (turn, index))) {
        if turn == 0 && index == open {
            sqlx::raw_sql("begin").execute(&mut writer).await.unwrap();
            let first = append_to(&stream("first"), ExpectedVersion::Any);
            store.append_in_transaction(&mut writer, first).await.unwrap();
            store.append(append_to(&stream("second"), ExpectedVersion::Any)).await.unwrap();
        }
        if turn == 0 && matches!(end, End::Before(step) if step == index) {
            sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
        }
        let Some(step) = steps.get(index) else { continue };
        let cursor = seen.last().copied().unwrap_or(begin);
        // Where it would sleep it waits at a gate that is open, except where the append ends within the step.
        let step = step.replace("CURSOR", &cursor.to_string()).replace(pause, "pg_advisory_lock_shared(1, 1)");
        let within = turn == 0 && matches!(end, End::Within);
        if within {
            sqlx::raw_sql("select pg_advisory_lock(1, 1)").execute(&mut gate).await.unwrap();
        }
        let stepping = tokio::spawn(async move {
            let rows = sqlx::raw_sql(AssertSqlSafe(step)).fetch_all(&mut reading).await.unwrap();
            (reading, rows)
        });
        if within {
            let waiting = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1 and not granted";
            let deadline = Instant::now() + PATIENCE;
            while log.number(waiting).await == 0 {
                assert!(Instant::now() < deadline, "the reader does not come to the gate");
            }
            sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
            sqlx::raw_sql("select pg_advisory_unlock(1, 1)").execute(&mut gate).await.unwrap();
        }
        let (back, rows) = stepping.await.unwrap();
        reading = back;
        // Other steps bring one column, or text.
        seen.extend(rows.iter().filter(|row| row.len() == 2).filter_map(|row| row.try_get::<i64, _>(0).ok()));
    }
    let there = log.number(&format!("select count(*) from @.events where position > {begin}")).await;
    assert_eq!(there, 2);
    there - i64::try_from(seen.len()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_reader_steps_over_an_event_and_the_right_one_never_does() {
    // A server of its own, for the sake of the lock that is the gate.
    let cluster = Cluster::start(&[("fsync", "off")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let store = log.open().await.unwrap();
    for (reader, open, end) in [
        (Reader::Naive, 0, End::Before(1)),
        (Reader::LocksFirst, 1, End::Before(3)),
        (Reader::OneStatement, 0, End::Within),
        (Reader::RepeatableRead, 0, End::Before(2)),
    ] {
        assert_eq!(stepped_over(reader, &log, &store, open, end).await, 1, "{reader:?}");
    }
    for open in 0..=3 {
        for end in open..=3 {
            let missed = stepped_over(Reader::Right, &log, &store, open, End::Before(end)).await;
            assert_eq!(missed, 0, "opened before step {open}, ended before step {end}");
        }
    }
    store.close().await.unwrap();
}
