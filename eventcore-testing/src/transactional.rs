//! What an adapter brings whose projections commit a read model together with its checkpoint.

use crate::ContractViolation;
use crate::cases::transactional::{self, Bench};
use crate::harness::{Harness, HarnessError, StoreLimits};
use crate::suite::{CASE_LIMIT, bounded, runtime};
use eventcore::{ProjectionContext, VersionedUnitOfWork};
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// A harness of an adapter that has a transaction for a projection's context.
///
/// The read model of the cases is a table of numbers under keys; the harness makes it where it needs it.
pub trait TransactionalHarness: Harness<Store: VersionedUnitOfWork<<Self as TransactionalHarness>::Context>> {
    /// The context of a page: the store's transaction.
    type Context: ProjectionContext;

    /// Adds to the number under a key, in the transaction of the page. A key that is not there counts as 0.
    fn add(
        &self,
        context: &mut Self::Context,
        key: &str,
        amount: i64,
    ) -> impl Future<Output = Result<(), HarnessError>> + Send;

    /// The committed number under a key.
    fn value(&self, store: &Self::Store, key: &str) -> impl Future<Output = Result<Option<i64>, HarnessError>> + Send;
}

/// Makes one test per case of [`TransactionalHarness`]: `transactional_contract::..`.
#[macro_export]
macro_rules! transactional_contract_tests {
    ($harness:expr) => {
        #[cfg(test)]
        mod transactional_contract {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn cases_are_counted() -> Result<(), $crate::ContractViolation> {
                $crate::show_transactional_count($harness)
            }

            $crate::__for_each_transactional_case!($crate::__transactional_tests_of, $harness);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_transactional_case {
    ($then:path $(, $($with:tt)*)?) => {
        $then! {
            [$($($with)*)?]
            a_page_commits_effects_and_checkpoint_together
            an_open_page_is_not_seen
            a_page_rolled_back_leaves_nothing
            a_dropped_page_leaves_nothing
            a_page_of_a_replaced_leader_does_nothing
            a_leader_replaced_within_a_page_commits_all_or_nothing
            a_projection_that_fails_applies_every_event_once
            a_projection_that_is_stopped_applies_every_event_once
            a_page_cut_short_applies_every_event_once
            an_event_left_out_leaves_no_other_out
            a_letter_and_its_checkpoint_are_committed_together
            a_page_rolled_back_neither_parks_nor_unparks
            a_page_of_a_replaced_leader_parks_nothing
            a_failed_event_is_parked_with_its_page
            a_replayed_letter_takes_effect_once
            writers_and_a_projection_go_on_side_by_side
            the_read_model_outlives_the_store
            a_version_comes_into_force_with_its_checkpoint_and_effects
            a_rebuild_given_up_leaves_the_version_in_force
            a_replaced_leader_changes_no_version
            a_change_that_does_not_fit_does_nothing
            a_rebuild_asked_for_is_remembered_until_it_begins
            a_rebuild_is_never_seen_before_it_has_caught_up
            the_next_leader_goes_on_with_a_rebuild
            a_rebuild_that_fails_leaves_the_old_one_serving
            the_first_version_is_not_seen_before_it_is_whole
            a_manager_rebuilds_versions_and_tells_how_far_it_is
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transactional_tests_of {
    ([$harness:expr] $($case:ident)*) => {
        $(
            #[test]
            fn $case() -> Result<(), $crate::ContractViolation> {
                $crate::run_named_transactional($harness, stringify!($case))
            }
        )*
    };
}

macro_rules! transactional_table {
    ([] $($case:ident)*) => {
        /// The names of all cases of [`TransactionalHarness`].
        #[must_use]
        pub const fn transactional_cases() -> &'static [&'static str] {
            &[$(stringify!($case)),*]
        }

        /// Runs one case of [`TransactionalHarness`] by its name, for at most `limit`.
        ///
        /// # Errors
        /// [`ContractViolation`] says what the store did instead, or that there is no such case.
        pub async fn run_transactional<H: TransactionalHarness>(
            harness: H,
            name: &str,
            limit: Duration,
        ) -> Result<(), ContractViolation> {
            let case = async {
                let harness = Arc::new(harness);
                let place = harness.create(StoreLimits::default()).await?;
                let store = harness.open(&place).await?;
                let bench = Bench { harness: Arc::clone(&harness), place, store };
                let outcome = match name {
                    $(stringify!($case) => transactional::$case(&bench).await,)*
                    _ => Err(ContractViolation::UnknownCase { name: name.to_owned() }),
                };
                let Bench { place, store, .. } = bench;
                drop(store);
                harness.remove(place).await?;
                outcome
            };
            bounded(case, limit).await
        }
    };
}
crate::__for_each_transactional_case!(transactional_table);

/// As [`run_transactional`], on a runtime of its own with several threads. What
/// [`transactional_contract_tests!`](crate::transactional_contract_tests) calls.
///
/// # Errors
/// [`ContractViolation`] says what the store did instead, or that there is no such case.
pub fn run_named_transactional<H: TransactionalHarness>(harness: H, name: &str) -> Result<(), ContractViolation> {
    runtime()?.block_on(run_transactional(harness, name, CASE_LIMIT))
}

/// Says how many cases there are for an adapter, past the test runner's capture.
///
/// # Errors
/// What the system says if it cannot be written.
pub fn show_transactional_count<H: TransactionalHarness>(_harness: H) -> Result<(), ContractViolation> {
    let count = transactional_cases().len();
    Ok(writeln!(std::io::stderr(), "transactional contract cases of {}: {count}", H::NAME)?)
}
