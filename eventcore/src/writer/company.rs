//! Who is about to come, comes along.

/// Lets callers that can run do so before a group is taken from their queue, whose length is `waiting`.
///
/// Callers that were answered together come back together. The first of them wakes whoever takes groups, and a runtime lets
/// the one who was woken last run first: it would take a group of one, and the others wait for that. So it goes behind those
/// who can run already, and again for as long as more have come. It waits for nobody who has something else to wait for, and
/// a caller who is alone loses a microsecond or two.
///
/// ```
/// # async fn example(mut queue: tokio::sync::mpsc::Receiver<u32>) {
/// while let Some(first) = queue.recv().await {
///     eventcore::let_callers_come(|| queue.len()).await;
///     let mut group = vec![first];
///     while let Ok(next) = queue.try_recv() {
///         group.push(next);
///     }
///     // ..
/// }
/// # }
/// ```
pub async fn let_callers_come(waiting: impl Fn() -> usize) {
    /// More are not worth the wait of those who have come.
    const ROUNDS: usize = 16;
    let mut before = waiting();
    for _ in 0..ROUNDS {
        tokio::task::yield_now().await;
        let now = waiting();
        if now == before {
            return;
        }
        before = now;
    }
}
