//! Looking at a cancellation before every event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Whether a token was cancelled, for the price of reading an atomic; the token itself takes a lock each time.
pub(super) struct CancelFlag {
    token: CancellationToken,
    woken: Arc<Woken>,
    /// Wakes as long as it lives.
    _waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

struct Woken(AtomicBool);

impl CancelFlag {
    pub(super) fn new(token: CancellationToken) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let mut waiting = Box::pin(token.clone().cancelled_owned());
        let waker = Waker::from(Arc::clone(&woken));
        if let Poll::Ready(()) = waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
            woken.wake_by_ref();
        }
        Self { token, woken, _waiting: waiting }
    }

    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(super) fn is_set(&self) -> bool {
        self.woken.0.load(Ordering::Acquire) && self.token.is_cancelled()
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_set_as_soon_as_its_token_is_cancelled() {
        let parent = CancellationToken::new();
        let child = parent.child_token();
        let flags = [CancelFlag::new(parent.clone()), CancelFlag::new(child.clone())];
        assert!(flags.iter().all(|flag| !flag.is_set()));
        parent.cancel();
        assert!(flags.iter().all(CancelFlag::is_set));
        assert!(CancelFlag::new(child).is_set(), "cancelled before it was made");
    }
}
