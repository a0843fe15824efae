//! The driver of the parts of a page: several projectors of one type, each with the streams that are its own.

use super::attempt::attempt;
use super::driver::out_of_step;
use super::flag::CancelFlag;
use super::page::PageEvents;
use super::parts::{PageDone, PartDone, PartEffect, PartInput, PartMachine, Partitions};
use super::protocol::Applied;
use super::{PartitionContext, ProjectionError, Projector};
use crate::{DeadLetter, Epoch, EventStoreError, ProjectionName, RecordedEvent, RetryPolicy};
use async_trait::async_trait;
use std::panic::resume_unwind;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

type Failure<P> = ProjectionError<<P as Projector>::Error>;

/// Those who share the work with the first projector of a run.
#[async_trait]
pub(super) trait Crew<P: Projector>: Send {
    /// Tells them the epoch of their leadership.
    fn leading(&mut self, epoch: Epoch);

    /// Applies a stretch of a page, all of them at once. Those that another one's failure, `halt` or `lost` stops finish the
    /// event in hand. Also the letters about events that may become dead ones.
    async fn apply(
        &mut self,
        first: &mut P,
        context: &P::Context,
        page: Stretch,
    ) -> (PageDone<Failure<P>>, Vec<DeadLetter>);

    /// The projectors, in their order, without the first one.
    fn disband(self: Box<Self>) -> Vec<P>;
}

/// A stretch of a page.
pub(super) struct Stretch {
    /// The projection.
    pub(super) name: ProjectionName,
    pub(super) events: PageEvents,
    pub(super) from: usize,
    pub(super) until: usize,
    /// Is cancelled when the run is to stop. The workers cancel it for each other, so it is of this stretch alone.
    pub(super) halt: CancellationToken,
    /// Is cancelled when the leadership is no longer sure.
    pub(super) lost: CancellationToken,
}

pub(super) struct Workers<P> {
    /// All but the first one, which works in the run's own task. Each is at hand unless it is at work.
    others: Vec<Option<P>>,
    partitions: Partitions,
    retry: RetryPolicy,
    retries: u32,
}

impl<P> Workers<P> {
    pub(super) fn new(others: Vec<P>, partitions: Partitions, retry: RetryPolicy, retries: u32) -> Self {
        Self { others: others.into_iter().map(Some).collect(), partitions, retry, retries }
    }

    /// The places in the page of each worker's events.
    fn split(&self, events: &[RecordedEvent], from: usize, until: usize) -> Vec<Vec<usize>> {
        let mut parts = vec![Vec::new(); self.partitions.get()];
        for (index, event) in events.iter().enumerate().take(until).skip(from) {
            if let Some(part) = parts.get_mut(self.partitions.of(event.stream_id())) {
                part.push(index);
            }
        }
        parts
    }
}

#[async_trait]
impl<P> Crew<P> for Workers<P>
where
    P: Projector + 'static,
    P::Context: PartitionContext,
{
    fn leading(&mut self, epoch: Epoch) {
        self.others.iter_mut().flatten().for_each(|projector| projector.leading(epoch));
    }

    async fn apply(
        &mut self,
        first: &mut P,
        context: &P::Context,
        page: Stretch,
    ) -> (PageDone<Failure<P>>, Vec<DeadLetter>) {
        let Stretch { name, events, from, until, halt, lost } = page;
        let mut parts = self.split(&events, from, until).into_iter();
        let mine = PartMachine::new(parts.next().unwrap_or_default(), self.retry, self.retries);
        let mut done = Vec::with_capacity(self.partitions.get());
        let mut letters = Vec::new();
        // Dropped with the run, it ends those who are at work.
        let mut at_work = JoinSet::new();
        for (place, part) in parts.enumerate().filter(|(_, part)| !part.is_empty()) {
            let Some(mut projector) = self.others.get_mut(place).and_then(Option::take) else {
                done.push(PartDone::failed(part.first().copied(), out_of_step().into()));
                continue;
            };
            let (name, events, halt, context) = (name.clone(), events.clone(), halt.clone(), *context);
            let machine = PartMachine::new(part, self.retry, self.retries);
            let work = async move {
                let mut letters = Vec::new();
                let part = work(&mut projector, &events, machine, context, &halt, &name, &mut letters).await;
                (place, projector, part, letters)
            };
            at_work.spawn(work.in_current_span());
        }
        let all = async {
            done.push(work(first, &events, mine, *context, &halt, &name, &mut letters).await);
            while let Some(joined) = at_work.join_next().await {
                match joined.map_err(tokio::task::JoinError::try_into_panic) {
                    Ok((place, projector, part, more)) => {
                        letters.extend(more);
                        if let Some(at_hand) = self.others.get_mut(place) {
                            *at_hand = Some(projector);
                        }
                        done.push(part);
                    }
                    // As if it had panicked in the run's own task.
                    Err(Ok(panic)) => resume_unwind(panic),
                    // The runtime is shutting down.
                    Err(Err(_)) => done.push(PartDone::failed(Some(from), EventStoreError::Closed.into())),
                }
            }
        };
        let halt_when_lost = async {
            lost.cancelled().await;
            halt.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = all => {}
            () = halt_when_lost => {}
        }
        (PageDone::of(until, done), letters)
    }

    fn disband(self: Box<Self>) -> Vec<P> {
        self.others.into_iter().flatten().collect()
    }
}

/// One worker's part of a page.
async fn work<P: Projector>(
    projector: &mut P,
    events: &[RecordedEvent],
    mut machine: PartMachine<Failure<P>>,
    mut context: P::Context,
    halt: &CancellationToken,
    name: &ProjectionName,
    letters: &mut Vec<DeadLetter>,
) -> PartDone<Failure<P>> {
    let halted = CancelFlag::new(halt.clone());
    let mut input = PartInput::Start;
    loop {
        let retry = matches!(input, PartInput::Applied(Applied::Retry(_) | Applied::RetryThenDeadLetter));
        let jitter = if retry { fastrand::f64() } else { 0.0 };
        input = match machine.step(input, halted.is_set(), jitter) {
            PartEffect::Apply { index, attempt: times } => PartInput::Applied(match events.get(index) {
                Some(event) => attempt(projector, event, &mut context, times, name, letters).await,
                None => Applied::Fatal(out_of_step().into()),
            }),
            PartEffect::Pause(time) => {
                tokio::select! {
                    () = tokio::time::sleep(time) => {}
                    () = halt.cancelled() => {}
                }
                PartInput::Waited
            }
            PartEffect::Finish => break,
        };
    }
    let done = machine.finish();
    if done.failed.is_some() {
        halt.cancel();
    }
    done
}
