//! Sends groups of requests, and deals with what the server says about a group as a whole.

use super::statement::{AppendStatement, Contended, Judged, Locking, judged};
use crate::PostgresConfig;
use crate::connections::Connections;
use crate::fault::{Fault, store_error};
use crate::retry::{Patience, Retry, acquire};
use eventcore::{AppendRequest, Appended, EventStoreError, SharedError};
use std::collections::HashSet;
use std::time::Duration;

/// What became of a request that was sent.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It is settled.
    Settled(Result<Appended, EventStoreError>),
    /// Nothing happened, since somebody else holds a lock that it needs.
    Busy(Contended),
    /// The connection broke before the answer came: it may or may not have happened.
    Lost(SharedError),
}

impl From<EventStoreError> for Sent {
    fn from(error: EventStoreError) -> Self {
        Self::Settled(Err(error))
    }
}

/// Sends groups of requests.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    connections: Connections,
    statement: AppendStatement,
    patience: Patience,
    lock_timeout: Duration,
}

impl Sender {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        let statement = AppendStatement::new(&config.schema);
        Self { connections, statement, patience: Patience::of(config), lock_timeout: config.lock_timeout }
    }

    pub(crate) const fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) const fn patience(&self) -> Patience {
        self.patience
    }

    /// Sends a group that does not wait for locks.
    pub(crate) async fn send(&self, group: &[&AppendRequest]) -> Vec<Sent> {
        self.send_as(group, Locking::Try).await
    }

    /// Sends a group that waits for its locks; who does not get them in time is told so.
    pub(crate) async fn send_waiting(&self, group: &[&AppendRequest]) -> Vec<Sent> {
        self.send_as(group, Locking::Wait(self.lock_timeout)).await
    }

    async fn send_as(&self, group: &[&AppendRequest], locking: Locking) -> Vec<Sent> {
        let mut answers: Vec<Option<Sent>> = group.iter().map(|_| None).collect();
        // Of requests with one command id, the later ones come after the first, and find its receipt.
        while answers.iter().any(Option::is_none) {
            let mut ids = HashSet::new();
            let fits = |index: &usize| {
                let command = group.get(*index).and_then(|request| request.command());
                command.is_none_or(|claim| ids.insert(&claim.command_id))
            };
            let open = answers.iter().enumerate().filter(|(_, answer)| answer.is_none()).map(|(index, _)| index);
            let chosen: Vec<usize> = open.filter(fits).collect();
            let requests: Vec<&AppendRequest> = chosen.iter().filter_map(|&i| group.get(i).copied()).collect();
            let sent = self.send_distinct(&requests, locking).await;
            for (index, sent) in chosen.into_iter().zip(sent) {
                if let Some(answer) = answers.get_mut(index) {
                    *answer = Some(sent);
                }
            }
        }
        answers.into_iter().flatten().collect()
    }

    /// Sends a group and, where it fails as a whole for the sake of one request or of its size, its halves.
    async fn send_distinct(&self, group: &[&AppendRequest], locking: Locking) -> Vec<Sent> {
        let mut open = vec![group];
        let mut answers = Vec::with_capacity(group.len());
        // A stack of what is left, so that answers come in order.
        while let Some(part) = open.pop() {
            match self.send_once(part, locking).await {
                Ok(sent) => answers.extend(sent),
                Err(Failure::Whole(error)) => answers.extend(part.iter().map(|_| Sent::from(error.clone()))),
                Err(Failure::Lost(error)) => answers.extend(part.iter().map(|_| Sent::Lost(error.clone()))),
                Err(Failure::Divisible(error)) => match part.split_at_checked(part.len() / 2) {
                    Some((first, second)) if !first.is_empty() => open.extend([second, first]),
                    _ => answers.extend(part.iter().map(|_| Sent::from(error.clone()))),
                },
            }
        }
        answers
    }

    /// Sends one group until the server has answered.
    async fn send_once(&self, group: &[&AppendRequest], locking: Locking) -> Result<Vec<Sent>, Failure> {
        let mut retry = Retry::lasting(self.patience.retry_for);
        let mut locking = locking;
        let mut timed_out = None;
        loop {
            let mut connection = acquire(&self.connections, &mut retry).await.map_err(Failure::Whole)?;
            let error = match self.statement.send(&mut connection, self.patience, group, locking).await {
                Ok(row) => {
                    self.connections.keep(connection);
                    // What was done is done, even if the answer cannot be read.
                    let judged =
                        judged(group, locking, &row).map_err(|error| Failure::Lost(SharedError::new(error)))?;
                    return Ok(judged.into_iter().map(|judged| settle(judged, timed_out.as_ref())).collect());
                }
                Err(error) => error,
            };
            match Fault::of(&error) {
                Fault::Lost => return Err(Failure::Lost(SharedError::new(error))),
                Fault::Passing if retry.pause().await => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "sending a group again");
                }
                // Whoever can have his locks now is served, the others have waited long enough.
                Fault::LockTimeout if locking != Locking::Try => {
                    timed_out = Some(store_error(error));
                    locking = Locking::Try;
                }
                Fault::Passing | Fault::LockTimeout => return Err(Failure::Whole(store_error(error))),
                Fault::TooMuch | Fault::Final => return Err(Failure::Divisible(store_error(error))),
            }
        }
    }
}

fn settle(judged: Judged, timed_out: Option<&EventStoreError>) -> Sent {
    match (judged, timed_out) {
        (Judged::Appended(appended), _) => Sent::Settled(Ok(appended)),
        (Judged::Conflict(conflict), _) => Sent::from(EventStoreError::from(conflict)),
        (Judged::Reused(command_id), _) => Sent::from(EventStoreError::CommandIdReused { command_id }),
        (Judged::Busy(_), Some(error)) => Sent::from(error.clone()),
        (Judged::Busy(contended), None) => Sent::Busy(contended),
    }
}

/// Why a group as a whole got no verdicts.
enum Failure {
    /// Nothing was written, and that holds for every request.
    Whole(EventStoreError),
    /// Nothing was written, and parts of the group may fare better.
    Divisible(EventStoreError),
    /// Nobody knows.
    Lost(SharedError),
}
