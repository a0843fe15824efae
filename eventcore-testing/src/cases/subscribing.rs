//! Subscriptions, watchers and live projections: history, then live, with nothing lost in between.

use crate::Environment;
use crate::domain::Money;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointStore, EventFilter, EventId, EventMetadata, EventStore, ExpectedVersion, FeedItem, Freshness,
    GlobalPosition, InMemory, LeadershipError, LiveState, LossyCapacity, LossyError, ManagerError, NewEvent,
    ProjectionManager, Projector, RecordedEvent, StartFrom, StreamId, StreamState, WatchError, subscribe,
    subscribe_lossy, watch, watch_durable,
};
use std::sync::Arc;

async fn deposit(store: &OpenStore, account: &StreamId, amounts: &[i64]) -> Checked<GlobalPosition> {
    let events = amounts.iter().map(|amount| {
        let event = Money::Deposited { amount: *amount };
        Ok((account, NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?))
    });
    let appended = store.append(request(&[], events.collect::<Checked<_>>()?)?).await?;
    appended.events.last().map(|event| event.position).ok_or_else(|| broken("an append answered no events"))
}

fn broken(what: &str) -> crate::ContractViolation {
    crate::ContractViolation::broken(what)
}

/// The amount of the last deposit, which every filter of this module wants.
const LAST: i64 = 999;

/// What a subscription gives until the last deposit.
async fn given(store: OpenStore, filter: EventFilter, size: u32) -> Checked<Vec<GlobalPosition>> {
    let mut feed = subscribe(store, filter, StartFrom::Beginning).page_size(page_size(size)?);
    let (mut seen, mut live) = (Vec::new(), false);
    loop {
        match feed.next_as::<Money>().await? {
            FeedItem::Event(event) => {
                seen.push(event.position());
                if event.payload().change() == LAST {
                    return Ok(seen);
                }
            }
            FeedItem::CaughtUp => {
                ensure!(!live, "it caught up twice without having fallen behind");
                live = true;
            }
            FeedItem::FellBehind => {
                ensure!(live, "it fell behind before it had caught up");
                live = false;
            }
        }
    }
}

/// Subscribes while others write, and compares what it was given with the log.
async fn subscribe_among_writers(env: &Environment, size: u32, filter: EventFilter) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("before")?, &[1; 40]).await?;
    let reader = tokio::spawn(given(Arc::clone(&store), filter.clone(), size));
    let writers = (0..6_usize).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let account = stream(&format!("account-{writer}"))?;
            for round in 0..20 {
                deposit(&store, &account, &[1, 2, 3][..=(writer + round) % 3]).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    together(writers).await?;
    let last = deposit(&store, &stream("account-0")?, &[LAST]).await?;
    let seen = reader.await??;
    let log = follow(&store, &filter, page_size(1_000)?, Some(last)).await?;
    let wanted: Vec<_> = log.iter().map(RecordedEvent::position).collect();
    ensure_eq!(seen, wanted, "the positions that a subscription was given");
    Ok(())
}

pub(crate) async fn a_subscription_gives_history_then_live(env: &Environment) -> Outcome {
    subscribe_among_writers(env, 1_000, EventFilter::all()).await
}

pub(crate) async fn a_subscription_that_falls_behind_loses_nothing(env: &Environment) -> Outcome {
    subscribe_among_writers(env, 1, EventFilter::all()).await
}

pub(crate) async fn a_filtered_subscription_loses_nothing(env: &Environment) -> Outcome {
    subscribe_among_writers(env, 7, EventFilter::of::<Money>().streams(streams(&["account-0", "account-3"])?)).await
}

pub(crate) async fn a_subscription_begins_where_it_is_told(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    let second = {
        deposit(&store, &account, &[1]).await?;
        deposit(&store, &account, &[2]).await?
    };
    let third = deposit(&store, &account, &[3]).await?;
    let mut from_end = subscribe(&store, EventFilter::all(), StartFrom::End);
    ensure_matches!(from_end.next().await?, FeedItem::CaughtUp, "at the end");
    let fourth = deposit(&store, &account, &[4]).await?;
    for (from, expected) in [(StartFrom::After(second), third), (StartFrom::After(third), fourth)] {
        let mut feed = subscribe(&store, EventFilter::all(), from);
        let FeedItem::Event(event) = feed.next().await? else { return Err(broken("no event came first")) };
        ensure_eq!(event.position(), expected, "the first event after a position");
    }
    let FeedItem::Event(event) = from_end.next().await? else { return Err(broken("no event came live")) };
    ensure_eq!(event.position(), fourth, "the first event after the end");
    Ok(())
}

pub(crate) async fn a_lossy_subscription_counts_what_it_loses(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, &[1]).await?;
    let mut lossy = subscribe_lossy(Arc::clone(&store), EventFilter::all(), LossyCapacity::try_new(8)?).await?;
    let last = deposit(&store, &account, &[1; 100]).await?;
    let (mut seen, mut lost) = (0, 0);
    loop {
        match lossy.next().await {
            Ok(event) => {
                seen += 1;
                if event.position() == last {
                    break;
                }
            }
            Err(LossyError::Lagged(events)) => lost += events,
            Err(error) => return Err(broken(&format!("it ended: {error}"))),
        }
    }
    ensure_eq!(seen + lost, 100, "events seen and lost");
    Ok(())
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Balance(i64);

impl StreamState for Balance {
    type Event = Money;

    fn apply(&mut self, event: &RecordedEvent<Money>) {
        self.0 += event.payload().change();
    }
}

pub(crate) async fn a_watcher_shows_every_change_and_no_other(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [account, other] = [stream("account")?, stream("other")?];
    let mut watcher = watch::<Balance, _>(Arc::clone(&store), [account.clone()]);
    let first = watcher.next().await?;
    ensure_eq!((first.generation, first.state), (0, None), "the state of a stream without events");
    let mut generation = 0;
    for round in 1..=10_i64 {
        deposit(&store, &other, &[100]).await?;
        let writer = tokio::spawn({
            let (store, account) = (Arc::clone(&store), account.clone());
            async move { deposit(&store, &account, &[1]).await }
        });
        let seen = watcher.next().await?;
        writer.await??;
        ensure_eq!(seen.state, Some(Balance(round)), "the state after a change");
        ensure!(seen.generation > generation, "the generation did not rise");
        generation = seen.generation;
    }
    deposit(&store, &account, &[5]).await?;
    ensure_eq!(watcher.current(Freshness::Cached).await?.state, Some(Balance(10)), "the cached state");
    ensure_eq!(watcher.current(Freshness::Head).await?.state, Some(Balance(15)), "the state at the head");
    Ok(())
}

pub(crate) async fn a_durable_watcher_goes_on_where_it_was_acknowledged(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let (account, watcher) = (stream("account")?, name("watcher")?);
    let begin = || watch_durable::<Balance, _>(Arc::clone(&store), watcher.clone(), [account.clone()]);
    let first = deposit(&store, &account, &[1]).await?;
    let mut one = begin().await?;
    ensure_eq!(one.next().await?.state, Some(Balance(1)), "the first state");
    let second = begin().await.map(drop);
    ensure_matches!(second, Err(WatchError::Leadership(LeadershipError::Busy { .. })), "a second watcher");
    one.release().await?;
    let mut two = begin().await?;
    ensure_eq!(two.next().await?.state, Some(Balance(1)), "what was shown and not acknowledged");
    two.acknowledge().await?;
    let saved = store.load_checkpoint(&watcher).await?.and_then(|checkpoint| checkpoint.cursor);
    ensure_eq!(saved.map(|cursor| cursor.position), Some(first), "the position that was acknowledged");
    two.release().await?;
    let mut three = begin().await?;
    deposit(&store, &account, &[2]).await?;
    ensure_eq!(three.next().await?.state, Some(Balance(3)), "what is new, with all of the state");
    three.release().await?;
    let others = watch_durable::<Balance, _>(Arc::clone(&store), watcher.clone(), [stream("other")?]).await;
    ensure_matches!(others.map(drop), Err(WatchError::OtherStreams { .. }), "a watcher of other streams");
    Ok(())
}

/// A read model in memory.
#[derive(Debug, Clone, Default)]
struct Total(i64);

impl Projector for Total {
    type Event = Money;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "total"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, _: &mut InMemory) -> Result<(), Self::Error> {
        self.0 += event.payload().change();
        Ok(())
    }
}

/// The same with a stored checkpoint; its read model is not looked at.
#[derive(Debug, Clone)]
struct Effects;

impl Projector for Effects {
    type Event = Money;
    type Error = std::convert::Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "effects"
    }

    async fn apply(&mut self, _: &RecordedEvent<Money>, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }
}

pub(crate) async fn live_projections_follow_until_they_are_shut_down(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, &[1, 2]).await?;
    let manager = ProjectionManager::builder(Arc::clone(&store));
    let manager = manager.register(Total::default)?.register(|| Effects)?.build();
    let live = manager.start_live()?;
    ensure_matches!(manager.start_live().map(drop), Err(ManagerError::AlreadyLive), "a second start");
    live.wait_until_caught_up().await?;
    let head = deposit(&store, &account, &[4]).await?;
    live.wait_for(head).await?;
    ensure_eq!(manager.live::<Total>().await?.0, 7, "the live read model");
    let status = manager.status().await;
    ensure_eq!(status.iter().map(|one| one.lag).collect::<Vec<_>>(), vec![0, 0], "the lags");
    live.shutdown().await?;
    ensure_matches!(live.state(), LiveState::Stopped, "after the shutdown");
    let saved = store.load_checkpoint(&name("effects")?).await?.and_then(|checkpoint| checkpoint.cursor);
    ensure_eq!(saved.map(|cursor| cursor.position), Some(head), "the checkpoint saved by the shutdown");

    // What was written meanwhile is there when it is asked for, live or not.
    try_append(&store, &stream("elsewhere")?, ExpectedVersion::NoStream).await??;
    deposit(&store, &account, &[8]).await?;
    ensure_eq!(manager.projection::<Total>().await?.0, 15, "the read model when nothing is live");
    let again = manager.start_live()?;
    again.wait_until_caught_up().await?;
    ensure_eq!(manager.live::<Total>().await?.0, 15, "the read model after a second start");
    Ok(again.shutdown().await?)
}

pub(crate) async fn a_rebuilt_read_model_is_whole_when_it_is_seen(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    for _ in 0..20 {
        deposit(&store, &account, &[1; 100]).await?;
    }
    let manager = ProjectionManager::builder(Arc::clone(&store)).register(Total::default)?.build();
    let live = manager.start_live()?;
    live.wait_until_caught_up().await?;
    for round in 1..=5_i64 {
        manager.rebuild("total").await?;
        let head = deposit(&store, &account, &[1]).await?;
        let seen = manager.live::<Total>().await?.0;
        ensure!(seen >= 2_000 + round - 1, "half a read model was seen: {seen}");
        live.wait_until_caught_up().await?;
        live.wait_for(head).await?;
        ensure_eq!(manager.live::<Total>().await?.0, 2_000 + round, "the rebuilt read model");
    }
    Ok(live.shutdown().await?)
}
