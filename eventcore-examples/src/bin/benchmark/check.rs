//! What was measured has to be right: nothing lost, nothing twice, sums conserved, positions and versions in order.

use crate::Failure;
use crate::domain::LedgerEvent;
use eventcore::{Backend, EventFilter, GlobalPosition, PageSize, StreamId, StreamVersion, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What the log has to hold after a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) after: Option<GlobalPosition>,
    pub(crate) events: u64,
    /// Deposits less withdrawals.
    pub(crate) sum: i64,
    /// Whether positions have no gaps.
    pub(crate) dense: bool,
}

/// What was found besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// How many commits there were: all events of a group are recorded at the same time.
    pub(crate) commits: u64,
}

/// Reads the log and fails loudly if it is not as expected.
pub(crate) async fn check(backend: &Arc<dyn Backend>, expected: Expected) -> Result<Found, Failure> {
    let mut after = expected.after;
    let mut versions: HashMap<StreamId, StreamVersion> = HashMap::new();
    let mut times: HashSet<Timestamp> = HashSet::new();
    let (mut events, mut sum) = (0, 0);
    loop {
        let page = backend.read_page(&EventFilter::all(), after, PageSize::try_new(10_000)?).await?;
        for event in page.events {
            let event = event.decode::<LedgerEvent>()?;
            let position = event.position().get();
            let before = after.map_or(0, GlobalPosition::get);
            if position <= before || (expected.dense && position != before + 1) {
                return Err(broken(format!("position {position} follows {before}")));
            }
            after = Some(event.position());
            if let Some(last) = versions.insert(event.stream_id().clone(), event.version())
                && event.version() != last.next()?
            {
                let stream = event.stream_id();
                return Err(broken(format!("version {} of stream {stream} follows {last}", event.version())));
            }
            times.insert(event.recorded_at());
            events += 1;
            sum += event.payload().change();
        }
        if !page.more {
            break;
        }
    }
    if events != expected.events {
        return Err(broken(format!("{} events were acknowledged, {events} are there", expected.events)));
    }
    if sum != expected.sum {
        return Err(broken(format!("the accounts should hold {}, they hold {sum}", expected.sum)));
    }
    Ok(Found { commits: times.len() as u64 })
}

/// A violation of what the store promises.
pub(crate) fn broken(what: String) -> Failure {
    format!("CHECK FAILED: {what}").into()
}
