//! Dead letters as they are stored.

use super::checkpoints::eventually_acquired;
use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointError, DeadLetter, DeadLetterId, DeadLetterStore, Epoch, EventId, GlobalPosition, ProjectorCoordinator,
    Timestamp,
};

pub(crate) fn letter_id(handler: &str, position: u64) -> Checked<DeadLetterId> {
    Ok(DeadLetterId { handler: name(handler)?, position: GlobalPosition::try_new(position)? })
}

/// A letter of `handler` about an event at `position`.
pub(crate) fn letter(handler: &str, position: u64) -> Checked<DeadLetter> {
    Ok(DeadLetter {
        id: letter_id(handler, position)?,
        event_id: EventId::generate(),
        event_type: HAPPENED.parse()?,
        stream_id: stream("account")?,
        attempts: 1,
        errors: vec!["it could not be applied".to_owned(), "out of order".to_owned()],
        parked_at: Timestamp::from_micros(0)?,
    })
}

/// Whether the letter that is stored is `expected`, apart from its time, which is the store's.
async fn is_stored(store: &OpenStore, expected: &DeadLetter) -> Outcome {
    let stored = store.dead_letter(&expected.id).await?;
    let found = stored.map(|stored| DeadLetter { parked_at: expected.parked_at, ..stored });
    ensure_eq!(found.as_ref(), Some(expected), "the dead letter {}", expected.id);
    Ok(())
}

/// The letters there are, all handlers or one, in pages of `size`.
async fn listed(store: &OpenStore, handler: Option<&str>, size: u32) -> Checked<Vec<(String, u64)>> {
    let (mut found, mut after) = (Vec::new(), None);
    let handler = handler.map(name).transpose()?;
    loop {
        let page = store.dead_letters(handler.as_ref(), after.as_ref(), page_size(size)?).await?;
        ensure!(page.len() <= size as usize, "a page of {size} has {} letters", page.len());
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id.clone());
        found.extend(page.iter().map(|letter| (letter.id.handler.to_string(), letter.id.position.get())));
        ensure!(found.len() <= 1_000, "pages of letters do not end");
    }
}

pub(crate) async fn a_dead_letter_comes_back_as_parked(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    ensure_eq!(store.dead_letter(&letter_id("nobody", 1)?).await?, None, "a letter of nobody");
    let mut letters = [letter("follower 'é' _%", 1)?, letter("follower", i64::MAX as u64)?, letter("follower", 2)?];
    letters[0].errors = vec![String::new(), "a \"quoted\" \\ \n\t тест \u{1F600}".to_owned(), "\u{0}".to_owned()];
    letters[0].stream_id = stream("тест_%'")?;
    letters[0].event_type = "test.\"One\"".parse()?;
    letters[1].attempts = 2_000_000_000;
    letters[1].errors = vec!["x".repeat(DeadLetter::MAX_ERROR_CHARS); DeadLetter::MAX_ERRORS];
    letters[2].errors = Vec::new();
    for letter in &letters {
        store.park_dead_letter(letter, None).await?;
    }
    for letter in &letters {
        is_stored(&store, letter).await?;
        let stored = store.dead_letter(&letter.id).await?.map(|letter| letter.parked_at);
        ensure!(stored > Some(Timestamp::from_micros(1_000_000_000_000_000)?), "time of the letter: {stored:?}");
    }
    Ok(())
}

pub(crate) async fn a_later_letter_about_an_event_replaces_the_earlier(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for attempts in [1, 5, 3] {
        let again = DeadLetter { attempts, errors: vec![format!("attempt {attempts}")], ..letter("follower", 7)? };
        store.park_dead_letter(&again, None).await?;
        is_stored(&store, &again).await?;
    }
    ensure_eq!(listed(&store, None, 10).await?.len(), 1, "letters about one event");
    Ok(())
}

pub(crate) async fn dead_letters_are_listed_by_handler_and_position(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    ensure_eq!(listed(&store, None, 10).await?, [], "letters of an empty store");
    let handlers = ["b", "a", "C", "ä", "a b", "a_"];
    for position in [10, 9, 100, 1] {
        for handler in handlers {
            store.park_dead_letter(&letter(handler, position)?, None).await?;
        }
    }
    // By the bytes of the names, and by numbers rather than digits.
    let of = |handler: &str| [1, 9, 10, 100].map(|position| (handler.to_owned(), position));
    let all: Vec<_> = ["C", "a", "a b", "a_", "b", "ä"].into_iter().flat_map(of).collect();
    for size in [1, 3, 24, 100] {
        ensure_eq!(listed(&store, None, size).await?, all, "all letters in pages of {size}");
        ensure_eq!(listed(&store, Some("a"), size).await?, of("a"), "letters of one handler in pages of {size}");
    }
    ensure_eq!(listed(&store, Some("A"), 10).await?, [], "letters of an unknown handler");
    Ok(())
}

pub(crate) async fn a_discarded_letter_is_gone_and_the_others_stay(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for (handler, position) in [("a", 1), ("a", 2), ("b", 1)] {
        store.park_dead_letter(&letter(handler, position)?, None).await?;
    }
    let id = letter_id("a", 1)?;
    ensure!(store.discard_dead_letter(&id).await?, "a letter was discarded, and the store says there was none");
    ensure!(!store.discard_dead_letter(&id).await?, "a letter was discarded twice");
    ensure_eq!(store.dead_letter(&id).await?, None, "a letter that was discarded");
    ensure_eq!(listed(&store, None, 10).await?, [("a".to_owned(), 2), ("b".to_owned(), 1)], "the other letters");
    Ok(())
}

pub(crate) async fn letters_about_events_that_come_again_are_discarded(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for (handler, position) in [("a", 1), ("a", 2), ("a", 3), ("a", 10), ("b", 3)] {
        store.park_dead_letter(&letter(handler, position)?, None).await?;
    }
    let after = Some(GlobalPosition::try_new(2)?);
    let gone = store.discard_dead_letters_after(&name("a")?, after, None).await?;
    ensure_eq!(gone, 2, "letters discarded");
    let rest = [("a", 1), ("a", 2), ("b", 3)].map(|(handler, position)| (handler.to_owned(), position));
    ensure_eq!(listed(&store, None, 10).await?, rest, "the other letters");
    let gone = store.discard_dead_letters_after(&name("a")?, None, None).await?;
    ensure_eq!(gone, 2, "letters discarded");
    ensure_eq!(listed(&store, None, 10).await?, [("b".to_owned(), 3)], "the letters of another handler");
    Ok(())
}

pub(crate) async fn a_replaced_leader_parks_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let kept = letter("follower", 1)?;
    store.park_dead_letter(&kept, Some(Epoch::NONE)).await?;
    let first = store.acquire(&name("follower")?).await?;
    let old = first.epoch();
    store.park_dead_letter(&letter("follower", 2)?, Some(old)).await?;
    store.release(first).await?;
    let second = eventually_acquired(&store, "follower").await?;
    let current = second.epoch();
    for wrong in [Epoch::NONE, old, current.next()] {
        let parked = store.park_dead_letter(&letter("follower", 3)?, Some(wrong)).await;
        ensure_matches!(
            parked,
            Err(CheckpointError::Fenced { epoch, current: c, .. }) if *epoch == wrong && *c == current,
            "a letter with epoch {wrong}, {current} in force"
        );
        let discarded = store.discard_dead_letters_after(&name("follower")?, None, Some(wrong)).await;
        ensure_matches!(discarded, Err(CheckpointError::Fenced { .. }), "letters discarded with epoch {wrong}");
        ensure_eq!(listed(&store, None, 10).await?.len(), 2, "letters");
        is_stored(&store, &kept).await?;
    }
    store.park_dead_letter(&letter("follower", 3)?, Some(current)).await?;
    let gone = store.discard_dead_letters_after(&name("follower")?, None, Some(current)).await?;
    ensure_eq!(gone, 3, "letters discarded by the leader");
    Ok(())
}
