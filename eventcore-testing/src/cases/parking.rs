//! Projections that give up on events, and events that are given another try.

use super::dead_letters::{letter, letter_id};
use crate::Environment;
use crate::domain::Money;
use crate::faults::{FaultyStore, SaveFault};
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    BackoffMultiplier, CheckpointStore, DeadLetter, DeadLetterStore, EventId, EventMetadata, EventStore,
    FailureContext, FailureStrategy, InMemory, LeadershipError, MaxConsecutiveFailures, MaxRetryAttempts, NewEvent,
    PageSize, Payload, ProjectionConfig, ProjectionContext, ProjectionError, Projector, ProjectorCoordinator,
    RecordedEvent, ReplayError, replay_dead_letter, replay_dead_letters, reset_projection, run_projection,
};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// A projector that fails at certain amounts, in a context of choice.
struct Picky<C> {
    seen: Arc<Mutex<Vec<i64>>>,
    fails_at: BTreeSet<i64>,
    strategy: FailureStrategy,
    context: PhantomData<fn() -> C>,
}

#[derive(Debug, Error)]
#[error("{0} is refused")]
struct Refused(i64, #[source] OnPurpose);

#[derive(Debug, Error)]
#[error("it was told to fail")]
struct OnPurpose;

impl<C> Picky<C> {
    fn failing(amounts: impl IntoIterator<Item = i64>) -> Self {
        Self {
            seen: Arc::default(),
            fails_at: amounts.into_iter().collect(),
            strategy: FailureStrategy::DeadLetter,
            context: PhantomData,
        }
    }

    /// The same one, with what it has seen, after its cause of failure was put right.
    fn mended(&self) -> Self {
        Self { seen: Arc::clone(&self.seen), ..Self::failing([]) }
    }

    /// The same one once more.
    fn again(&self) -> Self {
        Self { fails_at: self.fails_at.clone(), strategy: self.strategy, ..self.mended() }
    }

    fn seen(&self) -> Vec<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<C: ProjectionContext> Projector for Picky<C> {
    type Event = Money;
    type Error = Refused;
    type Context = C;

    fn name(&self) -> &str {
        "picky"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, _: &mut C) -> Result<(), Refused> {
        let amount = event.payload().change();
        if self.fails_at.contains(&amount) {
            return Err(Refused(amount, OnPurpose));
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(amount);
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, Refused>) -> FailureStrategy {
        self.strategy
    }
}

/// Appends deposits of 1 to `count`.
async fn deposit(store: &OpenStore, count: i64) -> Outcome {
    let account = stream("account")?;
    let events = (1..=count).map(|amount| {
        let event = Money::Deposited { amount };
        Ok((&account, NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?))
    });
    store.append(request(&[], events.collect::<Checked<_>>()?)?).await?;
    Ok(())
}

fn pages_of(events: u32) -> Checked<ProjectionConfig> {
    let config = ProjectionConfig::default().page_size(PageSize::try_new(events)?);
    let config = config.read_failures(MaxConsecutiveFailures::default(), Duration::from_millis(1));
    Ok(config.retry_delay(Duration::from_millis(1), BackoffMultiplier::default(), Duration::from_millis(5)))
}

async fn letters(store: &OpenStore) -> Checked<Vec<DeadLetter>> {
    Ok(store.dead_letters(Some(&name("picky")?), None, page_size(100)?).await?)
}

pub(crate) async fn a_failed_event_becomes_a_dead_letter_and_the_others_go_on(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 20).await?;
    let [account, other] = [stream("account")?, stream("other")?];
    let strange = event_with("contract.Deposited", Payload::json(r#"{"amount":"much"}"#))?;
    let strange_id = strange.id;
    store.append(request(&[], vec![(&other, strange)])?).await?;
    let head = store.head().await?;

    let projector = Picky::<()>::failing([5, 6, 20]);
    let outcome = run_projection(projector.again(), &store, pages_of(6)?).await?;
    ensure_eq!((outcome.applied, outcome.skipped, outcome.parked), (17, 0, 4), "events applied, skipped, parked");
    ensure_eq!(outcome.position, head, "position at the end");
    let expected: Vec<_> = (1..=20).filter(|amount| ![5, 6, 20].contains(amount)).collect();
    ensure_eq!(projector.seen(), expected, "deposits but those that failed");

    let letters = letters(&store).await?;
    ensure_eq!(letters.len(), 4, "dead letters");
    for letter in &letters[..3] {
        ensure_eq!((&letter.stream_id, letter.attempts), (&account, 1), "stream and attempts of {}", letter.id);
        ensure_eq!(letter.event_type.as_str(), "contract.Deposited", "type of {}", letter.id);
        let causes: Vec<_> = letter.errors.iter().skip(1).map(String::as_str).collect();
        let refused = [5, 6, 20].map(|amount| format!("{amount} is refused"));
        ensure!(
            refused.iter().any(|text| causes.first() == Some(&text.as_str())),
            "causes of {}: {causes:?}",
            letter.id
        );
        ensure_eq!(causes.last(), Some(&"it was told to fail"), "innermost cause of {}", letter.id);
    }
    let undecodable = &letters[3];
    ensure_eq!((undecodable.event_id, &undecodable.stream_id), (strange_id, &other), "an event that is not decoded");
    ensure_eq!(Some(undecodable.id.position), head, "position of an event that is not decoded");

    let again = run_projection(projector.again(), &store, pages_of(6)?).await?;
    ensure_eq!((again.applied, again.parked), (0, 0), "events applied and parked by an idle run");
    Ok(())
}

pub(crate) async fn an_event_whose_attempts_are_used_up_is_parked(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 5).await?;
    let strategy = FailureStrategy::RetryThenDeadLetter;
    let projector = Picky::<()> { strategy, ..Picky::failing([3]) };
    let config = pages_of(10)?.retries(MaxRetryAttempts::try_new(2)?);
    let outcome = run_projection(projector.again(), &store, config).await?;
    ensure_eq!((outcome.applied, outcome.parked), (4, 1), "events applied and parked");
    let attempts: Vec<_> = letters(&store).await?.into_iter().map(|letter| letter.attempts).collect();
    ensure_eq!(attempts, [3], "attempts of the letters");
    Ok(())
}

pub(crate) async fn the_checkpoint_does_not_pass_an_event_that_could_not_be_parked(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 10).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let projector = Picky::<()>::failing([4]);
    // More faults than are endured.
    faulty.faults().of_parks([SaveFault::Unavailable; 6]);
    let failed = run_projection(projector.again(), &faulty, pages_of(10)?).await.map(drop);
    ensure_matches!(failed, Err(ProjectionError::Store(_)), "a run that cannot park");
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
    let saved = store.load_checkpoint(&name("picky")?).await?.and_then(|checkpoint| checkpoint.cursor);
    let log = follow(&store, &eventcore::EventFilter::all(), page_size(100)?, store.head().await?).await?;
    ensure_eq!(saved.map(|c| c.position), log.get(2).map(RecordedEvent::position), "checkpoint before the event");
    ensure_eq!(letters(&store).await?, [], "letters that were not parked");

    faulty.faults().of_parks([SaveFault::Unavailable, SaveFault::AnswerLost]);
    let outcome = run_projection(projector.again(), &faulty, pages_of(10)?).await?;
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
    ensure_eq!((outcome.applied, outcome.parked), (6, 1), "events applied and parked");
    ensure_eq!(letters(&store).await?.len(), 1, "letters");
    let mut seen = projector.seen();
    seen.dedup();
    ensure_eq!(seen, [1, 2, 3, 5, 6, 7, 8, 9, 10], "deposits");
    Ok(())
}

pub(crate) async fn a_read_model_in_memory_tells_of_its_latest_run(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 10).await?;
    for failing in [vec![4, 7], vec![4], vec![]] {
        let projector = Picky::<InMemory>::failing(failing.clone());
        let outcome = run_projection(projector.again(), &store, pages_of(3)?).await?;
        let parked = failing.len() as u64;
        ensure_eq!((outcome.applied, outcome.parked), (10 - parked, parked), "events applied and parked");
        ensure_eq!(letters(&store).await?.len(), failing.len(), "letters of the latest run");
    }
    Ok(())
}

pub(crate) async fn a_letter_of_an_event_that_comes_again_makes_way(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 10).await?;
    let projector = Picky::<()>::failing([4, 7]);
    run_projection(projector.again(), &store, pages_of(5)?).await?;
    store.park_dead_letter(&letter("other", 1_000)?, None).await?;
    ensure_eq!(letters(&store).await?.len(), 2, "letters");
    reset_projection(&store, &name("picky")?)
        .await
        .map_err(|error| crate::ContractViolation::broken(error.to_string()))?;
    let outcome = run_projection(projector.mended(), &store, pages_of(5)?).await?;
    ensure_eq!((outcome.applied, outcome.parked), (10, 0), "events applied and parked after a reset");
    ensure_eq!(letters(&store).await?, [], "letters about events that were applied since");
    ensure!(
        store.dead_letter(&letter_id("other", 1_000)?).await?.is_some(),
        "the letter of another projection is gone"
    );
    Ok(())
}

pub(crate) async fn a_replayed_letter_is_applied_and_gone(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 10).await?;
    let projector = Picky::<()>::failing([3, 4, 8]);
    run_projection(projector.again(), &store, pages_of(5)?).await?;
    let before = store.load_checkpoint(&name("picky")?).await?.map(|checkpoint| checkpoint.cursor);
    let parked = letters(&store).await?;
    ensure_eq!(parked.len(), 3, "letters");

    replay_dead_letter(projector.mended(), &store, parked[1].id.position).await?;
    ensure_eq!(projector.seen().last().copied(), Some(4), "the deposit that was replayed");
    let rest: Vec<_> = letters(&store).await?.into_iter().map(|letter| letter.id).collect();
    ensure_eq!(rest, [parked[0].id.clone(), parked[2].id.clone()], "letters that were not replayed");
    let gone = replay_dead_letter(projector.mended(), &store, parked[1].id.position).await.map(drop);
    ensure_matches!(gone, Err(ReplayError::NoSuchLetter { .. }), "a letter that is gone");

    let outcome = replay_dead_letters(projector.mended(), &store).await?;
    ensure_eq!((outcome.replayed, outcome.failed), (2, 0), "letters replayed");
    ensure_eq!(letters(&store).await?, [], "letters");
    ensure_eq!(projector.seen(), [1, 2, 5, 6, 7, 9, 10, 4, 3, 8], "deposits");
    let after = store.load_checkpoint(&name("picky")?).await?.map(|checkpoint| checkpoint.cursor);
    ensure_eq!(after, before, "checkpoint after a replay");
    Ok(())
}

pub(crate) async fn a_letter_that_fails_again_stays_with_its_new_errors(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 10).await?;
    let projector = Picky::<()>::failing([3, 4, 8]);
    run_projection(projector.again(), &store, pages_of(5)?).await?;
    // One of them is past help.
    let better = Picky::<()> { fails_at: [4].into(), ..projector.mended() };
    let outcome = replay_dead_letters(better.again(), &store).await?;
    ensure_eq!((outcome.replayed, outcome.failed), (2, 1), "letters replayed and failed again");
    let failed = letters(&store).await?;
    ensure_eq!(failed.len(), 1, "letters");
    let again = replay_dead_letter(better.again(), &store, failed[0].id.position).await.map(drop);
    ensure_matches!(again, Err(ReplayError::Projection(ProjectionError::Apply { attempts: 3, .. })), "a replay");
    let twice = letters(&store).await?;
    ensure_eq!((failed[0].attempts, twice[0].attempts), (2, 3), "attempts of the letter");
    ensure_eq!(twice[0].errors.get(1).map(String::as_str), Some("4 is refused"), "cause of the letter");
    ensure_eq!(projector.seen(), [1, 2, 5, 6, 7, 9, 10, 3, 8], "deposits");
    Ok(())
}

pub(crate) async fn letters_are_replayed_by_the_leader_alone(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 5).await?;
    let projector = Picky::<()>::failing([3]);
    run_projection(projector.again(), &store, pages_of(5)?).await?;
    let position = letters(&store).await?[0].id.position;
    let leader = store.acquire(&name("picky")?).await?;
    let busy = replay_dead_letter(projector.mended(), &store, position).await.map(drop);
    ensure_matches!(
        busy,
        Err(ReplayError::Projection(ProjectionError::Leadership(LeadershipError::Busy { .. }))),
        "a replay while another instance leads"
    );
    store.release(leader).await?;
    replay_dead_letter(projector.mended(), &store, position).await?;
    // And it lets go.
    store.acquire(&name("picky")?).await?;
    Ok(())
}

pub(crate) async fn what_comes_again_by_itself_is_not_replayed(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, 5).await?;
    let projector = Picky::<()>::failing([3]);
    run_projection(projector.again(), &store, pages_of(5)?).await?;
    let position = letters(&store).await?[0].id.position;
    reset_projection(&store, &name("picky")?)
        .await
        .map_err(|error| crate::ContractViolation::broken(error.to_string()))?;
    let ahead = replay_dead_letter(projector.mended(), &store, position).await.map(drop);
    ensure_matches!(ahead, Err(ReplayError::Ahead { .. }), "a replay after a reset");
    let in_memory = replay_dead_letter(Picky::<InMemory>::failing([]), &store, position).await.map(drop);
    ensure_matches!(in_memory, Err(ReplayError::Ahead { .. }), "a replay into a read model in memory");
    ensure_eq!(projector.seen(), [1, 2, 4, 5], "deposits");

    // A run that ended between a letter and the checkpoint that passes its event.
    let store = env.fresh().await?;
    deposit(&store, 5).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_saves([SaveFault::None].into_iter().chain([SaveFault::Unavailable; 6]));
    let projector = Picky::<()>::failing([3]);
    let ended = run_projection(projector.again(), &faulty, pages_of(5)?).await.map(drop);
    ensure_matches!(ended, Err(ProjectionError::Store(_)), "a run whose checkpoint cannot be saved");
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
    let position = letters(&store).await?[0].id.position;
    let ahead = replay_dead_letter(projector.mended(), &store, position).await.map(drop);
    ensure_matches!(ahead, Err(ReplayError::Ahead { .. }), "a replay of what the checkpoint has not passed");
    run_projection(projector.mended(), &store, pages_of(5)?).await?;
    ensure_eq!(projector.seen(), [1, 2, 3, 4, 5], "deposits");
    ensure_eq!(letters(&store).await?, [], "letters of events that were applied");
    Ok(())
}
