//! A follower of the log that ends once everything is written and seen.

use crate::Failure;
use eventcore::{Backend, EventFilter, PageSize, RecordedEvent};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the last events may take to become visible after the last answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows every event to `see` until `all_written` is cancelled and the end of the log is reached.
pub(super) async fn follow(
    store: Arc<dyn Backend>,
    page_size: PageSize,
    all_written: CancellationToken,
    mut see: impl FnMut(&RecordedEvent) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    let mut log = store.watch_log();
    let mut after = None;
    let mut patience = None;
    loop {
        // Asked before the page is read: what is acknowledged by then has to be at or below the head.
        let finished = all_written.is_cancelled();
        let head = if finished { store.head().await? } else { None };
        let page = store.read_page(&EventFilter::all(), after, page_size).await?;
        after = page.position().or(after);
        page.events.iter().try_for_each(&mut see)?;
        if finished && after >= head {
            return Ok(());
        }
        if !page.more {
            // Whatever it saw until then is compared, and what is missing told.
            if finished && patience.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Ok(());
            }
            // A wake-up may come late; the follower also looks by itself.
            let _ = tokio::time::timeout(Duration::from_millis(50), log.changed()).await;
        }
    }
}
