//! One event per append from many stores, beside the least that a conditional insert can cost. A figure, not a promise.

use crate::fixtures::{Log, append_to, stream};
use eventcore::{EventStore, ExpectedVersion, StreamVersion};
use eventcore_postgres::PostgresEventStore;
use eventcore_testing::postgres::Cluster;
use sqlx::AssertSqlSafe;
use std::time::Instant;

const SESSIONS: usize = 64;
const ROUNDS: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_stores_beside_raw_inserts() {
    let cluster = Cluster::start(&[]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let mut stores = Vec::new();
    for _ in 0..SESSIONS {
        let config = log.config().max_connections(2).notifications(false);
        stores.push(PostgresEventStore::connect(&log.url, config).await.unwrap());
    }
    log.run("create table @.raw (position bigserial primary key, stream text, version bigint, payload json, unique (stream, version))")
        .await
        .unwrap();
    let mut rates = [0.0, 0.0];
    // In turns, so that both see the same machine.
    for turn in 0..4 {
        let begun = Instant::now();
        let tasks: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(index, store)| {
                let (store, log) = (store.clone(), log.clone());
                tokio::spawn(async move {
                    if turn % 2 == 0 {
                        for version in 0..ROUNDS {
                            let expected = StreamVersion::try_new(version).unwrap();
                            let stream = stream(format!("s-{turn}-{index}"));
                            store.append(append_to(&stream, ExpectedVersion::Exact(expected))).await.unwrap();
                        }
                    } else {
                        raw(&log, store.pool(), &format!("s-{turn}-{index}")).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        rates[turn % 2] += SESSIONS as f64 * ROUNDS as f64 / begun.elapsed().as_secs_f64() / 2.0;
    }
    let [appends, inserts] = rates;
    println!("{SESSIONS} stores: {appends:.0} appends/s; raw inserts: {inserts:.0}/s; ratio {:.2}", appends / inserts);
    assert_eq!(log.number("select count(*) from @.events").await, log.number("select count(*) from @.raw").await);
    for store in stores {
        store.close().await.unwrap();
    }
}

async fn raw(log: &Log, pool: &sqlx::PgPool, stream: &str) {
    let sql = log.sql(
        "insert into @.raw (stream, version, payload) select $1, $2 + 1, '{}' \
         where coalesce((select max(version) from @.raw where stream = $1), 0) = $2",
    );
    let mut connection = pool.acquire().await.unwrap();
    for version in 0..ROUNDS {
        let version = i64::try_from(version).unwrap();
        let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(stream).bind(version);
        assert_eq!(query.execute(&mut *connection).await.unwrap().rows_affected(), 1);
    }
}
