//! Where commands on the same streams wait for the one among them that is being executed.

#[cfg(test)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::PoisonError;
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

/// A lobby per key, for as long as somebody leads there. Whoever enters an empty one leads, until he passes that on; the
/// others wait until the leader takes them along or until they lead.
#[derive(Debug)]
pub(super) struct Lobbies<K, T>(Mutex<HashMap<K, VecDeque<T>>>);

impl<K: Eq + Hash + Copy, T> Lobbies<K, T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Whether nobody leads yet, so that the caller does from now on: then `waiting` is not called. Callers wait for their
    /// answers, so a lobby is never larger than there are callers.
    #[must_use]
    pub(super) fn enter(&self, key: K, waiting: impl FnOnce() -> T) -> bool {
        let mut lobbies = self.lobbies();
        if let Some(lobby) = lobbies.get_mut(&key) {
            lobby.push_back(waiting());
            return false;
        }
        lobbies.insert(key, VecDeque::new());
        true
    }

    /// For the leader: the one who waits longest, to be taken along.
    pub(super) fn take(&self, key: &K) -> Option<T> {
        self.lobbies().get_mut(key)?.pop_front()
    }

    /// For the leader, who leads no longer: the one who does next. If nobody waits, the lobby is gone.
    pub(super) fn pass(&self, key: &K) -> Option<T> {
        let mut lobbies = self.lobbies();
        let next = lobbies.get_mut(key)?.pop_front();
        if next.is_none() {
            // Under the same lock as the look into it, or whoever entered in between would wait for ever.
            lobbies.remove(key);
        }
        next
    }

    /// For one who waits no longer.
    pub(super) fn leave(&self, key: &K, is_he: impl Fn(&T) -> bool) {
        if let Some(lobby) = self.lobbies().get_mut(key) {
            lobby.retain(|waiting| !is_he(waiting));
        }
    }

    fn lobbies(&self) -> MutexGuard<'_, HashMap<K, VecDeque<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of callers, one of whom gives up waiting.
#[cfg(test)]
mod model {
    use super::Lobbies;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Told {
        Nothing,
        Lead,
        Done,
        Left,
    }

    struct Seat(Mutex<Told>, Condvar);

    impl Seat {
        fn new() -> Arc<Self> {
            Arc::new(Self(Mutex::new(Told::Nothing), Condvar::new()))
        }

        /// Whether he was still there to be told.
        fn tell(&self, what: Told) -> bool {
            let mut told = self.0.lock().unwrap();
            if *told == Told::Left {
                return false;
            }
            *told = what;
            self.1.notify_one();
            true
        }

        fn wait(&self) -> Told {
            let mut told = self.0.lock().unwrap();
            while *told == Told::Nothing {
                told = self.1.wait(told).unwrap();
            }
            *told
        }

        /// What he was told before he could leave.
        fn leave(&self) -> Told {
            let mut told = self.0.lock().unwrap();
            std::mem::replace(&mut *told, Told::Left)
        }
    }

    struct World {
        lobbies: Lobbies<u8, Arc<Seat>>,
        leading: AtomicUsize,
        done: AtomicUsize,
    }

    impl World {
        fn lead(&self) {
            assert_eq!(self.leading.fetch_add(1, SeqCst), 0, "two lead in one lobby");
            self.done.fetch_add(1, SeqCst);
            while let Some(seat) = self.lobbies.take(&1) {
                if seat.tell(Told::Done) {
                    self.done.fetch_add(1, SeqCst);
                }
            }
            self.leading.fetch_sub(1, SeqCst);
            while let Some(seat) = self.lobbies.pass(&1) {
                if seat.tell(Told::Lead) {
                    return;
                }
            }
        }

        fn call(&self, patient: bool) {
            let mut seat = None;
            if self.lobbies.enter(1, || seat.insert(Seat::new()).clone()) {
                return self.lead();
            }
            let seat = seat.unwrap();
            let told = if patient { seat.wait() } else { seat.leave() };
            match told {
                Told::Lead => self.lead(),
                Told::Done | Told::Left => {}
                Told::Nothing => {
                    self.lobbies.leave(&1, |other| Arc::ptr_eq(other, &seat));
                    // He goes on by himself.
                    self.done.fetch_add(1, SeqCst);
                }
            }
        }
    }

    #[test]
    fn whoever_enters_is_done_once_and_nobody_is_left_behind() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let (leading, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let world = Arc::new(World { lobbies: Lobbies::new(), leading, done });
            let others = [true, false].map(|patient| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.call(patient))
            });
            world.call(true);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(world.done.load(SeqCst), 3, "commands that were done");
            assert!(world.lobbies.lobbies().is_empty(), "a lobby is left that nobody leads");
        });
    }
}
