//! The server dies under load and comes back.

use crate::fixtures::{CountBoth, Log, PATIENCE, stream};
use eventcore::{CommandExecutor, EventFilter, EventReader, EventStore, PageSize};
use eventcore_testing::postgres::Cluster;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_append_outlives_a_crash_and_executors_go_on() {
    let cluster = Cluster::start(&[]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    let store = log.open().await.unwrap();
    let stop = CancellationToken::new();
    let done = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (store, stop, done) = (store.clone(), stop.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let executor = CommandExecutor::new(&store).retry(crate::processes::patient());
                let mut acknowledged = Vec::new();
                let mut round = 0;
                while !stop.is_cancelled() {
                    let (one, two) = (stream(format!("own-{task}")), stream(format!("shared-{}", round % 5)));
                    // Without a command id: what was lost is found again by its events.
                    let outcome = executor.execute(CountBoth { one, two }).await.expect("a command failed for good");
                    acknowledged.extend(outcome.events().iter().map(|e| (e.stream_id.clone(), e.version, e.position)));
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                acknowledged
            })
        })
        .collect();
    let reached = async |more: usize| {
        let target = done.load(Ordering::Relaxed) + more;
        tokio::time::timeout(PATIENCE, async {
            while done.load(Ordering::Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("the commands do not go on");
    };
    for _ in 0..2 {
        reached(100).await;
        cluster.crash().unwrap();
        cluster.start_again().unwrap();
    }
    reached(100).await;
    stop.cancel();
    let mut acknowledged = HashSet::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }

    let mut stored = HashSet::new();
    let mut appends: HashMap<_, usize> = HashMap::new();
    let (mut after, head) = (None, store.head().await.unwrap());
    while after < head {
        let page = store.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
        after = page.position().or(after);
        for event in page.events {
            let task = event.stream_id().as_str().starts_with("own-");
            *appends.entry((task, ())).or_default() += 1;
            stored.insert((event.stream_id().clone(), event.version(), event.position()));
        }
    }
    assert_eq!(acknowledged.difference(&stored).count(), 0, "acknowledged, and not stored");
    // Every command went on until it was acknowledged, so nothing else is stored: no half one, and none twice.
    assert_eq!(stored.difference(&acknowledged).count(), 0, "stored, and never acknowledged");
    assert_eq!(appends[&(true, ())], appends[&(false, ())], "an append was stored by half");
    println!("two crashes: {} events acknowledged, all stored, none twice", acknowledged.len());
    store.close().await.unwrap();
}
