//! `bank balances`

use crate::Exit;
use crate::output::Failure;
use eventcore::{Backend, ProjectionConfig, run_projection};
use eventcore_examples::bank::Balances;
use std::io::{self, Write};
use std::sync::Arc;

pub(crate) async fn run(backend: &Arc<dyn Backend>) -> Result<Exit, Failure> {
    let outcome = run_projection(Balances::default(), backend, ProjectionConfig::default()).await?;
    print(&outcome.projector)?;
    Ok(Exit::Success)
}

/// Prints a table of all accounts and their total.
pub(crate) fn print(balances: &Balances) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let width = balances.accounts().map(|(account, _)| account.as_ref().len()).max().unwrap_or(0).max("account".len());
    writeln!(out, "{:width$}  {:>16}  owner", "account", "balance")?;
    for (account, held) in balances.accounts() {
        let owner = held.owner.as_ref().map_or("", |owner| owner.as_ref());
        let line = format!("{:width$}  {:>16}  {owner}", account.as_ref(), held.balance);
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "{:width$}  {:>16}", "total", balances.total())?;
    out.flush()
}
