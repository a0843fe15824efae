//! Leaders that die or stop, in processes of their own.

use crate::fixtures::{Log, PATIENCE, append_to, stream};
use crate::pages::Tally;
use crate::processes::Process;
use eventcore::{CheckpointStore, EventStore, ExpectedVersion, ProjectionName};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Waits until one of the processes leads, and tells which and with which epoch.
fn leader(processes: &[(usize, Process)], above: u64) -> (usize, u64) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for (number, process) in processes {
            while let Some(line) = process.next_by(Instant::now() + Duration::from_millis(5)) {
                let epoch = line.strip_prefix("leading ").and_then(|epoch| epoch.parse().ok());
                if let Some(epoch) = epoch.filter(|epoch| *epoch > above) {
                    return (*number, epoch);
                }
            }
        }
    }
    panic!("nobody leads");
}

fn position_of(processes: &[(usize, Process)], number: usize) -> usize {
    processes.iter().position(|(n, _)| *n == number).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_or_stopped_is_replaced_and_counts_stay_exact() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    let mut processes: Vec<_> = (0..3).map(|number| (number, Process::start("project", &log, number))).collect();
    let stop = CancellationToken::new();
    let writing = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            let mut round = 0;
            while !stop.is_cancelled() {
                store.append(append_to(&stream(format!("s-{}", round % 11)), ExpectedVersion::Any)).await.unwrap();
                round += 1;
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        }
    });
    processes.iter_mut().for_each(|(_, process)| process.go());
    let (first, epoch) = leader(&processes, 0);

    // Killed.
    let (_, killed) = processes.remove(position_of(&processes, first));
    killed.signal("-KILL");
    let since = Instant::now();
    let (second, epoch) = leader(&processes, epoch);
    println!("leader killed: another leads after {:.1} s", since.elapsed().as_secs_f64());

    // Stopped in the middle of a page, and continued when it has been replaced.
    let (_, stopped) = processes.remove(position_of(&processes, second));
    while !stopped.next().starts_with("applying") {}
    stopped.signal("-STOP");
    let since = Instant::now();
    let (third, third_epoch) = leader(&processes, epoch);
    println!("leader stopped: another leads after {:.1} s", since.elapsed().as_secs_f64());
    stopped.signal("-CONT");
    assert_ne!(second, third);

    // It notices, and waits in line again.
    processes.push((second, stopped));
    let name = ProjectionName::new("tally").unwrap();
    let reached = store.load_checkpoint(&name).await.unwrap().and_then(|c| c.cursor);
    let deadline = Instant::now() + PATIENCE;
    while store.load_checkpoint(&name).await.unwrap().and_then(|c| c.cursor) == reached {
        assert!(Instant::now() < deadline, "the new leader does nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    writing.await.unwrap();
    while log.number(Tally::WRONG).await > 0 {
        assert!(Instant::now() < deadline, "the read model does not become that of a single process");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let epoch = u64::try_from(log.number("select epoch from @.leases where name = 'tally'").await).unwrap();
    // Leaders beat once a second here, so a machine that stands still for longer may have changed them more often.
    assert!(epoch >= third_epoch, "epoch {epoch} after {third_epoch}");
    for (number, mut process) in processes {
        let said = process.finish();
        assert!(said.iter().any(|line| line == "ended Ok(())"), "process {number}: {:?}", said.last());
    }
    assert_eq!(log.number(Tally::WRONG).await, 0);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
