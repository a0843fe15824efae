//! What the bank decides: given what happened, when this is asked for, then that happens.

use crate::commands::{booking, deposit, id, open, withdraw};
use eventcore_examples::bank::{AccountId, Balance, BankError, BankEvent, OpenAccount, Overdraft, TransferMoney};
use eventcore_testing::Scenario;

/// An account was opened, and one amount came in.
fn opened(overdraft: Overdraft, deposited: Option<&str>) -> Vec<BankEvent> {
    let opened = BankEvent::AccountOpened { owner: None, overdraft };
    std::iter::once(opened).chain(deposited.map(|amount| BankEvent::MoneyDeposited(booking(amount)))).collect()
}

fn transfer(from: &str, to: &str, amount: &str) -> TransferMoney {
    TransferMoney { transfer: "t-1".parse().unwrap(), from: id(from), to: id(to), booking: booking(amount) }
}

/// Alice has 100.00 and no overdraft, bob 20.00 and an overdraft of 50.00.
fn between_two() -> Scenario<TransferMoney> {
    let limit = Overdraft::UpTo("50.00".parse().unwrap());
    Scenario::new()
        .given(id("alice"), opened(Overdraft::None, Some("100.00")))
        .given(id("bob"), opened(limit, Some("20.00")))
}

fn insufficient(account: &str, balance: &str, amount: &str) -> BankError {
    let balance: Balance = balance.parse().unwrap();
    BankError::InsufficientFunds { account: id(account), balance, amount: amount.parse().unwrap() }
}

fn not_open(account: &str) -> BankError {
    BankError::NotOpen { account: id(account) }
}

#[test]
fn an_account_is_opened_with_its_owner_and_overdraft() {
    let command =
        OpenAccount { account: id("alice"), owner: Some("Alice".parse().unwrap()), overdraft: Overdraft::Unlimited };
    let event = BankEvent::AccountOpened { owner: command.owner.clone(), overdraft: Overdraft::Unlimited };
    Scenario::new().when(command).then_events([(id("alice"), event)]);
}

#[test]
fn an_account_is_opened_once() {
    Scenario::new()
        .given(id("alice"), opened(Overdraft::None, None))
        .when(open("alice", Overdraft::Unlimited))
        .then_rejected(BankError::AlreadyOpen { account: id("alice") });
}

#[test]
fn money_comes_into_an_open_account() {
    Scenario::new()
        .given(id("alice"), opened(Overdraft::None, None))
        .when(deposit("alice", "0.02"))
        .then_events([(id("alice"), BankEvent::MoneyDeposited(booking("0.02")))]);
    Scenario::new().when(deposit("alice", "0.02")).then_rejected(not_open("alice"));
}

#[test]
fn an_account_spends_what_it_has_and_not_more() {
    let alice = || Scenario::new().given(id("alice"), opened(Overdraft::None, Some("100.00")));
    alice()
        .when(withdraw("alice", "100.00"))
        .then_events([(id("alice"), BankEvent::MoneyWithdrawn(booking("100.00")))]);
    alice().when(withdraw("alice", "100.01")).then_rejected(insufficient("alice", "100.00", "100.01"));
    alice()
        .given(id("alice"), [BankEvent::MoneyWithdrawn(booking("99.99"))])
        .when(withdraw("alice", "0.02"))
        .then_rejected(insufficient("alice", "0.01", "0.02"));
    Scenario::new().when(withdraw("alice", "0.01")).then_rejected(not_open("alice"));
}

#[test]
fn an_overdraft_is_used_up_to_its_limit() {
    let bob = |overdraft| Scenario::new().given(id("bob"), opened(overdraft, None));
    let limit = Overdraft::UpTo("50.00".parse().unwrap());
    bob(limit).when(withdraw("bob", "50.00")).then_events([(id("bob"), BankEvent::MoneyWithdrawn(booking("50.00")))]);
    bob(limit).when(withdraw("bob", "50.01")).then_rejected(insufficient("bob", "0.00", "50.01"));
    bob(Overdraft::Unlimited)
        .when(withdraw("bob", "9999999.99"))
        .then_events([(id("bob"), BankEvent::MoneyWithdrawn(booking("9999999.99")))]);
}

#[test]
fn a_transfer_books_in_both_accounts() {
    let command = transfer("alice", "bob", "60.00");
    let (transfer, booking) = (command.transfer.clone(), command.booking.clone());
    let sent = BankEvent::TransferSent { transfer: transfer.clone(), to: id("bob"), booking: booking.clone() };
    let received = BankEvent::TransferReceived { transfer, from: id("alice"), booking };
    between_two().when(command).then_events([(id("alice"), sent), (id("bob"), received)]);
}

#[test]
fn a_transfer_counts_on_the_sending_account_alone() {
    between_two().when(transfer("alice", "bob", "100.01")).then_rejected(insufficient("alice", "100.00", "100.01"));
    between_two().when(transfer("bob", "alice", "70.01")).then_rejected(insufficient("bob", "20.00", "70.01"));
}

#[test]
fn what_was_sent_and_received_before_counts() {
    let booking = booking("30.00");
    let earlier = "t-0".parse().unwrap();
    between_two()
        .given(id("alice"), [BankEvent::TransferSent { transfer: earlier, to: id("bob"), booking: booking.clone() }])
        .given(
            id("bob"),
            [BankEvent::TransferReceived { transfer: "t-0".parse().unwrap(), from: id("alice"), booking }],
        )
        .when(transfer("alice", "bob", "70.01"))
        .then_rejected(insufficient("alice", "70.00", "70.01"));
}

#[test]
fn a_transfer_needs_two_open_accounts() {
    between_two().when(transfer("alice", "carol", "1")).then_rejected(not_open("carol"));
    between_two().when(transfer("carol", "alice", "1")).then_rejected(not_open("carol"));
    let alice: AccountId = id("alice");
    between_two().when(transfer("alice", "alice", "1")).then_rejected(BankError::SameAccount { account: alice });
}
