//! `bank watch`

use crate::interrupt::asked_to_stop;
use crate::output::Failure;
use crate::{Exit, balances};
use eventcore::{Backend, ProjectionManager};
use eventcore_examples::bank::Balances;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether something is new.
const LOOK: Duration = Duration::from_millis(100);

/// Clears the terminal and goes to its beginning.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the balances, and shows them anew whenever they change. On a terminal it is a table that stays in place; elsewhere
/// a line for each account whenever it has changed.
pub(crate) async fn run(backend: &Arc<dyn Backend>) -> Result<Exit, Failure> {
    let manager = ProjectionManager::builder(Arc::clone(backend)).register(Balances::default)?.build();
    let live = manager.start_live()?;
    let watching = async {
        live.wait_until_caught_up().await?;
        let mut view = View { terminal: io::stdout().is_terminal(), shown: BTreeMap::new(), first: true };
        loop {
            view.show(&manager.live::<Balances>().await?)?;
            tokio::time::sleep(LOOK).await;
        }
    };
    let watched: Result<(), Failure> = tokio::select! {
        biased;
        stopped = asked_to_stop() => stopped.map_err(Into::into),
        watched = watching => watched,
    };
    // This is how a watcher is meant to end.
    let closed = live.shutdown().await;
    watched?;
    closed?;
    Ok(Exit::Success)
}

/// What was shown last.
struct View {
    terminal: bool,
    shown: BTreeMap<String, String>,
    first: bool,
}

impl View {
    fn show(&mut self, balances: &Balances) -> Result<(), Failure> {
        let now: BTreeMap<_, _> =
            balances.accounts().map(|(account, held)| (account.to_string(), held.balance.to_string())).collect();
        if !self.first && now == self.shown {
            return Ok(());
        }
        self.first = false;
        if self.terminal {
            write!(io::stdout(), "{CLEAR}")?;
            balances::print(balances)?;
            writeln!(io::stdout(), "Ctrl-C ends")?;
        } else {
            let mut out = io::stdout().lock();
            for (account, balance) in now.iter().filter(|(account, balance)| self.shown.get(*account) != Some(balance))
            {
                writeln!(out, "{account} {balance}")?;
            }
            out.flush()?;
        }
        self.shown = now;
        Ok(())
    }
}
