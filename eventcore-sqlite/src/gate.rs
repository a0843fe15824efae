//! Whose turn it is to write, among the threads of this process.

use eventcore::EventStoreError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Mutex as FairMutex, OwnedMutexGuard, watch};
use tokio::time::timeout;

/// SQLite lets one connection write at a time, and who waits for it polls. Within the process this gate hands the turn
/// over in the order of asking, so that neither the writer nor a projection's pages starve.
pub(crate) struct Gate {
    turn: Arc<FairMutex<()>>,
    patience: Duration,
    page: Mutex<Option<OpenPage>>,
}

/// The permission to write, until it is dropped.
pub(crate) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

/// A turn that a page of a projection has.
pub(crate) struct PageTurn {
    _turn: Turn,
    /// Dropped with the turn, which tells those who wait for the end of the page.
    _open: watch::Sender<()>,
}

#[derive(Clone)]
struct OpenPage {
    caller: Caller,
    ended: watch::Receiver<()>,
}

/// Who runs: the task, or the thread for what runs outside of a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Task(tokio::task::Id),
    Thread(std::thread::ThreadId),
}

#[derive(Debug, Error)]
enum TurnTooLong {
    #[error("another write of this process took longer than {0:?}")]
    Write(Duration),
    /// Who spawned a task cannot be found out, so this is not [`EventStoreError::WithinProjection`]: it may be just slow.
    #[error(
        "a page of an exactly-once projection took longer than {0:?}: its `apply` is slow, or waits for a task that it \
         spawned and that waits for the page to end"
    )]
    Page(Duration),
}

impl Gate {
    /// How long an append waits for a page of its own task to end. A task can run a projection and other work side by
    /// side, and then the page does end; it does not if the append is made from within the page.
    const OWN_PAGE: Duration = Duration::from_millis(500);

    pub(crate) fn new(patience: Duration) -> Self {
        Self { turn: Arc::default(), patience, page: Mutex::default() }
    }

    /// Waits for the turn.
    pub(crate) async fn enter(&self) -> Result<Turn, EventStoreError> {
        if let Ok(guard) = Arc::clone(&self.turn).try_lock_owned() {
            return Ok(Turn { _guard: guard });
        }
        match timeout(self.patience, Arc::clone(&self.turn).lock_owned()).await {
            Ok(guard) => Ok(Turn { _guard: guard }),
            Err(_) if self.open_page().is_some() => Err(EventStoreError::unavailable(TurnTooLong::Page(self.patience))),
            Err(_) => Err(EventStoreError::unavailable(TurnTooLong::Write(self.patience))),
        }
    }

    /// Waits for the turn, for a page that the caller is about to open.
    pub(crate) async fn enter_page(&self) -> Result<PageTurn, EventStoreError> {
        self.leave_own_page().await?;
        let turn = self.enter().await?;
        let (open, ended) = watch::channel(());
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = Some(OpenPage { caller: Caller::current(), ended });
        Ok(PageTurn { _turn: turn, _open: open })
    }

    /// Makes sure that the caller is not inside of a page, where a write would wait for itself.
    pub(crate) async fn leave_own_page(&self) -> Result<(), EventStoreError> {
        let Some(mut ended) = self.own_page() else { return Ok(()) };
        // The sender never sends, so this ends with the page.
        match timeout(Self::OWN_PAGE, ended.changed()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EventStoreError::WithinProjection),
        }
    }

    fn own_page(&self) -> Option<watch::Receiver<()>> {
        self.open_page().filter(|page| page.caller == Caller::current()).map(|page| page.ended)
    }

    fn open_page(&self) -> Option<OpenPage> {
        let page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        page.as_ref().filter(|page| page.ended.has_changed().is_ok()).cloned()
    }
}

impl Caller {
    fn current() -> Self {
        tokio::task::try_id().map_or_else(|| Self::Thread(std::thread::current().id()), Self::Task)
    }
}
