//! Tests of the Postgres adapter, against a real server.

// The lints allow these inside of test functions only; helpers of tests are meant as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod appending;
mod connecting;
mod crash;
mod fixtures;
mod group_append;
mod harness;
mod horizon_attack;
mod horizon_model;
mod kills;
mod kills_letters;
mod leadership;
mod live;
mod lost_answers;
mod migrations;
mod page_faults;
mod pages;
mod processes;
mod proxy;
mod reading;
mod rebuilding;
mod restore;
mod statements;
mod throughput;
mod watching;
mod worker;
mod young_log;

eventcore_testing::contract_tests!(harness::Postgres);
eventcore_testing::transactional_contract_tests!(harness::Postgres);
