//! What adapters and applications of [`eventcore`] test with.
//!
//! For applications: a [`Scenario`] tests one command without a store, [`strategies`] make valid values for property tests,
//! and a [`FaultyStore`] fails when it is told to. For adapters: the contract suite.
//!
//! # The contract suite
//!
//! Every promise of the ports is a [`Case`]: a function that tries to see it broken, with real concurrency where that
//! is what breaks it. An adapter implements [`Harness`] for its stores and writes [`contract_tests!`]; that makes one
//! test per case, for the store itself, in a `Box<dyn Backend>` and in an `Arc<dyn Backend>`.
//!
//! ```
//! use eventcore_memory::{MemoryConfig, MemoryEventStore};
//! use eventcore_testing::{Harness, HarnessError, StoreLimits};
//!
//! struct Memory;
//!
//! impl Harness for Memory {
//!     type Store = MemoryEventStore;
//!     type Place = MemoryEventStore;
//!     const NAME: &'static str = "memory";
//!     const GAPLESS: bool = true;
//!     const DURABLE: bool = false;
//!
//!     async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
//!         let StoreLimits { append, max_read_events } = limits;
//!         Ok(MemoryEventStore::with_config(MemoryConfig { limits: append, max_read_events }))
//!     }
//!
//!     async fn open(&self, place: &Self::Place) -> Result<Self::Store, HarnessError> {
//!         Ok(place.clone())
//!     }
//! }
//!
//! eventcore_testing::contract_tests!(Memory);
//! # fn main() {}
//! ```
//!
//! An adapter with a transaction for projections implements [`TransactionalHarness`] too and writes
//! [`transactional_contract_tests!`].
//!
//! Cases race on purpose, so one run of a broken store may pass by luck; the tests of this crate run them on stores that are
//! broken in some ninety ways and show which case noticed.
//!
//! # Commands
//!
//! [`Scenario`]: given these events, when this command is executed, then these events, or this rejection. Pure and without a
//! store.
//!
//! # Faults
//!
//! [`FaultyStore`] stands before any store and loses answers, is out of reach, lets others be faster or a leadership lapse,
//! as planned. An [`EffectLog`] keeps what a projector did while its process is killed.
//!
//! # Generators
//!
//! [`strategies`] makes valid names, versions, ids, payloads and events for property tests.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cases;
mod domain;
mod effects;
mod faults;
mod fixtures;
mod harness;
#[cfg(feature = "postgres")]
pub mod postgres;
mod scenario;
pub mod strategies;
mod suite;
mod transactional;
mod violation;

pub use effects::{EffectLog, Effects};
pub use faults::{
    AppendFault, Faults, FaultyStore, InjectedFault, LeadershipFault, ReadFault, SaveFault, SnapshotFault,
};
pub use harness::{Environment, Form, Harness, HarnessError, OpenStore, StoreLimits};
pub use scenario::{Decision, Scenario};
pub use suite::{CASE_LIMIT, Case, Needs, cases, run_case, run_group, run_named, show_count};
pub use transactional::{
    TransactionalHarness, run_named_transactional, run_transactional, show_transactional_count, transactional_cases,
};
pub use violation::ContractViolation;
