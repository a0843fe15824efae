//! What can be asked of the bank.

use super::{Account, AccountId, Accounts, BankError, BankEvent, Booking, Overdraft, Owner, TransferId};
use eventcore::{Command, CommandLogic, NewEvents, RecordedEvent, StateFold, require};

/// Opens an account.
#[derive(Debug, Clone, Command)]
pub struct OpenAccount {
    /// The account.
    #[stream]
    pub account: AccountId,
    /// Who it belongs to, where that is known.
    pub owner: Option<Owner>,
    /// How far it may go below nothing.
    pub overdraft: Overdraft,
}

impl CommandLogic for OpenAccount {
    type Event = BankEvent;
    type State = Account;
    type Error = BankError;

    fn apply(&self, state: &mut Account, event: &RecordedEvent<BankEvent>) {
        state.apply(event.payload());
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::by_state()
    }

    fn handle(&self, state: &Account, streams: &OpenAccountStreams) -> Result<NewEvents<Self>, BankError> {
        require!(!state.is_open(), BankError::AlreadyOpen { account: self.account.clone() });
        let opened = BankEvent::AccountOpened { owner: self.owner.clone(), overdraft: self.overdraft };
        Ok(NewEvents::new().append(&streams.account, opened))
    }
}

/// Puts money into an account.
#[derive(Debug, Clone, Command)]
pub struct Deposit {
    /// The account.
    #[stream]
    pub account: AccountId,
    /// The amount and the day.
    pub booking: Booking,
}

impl CommandLogic for Deposit {
    type Event = BankEvent;
    type State = Account;
    type Error = BankError;

    fn apply(&self, state: &mut Account, event: &RecordedEvent<BankEvent>) {
        state.apply(event.payload());
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::by_state()
    }

    fn handle(&self, state: &Account, streams: &DepositStreams) -> Result<NewEvents<Self>, BankError> {
        state.require_open(&self.account)?;
        Ok(NewEvents::new().append(&streams.account, BankEvent::MoneyDeposited(self.booking.clone())))
    }
}

/// Takes money out of an account.
#[derive(Debug, Clone, Command)]
pub struct Withdraw {
    /// The account.
    #[stream]
    pub account: AccountId,
    /// The amount and the day.
    pub booking: Booking,
}

impl CommandLogic for Withdraw {
    type Event = BankEvent;
    type State = Account;
    type Error = BankError;

    fn apply(&self, state: &mut Account, event: &RecordedEvent<BankEvent>) {
        state.apply(event.payload());
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::by_state()
    }

    fn handle(&self, state: &Account, streams: &WithdrawStreams) -> Result<NewEvents<Self>, BankError> {
        state.require_funds(&self.account, self.booking.amount)?;
        Ok(NewEvents::new().append(&streams.account, BankEvent::MoneyWithdrawn(self.booking.clone())))
    }
}

/// Moves money from one account to another: both streams are written, or none.
#[derive(Debug, Clone, Command)]
pub struct TransferMoney {
    /// The transfer, as both accounts' events name it.
    pub transfer: TransferId,
    /// Where the money comes from.
    #[stream]
    pub from: AccountId,
    /// Where it goes.
    #[stream]
    pub to: AccountId,
    /// The amount and the day.
    pub booking: Booking,
}

impl CommandLogic for TransferMoney {
    type Event = BankEvent;
    type State = Accounts;
    type Error = BankError;

    fn apply(&self, state: &mut Accounts, event: &RecordedEvent<BankEvent>) {
        state.apply(event);
    }

    fn handle(&self, state: &Accounts, streams: &TransferMoneyStreams) -> Result<NewEvents<Self>, BankError> {
        require!(self.from != self.to, BankError::SameAccount { account: self.from.clone() });
        state.of(&self.to).require_open(&self.to)?;
        state.of(&self.from).require_funds(&self.from, self.booking.amount)?;
        let (transfer, booking) = (&self.transfer, &self.booking);
        let sent =
            BankEvent::TransferSent { transfer: transfer.clone(), to: self.to.clone(), booking: booking.clone() };
        let received = BankEvent::TransferReceived {
            transfer: transfer.clone(),
            from: self.from.clone(),
            booking: booking.clone(),
        };
        Ok(NewEvents::new().append(&streams.from, sent).append(&streams.to, received))
    }
}
