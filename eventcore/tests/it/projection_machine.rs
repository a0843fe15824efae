//! The projection machine against a simulated store: events, faults, crashes and lost leaderships in any order.

use eventcore::{
    Activity, Applied, Checkpoint, Event, EventFilter, EventId, Fault, GlobalPosition, LineageId, LogCursor, PageShape,
    ProjectionEffect, ProjectionInput, ProjectionMachine, ProjectionName, ProjectionRules, ProjectionStop, RetryPolicy,
    Signals, Timestamp,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// What happens at one step of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Fine,
    Unavailable,
    /// The process dies and starts again.
    Crash,
    /// Another instance takes over.
    Fenced,
    /// A poisonous event is skipped or retried this time.
    Skip,
    Retry,
    /// It becomes a dead letter.
    Park,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        12 => Just(Chance::Fine),
        1 => Just(Chance::Unavailable),
        1 => Just(Chance::Crash),
        1 => Just(Chance::Fenced),
        1 => Just(Chance::Skip),
        1 => Just(Chance::Retry),
        1 => Just(Chance::Park),
    ]
}

struct World {
    log: Vec<LogCursor>,
    lineage: LineageId,
    transactional: bool,
    checkpoint_pages: u32,
    now: Duration,
    page: usize,
    chances: VecDeque<Chance>,
    /// Effects that outlived everything, in order.
    effects: Vec<u64>,
    /// Effects of the open transaction.
    pending: Vec<u64>,
    checkpoint: Option<LogCursor>,
    skipped: Vec<u64>,
    /// Dead letters that outlived everything.
    letters: BTreeSet<u64>,
    /// Dead letters of the open transaction.
    pending_letters: BTreeSet<u64>,
    /// Effects that may come again: those not covered by a checkpoint when a crash or a fault happened.
    faults: usize,
}

impl World {
    fn rules(&self) -> ProjectionRules {
        ProjectionRules {
            durable: true,
            transactional: self.transactional,
            partitioned: false,
            continuous: false,
            wait_for_leadership: true,
            accept_filter_change: false,
            poll_interval: Duration::from_millis(100),
            standby_interval: Duration::from_millis(100),
            failure_delay: Duration::from_millis(100),
            hold_time: Duration::from_millis(50),
            checkpoint_pages: self.checkpoint_pages,
            checkpoint_interval: Duration::from_secs(5),
            batch_patience: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            retries: 1_000,
            max_failures: 1_000,
            filter: EventFilter::all(),
            lineage: self.lineage,
        }
    }

    fn chance(&mut self) -> Chance {
        self.chances.pop_front().unwrap_or(Chance::Fine)
    }

    /// Runs until a batch is complete, over as many crashes as chance has it.
    fn run(&mut self) {
        for _ in 0..1_000 {
            if self.run_once() {
                return;
            }
            self.faults += 1;
            self.roll_back();
        }
        panic!("the batch does not end");
    }

    /// One process; `false` if it crashed.
    fn run_once(&mut self) -> bool {
        let mut machine = ProjectionMachine::<&'static str>::new(self.rules());
        let mut page: Vec<LogCursor> = Vec::new();
        let mut input = ProjectionInput::Start;
        for _ in 0..100_000 {
            let effect = machine.step(input, Signals { now: self.now, ..Signals::default() }, 0.5);
            let chance = self.chance();
            if chance == Chance::Crash {
                return false;
            }
            let fault = match chance {
                Chance::Unavailable => Some(Fault::Transient("unavailable")),
                Chance::Fenced => Some(Fault::Fenced("fenced")),
                _ => None,
            };
            self.faults += usize::from(fault.is_some());
            input = match effect {
                ProjectionEffect::Finish(Ok(())) => {
                    assert!(self.pending.is_empty(), "a batch ended with an open page");
                    return true;
                }
                ProjectionEffect::Finish(Err(stop)) => panic!("stopped: {stop:?}"),
                ProjectionEffect::Acquire => ProjectionInput::Acquired(match fault {
                    Some(Fault::Fenced(_)) => Err(Fault::Busy("busy")),
                    Some(fault) => Err(fault),
                    None => Ok(()),
                }),
                ProjectionEffect::StepDown => {
                    self.roll_back();
                    ProjectionInput::Done(Ok(()))
                }
                ProjectionEffect::Resume => {
                    self.roll_back();
                    // What comes after the checkpoint comes again.
                    let saved = self.checkpoint.map(|cursor| cursor.position.get());
                    self.letters.retain(|position| Some(*position) <= saved);
                    ProjectionInput::Resumed(match fault {
                        Some(Fault::Transient(error)) => Err(Fault::Transient(error)),
                        _ => Ok(self.checkpoint.map(|cursor| self.stored(cursor))),
                    })
                }
                ProjectionEffect::Probe(_) => ProjectionInput::Probed(Ok(None)),
                ProjectionEffect::Verify(cursor) => {
                    assert!(self.log.contains(&cursor));
                    ProjectionInput::Done(Ok(()))
                }
                ProjectionEffect::Head => ProjectionInput::Head(Ok(self.log.last().map(|cursor| cursor.position))),
                ProjectionEffect::Read { after } => {
                    let rest = self.log.iter().filter(|cursor| Some(cursor.position) > after).copied();
                    page = rest.take(self.page).collect();
                    ProjectionInput::Read(match fault {
                        Some(Fault::Transient(error)) => Err(Fault::Transient(error)),
                        _ => Ok(PageShape {
                            end: page.last().copied(),
                            more: page.len() == self.page,
                            events: page.clone(),
                        }),
                    })
                }
                ProjectionEffect::Begin => ProjectionInput::Done(fault.map_or(Ok(()), Err)),
                ProjectionEffect::Apply { index, until, .. } => {
                    assert!(index < until && until <= page.len());
                    assert!(!self.transactional || until == index + 1, "the time is not looked at");
                    let (mut index, mut chance) = (index, chance);
                    let applied = loop {
                        let position = page[index].position.get();
                        self.now += Duration::from_millis(position % 40);
                        // A failing event leaves half of its effects behind: only a transaction can take them back.
                        let applied = match chance {
                            Chance::Crash => return false,
                            Chance::Skip => Applied::Skip,
                            Chance::Retry => Applied::Retry("not yet"),
                            Chance::Park => Applied::DeadLetter,
                            Chance::Unavailable if self.transactional => Applied::Fault(Fault::Transient("gone")),
                            _ => Applied::Ok,
                        };
                        match (&applied, self.transactional) {
                            (Applied::Ok, true) => self.pending.push(position),
                            (Applied::Ok, false) => self.effects.push(position),
                            (_, true) => self.pending.push(position + 1_000_000),
                            (_, false) => {}
                        }
                        if matches!(applied, Applied::Skip) {
                            self.skipped.push(position);
                        }
                        // A stretch may end anywhere.
                        if !matches!(applied, Applied::Ok) || index + 1 == until || position.is_multiple_of(5) {
                            break applied;
                        }
                        index += 1;
                        chance = self.chance();
                    };
                    if matches!(applied, Applied::Fault(_)) {
                        // The driver has given the page up.
                        self.roll_back();
                    }
                    ProjectionInput::Applied(index, applied)
                }
                ProjectionEffect::Park { index } => {
                    let position = page[index].position.get();
                    match (fault, self.transactional) {
                        (Some(fault), _) => {
                            self.roll_back();
                            ProjectionInput::Done(Err(fault))
                        }
                        (None, true) => {
                            self.pending_letters.insert(position);
                            ProjectionInput::Done(Ok(()))
                        }
                        (None, false) => {
                            self.letters.insert(position);
                            ProjectionInput::Done(Ok(()))
                        }
                    }
                }
                ProjectionEffect::ApplyParts { .. } => panic!("there is one worker"),
                ProjectionEffect::Commit(cursor) => match fault {
                    Some(fault) => {
                        self.roll_back();
                        ProjectionInput::Done(Err(fault))
                    }
                    None => {
                        self.effects.append(&mut self.pending);
                        self.letters.append(&mut self.pending_letters);
                        assert!(Some(cursor.position) > self.checkpoint.map(|c| c.position), "a checkpoint went back");
                        for event in self.log.iter().filter(|event| event.position <= cursor.position) {
                            let position = event.position.get();
                            let kept = self.letters.contains(&position);
                            assert!(
                                kept || self.effects.contains(&position) || self.skipped.contains(&position),
                                "the checkpoint ran ahead of the effect of {position}"
                            );
                        }
                        self.checkpoint = Some(cursor);
                        ProjectionInput::Done(Ok(()))
                    }
                },
                ProjectionEffect::Rollback => {
                    self.roll_back();
                    ProjectionInput::Done(Ok(()))
                }
                ProjectionEffect::Wait(time) | ProjectionEffect::Pause(time) => {
                    let open = !self.pending.is_empty() || !self.pending_letters.is_empty();
                    assert!(!self.transactional || !open, "a transaction is held while waiting");
                    self.now += time;
                    ProjectionInput::Waited
                }
            };
        }
        panic!("the run does not end");
    }

    /// The open transaction is gone.
    fn roll_back(&mut self) {
        self.pending.clear();
        self.pending_letters.clear();
    }

    fn stored(&self, cursor: LogCursor) -> Checkpoint {
        Checkpoint {
            name: ProjectionName::new("p").unwrap(),
            cursor: Some(cursor),
            filter: EventFilter::all().identity(),
            lineage: self.lineage,
            updated_at: Timestamp::now(),
        }
    }
}

fn world(events: u64, page: usize, transactional: bool, chances: Vec<Chance>) -> World {
    let log = (1..=events)
        .map(|n| LogCursor { position: GlobalPosition::try_new(n).unwrap(), event_id: EventId::generate() })
        .collect();
    World {
        log,
        lineage: LineageId::generate(),
        transactional,
        checkpoint_pages: 1,
        now: Duration::ZERO,
        page,
        chances: chances.into(),
        effects: Vec::new(),
        pending: Vec::new(),
        checkpoint: None,
        skipped: Vec::new(),
        letters: BTreeSet::new(),
        pending_letters: BTreeSet::new(),
        faults: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_transactional_page_has_each_effect_exactly_once(
        events in 0_u64..40, page in 1_usize..12, chances in prop::collection::vec(chance(), 0..200),
    ) {
        let mut world = world(events, page, true, chances);
        world.run();
        // A skip counts where it was committed: an event that failed once and was applied after a crash is no skip.
        let expected: Vec<u64> = (1..=events).collect();
        let mut seen = world.effects.clone();
        prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "out of order or twice: {seen:?}");
        prop_assert!(seen.iter().all(|position| !world.letters.contains(position)), "applied, and a dead letter");
        let left_out = world.skipped.iter().chain(&world.letters);
        seen.extend(left_out.filter(|position| !world.effects.contains(position)));
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(world.checkpoint, world.log.last().copied());
    }

    #[test]
    fn effects_of_its_own_come_at_least_once_and_again_only_after_a_fault(
        events in 0_u64..40, page in 1_usize..12, pages in 1_u32..4, chances in prop::collection::vec(chance(), 0..200),
    ) {
        let mut world = World { checkpoint_pages: pages, ..world(events, page, false, chances) };
        world.run();
        let page = page * pages as usize;
        for position in 1..=events {
            let times = world.effects.iter().filter(|seen| **seen == position).count();
            let left_out = world.skipped.contains(&position) || world.letters.contains(&position);
            prop_assert!(times >= 1 || left_out, "{position} was lost");
            prop_assert!(times <= 1 + world.faults, "{position} came {times} times with {} faults", world.faults);
        }
        prop_assert!(world.effects.len() <= events as usize + world.faults * page, "repeats exceed a page per fault");
        prop_assert_eq!(world.checkpoint, world.log.last().copied());
    }
}

/// Drives a machine through a script of answers and returns its last effect.
fn last_effect(rules: ProjectionRules, inputs: Vec<ProjectionInput<&'static str>>) -> ProjectionEffect<&'static str> {
    let mut machine = ProjectionMachine::new(rules);
    let mut effect = machine.step(ProjectionInput::Start, Signals::default(), 0.5);
    for input in inputs {
        effect = machine.step(input, Signals::default(), 0.5);
    }
    effect
}

#[test]
fn a_checkpoint_of_another_log_or_filter_is_refused() {
    let world = world(3, 10, true, Vec::new());
    let checkpoint = world.stored(world.log[0]);
    let resumed = |checkpoint| vec![ProjectionInput::Acquired(Ok(())), ProjectionInput::Resumed(Ok(Some(checkpoint)))];

    let other_log = Checkpoint { lineage: LineageId::generate(), ..checkpoint.clone() };
    let effect = last_effect(world.rules(), resumed(other_log));
    assert!(matches!(effect, ProjectionEffect::Finish(Err(ProjectionStop::OtherLog(_)))), "{effect:?}");

    let filter = EventFilter::all().types(["a.B".parse().unwrap()]).identity();
    let other_filter = Checkpoint { filter, ..checkpoint };
    let effect = last_effect(world.rules(), resumed(other_filter.clone()));
    assert!(matches!(effect, ProjectionEffect::Finish(Err(ProjectionStop::OtherFilter))), "{effect:?}");

    let accepting = ProjectionRules { accept_filter_change: true, ..world.rules() };
    let effect = last_effect(accepting, resumed(other_filter));
    assert!(matches!(effect, ProjectionEffect::Verify(_)), "{effect:?}");
}

#[test]
fn a_batch_applies_nothing_behind_its_target() {
    let world = world(5, 10, true, Vec::new());
    let (target, page) = (world.log[2].position, world.log.clone());
    let shape = PageShape { end: page.last().copied(), events: page, more: false };
    let mut inputs = vec![
        ProjectionInput::Acquired(Ok(())),
        ProjectionInput::Resumed(Ok(None)),
        ProjectionInput::Head(Ok(Some(target))),
        ProjectionInput::Read(Ok(shape)),
        ProjectionInput::Done(Ok(())),
    ];
    inputs.extend((0..3).map(|index| ProjectionInput::Applied(index, Applied::Ok)));
    let effect = last_effect(world.rules(), inputs);
    assert!(matches!(effect, ProjectionEffect::Commit(cursor) if cursor.position == target), "{effect:?}");
}

#[test]
fn a_batch_waits_for_the_feed_and_gives_up_when_its_patience_ends() {
    let world = world(2, 10, true, Vec::new());
    let rules = ProjectionRules { batch_patience: Duration::from_millis(150), ..world.rules() };
    let head = world.log[1].position;
    let mut machine = ProjectionMachine::<&str>::new(rules);
    let mut step =
        |input, millis| machine.step(input, Signals { now: Duration::from_millis(millis), ..Signals::default() }, 0.5);
    let empty = || ProjectionInput::Read(Ok(PageShape::default()));
    step(ProjectionInput::Start, 0);
    step(ProjectionInput::Acquired(Ok(())), 0);
    step(ProjectionInput::Resumed(Ok(None)), 0);
    step(ProjectionInput::Head(Ok(Some(head))), 1_000);
    assert!(matches!(step(empty(), 1_000), ProjectionEffect::Wait(_)));
    assert!(matches!(step(ProjectionInput::Waited, 1_100), ProjectionEffect::Read { .. }));
    assert!(matches!(step(empty(), 1_100), ProjectionEffect::Wait(_)));
    step(ProjectionInput::Waited, 1_200);
    let effect = step(empty(), 1_200);
    let ProjectionEffect::Finish(Err(ProjectionStop::NotCaughtUp(target, reached))) = effect else {
        panic!("{effect:?}")
    };
    assert_eq!((target, reached), (head, None));
}

#[test]
fn a_batch_waits_no_longer_than_its_patience() {
    let world = world(2, 10, true, Vec::new());
    let second = Duration::from_secs(1);
    let rules = ProjectionRules { batch_patience: second, poll_interval: 5 * second, ..world.rules() };
    let head = world.log[1].position;
    let mut machine = ProjectionMachine::<&str>::new(rules);
    let mut step =
        |input, millis| machine.step(input, Signals { now: Duration::from_millis(millis), ..Signals::default() }, 0.5);
    let empty = || ProjectionInput::Read(Ok(PageShape::default()));
    step(ProjectionInput::Start, 0);
    step(ProjectionInput::Acquired(Ok(())), 0);
    step(ProjectionInput::Resumed(Ok(None)), 0);
    step(ProjectionInput::Head(Ok(Some(head))), 1_000);
    let effect = step(empty(), 1_000);
    assert!(matches!(effect, ProjectionEffect::Wait(time) if time == second), "{effect:?}");
    // Woken, for nothing.
    step(ProjectionInput::Waited, 1_400);
    let effect = step(empty(), 1_400);
    assert!(matches!(effect, ProjectionEffect::Wait(time) if time == Duration::from_millis(600)), "{effect:?}");
    step(ProjectionInput::Waited, 2_000);
    let effect = step(empty(), 2_000);
    assert!(matches!(effect, ProjectionEffect::Finish(Err(ProjectionStop::NotCaughtUp(..)))), "{effect:?}");
}

#[test]
fn a_checkpoint_is_saved_every_so_many_pages_or_after_so_long() {
    let world = world(9, 1, false, Vec::new());
    let rules = ProjectionRules { continuous: true, checkpoint_pages: 3, ..world.rules() };
    let mut machine = ProjectionMachine::<&str>::new(rules);
    let (mut commits, mut now, mut page) = (Vec::new(), Duration::ZERO, 0);
    let mut input = ProjectionInput::Start;
    loop {
        let effect = machine.step(input, Signals { now, ..Signals::default() }, 0.5);
        input = match effect {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Read { .. } => {
                let events: Vec<_> = world.log.get(page).copied().into_iter().collect();
                page += 1;
                ProjectionInput::Read(Ok(PageShape { end: events.first().copied(), more: true, events }))
            }
            ProjectionEffect::Apply { index, .. } => {
                // The fifth event takes long.
                now += Duration::from_secs(if page == 5 { 6 } else { 0 });
                ProjectionInput::Applied(index, Applied::Ok)
            }
            ProjectionEffect::Commit(cursor) => {
                commits.push(cursor.position.get());
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Begin if page > 9 => break,
            ProjectionEffect::Begin => ProjectionInput::Done(Ok(())),
            other => panic!("{other:?}"),
        };
        if page > 9 {
            break;
        }
    }
    assert_eq!(commits, [3, 5, 8]);
}

#[test]
fn a_stop_saves_what_was_applied() {
    let world = world(3, 10, false, Vec::new());
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { continuous: true, ..world.rules() });
    let go = Signals::default();
    let stop = Signals { stop: true, ..go };
    machine.step(ProjectionInput::Start, go, 0.5);
    machine.step(ProjectionInput::Acquired(Ok(())), go, 0.5);
    machine.step(ProjectionInput::Resumed(Ok(None)), go, 0.5);
    let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
    machine.step(ProjectionInput::Read(Ok(shape)), go, 0.5);
    machine.step(ProjectionInput::Done(Ok(())), go, 0.5);
    let effect = machine.step(ProjectionInput::Applied(0, Applied::Ok), stop, 0.5);
    assert!(matches!(effect, ProjectionEffect::Commit(cursor) if cursor == world.log[0]), "{effect:?}");
    let effect = machine.step(ProjectionInput::Done(Ok(())), stop, 0.5);
    assert!(matches!(effect, ProjectionEffect::Finish(Ok(()))), "{effect:?}");
    assert_eq!(machine.counts(), (1, 0));
}

#[test]
fn a_lost_leadership_stops_applying() {
    let world = world(3, 10, true, Vec::new());
    let rules = ProjectionRules { wait_for_leadership: false, ..world.rules() };
    let mut machine = ProjectionMachine::<&str>::new(rules);
    machine.step(ProjectionInput::Start, Signals::default(), 0.5);
    machine.step(ProjectionInput::Acquired(Ok(())), Signals::default(), 0.5);
    let lost = Signals { lost: true, ..Signals::default() };
    let effect = machine.step(ProjectionInput::Resumed(Ok(None)), lost, 0.5);
    assert!(matches!(effect, ProjectionEffect::Finish(Err(ProjectionStop::LeadershipLost))), "{effect:?}");
}

#[test]
fn a_checkpoint_that_can_never_be_saved_ends_the_run() {
    let world = world(3, 10, false, Vec::new());
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { max_failures: 5, ..world.rules() });
    let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
    let mut commits = 0;
    let mut input = ProjectionInput::Start;
    for _ in 0..1_000 {
        input = match machine.step(input, Signals::default(), 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Head => ProjectionInput::Head(Ok(shape.end.map(|end| end.position))),
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(shape.clone())),
            ProjectionEffect::Begin => ProjectionInput::Done(Ok(())),
            ProjectionEffect::Apply { index, .. } => ProjectionInput::Applied(index, Applied::Ok),
            ProjectionEffect::Commit(_) => {
                commits += 1;
                ProjectionInput::Done(Err(Fault::Transient("full")))
            }
            ProjectionEffect::Pause(_) => ProjectionInput::Waited,
            ProjectionEffect::Finish(Err(ProjectionStop::Failed("full"))) => {
                assert_eq!(commits, 6, "the first one and five endured");
                return;
            }
            other => panic!("{other:?}"),
        };
    }
    panic!("the effects are repeated without end: {commits} times");
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Known {
    Before,
    Lately,
}

#[test]
fn types_that_are_read_lately_are_looked_for_before_the_checkpoint() {
    let world = world(9, 10, true, Vec::new());
    let rules = ProjectionRules { filter: EventFilter::of::<Known>(), ..world.rules() };
    let lately: eventcore::EventType = "test.Lately".parse().unwrap();
    let mut checkpoint = Checkpoint { filter: rules.filter.identity(), ..world.stored(world.log[4]) };
    checkpoint.filter.default_types.remove(&lately);
    let found_at = |position: Option<u64>| {
        let found = position.map(|position| (lately.clone(), GlobalPosition::try_new(position).unwrap()));
        let resumed = ProjectionInput::Resumed(Ok(Some(checkpoint.clone())));
        let inputs = vec![ProjectionInput::Acquired(Ok(())), resumed, ProjectionInput::Probed(Ok(found))];
        last_effect(rules.clone(), inputs)
    };
    for unseen in [Some(5), Some(1)] {
        let effect = found_at(unseen);
        let expected = matches!(&effect, ProjectionEffect::Finish(Err(ProjectionStop::NewTypesInHistory(..))));
        assert!(expected, "{effect:?}");
    }
    for to_come in [Some(6), None] {
        let effect = found_at(to_come);
        assert!(matches!(effect, ProjectionEffect::Verify(cursor) if cursor == world.log[4]), "{effect:?}");
    }
}

#[test]
fn a_transaction_that_was_open_for_long_is_committed_in_the_middle_of_its_page() {
    let world = world(4, 10, true, Vec::new());
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { continuous: true, ..world.rules() });
    let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
    let (mut commits, mut now) = (Vec::new(), Duration::ZERO);
    let mut input = ProjectionInput::Start;
    loop {
        input = match machine.step(input, Signals { now, ..Signals::default() }, 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(shape.clone())),
            ProjectionEffect::Begin => ProjectionInput::Done(Ok(())),
            ProjectionEffect::Apply { index, .. } => {
                now += world.rules().hold_time * 2 / 3;
                ProjectionInput::Applied(index, Applied::Ok)
            }
            ProjectionEffect::Commit(cursor) => {
                commits.push(cursor.position.get());
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Wait(_) => break,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(commits, [2, 4]);
}

#[test]
fn what_was_applied_is_saved_when_the_interval_ends_though_nothing_more_comes() {
    let world = world(1, 10, false, Vec::new());
    let rules = ProjectionRules { continuous: true, checkpoint_pages: 3, ..world.rules() };
    let mut machine = ProjectionMachine::<&str>::new(rules);
    let mut now = Duration::ZERO;
    let mut input = ProjectionInput::Start;
    for _ in 0..1_000 {
        input = match machine.step(input, Signals { now, ..Signals::default() }, 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Read { after: None } => {
                let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
                ProjectionInput::Read(Ok(shape))
            }
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(PageShape::default())),
            ProjectionEffect::Begin => ProjectionInput::Done(Ok(())),
            ProjectionEffect::Apply { index, .. } => ProjectionInput::Applied(index, Applied::Ok),
            ProjectionEffect::Wait(time) => {
                now += time;
                ProjectionInput::Waited
            }
            ProjectionEffect::Commit(cursor) => {
                assert_eq!(cursor, world.log[0]);
                assert!(now >= world.rules().checkpoint_interval, "{now:?}");
                return;
            }
            other => panic!("{other:?}"),
        };
    }
    panic!("it is never saved");
}

#[test]
fn an_event_that_was_left_out_does_not_come_back_with_a_later_failure() {
    let world = world(3, 10, true, Vec::new());
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { continuous: true, ..world.rules() });
    let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
    let mut tried = Vec::new();
    let mut input = ProjectionInput::Start;
    for _ in 0..100 {
        input = match machine.step(input, Signals::default(), 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(shape.clone())),
            ProjectionEffect::Apply { index, attempt, .. } => {
                tried.push((index, attempt));
                ProjectionInput::Applied(
                    index,
                    match (index, attempt) {
                        (0, _) => Applied::Skip,
                        (1, 1) => Applied::Retry("once"),
                        _ => Applied::Ok,
                    },
                )
            }
            ProjectionEffect::Begin | ProjectionEffect::Commit(_) | ProjectionEffect::Rollback => {
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Pause(_) => ProjectionInput::Waited,
            ProjectionEffect::Wait(_) => break,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(tried, [(0, 1), (1, 1), (1, 2), (2, 1)]);
    assert_eq!(machine.counts(), (2, 1));
}

/// What a run shows it does while each effect is under way.
#[test]
fn a_fault_is_shown_until_the_store_has_answered() {
    use ProjectionEffect as Effect;
    use ProjectionInput as Input;
    let world = world(2, 10, false, Vec::new());
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { continuous: true, ..world.rules() });
    let page = |events: &[LogCursor]| {
        Input::Read(Ok(PageShape { end: events.last().copied(), events: events.to_vec(), more: false }))
    };
    let mut step = |input, lost| {
        let effect = machine.step(input, Signals { lost, ..Signals::default() }, 0.5);
        (effect, machine.activity())
    };
    macro_rules! does {
        ($input:expr => $effect:pat, $activity:ident) => { does!($input, false => $effect, $activity) };
        ($input:expr, $lost:expr => $effect:pat, $activity:ident) => {{
            let (effect, activity) = step($input, $lost);
            assert!(matches!(effect, $effect), "{effect:?}");
            assert_eq!(activity, Activity::$activity, "{effect:?}");
        }};
    }
    let down = || Fault::Transient("down");
    does!(Input::Start => Effect::Acquire, Idle);
    // Another instance leads; then the store fails, which is not the same.
    does!(Input::Acquired(Err(Fault::Busy("busy"))) => Effect::Pause(_), Standby);
    does!(Input::Waited => Effect::Acquire, Standby);
    does!(Input::Acquired(Err(down())) => Effect::Pause(_), Reconnecting);
    does!(Input::Waited => Effect::Acquire, Reconnecting);
    does!(Input::Acquired(Ok(())) => Effect::Resume, Reconnecting);
    does!(Input::Resumed(Ok(None)) => Effect::Read { after: None }, CatchingUp);
    does!(page(&world.log[..1]) => Effect::Begin, CatchingUp);
    does!(Input::Done(Ok(())) => Effect::Apply { .. }, CatchingUp);
    does!(Input::Applied(0, Applied::Ok) => Effect::Commit(_), CatchingUp);
    does!(Input::Done(Ok(())) => Effect::Wait(_), Live);
    // The log cannot be read. Whoever answers then may be another server.
    does!(Input::Waited => Effect::Read { .. }, Live);
    does!(Input::Read(Err(down())) => Effect::Pause(_), Reconnecting);
    does!(Input::Waited => Effect::Verify(_), Reconnecting);
    does!(Input::Done(Err(down())) => Effect::Pause(_), Reconnecting);
    does!(Input::Waited => Effect::Verify(_), Reconnecting);
    does!(Input::Done(Ok(())) => Effect::Read { .. }, CatchingUp);
    does!(page(&[]) => Effect::Wait(_), Live);
    // A page cannot be begun.
    does!(Input::Waited => Effect::Read { .. }, Live);
    does!(page(&world.log[1..]) => Effect::Begin, Live);
    does!(Input::Done(Err(down())) => Effect::Pause(_), Reconnecting);
    does!(Input::Waited => Effect::Resume, Reconnecting);
    does!(Input::Resumed(Err(down())) => Effect::Pause(_), Reconnecting);
    does!(Input::Waited => Effect::Resume, Reconnecting);
    does!(Input::Resumed(Ok(Some(world.stored(world.log[0])))) => Effect::Verify(_), Reconnecting);
    does!(Input::Done(Ok(())) => Effect::Read { .. }, CatchingUp);
    // The leadership is no longer sure.
    does!(page(&[]), true => Effect::StepDown, Reconnecting);
    does!(Input::Done(Ok(())) => Effect::Acquire, Reconnecting);
}

#[test]
fn without_a_checkpoint_the_store_has_answered_with_the_first_page() {
    let world = world(1, 10, false, Vec::new());
    let rules = ProjectionRules { continuous: true, durable: false, ..world.rules() };
    let mut machine = ProjectionMachine::<&str>::new(rules);
    let mut activity_after = |input| {
        machine.step(input, Signals::default(), 0.5);
        machine.activity()
    };
    assert_eq!(activity_after(ProjectionInput::Start), Activity::Idle);
    assert_eq!(activity_after(ProjectionInput::Resumed(Ok(None))), Activity::Idle);
    assert_eq!(activity_after(ProjectionInput::Read(Err(Fault::Transient("down")))), Activity::Reconnecting);
    assert_eq!(activity_after(ProjectionInput::Waited), Activity::Reconnecting);
    let shape = PageShape { end: world.log.last().copied(), events: world.log.clone(), more: false };
    assert_eq!(activity_after(ProjectionInput::Read(Ok(shape))), Activity::CatchingUp);
}

/// Runs a batch of one page with durable effects, where `answer` says what becomes of an event and `park` of a letter.
/// Brings the effects as they came, in short, and how many events were applied, skipped and parked.
fn batch_of_one_page(
    rules: ProjectionRules,
    log: &[LogCursor],
    mut answer: impl FnMut(usize, u32) -> Applied<&'static str>,
    mut park: impl FnMut(usize) -> Result<(), Fault<&'static str>>,
) -> (Vec<String>, (u64, u64, u64)) {
    let mut machine = ProjectionMachine::<&'static str>::new(rules);
    let shape = PageShape { end: log.last().copied(), events: log.to_vec(), more: false };
    let mut told = Vec::new();
    let mut input = ProjectionInput::Start;
    for _ in 0..1_000 {
        let effect = machine.step(input, Signals::default(), 0.5);
        input = match effect {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Head => ProjectionInput::Head(Ok(log.last().map(|cursor| cursor.position))),
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(shape.clone())),
            ProjectionEffect::Begin => {
                told.push("begin".to_owned());
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Apply { index, attempt, .. } => {
                told.push(format!("apply {index}"));
                ProjectionInput::Applied(index, answer(index, attempt))
            }
            ProjectionEffect::Park { index } => {
                told.push(format!("park {index}"));
                ProjectionInput::Done(park(index))
            }
            ProjectionEffect::Commit(cursor) => {
                told.push(format!("commit {}", cursor.position));
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Rollback => {
                told.push("rollback".to_owned());
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Pause(_) => {
                told.push("pause".to_owned());
                ProjectionInput::Waited
            }
            ProjectionEffect::Finish(Ok(())) => {
                let (applied, skipped) = machine.counts();
                return (told, (applied, skipped, machine.parked()));
            }
            other => panic!("{other:?}"),
        };
    }
    panic!("the run does not end");
}

fn second_is(failure: fn() -> Applied<&'static str>) -> impl FnMut(usize, u32) -> Applied<&'static str> {
    move |index, _| if index == 1 { failure() } else { Applied::Ok }
}

#[test]
fn a_dead_letter_is_parked_in_the_transaction_that_passes_its_event() {
    let world = world(3, 10, true, Vec::new());
    let dead = second_is(|| Applied::DeadLetter);
    let (told, counts) = batch_of_one_page(world.rules(), &world.log, dead, |_| Ok(()));
    let expected = [
        "begin", "apply 0", "apply 1", "rollback", "begin", "apply 0", "commit 1", "begin", "park 1", "commit 2",
        "begin", "apply 2", "commit 3",
    ];
    assert_eq!(told, expected);
    assert_eq!(counts, (2, 0, 1));
}

#[test]
fn a_store_that_fails_beneath_an_event_parks_nothing_and_the_page_comes_again() {
    let world = world(3, 10, true, Vec::new());
    let mut faults = 2;
    let gone = |index, attempt| {
        assert_eq!(attempt, 1, "it is no attempt of the event");
        if index == 1 && faults > 0 {
            faults -= 1;
            return Applied::Fault(Fault::Transient("gone"));
        }
        Applied::Ok
    };
    let (told, counts) = batch_of_one_page(world.rules(), &world.log, gone, |_| Ok(()));
    let again = ["begin", "apply 0", "apply 1", "pause"];
    let expected: Vec<_> = again.into_iter().chain(again).collect();
    assert_eq!(told[..8], expected[..]);
    assert_eq!(told[8..], ["begin", "apply 0", "apply 1", "apply 2", "commit 3"]);
    assert_eq!(counts, (3, 0, 0));

    // Faults without a commit in between are a row, though the log is read well.
    let mut machine = ProjectionMachine::<&str>::new(ProjectionRules { max_failures: 5, ..world.rules() });
    let shape = PageShape { events: world.log.clone(), end: world.log.last().copied(), more: false };
    let (mut input, mut faults) = (ProjectionInput::Start, 0);
    let stopped = loop {
        input = match machine.step(input, Signals::default(), 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Head => ProjectionInput::Head(Ok(shape.end.map(|end| end.position))),
            ProjectionEffect::Read { .. } => ProjectionInput::Read(Ok(shape.clone())),
            ProjectionEffect::Begin => ProjectionInput::Done(Ok(())),
            ProjectionEffect::Apply { index, .. } => {
                faults += 1;
                ProjectionInput::Applied(index, Applied::Fault(Fault::Transient("gone")))
            }
            ProjectionEffect::Pause(_) => ProjectionInput::Waited,
            ProjectionEffect::Finish(finished) => break finished,
            other => panic!("{other:?}"),
        };
    };
    assert!(matches!(stopped, Err(ProjectionStop::Failed("gone"))), "{stopped:?}");
    assert_eq!(faults, 6);
}

#[test]
fn a_dead_letter_of_a_projector_with_effects_of_its_own_is_parked_before_the_checkpoint_passes_it() {
    let world = world(3, 10, false, Vec::new());
    let dead = second_is(|| Applied::DeadLetter);
    let (told, counts) = batch_of_one_page(world.rules(), &world.log, dead, |_| Ok(()));
    let expected =
        ["begin", "apply 0", "apply 1", "commit 1", "begin", "park 1", "commit 2", "begin", "apply 2", "commit 3"];
    assert_eq!(told, expected);
    assert_eq!(counts, (2, 0, 1));
}

#[test]
fn an_event_whose_attempts_are_used_up_becomes_a_dead_letter_if_that_was_chosen() {
    let world = world(3, 10, false, Vec::new());
    let rules = ProjectionRules { retries: 2, ..world.rules() };
    let dead = second_is(|| Applied::RetryThenDeadLetter);
    let (told, counts) = batch_of_one_page(rules.clone(), &world.log, dead, |_| Ok(()));
    let count = |what: &str| told.iter().filter(|effect| *effect == what).count();
    assert_eq!((count("apply 1"), count("pause"), count("park 1")), (3, 2, 1), "{told:?}");
    assert_eq!(counts, (2, 0, 1));

    // One that succeeds in time does not.
    let (told, counts) = batch_of_one_page(
        rules,
        &world.log,
        |index, attempt| if (index, attempt) == (1, 1) { Applied::RetryThenDeadLetter } else { Applied::Ok },
        |_| Ok(()),
    );
    assert!(!told.iter().any(|effect| effect == "park 1"), "{told:?}");
    assert_eq!(counts, (3, 0, 0));
}

#[test]
fn a_read_model_in_memory_applies_nothing_twice_because_a_letter_could_not_be_parked() {
    let world = world(3, 10, false, Vec::new());
    let rules = ProjectionRules { durable: false, ..world.rules() };
    let mut faults = 2;
    let park = |_| {
        if faults == 0 {
            return Ok(());
        }
        faults -= 1;
        Err(Fault::Transient("unavailable"))
    };
    let (told, counts) = batch_of_one_page(rules, &world.log, second_is(|| Applied::DeadLetter), park);
    let applied: Vec<_> = told.iter().filter(|effect| effect.starts_with("apply")).collect();
    assert_eq!(applied, ["apply 0", "apply 1", "apply 2"], "{told:?}");
    assert_eq!(told.iter().filter(|effect| *effect == "park 1").count(), 3, "{told:?}");
    assert_eq!(counts, (2, 0, 1));
}

#[test]
fn after_a_letter_that_could_not_be_parked_the_log_is_verified_before_it_is_read_on() {
    let world = world(2, 10, false, Vec::new());
    let mut machine = ProjectionMachine::<&'static str>::new(world.rules());
    let page = |index: usize| {
        let cursor = world.log[index];
        PageShape { events: vec![cursor], end: Some(cursor), more: index == 0 }
    };
    let (mut input, mut faults, mut told) = (ProjectionInput::Start, 1, Vec::new());
    let finished = loop {
        input = match machine.step(input, Signals::default(), 0.5) {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(Ok(())),
            ProjectionEffect::Resume => ProjectionInput::Resumed(Ok(None)),
            ProjectionEffect::Head => ProjectionInput::Head(Ok(world.log.last().map(|cursor| cursor.position))),
            ProjectionEffect::Read { after } => {
                told.push("read");
                ProjectionInput::Read(Ok(page(usize::from(after.is_some()))))
            }
            ProjectionEffect::Apply { index: 0, .. } if told == ["read"] => {
                ProjectionInput::Applied(0, Applied::DeadLetter)
            }
            ProjectionEffect::Apply { index, .. } => ProjectionInput::Applied(index, Applied::Ok),
            ProjectionEffect::Park { .. } if faults > 0 => {
                faults -= 1;
                told.push("not parked");
                ProjectionInput::Done(Err(Fault::Transient("unavailable")))
            }
            ProjectionEffect::Verify(cursor) => {
                assert_eq!(cursor, world.log[0]);
                told.push("verify");
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Begin | ProjectionEffect::Park { .. } | ProjectionEffect::Commit(_) => {
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Pause(_) => ProjectionInput::Waited,
            ProjectionEffect::Finish(finished) => break finished,
            other => panic!("{other:?}"),
        };
    };
    assert!(finished.is_ok());
    assert_eq!(told, ["read", "not parked", "verify", "read"]);
    assert_eq!((machine.counts(), machine.parked()), ((1, 0), 1));
}
