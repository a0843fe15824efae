//! The connection breaks between the commit and its answer.

use crate::fixtures::{CountUp, Log, PATIENCE, event_of, stream};
use crate::proxy::Proxy;
use std::time::{Duration, Instant};

use eventcore::{
    AppendRequest, CommandClaim, CommandContext, CommandExecutor, CommandId, EventReader, EventStore, EventStoreError,
    ExpectedVersion, Fingerprint, ProjectionName, ProjectorCoordinator, StreamId, StreamVersion,
};
use eventcore_postgres::{PostgresConfig, PostgresEventStore};
use sqlx::postgres::PgPoolOptions;

/// A store whose connections go through a proxy.
async fn behind_a_proxy() -> (Log, Proxy, PostgresEventStore) {
    let (log, proxy, config, url) = proxied().await;
    let store = PostgresEventStore::connect(&url, config).await.unwrap();
    (log, proxy, store)
}

pub(crate) async fn proxied() -> (Log, Proxy, PostgresConfig, String) {
    let log = Log::new().unwrap();
    let (login, place) = log.url.rsplit_once('@').unwrap();
    let (server, database) = place.split_once('/').unwrap();
    let proxy = Proxy::start(server.to_owned()).await;
    let url = format!("{login}@127.0.0.1:{}/{database}", proxy.port);
    let config = log.config();
    (log, proxy, config, url)
}

fn append(stream: &StreamId, expected: ExpectedVersion, marker: &str) -> AppendRequest {
    let event = event_of("test.Counted", &format!("{{\"marker\":\"{marker}\"}}"));
    AppendRequest::builder().expect(stream.clone(), expected).event(stream.clone(), event).build().unwrap()
}

#[tokio::test]
async fn an_append_at_an_expected_version_recognises_its_own_events() {
    let (log, proxy, store) = behind_a_proxy().await;
    let a = stream("a");
    for (version, expected) in
        [ExpectedVersion::NoStream, ExpectedVersion::Exact(StreamVersion::try_new(1).unwrap())].into_iter().enumerate()
    {
        proxy.lose_answer_to("lose-me");
        let appended = store.append(append(&a, expected, "lose-me")).await.unwrap();
        assert!(proxy.has_lost());
        assert!(!appended.replayed);
        assert_eq!(appended.events[0].version.get(), version as u64 + 1);
        let position = i64::try_from(appended.events[0].position.get()).unwrap();
        assert_eq!(log.number("select max(position) from @.events").await, position);
    }
    // Somebody else's events in the way are a conflict, lost answer or not.
    proxy.lose_answer_to("lose-me-too");
    let conflict = store.append(append(&a, ExpectedVersion::NoStream, "lose-me-too")).await;
    assert!(matches!(&conflict, Err(EventStoreError::Conflict(c)) if c.actual.get() == 2), "{conflict:?}");
    assert!(proxy.has_lost());
    assert_eq!(log.number("select count(*) from @.events").await, 2);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn an_append_with_a_command_id_has_one_effect_and_answers_it() {
    let (log, proxy, store) = behind_a_proxy().await;
    let a = stream("a");
    let claim = CommandClaim {
        command_id: CommandId::new("command-1").unwrap(),
        fingerprint: Fingerprint::of("CountUp", [&a]),
    };
    let event = event_of("test.Counted", "{\"marker\":\"lose-me\"}");
    let request = AppendRequest::builder().event(a.clone(), event).command(claim.clone()).build().unwrap();
    proxy.lose_answer_to("lose-me");
    let appended = store.append(request.clone()).await.unwrap();
    assert!(proxy.has_lost());
    assert!(!appended.replayed, "it is this request that wrote it");
    let again = store.append(request).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.events, appended.events);

    // A command that decided to do nothing has a receipt all the same.
    let nothing = CommandClaim { command_id: CommandId::new("lose-this").unwrap(), ..claim };
    let request = AppendRequest::builder().expect(a, ExpectedVersion::StreamExists).command(nothing).build().unwrap();
    proxy.lose_answer_to("lose-this");
    assert!(store.append(request).await.unwrap().events.is_empty());
    assert!(proxy.has_lost());
    assert_eq!(log.number("select count(*) from @.events").await, 1);
    assert_eq!(log.number("select count(*) from @.receipts").await, 2);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up() {
    let (log, proxy, config, url) = proxied().await;
    // The server's own limit is that of the pool, which has none: the store gives an answer up that the server is not late
    // with, so that no statement is cut off that a busy machine takes its time for.
    let pool = PgPoolOptions::new().max_connections(6).connect(&url).await.unwrap();
    let config = config.statement_timeout(Duration::from_millis(1)).notifications(false);
    let store = PostgresEventStore::with_pool(pool, config).await.unwrap();
    let a = stream("a");
    proxy.silence_after("lose-me");
    let appending = store.append(append(&a, ExpectedVersion::NoStream, "lose-me"));
    let appended = tokio::time::timeout(PATIENCE, appending).await.expect("it is waited for").unwrap();
    assert!(proxy.has_lost());
    assert_eq!((appended.events[0].version.get(), appended.replayed), (1, false));
    store.append(append(&a, ExpectedVersion::StreamExists, "other")).await.unwrap();
    assert_eq!(log.number("select count(*) from @.events").await, 2);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_recognised_stays_unknown() {
    let (log, proxy, config, url) = proxied().await;
    // The pool's own patience stays: a connection may take its time.
    let pool = PgPoolOptions::new().max_connections(6).connect(&url).await.unwrap();
    let store = PostgresEventStore::with_pool(pool, config.retry_for(Duration::from_secs(1))).await.unwrap();
    // It is stored, it is in its own way when it is sent again, and then nobody can be asked whose events these are.
    proxy.bar("select event_id, version, position");
    proxy.lose_answer_to("lose-me");
    let unknown = store.append(append(&stream("a"), ExpectedVersion::NoStream, "lose-me")).await;
    assert!(proxy.has_lost());
    assert!(matches!(unknown, Err(EventStoreError::OutcomeUnknown { .. })), "{unknown:?}");
    assert_eq!(log.number("select count(*) from @.events").await, 1);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_notification_that_gets_no_answer_does_not_silence_the_beats() {
    let (log, proxy, config, url) = proxied().await;
    let store = PostgresEventStore::connect(&url, config.beat_interval(Duration::from_secs(1))).await.unwrap();
    let counts = ProjectionName::new("counts").unwrap();
    let mut leadership = store.acquire(&counts).await.unwrap();
    // It listens on one of the two connections, so that beats and notifications share the other one.
    let _following = store.watch_log();
    let deadline = Instant::now() + PATIENCE;
    while !store.health().await.unwrap().listening {
        assert!(Instant::now() < deadline, "nobody listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.silence_after("pg_notify");
    while !proxy.has_lost() {
        assert!(Instant::now() < deadline, "nobody was notified");
        store.append(append(&stream("a"), ExpectedVersion::Any, "x")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The beat that may have been under way, and one more.
    let beat = "select beat from @.leases";
    let mut before = log.number(beat).await;
    while log.number(beat).await < before + 2 {
        assert!(Instant::now() < deadline, "the beats are silent");
        tokio::time::sleep(Duration::from_millis(20)).await;
        // A machine that stands still costs the leadership. If the beats are silent, there is no other one.
        if leadership.lost().is_cancelled() {
            if let Ok(again) = store.acquire(&counts).await {
                leadership = again;
            }
            before = log.number(beat).await;
        }
    }
    store.release(leadership).await.unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn an_append_that_nothing_identifies_is_told_to_be_unknown() {
    let (log, proxy, store) = behind_a_proxy().await;
    proxy.lose_answer_to("lose-me");
    let unknown = store.append(append(&stream("a"), ExpectedVersion::Any, "lose-me")).await;
    assert!(matches!(unknown, Err(EventStoreError::OutcomeUnknown { .. })), "{unknown:?}");
    // It is not tried again, and the store goes on.
    assert_eq!(log.number("select count(*) from @.events").await, 1);
    store.append(append(&stream("a"), ExpectedVersion::Any, "other")).await.unwrap();
    assert_eq!(store.stream_version(&stream("a")).await.unwrap().get(), 2);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_command_with_or_without_an_id_has_one_effect() {
    let (log, proxy, store) = behind_a_proxy().await;
    let executor = CommandExecutor::new(&store);
    let counter = stream("lose-this-counter");
    for round in 1..=4_u64 {
        let id = (round % 2 == 0).then(|| CommandId::new(format!("command-{round}")).unwrap());
        let context = id.map_or_else(CommandContext::new, |id| CommandContext::new().command_id(id));
        // The first message with the stream's name is the read, which is simply repeated; later rounds lose the append.
        proxy.lose_answer_to(if round <= 2 { "lose-this-counter" } else { "test.Counted" });
        let outcome = executor.execute_with(context, CountUp { counter: counter.clone() }).await.unwrap();
        assert!(proxy.has_lost());
        assert!(!outcome.replayed());
        assert_eq!(outcome.events()[0].version.get(), round);
        assert_eq!(store.stream_version(&counter).await.unwrap().get(), round);
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// The server tells an error before it has rolled back, so what is sent again at once would meet its own locks.
#[tokio::test]
async fn a_statement_that_failed_is_over_before_it_is_sent_again() {
    let (log, proxy, store) = behind_a_proxy().await;
    log.run(
        "create sequence @.tries; create function @.fail() returns trigger language plpgsql as $$ begin \
         if nextval('@.tries') = 1 then raise exception 'later' using errcode = '40001'; end if; return new; end $$; \
         create trigger fail before insert on @.events for each row execute function @.fail()",
    )
    .await
    .unwrap();
    // A second connection stands ready.
    let streams = [stream("b"), stream("c")];
    tokio::join!(store.stream_version(&streams[0]), store.stream_version(&streams[1])).0.unwrap();
    proxy.delay_the_end_of("fail-once");
    store.append(append(&stream("a"), ExpectedVersion::NoStream, "fail-once")).await.unwrap();
    assert!(proxy.has_lost());
    assert_eq!(log.number("select last_value from @.tries").await, 2);
    assert!(!proxy.was_overtaken(), "it was sent again before the server was done with it");
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
