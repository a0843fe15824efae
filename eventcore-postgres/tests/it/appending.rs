//! Appends that meet locks, other transactions and each other.

use crate::fixtures::{Log, PATIENCE, append_to, event, event_of, stream};
use eventcore::{
    AppendRequest, EventFilter, EventReader, EventStore, EventStoreError, ExpectedVersion, InvalidAppend, PageSize,
    Payload,
};
use eventcore_postgres::PostgresEventStore;
use sqlx::{AssertSqlSafe, Connection};
use std::time::Duration;

/// A page of everything, from the beginning.
async fn all(store: &PostgresEventStore) -> Vec<eventcore::RecordedEvent> {
    store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap().events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_lock_holds_up_nobody_else() {
    let log = Log::new().unwrap();
    let store =
        PostgresEventStore::connect(&log.url, log.config().lock_timeout(Duration::from_millis(300))).await.unwrap();
    let (held, free) = (stream("held"), stream("free"));
    let mut connection = log.connection().await;
    let mut transaction = connection.begin().await.unwrap();
    store.append_in_transaction(&mut transaction, append_to(&held, ExpectedVersion::NoStream)).await.unwrap();

    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (store, held) = (store.clone(), held.clone());
            tokio::spawn(async move { store.append(append_to(&held, ExpectedVersion::Any)).await })
        })
        .collect();
    for version in 1..=20 {
        let appended = store.append(append_to(&free, ExpectedVersion::Any)).await.unwrap();
        assert_eq!(appended.events[0].version.get(), version);
    }
    // They wait for as long as they may, and nothing has happened to them.
    for append in waiting {
        let error = append.await.unwrap().unwrap_err();
        assert!(matches!(error, EventStoreError::Unavailable { .. }), "{error:?}");
    }
    // Who has more time gets his turn.
    let patient = log.open().await.unwrap();
    let waiting = tokio::spawn({
        let (patient, held) = (patient.clone(), held.clone());
        async move { patient.append(append_to(&held, ExpectedVersion::Any)).await }
    });
    transaction.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().events[0].version.get(), 2);
    patient.close().await.unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn an_append_joins_the_transaction_of_the_caller() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    log.run("create table @.orders (id int)").await.unwrap();
    let a = stream("a");
    let mut connection = log.connection().await;
    let order = log.sql("insert into @.orders values (1)");

    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(order.as_str())).execute(&mut *transaction).await.unwrap();
    store.append_in_transaction(&mut transaction, append_to(&a, ExpectedVersion::NoStream)).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(store.stream_version(&a).await.unwrap().get(), 0);

    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(order.as_str())).execute(&mut *transaction).await.unwrap();
    store.append_in_transaction(&mut transaction, append_to(&a, ExpectedVersion::NoStream)).await.unwrap();
    // What it sees of its own is judged, and a conflict leaves the transaction as it was.
    let conflict = store.append_in_transaction(&mut transaction, append_to(&a, ExpectedVersion::NoStream)).await;
    assert!(matches!(conflict, Err(EventStoreError::Conflict(_))), "{conflict:?}");
    let mut watch = store.watch_log();
    transaction.commit().await.unwrap();
    store.wake_followers();
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    assert_eq!((all(&store).await.len(), log.number("select count(*) from @.orders").await), (1, 1));

    let mut transaction = connection.begin_with("begin isolation level repeatable read").await.unwrap();
    let refused = store.append_in_transaction(&mut transaction, append_to(&a, ExpectedVersion::Any)).await;
    assert!(matches!(refused, Err(EventStoreError::Storage { .. })), "{refused:?}");
    transaction.rollback().await.unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn who_reads_pages_finds_what_wake_followers_was_told_of() {
    let log = Log::new().unwrap();
    // What a store has found out is young for an hour, so that nobody looks because of the time. Nobody watches.
    let config = log.config().poll_interval(Duration::from_secs(3_600));
    let store = PostgresEventStore::connect(&log.url, config).await.unwrap();
    let mut connection = log.connection().await;
    let mut after = None;
    for round in 1..=3 {
        let end = async || store.read_page(&EventFilter::all(), after, PageSize::default()).await;
        assert!(end().await.unwrap().events.is_empty());
        let mut transaction = connection.begin().await.unwrap();
        let request = append_to(&stream("a"), ExpectedVersion::Any);
        store.append_in_transaction(&mut transaction, request).await.unwrap();
        transaction.commit().await.unwrap();
        store.wake_followers();
        // From the beginning, where there is something older to show, and from the end.
        assert_eq!(all(&store).await.len(), round);
        let page = end().await.unwrap();
        assert_eq!(page.events.len(), 1);
        after = page.position();
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn only_appenders_hold_followers_back_and_health_tells_for_how_long() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    log.run("create table @.elsewhere (id int)").await.unwrap();
    let (mut idle, mut appending) = (log.connection().await, log.connection().await);

    // A session that wrote elsewhere, holds the oldest snapshot of the server, and does nothing more.
    let mut elsewhere = idle.begin_with("begin isolation level repeatable read").await.unwrap();
    sqlx::query(AssertSqlSafe(log.sql("insert into @.elsewhere values (1)"))).execute(&mut *elsewhere).await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    assert_eq!(all(&store).await.len(), 1);
    assert_eq!(store.health().await.unwrap().oldest_registration, None);

    let mut open = appending.begin().await.unwrap();
    store.append_in_transaction(&mut open, append_to(&stream("b"), ExpectedVersion::Any)).await.unwrap();
    let beyond = store.append(append_to(&stream("c"), ExpectedVersion::Any)).await.unwrap();
    assert_eq!(all(&store).await.len(), 1, "what is behind an append under way is not shown");
    let health = store.health().await.unwrap();
    assert!(health.oldest_registration.is_some(), "{health:?}");
    assert_eq!(health.head, Some(beyond.events[0].position));
    assert!(health.horizon < health.head, "{health:?}");

    // A rollback says nothing to anybody; the tail finds it out by itself.
    let mut watch = store.watch_log();
    open.rollback().await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while all(&store).await.len() < 2 {
        assert!(std::time::Instant::now() < deadline, "followers are held back by nobody");
        tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    }
    elsewhere.rollback().await.unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_prepared_transaction_holds_followers_back_until_it_ends() {
    let cluster =
        eventcore_testing::postgres::Cluster::start(&[("fsync", "off"), ("max_prepared_transactions", "2")]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let store = log.open().await.unwrap();
    let mut connection = log.connection().await;
    sqlx::query("begin").execute(&mut connection).await.unwrap();
    store.append_in_transaction(&mut connection, append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    sqlx::query("prepare transaction 'forgotten'").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    store.append(append_to(&stream("b"), ExpectedVersion::Any)).await.unwrap();
    assert_eq!(all(&store).await.len(), 0, "the prepared event stands before it");
    assert!(store.health().await.unwrap().oldest_registration.is_some());
    log.run("commit prepared 'forgotten'").await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while all(&store).await.len() < 2 {
        assert!(std::time::Instant::now() < deadline, "followers are held back by nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let names: Vec<_> = all(&store).await.iter().map(|e| e.stream_id().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_its_neighbours_are_not() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let mut tasks = Vec::new();
    for payload in ["{}", "{", "[1, 2]", "{\"a\": \"\u{0}\"}", "null", "", "\"\\ud800\"", "1e400"] {
        let store = store.clone();
        let request = AppendRequest::builder().event(stream("a"), event_of("test.Counted", payload)).build().unwrap();
        tasks.push((payload, tokio::spawn(async move { store.append(request).await })));
    }
    let not_text = eventcore::NewEvent { payload: Payload::json(vec![0xff]), ..event() };
    let request = AppendRequest::builder().event(stream("a"), not_text).build().unwrap();
    let refused = store.append(request).await;
    let malformed = |e: &EventStoreError| matches!(e, EventStoreError::Invalid(InvalidAppend::MalformedJson { .. }));
    assert!(refused.as_ref().is_err_and(malformed), "{refused:?}");
    let mut stored = 0;
    for (payload, task) in tasks {
        let good = serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok();
        let appended = task.await.unwrap();
        assert_eq!(appended.is_ok(), good, "{payload}: {appended:?}");
        stored += u64::from(good);
        assert!(appended.is_ok() || appended.as_ref().is_err_and(malformed), "{payload}: {appended:?}");
    }
    assert_eq!(store.stream_version(&stream("a")).await.unwrap().get(), stored);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn what_only_the_server_refuses_does_not_harm_its_neighbours() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    // As a stack of the server would overflow, at a depth that no test should try.
    log.run("alter table @.events add constraint picky check (type <> 'test.Picky')").await.unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|index| {
            let store = store.clone();
            let kind = if index % 10 == 3 { "test.Picky" } else { "test.Counted" };
            let request =
                AppendRequest::builder().event(stream(format!("s-{index}")), event_of(kind, "{}")).build().unwrap();
            tokio::spawn(async move { (index, store.append(request).await) })
        })
        .collect();
    for task in tasks {
        let (index, appended) = task.await.unwrap();
        assert_eq!(appended.is_err(), index % 10 == 3, "{index}: {appended:?}");
    }
    assert_eq!(log.number("select count(*) from @.events").await, 36);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_group_too_large_for_the_server_s_locks_is_halved() {
    let settings = [("fsync", "off"), ("max_connections", "20"), ("max_locks_per_transaction", "10")];
    let cluster = eventcore_testing::postgres::Cluster::start(&settings).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let store = log.open().await.unwrap();
    let request = |first: usize| {
        (first..first + 300)
            .fold(AppendRequest::builder(), |request, n| request.event(stream(format!("s-{n}")), event()))
            .build()
            .unwrap()
    };
    // The first one keeps the writer busy while the others gather behind it.
    let tasks: Vec<_> = (0..20)
        .map(|index| {
            let (store, request) = (store.clone(), request(index * 300));
            tokio::spawn(async move { store.append(request).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(log.number("select count(*) from @.events").await, 6_000);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_append_survives_a_session_that_does_not_wait_for_the_disk() {
    let log = Log::new().unwrap();
    let url = format!("{}?options=-c%20synchronous_commit=off", log.url);
    let store = PostgresEventStore::connect(&url, log.config()).await.unwrap();
    log.run(
        "create table @.seen (setting text); create function @.look() returns trigger language plpgsql as \
             $$ begin insert into @.seen values (current_setting('synchronous_commit')); return null; end $$; \
             create trigger look after insert on @.events for each statement execute function @.look()",
    )
    .await
    .unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    assert_eq!(log.number("select count(*) from @.seen where setting = 'on'").await, 1);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn what_the_server_would_have_tried_again_is_tried_again() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    // The first two tries of each fail, and a sequence remembers that although they are rolled back.
    for (code, name) in [("40001", "serialization"), ("40P01", "deadlock"), ("55P03", "lock")] {
        log.run(&format!(
            "create sequence @.{name}; create function @.{name}() returns trigger language plpgsql as $$ begin \
             if new.type = 'test.{name}' and nextval('@.{name}') <= 2 then raise exception 'later' using errcode = '{code}'; end if; \
             return new; end $$; create trigger {name} before insert on @.events for each row execute function @.{name}()"
        ))
        .await
        .unwrap();
    }
    for kind in ["serialization", "deadlock"] {
        let event = event_of(&format!("test.{kind}"), "{}");
        let request = AppendRequest::builder().event(stream("a"), event).build().unwrap();
        store.append(request).await.unwrap();
        assert_eq!(log.number(&format!("select last_value from @.{kind}")).await, 3, "{kind}");
    }
    let event = event_of("test.lock", "{}");
    let refused = store.append(AppendRequest::builder().event(stream("a"), event).build().unwrap()).await;
    assert!(refused.as_ref().is_err_and(EventStoreError::is_transient), "{refused:?}");
    assert_eq!(store.stream_version(&stream("a")).await.unwrap().get(), 2);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
