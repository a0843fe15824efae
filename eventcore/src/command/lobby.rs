//! Where commands on the same streams wait for the one among them that is being executed.

use super::cache::Digested;
#[cfg(test)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::PoisonError;
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

/// A lobby per key, for as long as somebody leads there. Whoever enters an empty one leads, until he passes that on; the
/// others wait until the leader takes them along or until they lead. From a leader of whom nothing is heard one of them
/// takes the lead over: then he has nobody behind him any more.
#[derive(Debug)]
pub(super) struct Lobbies<K, T>(Mutex<Inner<K, T>>);

#[derive(Debug)]
struct Inner<K, T> {
    /// By keys that are digests.
    lobbies: HashMap<K, Lobby<T>, Digested>,
    lines: u64,
}

#[derive(Debug)]
struct Lobby<T> {
    line: Line,
    waiting: VecDeque<T>,
}

/// Leaders of whom each had the lead from the one before him. None is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line(u64);

/// What became of one who entered.
#[derive(Debug)]
pub(super) enum Entry {
    Leads(Line),
    /// Behind a leader of this line.
    Waits(Line),
}

impl<K: Eq + Hash + Copy, T> Lobbies<K, T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { lobbies: HashMap::default(), lines: 0 }))
    }

    /// If nobody leads yet, the caller does from now on, and `waiting` is not called. Callers wait for their answers, so a
    /// lobby is never larger than there are callers.
    #[must_use]
    pub(super) fn enter(&self, key: K, waiting: impl FnOnce() -> T) -> Entry {
        let mut inner = self.inner();
        let line = inner.new_line();
        match inner.lobbies.entry(key) {
            Place::Occupied(mut lobby) => {
                let lobby = lobby.get_mut();
                lobby.waiting.push_back(waiting());
                Entry::Waits(lobby.line)
            }
            Place::Vacant(place) => {
                place.insert(Lobby { line, waiting: VecDeque::new() });
                Entry::Leads(line)
            }
        }
    }

    /// For the leader: the one who waits longest, to be taken along.
    pub(super) fn take(&self, key: &K, line: Line) -> Option<T> {
        self.inner().led_by(key, line)?.waiting.pop_front()
    }

    /// For the leader, who leads no longer: the one who does next. If nobody waits, the lobby is gone.
    pub(super) fn pass(&self, key: &K, line: Line) -> Option<T> {
        let mut inner = self.inner();
        let next = inner.led_by(key, line)?.waiting.pop_front();
        if next.is_none() {
            // Under the same lock as the look into it, or whoever entered in between would wait for ever.
            inner.lobbies.remove(key);
        }
        next
    }

    /// For one who waits and has heard nothing of the leader: whether he leads from now on. Not if somebody else has taken
    /// that over while he waited. `line` is the present one afterwards.
    #[must_use]
    pub(super) fn take_over(&self, key: &K, line: &mut Line) -> bool {
        let mut inner = self.inner();
        let new = inner.new_line();
        let Some(lobby) = inner.lobbies.get_mut(key) else { return false };
        let takes_over = lobby.line == *line;
        if takes_over {
            lobby.line = new;
        }
        *line = lobby.line;
        takes_over
    }

    /// For one who waits no longer.
    pub(super) fn leave(&self, key: &K, is_he: impl Fn(&T) -> bool) {
        if let Some(lobby) = self.inner().lobbies.get_mut(key) {
            lobby.waiting.retain(|waiting| !is_he(waiting));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, T> Inner<K, T> {
    const fn new_line(&mut self) -> Line {
        self.lines += 1;
        Line(self.lines)
    }

    /// Nothing for a leader from whom the lead was taken.
    fn led_by(&mut self, key: &K, line: Line) -> Option<&mut Lobby<T>> {
        self.lobbies.get_mut(key).filter(|lobby| lobby.line == line)
    }
}

/// The interleavings of callers, one of whom gives up waiting, with up to three preemptions.
#[cfg(test)]
mod model {
    use super::{Entry, Line, Lobbies};
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Told {
        Nothing,
        Lead(Line),
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

    /// What one does who loses his patience.
    #[derive(Clone, Copy, PartialEq)]
    enum Impatient {
        GoesAlone,
        TakesOver,
    }

    struct World {
        lobbies: Lobbies<u8, Arc<Seat>>,
        leading: AtomicUsize,
        done: AtomicUsize,
        impatient: Impatient,
    }

    impl World {
        fn lead(&self, line: Line) {
            let leading = self.leading.fetch_add(1, SeqCst);
            assert!(leading == 0 || self.impatient == Impatient::TakesOver, "two lead in one lobby");
            self.done.fetch_add(1, SeqCst);
            while let Some(seat) = self.lobbies.take(&1, line) {
                if seat.tell(Told::Done) {
                    self.done.fetch_add(1, SeqCst);
                }
            }
            self.leading.fetch_sub(1, SeqCst);
            self.pass(line);
        }

        fn pass(&self, line: Line) {
            while let Some(seat) = self.lobbies.pass(&1, line) {
                if seat.tell(Told::Lead(line)) {
                    return;
                }
            }
        }

        fn call(&self, patient: bool) {
            let mut seat = None;
            let mut line = match self.lobbies.enter(1, || seat.insert(Seat::new()).clone()) {
                Entry::Leads(line) => return self.lead(line),
                Entry::Waits(line) => line,
            };
            let seat = seat.unwrap();
            let mut taken = false;
            let told = match patient {
                true => seat.wait(),
                false => {
                    taken = self.impatient == Impatient::TakesOver && self.lobbies.take_over(&1, &mut line);
                    seat.leave()
                }
            };
            match told {
                Told::Nothing => {
                    self.lobbies.leave(&1, |other| Arc::ptr_eq(other, &seat));
                    if taken {
                        return self.lead(line);
                    }
                    // He goes on by himself.
                    self.done.fetch_add(1, SeqCst);
                }
                told => {
                    if taken {
                        self.pass(line);
                    }
                    if let Told::Lead(line) = told {
                        self.lead(line);
                    }
                }
            }
        }
    }

    fn check(impatient: Impatient) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let (leading, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let world = Arc::new(World { lobbies: Lobbies::new(), leading, done, impatient });
            let others = [true, false].map(|patient| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.call(patient))
            });
            world.call(true);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(world.done.load(SeqCst), 3, "commands that were done");
            assert!(world.lobbies.inner().lobbies.is_empty(), "a lobby is left that nobody leads");
        });
    }

    #[test]
    fn whoever_enters_is_done_once_and_nobody_is_left_behind() {
        check(Impatient::GoesAlone);
    }

    #[test]
    fn a_lead_that_is_taken_over_is_passed_on_once() {
        check(Impatient::TakesOver);
    }
}
