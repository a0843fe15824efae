//! `bank history ACCOUNT`

use crate::Exit;
use crate::output::Failure;
use eventcore::{Backend, PageSize, StreamName, StreamVersion};
use eventcore_examples::bank::{AccountId, Balance, BankError, BankEvent, Booking, Overdraft};
use std::io::{self, Write};
use std::sync::Arc;

pub(crate) async fn run(backend: &Arc<dyn Backend>, account: &AccountId) -> Result<Exit, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let events = each_line(backend, account, |line| writeln!(out, "{line}").map_err(Failure::from)).await?;
    if events == 0 {
        return Err(BankError::NotOpen { account: account.clone() }.into());
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Hands every event of an account, as a line of text, to `print`; tells how many there are.
pub(crate) async fn each_line(
    backend: &Arc<dyn Backend>,
    account: &AccountId,
    mut print: impl FnMut(String) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let stream_id = account.stream_id()?;
    let mut version = StreamVersion::default();
    let mut balance = Balance::ZERO;
    loop {
        let page = backend.read_stream(&stream_id, version, PageSize::default()).await?;
        for event in page.events {
            let event = event.decode::<BankEvent>()?;
            version = event.version();
            balance += event.payload().change();
            let text = describe(event.payload());
            let day = event.payload().booking().map_or_else(
                || event.recorded_at().as_datetime().format("%Y-%m-%d").to_string(),
                |booking| booking.booked_on.to_string(),
            );
            let change = event.payload().change();
            print(format!("{version:>6}  {day}  {change:>14}  {balance:>14}  {text}"))?;
        }
        if !page.more {
            return Ok(version.get());
        }
    }
}

fn describe(event: &BankEvent) -> String {
    let with_text = |what: String, booking: &Booking| match &booking.text {
        Some(text) => format!("{what}: {text}"),
        None => what,
    };
    match event {
        BankEvent::AccountOpened { owner, overdraft } => {
            let owner = owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default();
            match overdraft {
                Overdraft::None => format!("opened{owner}"),
                Overdraft::UpTo(limit) => format!("opened{owner}, overdraft up to {limit}"),
                Overdraft::Unlimited => format!("opened{owner}, unlimited overdraft"),
            }
        }
        BankEvent::MoneyDeposited(booking) => with_text("deposited".to_owned(), booking),
        BankEvent::MoneyWithdrawn(booking) => with_text("withdrawn".to_owned(), booking),
        BankEvent::TransferReceived { from, booking, .. } => with_text(format!("received from {from}"), booking),
        BankEvent::TransferSent { to, booking, .. } => with_text(format!("sent to {to}"), booking),
    }
}
