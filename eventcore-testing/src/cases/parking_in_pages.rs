//! Dead letters that are committed together with the page they belong to.

use super::checkpoints::{checkpoint, eventually_acquired};
use super::dead_letters::{letter, letter_id};
use super::transactional::{Bench, Summing, deposit, pages_of};
use crate::fixtures::*;
use crate::transactional::TransactionalHarness;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointError, DeadLetter, DeadLetterStore, FailureStrategy, ProjectionError, ProjectorCoordinator, ReplayError,
    UnitOfWork, replay_dead_letter, run_projection,
};

impl<H: TransactionalHarness> Bench<H> {
    async fn letters(&self, handler: &str) -> Checked<Vec<DeadLetter>> {
        Ok(self.store.dead_letters(Some(&name(handler)?), None, page_size(100)?).await?)
    }

    async fn positions(&self, handler: &str) -> Checked<Vec<u64>> {
        Ok(self.letters(handler).await?.iter().map(|letter| letter.id.position.get()).collect())
    }
}

pub(crate) async fn a_letter_and_its_checkpoint_are_committed_together<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    store.park(&mut page, &letter("page", 2)?, leader.epoch()).await?;
    let twice = DeadLetter { attempts: 2, ..letter("page", 2)? };
    store.park(&mut page, &twice, leader.epoch()).await?;
    ensure_eq!(bench.positions("page").await?, Vec::<u64>::new(), "letters while the page is open");
    ensure_eq!(bench.resumes_at("page").await?, None, "checkpoint while the page is open");
    store.commit(page, &checkpoint(store, "page", 2)?, leader.epoch()).await?;
    let stored = store.dead_letter(&twice.id).await?.map(|stored| DeadLetter { parked_at: twice.parked_at, ..stored });
    ensure_eq!(stored.as_ref(), Some(&twice), "the letter after the commit");
    ensure_eq!(bench.resumes_at("page").await?, Some(2), "checkpoint after the commit");
    Ok(())
}

pub(crate) async fn a_page_rolled_back_neither_parks_nor_unparks<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    store.park_dead_letter(&letter("page", 1)?, Some(leader.epoch())).await?;
    for rolled_back in [true, false] {
        let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
        store.park(&mut page, &letter("page", 2)?, leader.epoch()).await?;
        ensure!(store.unpark(&mut page, &letter_id("page", 1)?).await?, "the letter is not there");
        if rolled_back {
            store.rollback(page).await?;
        } else {
            drop(page);
        }
    }
    // The next page begins after the connection of the dropped one was cleared.
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    ensure!(
        !store.unpark(&mut page, &letter_id("page", 2)?).await?,
        "a letter of a page that was rolled back is there"
    );
    store.rollback(page).await?;
    ensure_eq!(bench.positions("page").await?, [1], "letters after pages that came to nothing");
    Ok(())
}

pub(crate) async fn a_page_of_a_replaced_leader_parks_nothing<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let first = store.acquire(&name("page")?).await?;
    let old = first.epoch();
    store.release(first).await?;
    let second = eventually_acquired(store, "page").await?;
    let begun: Result<H::Context, _> = store.begin(second.name(), old).await;
    // A store may notice when the page begins or when it ends.
    let answer = match begun {
        Ok(mut page) => {
            store.park(&mut page, &letter("page", 1)?, old).await?;
            store.commit(page, &checkpoint(store, "page", 1)?, old).await
        }
        Err(error) => Err(error),
    };
    ensure_matches!(answer, Err(CheckpointError::Fenced { .. }), "a page with a letter of a replaced leader");
    ensure_eq!(bench.positions("page").await?, Vec::<u64>::new(), "letters after the page of a replaced leader");
    ensure_eq!(bench.resumes_at("page").await?, None, "checkpoint after the page of a replaced leader");
    Ok(())
}

pub(crate) async fn a_failed_event_is_parked_with_its_page<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let mut sum = 0;
    for round in 0..4 {
        // The first, one in the middle, the last of a page, and the last of all.
        let (from, fails_at) = (round * 30 + 1, round * 30 + [1, 8, 10, 30][round as usize]);
        deposit(&bench.store, from, from + 29).await?;
        let strategy = FailureStrategy::DeadLetter;
        let projector = Summing { fails_at: Some(fails_at), strategy, ..bench.projector() };
        let outcome = run_projection(projector, &bench.store, pages_of(10)?).await?;
        ensure_eq!((outcome.applied, outcome.skipped, outcome.parked), (29, 0, 1), "applied, skipped, parked");
        sum += (from..from + 30).sum::<i64>() - fails_at;
        ensure_eq!(bench.value("count").await?, Some((round + 1) * 29), "deposits in the read model");
        ensure_eq!(bench.value("sum").await?, Some(sum), "sum of all deposits but those that failed");
        ensure_eq!(bench.letters("summing").await?.len() as i64, round + 1, "letters");
        ensure_eq!(bench.resumes_at("summing").await?, outcome.position.map(|p| p.get()), "checkpoint");
    }
    Ok(())
}

pub(crate) async fn a_replayed_letter_takes_effect_once<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    deposit(store, 1, 10).await?;
    let strategy = FailureStrategy::DeadLetter;
    let failing = || Summing { fails_at: Some(4), strategy, ..bench.projector() };
    run_projection(failing(), store, pages_of(5)?).await?;
    let letters = bench.letters("summing").await?;
    ensure_eq!(letters.len(), 1, "letters");
    let position = letters[0].id.position;

    let again = replay_dead_letter(failing(), store, position).await.map(drop);
    ensure_matches!(again, Err(ReplayError::Projection(ProjectionError::Apply { .. })), "a replay that fails");
    ensure_eq!(bench.value("count").await?, Some(9), "deposits in the read model after a replay that failed");
    let attempts: Vec<_> = bench.letters("summing").await?.iter().map(|letter| letter.attempts).collect();
    ensure_eq!(attempts, [2], "attempts of the letters");

    replay_dead_letter(bench.projector(), store, position).await?;
    ensure_eq!(bench.letters("summing").await?, [], "letters after the replay");
    bench.holds(10).await?;
    let gone = replay_dead_letter(bench.projector(), store, position).await.map(drop);
    ensure_matches!(gone, Err(ReplayError::NoSuchLetter { .. }), "a letter that was replayed already");
    bench.holds(10).await?;
    run_projection(bench.projector(), store, pages_of(5)?).await?;
    bench.holds(10).await
}
