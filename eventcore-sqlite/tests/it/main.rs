//! What the SQLite adapter promises, beyond the contract that all adapters share.
#![cfg(test)]

mod appending;
mod child;
mod contract;
mod crashes;
mod damage;
mod exactly_once;
mod fixtures;
mod full;
mod immutability;
mod kills;
mod kills_letters;
mod live;
mod opening;
mod processes;
mod reading;
mod rebuilding;
mod support;
