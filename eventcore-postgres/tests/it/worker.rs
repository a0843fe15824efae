//! What the processes do that tests start: this test binary again, told its part by the environment.

use crate::fixtures::{CountUp, Log, append_to, event_of, stream};
use crate::pages::Tally;
use eventcore::{
    AppendRequest, CommandClaim, CommandExecutor, CommandId, EventStore, EventStoreError, ExpectedVersion, Fingerprint,
    ProjectionConfig, run_projection,
};
use eventcore_postgres::PostgresEventStore;
use sqlx::Connection;
use std::env;
use std::io::{BufRead, Write};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Says something to the test that started this process.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {line}").unwrap();
    out.flush().unwrap();
}

/// Waits for the next line of the test; `false` if it is gone or done.
fn told() -> bool {
    std::io::stdin().lock().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0)
}

/// Not a test of its own: where a process begins that a test started.
#[test]
fn process() {
    let Ok(part) = env::var("EVENTCORE_TEST_PART") else { return };
    let log = Log { url: env::var("LOG_URL").unwrap(), schema: env::var("LOG_SCHEMA").unwrap().parse().unwrap() };
    let number: u64 = env::var("NUMBER").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = log.config().max_connections(20);
        let config = match part.as_str() {
            "be killed" | "be killed with letters" => crate::kills::config(&log),
            // Those who lead are to be replaced while the test waits.
            "project" | "rebuild" => {
                config.beat_interval(Duration::from_secs(1)).page_idle_timeout(Duration::from_secs(3))
            }
            _ => config,
        };
        let store = PostgresEventStore::connect(&log.url, config).await.unwrap();
        say("ready");
        if !told() {
            return;
        }
        match part.as_str() {
            "attack" => attack(log, store, number).await,
            "skew" => skew(store, number).await,
            "race" => race(store).await,
            "hot" => hot(store).await,
            "project" => project(log, store).await,
            "rebuild" => {
                let told_to_end = async { tokio::task::spawn_blocking(|| while told() {}).await.unwrap() };
                crate::rebuilding::rebuild(log, store, told_to_end).await;
            }
            "be killed" => crate::kills::work(log, store).await,
            "be killed with letters" => crate::kills_letters::work(log, store).await,
            other => panic!("no such part: {other}"),
        }
        say("done");
    });
}

/// 16 writers of every kind until the test closes this process's input.
async fn attack(log: Log, store: PostgresEventStore, number: u64) {
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (log, store, stop) = (log.clone(), store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(number * 100 + writer);
                while !stop.is_cancelled() {
                    // Whatever fails in between (the server crashes on the way) is tried no more: others come.
                    if writer % 4 == 0 {
                        drop(stall(&log, &store, &mut random).await);
                    } else {
                        drop(store.append(some_append(&mut random, number)).await);
                        tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await;
                    }
                }
            })
        })
        .collect();
    tokio::task::spawn_blocking(|| while told() {}).await.unwrap();
    stop.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn some_append(random: &mut fastrand::Rng, number: u64) -> AppendRequest {
    let mut request = AppendRequest::builder();
    for _ in 0..random.usize(1..4) {
        let name = *random.choice(&["left", "right", "left_x"]).unwrap();
        let kind = *random.choice(&["test.Common", "test.Common", "test.Rare"]).unwrap();
        let stream = stream(format!("{name}-{number}-{}", random.u8(0..20)));
        request = request.event(stream, event_of(kind, "{}"));
    }
    request.build().unwrap()
}

/// An append in a transaction that then takes its time, and rolls back often.
async fn stall(log: &Log, store: &PostgresEventStore, random: &mut fastrand::Rng) -> Result<(), EventStoreError> {
    let mut connection = sqlx::PgConnection::connect(&log.url).await.map_err(EventStoreError::unavailable)?;
    for _ in 0..20 {
        let mut transaction = connection.begin().await.map_err(EventStoreError::unavailable)?;
        store.append_in_transaction(&mut transaction, some_append(random, random.get_seed())).await?;
        tokio::time::sleep(Duration::from_millis(random.u64(0..15))).await;
        let ended = if random.u8(0..3) == 0 { transaction.rollback().await } else { transaction.commit().await };
        ended.map_err(EventStoreError::unavailable)?;
        // Readers are to find nobody registered as often as somebody.
        tokio::time::sleep(Duration::from_millis(random.u64(0..80))).await;
    }
    Ok(())
}

/// Reads one stream of each pair and writes the other, as the other process does crosswise.
async fn skew(store: PostgresEventStore, number: u64) {
    const ROUNDS: u64 = 10_000;
    const TASKS: u64 = 100;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut won = 0;
                for round in (task..ROUNDS).step_by(TASKS as usize) {
                    let mut pair = [stream(format!("a-{round}")), stream(format!("b-{round}"))];
                    pair.rotate_left(number as usize);
                    let [written, read] = pair;
                    let request = AppendRequest::builder()
                        .expect(read, ExpectedVersion::NoStream)
                        .expect(written.clone(), ExpectedVersion::NoStream)
                        .event(written, event_of("test.Counted", "{}"))
                        .build()
                        .unwrap();
                    match store.append(request).await {
                        Ok(_) => won += 1,
                        Err(EventStoreError::Conflict(_)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    say(&format!("won {won}"));
}

/// Executes commands that the other process executes at the same time under the same ids.
async fn race(store: PostgresEventStore) {
    let counter = stream("counter");
    let tasks: Vec<_> = (0..200)
        .map(|round| {
            let (store, counter) = (store.clone(), counter.clone());
            tokio::spawn(async move {
                let claim = CommandClaim {
                    command_id: CommandId::new(format!("command-{round}")).unwrap(),
                    fingerprint: Fingerprint::of("CountUp", [&counter]),
                };
                let event = event_of("test.Counted", "{}");
                let request = AppendRequest::builder().event(counter, event).command(claim).build().unwrap();
                let appended = store.append(request).await.unwrap();
                (round, appended.events[0].position.get(), appended.replayed)
            })
        })
        .collect();
    for task in tasks {
        let (round, position, replayed) = task.await.unwrap();
        say(&format!("receipt {round} {position} {replayed}"));
    }
}

/// Commands and appends to one stream that everybody writes to.
async fn hot(store: PostgresEventStore) {
    let hot = stream("hot");
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (store, counter) = (store.clone(), hot.clone());
            tokio::spawn(async move {
                for _ in 0..10 {
                    if task == 0 {
                        let executor = CommandExecutor::new(&store).retry(crate::processes::patient());
                        executor.execute(CountUp { counter: counter.clone() }).await.unwrap();
                    } else {
                        store.append(append_to(&counter, ExpectedVersion::Any)).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// One of several instances that run one projection.
async fn project(log: Log, store: PostgresEventStore) {
    let stop = CancellationToken::new();
    let config = ProjectionConfig::default()
        .continuous()
        .wait_for_leadership()
        .page_size(eventcore::PageSize::try_new(20).unwrap())
        .shutdown(stop.clone());
    let running = tokio::spawn(async move {
        run_projection(Tally::of(&log.schema).slow(Duration::from_millis(3)).loud(), &store, config).await.map(drop)
    });
    tokio::task::spawn_blocking(|| while told() {}).await.unwrap();
    stop.cancel();
    say(&format!("ended {:?}", running.await.unwrap()));
}
