//! A queue of jobs for some threads, which wakes as few of them as the work needs.
//!
//! Waking a thread costs more than a short job does. So one thread is on duty and takes job after job; another one is called
//! when too many wait, when jobs turn out to be slow, or when the one on duty has a long job and leaves its duty to whoever is
//! free. The one that slept the shortest is called first: what it works with is still in the processor's cache.

#[cfg(test)]
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
#[cfg(not(test))]
use std::sync::{Condvar, Mutex, MutexGuard};

/// So many jobs may wait for each thread on duty before another one is called.
const BACKLOG: usize = 8;

pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// How many jobs were ever taken out; a job's number is that of those before it.
    taken: u64,
    /// Threads on duty, those included that were called and are not awake yet.
    on_duty: usize,
    /// Threads that sleep and were not called, each by what wakes it; the one that sleeps shortest is the last.
    free: Vec<Arc<Condvar>>,
    closed: bool,
}

/// A thread's place at the queue. Whoever drops it, by a panic too, leaves his duty to another one.
pub(crate) struct Place<'a, J> {
    queue: &'a Queue<J>,
    bell: Arc<Condvar>,
    on_duty: bool,
    /// The jobs of the group in hand are those with a lower number.
    group_end: u64,
}

impl<J> Queue<J> {
    pub(crate) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), taken: 0, on_duty: 0, free: Vec::new(), closed: false };
        Self { state: Mutex::new(state) }
    }

    /// Adds a job, unless the queue is closed.
    pub(crate) fn push(&self, job: J) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        state.jobs.push_back(job);
        self.call_if_needed(state);
        true
    }

    /// Refuses new jobs. The threads finish those that are queued, and end.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.on_duty += state.free.len();
        state.free.drain(..).for_each(|bell| bell.notify_one());
    }

    pub(crate) fn place(&self) -> Place<'_, J> {
        Place { queue: self, bell: Arc::new(Condvar::new()), on_duty: false, group_end: 0 }
    }

    fn call_if_needed(&self, state: MutexGuard<'_, State<J>>) {
        let too_many = BACKLOG * state.on_duty;
        self.call_if_more_than(too_many, state);
    }

    /// Calls a thread, if one is free, when more than so many jobs wait.
    fn call_if_more_than(&self, jobs: usize, mut state: MutexGuard<'_, State<J>>) {
        if state.jobs.len() > jobs
            && let Some(bell) = state.free.pop()
        {
            state.on_duty += 1;
            drop(state);
            bell.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Place<'_, J> {
    /// Waits for jobs; those that are queued by now are a group. `false` when the queue is closed and empty.
    pub(crate) fn next_group(&mut self) -> bool {
        let mut state = self.queue.state();
        loop {
            if !state.jobs.is_empty() {
                if !self.on_duty {
                    self.on_duty = true;
                    state.on_duty += 1;
                }
                self.group_end = state.taken + state.jobs.len() as u64;
                return true;
            }
            if std::mem::take(&mut self.on_duty) {
                state.on_duty -= 1;
            }
            if state.closed {
                return false;
            }
            state.free.push(Arc::clone(&self.bell));
            while state.free.iter().any(|bell| Arc::ptr_eq(bell, &self.bell)) {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // Whoever took it out has put it on duty.
            self.on_duty = true;
        }
    }

    /// The next job of the group, if no other thread has taken it.
    pub(crate) fn next_job(&mut self) -> Option<J> {
        let mut state = self.queue.state();
        if state.taken >= self.group_end {
            return None;
        }
        let job = state.jobs.pop_front()?;
        state.taken += 1;
        // Whoever takes a job sees whether too many are left, also after another thread went off duty.
        self.queue.call_if_needed(state);
        Some(job)
    }

    /// The last job took long without having left its duty, as those do that wait for the disk: what waits is shared.
    pub(crate) fn was_slow(&self) {
        self.queue.call_if_more_than(0, self.queue.state());
    }

    /// The job in hand takes long: others are served by others. It is the last of its group.
    pub(crate) fn leave_duty(&mut self) {
        self.group_end = 0;
        if std::mem::take(&mut self.on_duty) {
            let mut state = self.queue.state();
            state.on_duty -= 1;
            self.queue.call_if_needed(state);
        }
    }
}

impl<J> Drop for Place<'_, J> {
    fn drop(&mut self) {
        self.leave_duty();
    }
}

/// Every interleaving of the threads with whoever queues jobs. A job that nobody is woken for is a deadlock, which loom
/// reports.
#[cfg(test)]
mod model {
    use super::Queue;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// How many short jobs are done.
    #[derive(Default)]
    struct Done {
        count: Mutex<usize>,
        more: Condvar,
    }

    impl Done {
        fn one(&self) {
            *self.count.lock().unwrap() += 1;
            self.more.notify_all();
        }

        fn wait(&self, for_count: usize) {
            let mut count = self.count.lock().unwrap();
            while *count < for_count {
                count = self.more.wait(count).unwrap();
            }
        }
    }

    #[derive(Clone, Copy)]
    enum Job {
        Short,
        /// Is not done before so many short ones are.
        After(usize),
    }

    fn model(threads: usize, jobs: &'static [Job]) {
        let mut builder = loom::model::Builder::new();
        // Three take minutes and have shown nothing more.
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let (queue, done) = (Arc::new(Queue::new()), Arc::new(Done::default()));
            let serve = |_| {
                let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                thread::spawn(move || {
                    let mut place = queue.place();
                    while place.next_group() {
                        while let Some(job) = place.next_job() {
                            match job {
                                Job::Short => done.one(),
                                Job::After(count) => {
                                    place.leave_duty();
                                    done.wait(count);
                                }
                            }
                        }
                    }
                })
            };
            let threads: Vec<_> = (0..threads).map(serve).collect();
            for &job in jobs {
                assert!(queue.push(job));
            }
            done.wait(jobs.iter().filter(|job| matches!(job, Job::Short)).count());
            queue.close();
            assert!(!queue.push(Job::Short), "a closed queue took a job");
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn no_job_is_left_to_sleeping_threads() {
        model(2, &[Job::Short, Job::Short]);
    }

    #[test]
    fn a_long_job_keeps_no_short_one_waiting() {
        model(2, &[Job::After(1), Job::Short]);
    }

    #[test]
    fn what_waits_behind_a_slow_job_is_shared() {
        loom::model(|| {
            let (queue, done) = (Arc::new(Queue::new()), Arc::new(Done::default()));
            let mut place = queue.place();
            assert!(queue.push(1) && place.next_group());
            assert_eq!(place.next_job(), Some(1));
            let other = thread::spawn({
                let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                move || {
                    let mut place = queue.place();
                    while place.next_group() {
                        while place.next_job().is_some() {
                            done.one();
                        }
                    }
                }
            });
            while queue.state().free.is_empty() {
                thread::yield_now();
            }
            assert!(queue.push(2));
            assert_eq!(queue.state().free.len(), 1, "one job is not worth a thread");
            place.was_slow();
            done.wait(1);
            drop(place);
            queue.close();
            other.join().unwrap();
        });
    }

    #[test]
    fn whoever_slept_the_shortest_is_called_first() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(1);
        builder.check(|| {
            let (queue, served) = (Arc::new(Queue::new()), Arc::new(Mutex::new(Vec::new())));
            let serve = |number: usize| {
                let (queue, served) = (Arc::clone(&queue), Arc::clone(&served));
                thread::spawn(move || {
                    let mut place = queue.place();
                    while place.next_group() {
                        while let Some(()) = place.next_job() {
                            served.lock().unwrap().push(number);
                        }
                    }
                })
            };
            let threads: Vec<_> = (0..2).map(serve).collect();
            let all_sleep = || {
                while queue.state().free.len() < 2 {
                    thread::yield_now();
                }
            };
            for _ in 0..2 {
                all_sleep();
                assert!(queue.push(()));
            }
            all_sleep();
            queue.close();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let served = served.lock().unwrap();
            assert_eq!(served[0], served[1], "the one whose cache is cold was called");
        });
    }

    #[test]
    fn a_group_is_what_was_queued_when_it_began() {
        loom::model(|| {
            let queue = Queue::new();
            let mut place = queue.place();
            assert!(queue.push(1) && queue.push(2));
            assert!(place.next_group());
            assert_eq!(place.next_job(), Some(1));
            assert!(queue.push(3));
            assert_eq!((place.next_job(), place.next_job()), (Some(2), None));
            assert!(place.next_group());
            assert_eq!(place.next_job(), Some(3));
            queue.close();
            assert!(!place.next_group());
        });
    }
}
