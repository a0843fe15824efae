//! The argument of the horizon, explored: every interleaving of two appenders, one of which may crash or roll back at any
//! step, and a reader. Every mutation of the protocol, four of the reader and two of the appender, must fail.

use std::collections::HashSet;

/// A step of an appender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Reads the last position drawn.
    ReadLow,
    /// Takes the shared lock that shows it.
    Register,
    /// Draws its positions and inserts its events.
    Draw,
    /// Makes its events visible.
    Commit,
    /// Releases its locks.
    Release,
}

/// What a reader does for one page, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Snapshot,
    Head,
    Lows,
    Page,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Appender {
    next: usize,
    low: u8,
    registered: bool,
    positions: Vec<u8>,
    committed: bool,
    ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Reader {
    next: usize,
    pages: u8,
    cursor: u8,
    head: u8,
    lowest: Option<u8>,
    snapshot: Option<Vec<u8>>,
    seen: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    sequence: u8,
    appenders: [Appender; 2],
    visible: Vec<u8>,
    reader: Reader,
}

/// A protocol: what appenders and the reader do, in which order.
struct Protocol {
    appender: &'static [Step],
    reader: &'static [Look],
    /// How many positions an append draws.
    draws: u8,
}

const APPENDER: &[Step] = &[Step::ReadLow, Step::Register, Step::Draw, Step::Commit, Step::Release];
/// Every statement has a snapshot of its own, so the page's is taken with the page.
const READER: &[Look] = &[Look::Head, Look::Lows, Look::Snapshot, Look::Page];
/// How many pages the reader reads before it is compared with what is there.
const PAGES: u8 = 3;

impl World {
    fn new() -> Self {
        let appender =
            Appender { next: 0, low: 0, registered: false, positions: vec![], committed: false, ended: false };
        Self { sequence: 0, appenders: [appender.clone(), appender], visible: vec![], reader: Reader::default() }
    }

    /// Every world that one step leads to.
    fn next(&self, protocol: &Protocol) -> Vec<Self> {
        let mut worlds = Vec::new();
        for index in 0..self.appenders.len() {
            if self.appenders[index].ended {
                continue;
            }
            let mut stepped = self.clone();
            stepped.step(index, protocol);
            worlds.push(stepped);
            // A rollback, or the end of its process: what it drew is burnt, its locks are gone.
            if !self.appenders[index].committed {
                let mut gone = self.clone();
                gone.appenders[index].ended = true;
                gone.appenders[index].registered = false;
                worlds.push(gone);
            }
        }
        if self.reader.pages < PAGES {
            let mut looked = self.clone();
            looked.look(protocol);
            worlds.push(looked);
        }
        worlds
    }

    fn step(&mut self, index: usize, protocol: &Protocol) {
        let appender = &mut self.appenders[index];
        match protocol.appender[appender.next] {
            Step::ReadLow => appender.low = self.sequence,
            Step::Register => appender.registered = true,
            Step::Draw => {
                for _ in 0..protocol.draws {
                    self.sequence += 1;
                    appender.positions.push(self.sequence);
                }
            }
            Step::Commit => {
                appender.committed = true;
                self.visible.extend(&appender.positions);
                self.visible.sort_unstable();
            }
            Step::Release => appender.registered = false,
        }
        appender.next += 1;
        appender.ended = appender.next == protocol.appender.len();
    }

    fn look(&mut self, protocol: &Protocol) {
        let reader = &mut self.reader;
        match protocol.reader[reader.next] {
            Look::Snapshot => reader.snapshot = Some(self.visible.clone()),
            Look::Head => reader.head = self.sequence,
            Look::Lows => {
                reader.lowest = self.appenders.iter().filter(|a| a.registered).map(|a| a.low).min();
            }
            Look::Page => {
                let bound = reader.lowest.map_or(reader.head, |low| low.min(reader.head));
                let visible = reader.snapshot.take().unwrap_or_else(|| self.visible.clone());
                let page: Vec<u8> = visible.into_iter().filter(|p| *p > reader.cursor && *p <= bound).collect();
                reader.cursor = page.last().copied().unwrap_or(reader.cursor);
                reader.seen.extend(page);
            }
        }
        reader.next += 1;
        if reader.next == protocol.reader.len() {
            reader.next = 0;
            reader.pages += 1;
        }
    }

    /// Whether an event that is visible can no longer be seen: the reader is past it. Or it was seen twice.
    fn is_broken(&self) -> bool {
        let missed = self.visible.iter().any(|p| *p <= self.reader.cursor && !self.reader.seen.contains(p));
        let sorted = self.reader.seen.windows(2).all(|pair| pair[0] < pair[1]);
        missed || !sorted
    }
}

/// Looks at every world that can come about; tells how many there are, and whether one of them is broken.
fn explore(protocol: &Protocol) -> (usize, bool) {
    let mut known = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    let mut broken = false;
    while let Some(world) = open.pop() {
        broken |= world.is_broken();
        for next in world.next(protocol) {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (known.len(), broken)
}

#[test]
fn nothing_is_missed_in_any_interleaving() {
    for draws in [1, 2] {
        let (worlds, broken) = explore(&Protocol { appender: APPENDER, reader: READER, draws });
        assert!(!broken, "an event was missed");
        assert!(worlds > 1_000, "only {worlds} worlds were looked at");
    }
}

#[test]
fn every_mutation_of_the_protocol_misses_events() {
    use Look::{Head, Lows, Page, Snapshot};
    use Step::{Commit, Draw, ReadLow, Register, Release};
    let mutations: [(&str, &'static [Step], &'static [Look]); 6] = [
        ("locks before the head", APPENDER, &[Lows, Head, Snapshot, Page]),
        ("all in one statement, whose snapshot comes first", APPENDER, &[Snapshot, Head, Lows, Page]),
        ("a repeatable read, whose snapshot is that of the head", APPENDER, &[Head, Snapshot, Lows, Page]),
        ("no look at the locks", APPENDER, &[Head, Snapshot, Page]),
        ("registered after drawing", &[ReadLow, Draw, Register, Commit, Release], READER),
        ("locks released before the commit is visible", &[ReadLow, Register, Draw, Release, Commit], READER),
    ];
    for (name, appender, reader) in mutations {
        assert!(explore(&Protocol { appender, reader, draws: 1 }).1, "not caught: {name}");
    }
}
