//! Who is about to come, comes along.

use std::future::poll_fn;
use std::task::Poll;

/// Lets callers that can run do so before a group of at most `most` is taken from their queue: `waiting` tells how many wait
/// beside the first one, who was taken already.
///
/// Callers that were answered together come back together. The first of them wakes whoever takes groups, and a runtime lets
/// the one who was woken last run first: it would take a group of one, and the others wait for that. So it goes behind those
/// who can run already, and again for as long as more have come and the group is not full. It waits for nobody who has
/// something else to wait for, and a caller who is alone loses a microsecond or two, or as long as others compute without a
/// pause while no other thread of the runtime is free.
///
/// ```
/// # async fn example(mut queue: tokio::sync::mpsc::Receiver<u32>) {
/// while let Some(first) = queue.recv().await {
///     eventcore::let_callers_come(100, || queue.len()).await;
///     let mut group = vec![first];
///     while group.len() < 100 && let Ok(next) = queue.try_recv() {
///         group.push(next);
///     }
///     // ..
/// }
/// # }
/// ```
pub async fn let_callers_come(most: usize, waiting: impl Fn() -> usize) {
    /// More are not worth the wait of those who have come.
    const ROUNDS: usize = 16;
    let mut before = waiting();
    for _ in 0..ROUNDS {
        if before + 1 >= most {
            return;
        }
        go_behind().await;
        let now = waiting();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Lets every task run that can. Unlike `tokio::task::yield_now`, which may leave a task behind on a thread that has much to do,
/// it stands in the queue from which other threads take what they can do.
async fn go_behind() {
    let mut gone = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
