//! The group-commit writer over an appender whose behaviour the test chooses.

use eventcore::{
    AppendRequest, Appended, EventId, EventMetadata, EventStoreError, GroupAppender, GroupFailure, GroupLimits,
    NewEvent, Payload, QueueCapacity, SchemaVersion, StreamId, Timestamp, Verdict, WriterHandle, spawn_writer,
    spawn_writer_thread,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, mpsc};

/// Reports every group it is given, and commits it when the test lets it.
struct Gated {
    groups: mpsc::UnboundedSender<Vec<usize>>,
    gate: Arc<Semaphore>,
    limits: GroupLimits,
    /// What the next groups answer, from the last to the first; then all is well.
    failures: Vec<Option<GroupFailure>>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl GroupAppender for Gated {
    async fn append_group(&mut self, group: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
        self.groups.send(group.iter().map(AppendRequest::size).collect()).unwrap();
        self.gate.acquire().await.unwrap().forget();
        match self.failures.pop().flatten() {
            Some(failure) => Err(failure),
            None => Ok(group.iter().map(verdict).collect()),
        }
    }

    fn limits(&self) -> GroupLimits {
        self.limits
    }
}

/// Requests of 666 bytes are refused, as an oversized event would be.
fn verdict(request: &AppendRequest) -> Verdict {
    if request.size() == 666 {
        return Err(EventStoreError::AppendTooLarge { size: 666, limit: 665 });
    }
    Ok(Appended { events: Vec::new(), recorded_at: Timestamp::now(), replayed: false })
}

struct Bench {
    groups: mpsc::UnboundedReceiver<Vec<usize>>,
    gate: Arc<Semaphore>,
    dropped: Arc<AtomicUsize>,
    appender: Option<Gated>,
}

fn bench(limits: GroupLimits, failures: Vec<Option<GroupFailure>>) -> Bench {
    let (sender, groups) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let dropped = Arc::new(AtomicUsize::new(0));
    let appender = Gated { groups: sender, gate: Arc::clone(&gate), limits, failures, dropped: Arc::clone(&dropped) };
    Bench { groups, gate, dropped, appender: Some(appender) }
}

fn request(bytes: usize) -> AppendRequest {
    let event = NewEvent {
        id: EventId::generate(),
        event_type: "test.Bytes".parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::binary(vec![0; bytes]),
        metadata: EventMetadata::empty(),
    };
    AppendRequest::builder().event(StreamId::new("s").unwrap(), event).build().unwrap()
}

fn send(writer: &WriterHandle, bytes: usize) -> tokio::task::JoinHandle<Verdict> {
    let writer = writer.clone();
    tokio::spawn(async move { writer.append(request(bytes)).await })
}

/// Lets every task run until it waits. Single-threaded runtime: nothing else can move meanwhile.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn capacity(requests: u32) -> QueueCapacity {
    QueueCapacity::try_new(requests).unwrap()
}

#[tokio::test]
async fn what_waits_during_a_commit_becomes_the_next_group() {
    let mut bench = bench(GroupLimits::default(), Vec::new());
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(100));
    let first = send(&writer, 1);
    assert_eq!(bench.groups.recv().await.unwrap(), [1]);
    let rest: Vec<_> = (2..=6).map(|bytes| send(&writer, bytes)).collect();
    settle().await;
    bench.gate.add_permits(2);
    assert_eq!(bench.groups.recv().await.unwrap(), [2, 3, 4, 5, 6]);
    first.await.unwrap().unwrap();
    for answer in rest {
        answer.await.unwrap().unwrap();
    }
}

/// A runtime's worker runs first whom it woke last: the writer, by the first caller that comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_that_were_answered_together_come_back_as_one_group() {
    let mut bench = bench(GroupLimits::default(), Vec::new());
    let (writer, join) = spawn_writer(bench.appender.take().unwrap(), capacity(100));
    bench.gate.add_permits(1_000);
    // From the worker, so that nobody is woken by another thread in between.
    let callers = tokio::spawn(async move {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        writer.append(request(1)).await.unwrap();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
    callers.await.unwrap();
    join.join().await.unwrap();
    let mut groups = Vec::new();
    while let Ok(group) = bench.groups.try_recv() {
        groups.push(group.len());
    }
    assert_eq!(groups.iter().sum::<usize>(), 160);
    assert!(groups.len() <= 30, "some of one caller each: {groups:?}");
}

#[tokio::test]
async fn a_request_of_its_own_failing_leaves_its_neighbours_alone() {
    let mut bench = bench(GroupLimits::default(), Vec::new());
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(100));
    let answers: Vec<_> = [1, 666, 2].map(|bytes| send(&writer, bytes)).into_iter().collect();
    bench.gate.add_permits(3);
    let verdicts: Vec<_> = [answers].into_iter().flatten().map(|answer| async { answer.await.unwrap() }).collect();
    let mut failed = Vec::new();
    for verdict in verdicts {
        failed.push(verdict.await.is_err());
    }
    assert_eq!(failed, [false, true, false]);
}

#[tokio::test]
async fn groups_keep_their_limits_of_requests_and_bytes() {
    let mut bench = bench(GroupLimits { requests: 3, bytes: 100 }, Vec::new());
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(100));
    let answers: Vec<_> = [10, 10, 10, 10, 90, 500, 10].map(|bytes| send(&writer, bytes)).into_iter().collect();
    settle().await;
    bench.gate.add_permits(100);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let mut groups = Vec::new();
    while let Ok(group) = bench.groups.try_recv() {
        groups.push(group);
    }
    assert_eq!(groups, [vec![10, 10, 10], vec![10, 90], vec![500], vec![10]]);
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_loses_none() {
    let mut bench = bench(GroupLimits { requests: 1, bytes: 1000 }, Vec::new());
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(1));
    let in_hand = send(&writer, 1);
    bench.groups.recv().await.unwrap();
    let queued = send(&writer, 2);
    settle().await;
    let waiting = send(&writer, 3);
    settle().await;
    // One is with the appender, one is in the queue, and the third cannot enter until there is room.
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let fourth = send(&writer, 4);
    bench.gate.add_permits(10);
    for answer in [in_hand, queued, fourth] {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(bench.groups.recv().await.unwrap(), [2]);
    assert_eq!(
        bench.groups.recv().await.unwrap(),
        [4],
        "the request that gave up before it was queued must not appear"
    );
}

#[tokio::test]
async fn a_group_that_failed_without_effect_answers_all_of_it_and_the_writer_goes_on() {
    let failure = GroupFailure::Nothing(EventStoreError::unavailable("busy"));
    let mut bench = bench(GroupLimits::default(), vec![Some(failure)]);
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(10));
    let answers = [send(&writer, 1), send(&writer, 2)];
    bench.gate.add_permits(10);
    for answer in answers {
        let error = answer.await.unwrap().unwrap_err();
        assert!(matches!(error, EventStoreError::Unavailable { .. }), "{error:?}");
    }
    writer.append(request(3)).await.unwrap();
}

#[tokio::test]
async fn a_failed_sync_poisons_the_writer() {
    let failure = GroupFailure::Unknown(EventStoreError::storage("fsync: input/output error"));
    let mut bench = bench(GroupLimits::default(), vec![Some(failure)]);
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(10));
    bench.gate.add_permits(10);
    let unknown = writer.append(request(1)).await.unwrap_err();
    assert!(matches!(unknown, EventStoreError::OutcomeUnknown { .. }), "{unknown:?}");
    for bytes in [2, 3] {
        let poisoned = writer.append(request(bytes)).await.unwrap_err();
        let EventStoreError::Poisoned { source } = &poisoned else { panic!("{poisoned:?}") };
        let cause = std::error::Error::source(&**source).unwrap();
        assert_eq!(cause.to_string(), "fsync: input/output error");
    }
    assert_eq!(bench.groups.try_recv().unwrap(), [1]);
    assert!(bench.groups.try_recv().is_err(), "nothing reaches the storage after the failed sync");
}

#[tokio::test]
async fn an_appender_that_gives_too_few_verdicts_is_not_believed() {
    struct Silent;

    impl GroupAppender for Silent {
        async fn append_group(&mut self, _: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
            Ok(Vec::new())
        }
    }

    let (writer, _join) = spawn_writer(Silent, capacity(10));
    let error = writer.append(request(1)).await.unwrap_err();
    assert!(matches!(error, EventStoreError::OutcomeUnknown { .. }), "{error:?}");
}

#[tokio::test]
async fn closing_finishes_the_queue_and_refuses_what_comes_later() {
    let mut bench = bench(GroupLimits { requests: 1, bytes: 1000 }, Vec::new());
    let (writer, join) = spawn_writer(bench.appender.take().unwrap(), capacity(10));
    let answers: Vec<_> = (1..=5).map(|bytes| send(&writer, bytes)).collect();
    settle().await;
    writer.close();
    assert!(matches!(writer.append(request(9)).await, Err(EventStoreError::Closed)));
    bench.gate.add_permits(10);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    join.clone().join().await.unwrap();
    join.join().await.unwrap();
    assert_eq!(bench.dropped.load(Ordering::SeqCst), 1, "the storage is given back before the end is told");
}

#[tokio::test]
async fn without_handles_the_writer_finishes_its_queue_and_ends() {
    let mut bench = bench(GroupLimits::default(), Vec::new());
    let (writer, join) = spawn_writer_thread(bench.appender.take().unwrap(), capacity(10), "writer").unwrap();
    let answer = send(&writer, 1);
    bench.groups.recv().await.unwrap();
    drop(writer);
    answer.abort();
    bench.gate.add_permits(1);
    join.join().await.unwrap();
}

#[tokio::test]
async fn a_reply_that_nobody_waits_for_changes_nothing() {
    let mut bench = bench(GroupLimits::default(), Vec::new());
    let (writer, _join) = spawn_writer(bench.appender.take().unwrap(), capacity(10));
    let gone = send(&writer, 1);
    assert_eq!(bench.groups.recv().await.unwrap(), [1]);
    gone.abort();
    bench.gate.add_permits(10);
    writer.append(request(2)).await.unwrap();
}

#[tokio::test]
async fn a_panicking_appender_leaves_the_outcome_unknown_and_the_writer_closed() {
    struct Panicking;

    impl GroupAppender for Panicking {
        async fn append_group(&mut self, _: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
            panic!("on purpose")
        }
    }

    let (writer, join) = spawn_writer(Panicking, capacity(10));
    let unknown = writer.append(request(1)).await.unwrap_err();
    assert!(matches!(unknown, EventStoreError::OutcomeUnknown { .. }), "{unknown:?}");
    assert!(matches!(join.join().await, Err(EventStoreError::Closed)));
    assert!(matches!(writer.append(request(2)).await, Err(EventStoreError::Closed)));
}
