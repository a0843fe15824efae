//! How followers hear of appends of other processes: they are told, or, while there are many, they look by themselves.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Decides between being told and looking. A notification costs a wake-up of every process that listens, so in a busy log
/// it is cheaper for followers to look every few milliseconds, and for those who append to tell nobody.
///
/// Nothing depends on it: a follower that is not told polls.
#[derive(Debug)]
pub(crate) struct Pace {
    poll_interval: Duration,
    mode: Mode,
    /// When the last notifications were heard, the newest last, at most [`BURST`](Self::BURST).
    heard: VecDeque<Instant>,
    /// The last position drawn as of the last look.
    position: u64,
    /// Whether more could be seen by the last look than by the one before it.
    moved: bool,
    /// How long the last look took.
    took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// Notifications tell.
    Told,
    /// It looks by itself. `since` then, the log has moved on from the position `from`.
    Looking { since: Instant, from: u64 },
    /// It listens again, but those who append may not know it yet.
    Returning { until: Instant },
}

impl Pace {
    /// So many notifications in [`SHORT`](Self::SHORT), some 100 a second, are too many.
    const BURST: usize = 10;
    const SHORT: Duration = Duration::from_millis(100);
    /// If fewer positions are drawn in [`LONG`](Self::LONG), 50 a second, notifications are wanted again.
    const FEW: u64 = 25;
    const LONG: Duration = Duration::from_millis(500);
    /// How long who appends may take it for granted that nobody listens, and then some.
    const LEARNED: Duration = Duration::from_millis(1_500);
    /// How often it looks.
    const INTERVAL: Duration = Duration::from_millis(5);
    /// Of so many parts of its time it spends one on looking, so that many followers leave a slow server its time.
    const SHARE: u32 = 8;

    pub(crate) fn new(poll_interval: Duration) -> Self {
        let heard = VecDeque::with_capacity(Self::BURST);
        Self { poll_interval, mode: Mode::Told, heard, position: 0, moved: false, took: Duration::ZERO }
    }

    /// A notification was heard.
    pub(crate) fn heard(&mut self, now: Instant) {
        if self.heard.len() == Self::BURST {
            self.heard.pop_front();
        }
        self.heard.push_back(now);
        let burst = self.heard.len() == Self::BURST && self.heard.front().is_some_and(|&at| now - at <= Self::SHORT);
        if burst && self.is_listening() {
            self.mode = Mode::Looking { since: now, from: self.position };
            self.heard.clear();
        }
    }

    /// It was looked for the end of the log. `position` was drawn last, whoever may still hold it back; `moved`: what can be
    /// seen has moved on.
    pub(crate) fn looked(&mut self, now: Instant, took: Duration, position: u64, moved: bool) {
        (self.took, self.position, self.moved) = (took, position, moved);
        match &mut self.mode {
            Mode::Looking { since, from } if now - *since >= Self::LONG => {
                if position.saturating_sub(*from) < Self::FEW {
                    self.mode = Mode::Returning { until: now + Self::LEARNED };
                } else {
                    (*since, *from) = (now, position);
                }
            }
            Mode::Returning { until } if now >= *until => self.mode = Mode::Told,
            _ => {}
        }
    }

    /// Whether notifications are wanted.
    pub(crate) fn is_listening(&self) -> bool {
        !matches!(self.mode, Mode::Looking { .. })
    }

    /// How long to wait before the next look, of itself. `held_back`: how long at most since appends hold the horizon back,
    /// which nothing is heard of.
    pub(crate) fn pause(&self, held_back: Option<Duration>) -> Duration {
        let by_itself = (self.took * Self::SHARE).max(Self::INTERVAL).min(self.poll_interval);
        match self.mode {
            Mode::Told => held_back.unwrap_or(self.poll_interval),
            // Some are always under way in a busy log. One that stays holds back all the others.
            Mode::Looking { .. } if self.moved => by_itself,
            Mode::Looking { .. } => held_back.map_or(by_itself, |pause| pause.max(by_itself)),
            Mode::Returning { .. } => held_back.map_or(by_itself, |pause| pause.min(by_itself)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, Pace};
    use proptest::prelude::*;

    const POLL: Duration = Duration::from_millis(100);
    const QUICK: Duration = Duration::from_micros(200);
    /// How long the tail waits at most before it looks again whether what holds the log back has ended.
    const HELD_BACK: Duration = Duration::from_millis(50);

    /// A log that moves on at some rate, a follower, and somebody who tells him of every append as long as he listens.
    struct World {
        pace: Pace,
        start: Instant,
        /// Microseconds since.
        now: u64,
        next_append: u64,
        next_look: u64,
        position: u64,
        /// Up to which position all is visible, if somebody holds the rest back.
        held_at: Option<u64>,
        seen: u64,
        told: u64,
        looks: u64,
    }

    impl World {
        fn new() -> Self {
            let (pace, start) = (Pace::new(POLL), Instant::now());
            Self {
                pace,
                start,
                now: 0,
                next_append: 0,
                next_look: 0,
                position: 0,
                held_at: None,
                seen: 0,
                told: 0,
                looks: 0,
            }
        }

        fn look(&mut self, took: Duration) {
            self.looks += 1;
            let visible = self.held_at.unwrap_or(self.position);
            let moved = visible > std::mem::replace(&mut self.seen, visible);
            self.pace.looked(self.start + Duration::from_micros(self.now), took, self.position, moved);
            let held_back = self.held_at.map(|_| HELD_BACK);
            self.next_look = self.now + self.pace.pause(held_back).as_micros() as u64;
        }

        /// So many seconds at so many appends a second, looks taking so long.
        fn run(&mut self, seconds: f64, rate: u64, took: Duration) -> (u64, u64) {
            let (told, looks) = (self.told, self.looks);
            let end = self.now + (seconds * 1e6) as u64;
            let gap = 1_000_000_u64.checked_div(rate).unwrap_or(u64::MAX);
            self.next_append = self.now.saturating_add(gap);
            while self.next_append.min(self.next_look) < end {
                self.now = self.next_append.min(self.next_look);
                if self.now == self.next_append {
                    self.position += 1;
                    self.next_append += gap;
                    if self.pace.is_listening() {
                        self.told += 1;
                        self.pace.heard(self.start + Duration::from_micros(self.now));
                        self.look(took);
                    }
                } else {
                    self.look(took);
                }
            }
            self.now = end;
            (self.told - told, self.looks - looks)
        }
    }

    #[test]
    fn a_slow_log_is_told_of_and_a_busy_one_looked_at() {
        let mut world = World::new();
        assert_eq!(world.run(10.0, 50, QUICK).0, 499, "every append of a slow log is told");
        let (told, looks) = world.run(10.0, 1_000, QUICK);
        assert!(told <= 20, "{told} notifications of a busy log");
        assert!((1_900..2_100).contains(&looks), "{looks} looks in ten seconds, one every 5 ms");
        world.run(3.0, 50, QUICK);
        assert_eq!(world.run(10.0, 50, QUICK).0, 499, "and every append of one that is slow again");
        assert_eq!(world.run(10.0, 0, QUICK).1, 100, "an idle one is polled");
    }

    /// Who appended while nobody listened finds out that somebody does within a second.
    #[test]
    fn it_goes_on_looking_until_everybody_knows_that_it_listens() {
        let mut world = World::new();
        world.run(1.0, 1_000, QUICK);
        assert!(!world.pace.is_listening());
        while !world.pace.is_listening() {
            world.run(0.01, 0, QUICK);
        }
        assert!(world.run(1.0, 0, QUICK).1 >= 195, "every 5 ms for as long as somebody may tell him nothing");
        world.run(1.0, 0, QUICK);
        assert_eq!(world.run(1.0, 0, QUICK).1, 10);
    }

    /// An append that stays open for long holds back what can be seen, not what others append.
    #[test]
    fn a_busy_log_that_is_held_back_is_looked_at_calmly_and_no_less_busy() {
        let mut world = World::new();
        world.run(1.0, 1_000, QUICK);
        assert!(!world.pace.is_listening());
        world.held_at = Some(world.position);
        let (told, looks) = world.run(10.0, 1_000, QUICK);
        assert_eq!(told, 0, "it went on looking");
        assert!((190..=202).contains(&looks), "{looks} looks in ten seconds at what cannot move");
        world.held_at = None;
        world.run(0.1, 1_000, QUICK);
        assert!(world.run(1.0, 1_000, QUICK).1 >= 190, "it moves again");
    }

    proptest! {
        /// Looks that take long are rarer, but never rarer than polls.
        #[test]
        fn a_slow_server_is_asked_less_often(took in 0_u64..20_000, rate in 200_u64..5_000) {
            let mut world = World::new();
            let took = Duration::from_micros(took);
            world.run(1.0, rate, took);
            prop_assert!(!world.pace.is_listening());
            let pause = world.pace.pause(None);
            prop_assert!(pause >= (took * Pace::SHARE).min(POLL) && pause <= POLL);
        }

        /// Whatever comes, it may only change how it hears of appends, never that it looks within the poll interval, and
        /// what it is told at most stays bounded.
        #[test]
        fn it_never_waits_longer_than_a_poll(
            phases in proptest::collection::vec((0_u64..3_000, 0_u64..10_000), 1..8)
        ) {
            let mut world = World::new();
            for (rate, took) in phases {
                let (told, _) = world.run(2.0, rate, Duration::from_micros(took));
                prop_assert!(told <= 240, "{told} notifications in two seconds");
                prop_assert!(world.pace.pause(None) <= POLL);
                prop_assert!(world.pace.pause(Some(QUICK)) <= POLL);
            }
        }
    }
}
