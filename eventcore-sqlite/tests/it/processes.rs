//! Several processes on one file.

use crate::child::Child;
use crate::support::{Home, PATIENCE, append, stream};
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, EventFilter, EventReader, EventStore, LeadershipError, PageSize,
    ProjectionName, ProjectorCoordinator, ReadStreams, Timestamp,
};

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_append_to_one_file() {
    let home = Home::new();
    let store = home.open().await;
    let children = [Child::start("append 200", &home), Child::start("append 200", &home)];
    for n in 0..200 {
        append(&store, &format!("s-{}", n % 3), &n.to_string()).await.unwrap();
    }
    children.into_iter().for_each(Child::end);
    assert_eq!(store.head().await.unwrap().unwrap().get(), 600);
    let read = store.read_streams(ReadStreams::new((0..3).map(|n| stream(&format!("s-{n}")))).unwrap()).await.unwrap();
    assert_eq!(read.versions.iter().map(|version| version.get()).collect::<Vec<_>>(), [201, 201, 198]);
    let positions: Vec<_> = read.events.iter().map(|event| event.position().get()).collect();
    assert_eq!(positions, (1..=600).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_another_process_wakes_who_watches() {
    let home = Home::new();
    let store = home.open().await;
    let mut child = Child::start("append when told", &home);
    assert_eq!(child.line().as_deref(), Some("ready"));
    for expected in 1..=3 {
        let mut watch = store.watch_log();
        child.tell("append");
        // Nothing here reads before the watch wakes it.
        tokio::time::timeout(PATIENCE, watch.changed()).await.expect("the watch never woke").unwrap();
        let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
        assert_eq!(page.events.len(), expected);
        assert_eq!(child.line().as_deref(), Some("appended"));
    }
    child.end();
}

#[tokio::test]
async fn an_append_of_this_process_wakes_at_once() {
    let home = Home::new();
    let store = home.open().await;
    let mut watch = store.watch_log();
    append(&store, "s", "1").await.unwrap();
    tokio::time::timeout(PATIENCE, watch.changed()).await.expect("the watch never woke").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leadership_of_a_killed_process_is_free_and_its_epoch_fenced() {
    let home = Home::new();
    let store = home.open().await;
    let name = ProjectionName::new("p").unwrap();
    let mut child = Child::start("lead", &home);
    assert_eq!(child.line().as_deref(), Some("1"));
    assert!(matches!(store.acquire(&name).await, Err(LeadershipError::Busy { .. })));
    child.kill();

    let leadership = store.acquire(&name).await.unwrap();
    assert_eq!(leadership.epoch().get(), 2);
    let checkpoint = Checkpoint {
        name: name.clone(),
        cursor: None,
        filter: EventFilter::all().identity(),
        lineage: store.lineage(),
        updated_at: Timestamp::now(),
    };
    let stale = store.save_checkpoint(&checkpoint, eventcore::Epoch::new(1)).await.unwrap_err();
    assert!(matches!(stale, CheckpointError::Fenced { epoch, current, .. } if (epoch.get(), current.get()) == (1, 2)));
    assert_eq!(store.load_checkpoint(&name).await.unwrap(), None);
    store.save_checkpoint(&checkpoint, leadership.epoch()).await.unwrap();

    // Another process gets it once it is given up.
    store.release(leadership).await.unwrap();
    let mut child = Child::start("lead", &home);
    assert_eq!(child.line().as_deref(), Some("3"));
    child.end();
    assert_eq!(store.acquire(&name).await.unwrap().epoch().get(), 4);
}

#[tokio::test]
async fn names_that_no_file_could_have_can_be_led() {
    let home = Home::new();
    let store = home.open().await;
    let names = ["../../etc/x", "a/b", "NUL", "é?*", &"x".repeat(255)];
    for name in names {
        let name = ProjectionName::new(name).unwrap();
        let _leading = store.acquire(&name).await.unwrap();
        assert!(matches!(store.acquire(&name).await, Err(LeadershipError::Busy { .. })));
    }
    let locks = std::fs::read_dir(home.path().parent().unwrap()).unwrap();
    let locks = locks.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".lock")).count();
    assert_eq!(locks, names.len());
}
