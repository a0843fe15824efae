//! What every workload needs.

use crate::Failure;
use crate::check::{Expected, check};
use crate::domain::{Account, Entry, LedgerEvent};
use crate::outcome::{Limit, Throughput};
use crate::place::Place;
use crate::raw::{Insert, Raw, RawRows};
use crate::resources::Meter;
use crate::timing::{Timed, Until};
use eventcore::{
    AppendRequest, Backend, EventId, EventMetadata, ExpectedVersion, GlobalPosition, NewEvent, StreamName,
};
use indicatif::ProgressBar;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A store is filled by appends of so many events.
const FILL: u32 = 1_000;

pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) meter: Meter,
    pub(crate) concurrency: Vec<NonZeroUsize>,
    pub(crate) time: Duration,
    pub(crate) events: u32,
    /// How many events are in the stores of W9 and, the last, of W10.
    pub(crate) sizes: Vec<u32>,
    /// What the bank imports.
    pub(crate) input: Option<PathBuf>,
    /// Whether what storage and driver can do is measured too.
    pub(crate) limits: bool,
    pub(crate) stop: CancellationToken,
    pub(crate) progress: ProgressBar,
}

impl Lab {
    /// Says what is being done, and whether to go on.
    pub(crate) fn stage(&self, what: impl Into<String>) -> Result<(), Failure> {
        self.progress.set_message(what.into());
        if self.stop.is_cancelled() { Err(Box::new(Interrupted)) } else { Ok(()) }
    }

    pub(crate) fn until(&self, time: Duration, calls: u64) -> Until {
        Until { time, calls, stop: self.stop.clone() }
    }

    /// What the library is held against, if that is wanted.
    pub(crate) async fn limit<L: Into<Limit>>(
        &self,
        what: impl Into<String>,
        measure: impl AsyncFnOnce() -> Result<L, Failure>,
    ) -> Result<Option<Limit>, Failure> {
        self.stage(what)?;
        if self.limits { Ok(Some(measure().await?.into())) } else { Ok(None) }
    }

    /// Repeats `work` for the time of a measurement; each call does `operations`.
    pub(crate) async fn repeat(
        &self,
        operations: u64,
        mut work: impl AsyncFnMut() -> Result<(), Failure>,
    ) -> Result<Timed, Failure> {
        let mut timed = Timed::new()?;
        let started = Instant::now();
        let mut began = started;
        while (began - started < self.time || timed.done == 0) && !self.stop.is_cancelled() {
            work().await?;
            timed.done += operations;
            let now = Instant::now();
            timed.record(now - began)?;
            began = now;
        }
        timed.elapsed = started.elapsed();
        Ok(timed)
    }

    /// How fast the raw driver inserts rows, so many at once, into accounts that have a row each.
    pub(crate) async fn raw_inserts(&self, accounts: u32, rows: usize, how: Insert) -> Result<Throughput, Failure> {
        let mut raw = self.place.raw(accounts).await?;
        let mut source = RawRows::new(accounts);
        self.fill_raw(&mut raw, &mut source, accounts).await?;
        let before = self.meter.start();
        let timed = self.repeat(rows as u64, async || raw.insert(&source.take(rows)?, how).await).await?;
        Ok(Throughput::of(&timed, self.meter.spent(before)))
    }

    /// Fills a store with `events` deposits, spread over `accounts`.
    pub(crate) async fn fill(&self, backend: &Arc<dyn Backend>, events: u32, accounts: u32) -> Result<(), Failure> {
        let mut next = 0;
        while next < events && !self.stop.is_cancelled() {
            let end = events.min(next + FILL);
            backend.append(deposits((next..end).map(|index| Account(index % accounts)), 1)?).await?;
            next = end;
        }
        Ok(())
    }

    /// The same for tables without a library.
    pub(crate) async fn fill_raw(&self, raw: &mut Raw, rows: &mut RawRows, events: u32) -> Result<(), Failure> {
        let mut left = events;
        while left > 0 && !self.stop.is_cancelled() {
            let now = left.min(FILL);
            raw.insert(&rows.take(now as usize)?, Insert::Plain).await?;
            left -= now;
        }
        Ok(())
    }

    /// Makes sure that the log holds what was acknowledged; tells how many commits it came in.
    pub(crate) async fn verify(
        &self,
        backend: &Arc<dyn Backend>,
        after: Option<GlobalPosition>,
        events: u64,
        sum: i64,
    ) -> Result<u64, Failure> {
        let dense = self.place.is_dense();
        Ok(check(backend, Expected { after, events, sum, dense }).await?.commits)
    }
}

/// An append of one deposit to each account, whatever its stream's version is.
pub(crate) fn deposits(accounts: impl IntoIterator<Item = Account>, amount: i64) -> Result<AppendRequest, Failure> {
    let mut request = AppendRequest::builder();
    for account in accounts {
        let stream = account.stream_id()?;
        let event = LedgerEvent::Deposited(Entry::new(account, amount));
        let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?;
        request = request.expect(stream.clone(), ExpectedVersion::Any).event(stream, event);
    }
    Ok(request.build()?)
}

/// Ctrl-C was pressed.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;
