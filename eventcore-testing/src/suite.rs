//! The list of cases, and how they are run.

use crate::{ContractViolation, Environment, Form, Harness};
use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// How long a case may take. It is an upper bound for what hangs; a case takes milliseconds, on a busy machine seconds.
pub const CASE_LIMIT: Duration = Duration::from_secs(300);

/// One promise of the ports, and the attempt to see it broken.
#[derive(Clone, Copy)]
pub struct Case {
    /// What is promised, in the words of a test's name.
    pub name: &'static str,
    /// What it is about: `appends`, `executing`, ..
    pub group: &'static str,
    /// What a store must be for the promise to mean something.
    pub needs: Needs,
    run: for<'a> fn(&'a Environment) -> Running<'a>,
}

/// A case under way.
type Running<'a> = Pin<Box<dyn Future<Output = Result<(), ContractViolation>> + Send + 'a>>;

/// What a store must be for a case to apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Needs {
    /// Any store.
    Nothing,
    /// A store that can be closed and opened again ([`Harness::DURABLE`]).
    Durable,
    /// A store that numbers without gaps ([`Harness::GAPLESS`]).
    Gapless,
}

impl Case {
    /// Whether the case means something for the stores of `H`.
    #[must_use]
    pub const fn applies_to<H: Harness>(&self) -> bool {
        match self.needs {
            Needs::Nothing => true,
            Needs::Durable => H::DURABLE,
            Needs::Gapless => H::GAPLESS,
        }
    }

    /// Runs the case, for at most `limit`, and clears away what it made.
    ///
    /// # Errors
    /// [`ContractViolation`] says what the store did instead.
    pub async fn run(&self, environment: &Environment, limit: Duration) -> Result<(), ContractViolation> {
        let outcome = bounded((self.run)(environment), limit).await;
        let cleared = environment.clear().await;
        outcome.and(cleared)
    }
}

/// Runs one case on a store of `harness` held in `form`, on a runtime of its own with several threads. A case that does
/// not apply to the harness passes.
///
/// # Errors
/// [`ContractViolation`] says what the store did instead.
pub fn run_case<H: Harness>(harness: H, form: Form, case: &Case) -> Result<(), ContractViolation> {
    if !case.applies_to::<H>() {
        return Ok(());
    }
    let environment = Environment::new(harness, form);
    runtime()?.block_on(case.run(&environment, CASE_LIMIT))
}

/// Runs a case for at most `limit`. A panic, as when a store answers with less than it has to, is a violation like others.
pub(crate) async fn bounded(
    case: impl Future<Output = Result<(), ContractViolation>>,
    limit: Duration,
) -> Result<(), ContractViolation> {
    let mut case = std::pin::pin!(case);
    let unwinding = std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| case.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(ContractViolation::panicked(panic.as_ref()))))
    });
    tokio::time::timeout(limit, unwinding).await.unwrap_or(Err(ContractViolation::TimedOut { limit }))
}

/// Several threads, so that what races really does.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()
}

/// As [`run_case`], by the case's name. What [`contract_tests!`](crate::contract_tests) calls.
///
/// # Errors
/// [`ContractViolation`] says what the store did instead, or that there is no such case.
pub fn run_named<H: Harness>(harness: H, form: Form, name: &str) -> Result<(), ContractViolation> {
    let unknown = || ContractViolation::UnknownCase { name: name.to_owned() };
    run_case(harness, form, cases().iter().find(|case| case.name == name).ok_or_else(unknown)?)
}

/// Runs the cases of a group one after the other: for stores of an adapter that are set up in another way than those of
/// [`contract_tests!`](crate::contract_tests), as with a queue of one.
///
/// # Errors
/// [`ContractViolation`] says what the store did instead; standard error names the case.
pub fn run_group<H: Harness>(harness: impl Fn() -> H, form: Form, group: &str) -> Result<(), ContractViolation> {
    let mut found = false;
    for case in cases().iter().filter(|case| case.group == group) {
        found = true;
        if let Err(violation) = run_case(harness(), form, case) {
            writeln!(std::io::stderr(), "{} on {}", case.name, H::NAME)?;
            return Err(violation);
        }
    }
    if found { Ok(()) } else { Err(ContractViolation::UnknownCase { name: group.to_owned() }) }
}

/// Says how many cases there are for an adapter, past the test runner's capture.
///
/// # Errors
/// What the system says if it cannot be written.
pub fn show_count<H: Harness>(_harness: H) -> Result<(), ContractViolation> {
    let count = cases().iter().filter(|case| case.applies_to::<H>()).count();
    Ok(writeln!(std::io::stderr(), "contract cases of {}: {count} x {} forms", H::NAME, Form::ALL.len())?)
}

/// All cases.
#[must_use]
pub fn cases() -> &'static [Case] {
    CASES
}

/// The one list of the cases: handed to the macro `$then`, with whatever follows it.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_case {
    ($then:path $(, $($with:tt)*)?) => {
        $then! {
            [$($($with)*)?]
            appends: Nothing {
                events_stand_in_the_order_of_the_request
                an_append_over_several_streams_is_all_or_nothing
                no_reader_sees_half_an_append
                an_append_after_another_stands_after_it
                a_thousand_streams_in_one_append
                all_events_of_an_append_share_the_time_answered
            }
            appends: Gapless {
                positions_begin_at_one_without_gaps
            }
            conflicts: Nothing {
                a_conflict_names_stream_expected_and_actual
                of_several_conflicts_the_first_is_named
                a_conflict_stores_nothing
                an_exact_version_has_to_be_the_stream_s
                exact_zero_means_no_stream
                stream_exists_needs_an_event
                streams_only_read_are_judged
                two_appends_expecting_one_version_one_wins
                increments_under_contention_lose_none
                reading_one_and_writing_the_other_cannot_both_commit
                racing_any_appends_all_land_with_distinct_versions
                a_refused_append_does_not_harm_those_beside_it
            }
            reading: Nothing {
                an_empty_store_has_nothing
                an_acknowledged_append_is_read_at_once
                the_head_is_the_last_acknowledged_position
                streams_are_read_together_in_global_order
                versions_come_in_the_order_of_the_request
                streams_are_read_after_given_versions
                a_read_of_several_streams_is_of_one_moment
                a_stream_is_read_page_by_page
                a_read_over_the_limit_is_refused_whole
            }
            following: Nothing {
                followers_with_pages_of_one_see_every_event_once
                followers_with_pages_of_seven_see_every_event_once
                followers_with_pages_of_a_thousand_see_every_event_once
                followers_with_filters_see_every_wanted_event_once
                a_cursor_moves_over_unwanted_events
                the_cursor_names_the_event_it_stands_at
                the_page_at_the_end_is_empty_without_cursor
                large_events_fill_a_page_early
                a_position_between_events_is_a_place_to_begin
                another_history_is_noticed
                every_log_has_an_identity_of_its_own
                an_append_wakes_those_who_wait
                an_append_before_the_wait_is_not_slept_over
            }
            filters: Nothing {
                names_that_look_alike_are_streams_of_their_own
                prefixes_are_taken_literally
                categories_are_taken_literally
                exact_streams_are_taken_exactly
                types_are_taken_exactly
                type_and_stream_have_to_fit_both
                a_filter_of_no_streams_or_types_wants_nothing
            }
            receipts: Nothing {
                a_replay_answers_the_receipt_whatever_it_expects
                the_receipt_comes_with_the_streams
                a_command_without_events_leaves_a_receipt
                a_command_without_events_is_still_judged
                an_id_of_another_command_is_refused
                a_refused_command_leaves_no_receipt
                racing_executions_of_one_command_have_one_effect
                replays_beside_other_commands_are_told_apart
                command_ids_are_taken_exactly
                pruned_receipts_are_forgotten
            }
            bytes: Nothing {
                json_comes_back_byte_for_byte
                binary_comes_back_byte_for_byte
                metadata_comes_back
                types_and_schema_versions_come_back
                large_payloads_come_back
            }
            limits: Nothing {
                an_oversized_event_is_refused_by_name
                metadata_counts_towards_the_size
                an_oversized_append_is_refused_whole
                oversized_events_do_not_harm_those_beside_them
                ten_thousand_events_in_one_append
            }
            checkpoints: Nothing {
                a_checkpoint_comes_back_as_saved
                who_never_saved_has_no_checkpoint
                a_later_checkpoint_replaces_the_earlier
                the_store_says_when_a_checkpoint_was_saved
                a_checkpoint_of_another_log_is_told
                checkpoints_are_listed_by_name
                a_reset_checkpoint_is_gone_and_its_epoch_stays
                only_the_epoch_in_force_may_save
                a_replaced_leader_saves_nothing_more
            }
            dead_letters: Nothing {
                a_dead_letter_comes_back_as_parked
                a_later_letter_about_an_event_replaces_the_earlier
                dead_letters_are_listed_by_handler_and_position
                a_discarded_letter_is_gone_and_the_others_stay
                letters_about_events_that_come_again_are_discarded
                a_replaced_leader_parks_nothing
            }
            parking: Nothing {
                a_failed_event_becomes_a_dead_letter_and_the_others_go_on
                an_event_whose_attempts_are_used_up_is_parked
                the_checkpoint_does_not_pass_an_event_that_could_not_be_parked
                a_read_model_in_memory_tells_of_its_latest_run
                a_letter_of_an_event_that_comes_again_makes_way
                a_replayed_letter_is_applied_and_gone
                a_letter_that_fails_again_stays_with_its_new_errors
                letters_are_replayed_by_the_leader_alone
                what_comes_again_by_itself_is_not_replayed
            }
            leadership: Nothing {
                a_second_leader_is_refused
                other_projections_have_leaders_of_their_own
                a_released_leadership_is_free_at_once_with_a_higher_epoch
                a_dropped_leadership_becomes_free
                of_racing_candidates_one_leads
            }
            units_of_work: Nothing {
                a_page_with_effects_of_its_own_saves_its_checkpoint
                a_page_in_memory_saves_nothing
            }
            histories: Nothing {
                random_histories_answer_as_a_plain_model_says
            }
            executing: Nothing {
                withdrawals_under_contention_never_overdraw
                transfers_make_and_lose_no_money
                commands_that_read_each_other_do_not_both_withdraw
                a_replayed_withdrawal_answers_its_receipt
                one_command_executed_at_once_has_one_effect
                a_rejected_command_leaves_nothing
                a_decision_to_do_nothing_is_remembered_by_its_id
                an_executed_id_is_not_used_for_another_command
                discovered_streams_are_read_and_judged
                metadata_of_an_execution_is_stored_with_every_event
                the_outcome_tells_where_the_events_are
                a_conflict_is_decided_again_on_a_fresh_read
                a_change_of_a_stream_only_read_is_decided_again
                a_conflict_at_the_last_attempt_is_told
                commands_stored_together_neither_lose_nor_double
                lost_answers_without_an_id_neither_lose_nor_double
                lost_answers_with_an_id_neither_lose_nor_double
                an_outcome_that_stays_unknown_is_told
                an_unavailable_store_is_tried_again
            }
            snapshots: Nothing {
                a_snapshot_comes_back_as_saved
                a_later_snapshot_replaces_all_of_the_earlier
                racing_snapshots_are_whole
                snapshots_go_by_their_exact_key
                a_deleted_snapshot_is_gone_and_others_stay
                the_store_says_when_a_snapshot_was_taken
                old_snapshots_are_pruned
                commands_with_snapshots_decide_as_without
                snapshots_that_are_lost_change_nothing
                a_command_begins_from_a_snapshot_of_another_instance
                a_snapshot_of_no_use_is_passed_over
                a_snapshot_of_a_store_set_back_is_noticed
                commands_under_contention_begin_from_snapshots_and_lose_nothing
                commands_with_a_state_cache_decide_as_without
                a_cached_state_that_is_out_of_date_is_never_answered
                a_replay_on_a_cached_state_answers_its_receipt
                withdrawals_with_state_caches_never_overdraw
            }
            projecting: Nothing {
                a_batch_applies_every_event_in_order
                a_batch_on_an_empty_log_ends
                a_read_model_in_memory_begins_at_the_beginning
                a_projection_run_again_applies_only_what_is_new
                one_checkpoint_is_saved_per_page_after_its_effects
                a_continuous_projection_follows_until_told_to_stop
                a_projection_sees_what_its_filter_wants
                a_projection_that_fails_resumes_at_its_checkpoint
                a_failed_event_is_left_out_or_tried_again_as_chosen
                of_two_runs_one_leads
                a_replaced_leader_is_stopped_at_its_next_checkpoint
                faults_of_the_store_neither_stop_nor_skip
                a_checkpoint_that_does_not_fit_is_refused
            }
            partitioning: Nothing {
                partitions_keep_the_order_of_every_stream
                a_read_model_in_memory_is_the_sum_of_its_parts
            }
            subscribing: Nothing {
                a_subscription_gives_history_then_live
                a_subscription_that_falls_behind_loses_nothing
                a_filtered_subscription_loses_nothing
                a_subscription_begins_where_it_is_told
                a_lossy_subscription_counts_what_it_loses
                a_watcher_shows_every_change_and_no_other
                a_durable_watcher_goes_on_where_it_was_acknowledged
                live_projections_follow_until_they_are_shut_down
                a_rebuilt_read_model_is_whole_when_it_is_seen
            }
            instances: Nothing {
                instances_read_what_the_other_wrote
                instances_conflict_with_each_other
                a_command_on_two_instances_has_one_effect
                a_follower_sees_the_writers_of_other_instances
                an_append_wakes_followers_of_other_instances
                instances_share_leadership_and_epochs
            }
            closing: Nothing {
                a_closed_store_says_so
                who_waits_is_woken_when_the_store_closes
                appends_in_hand_are_answered_when_the_store_closes
            }
            reopening: Durable {
                events_receipts_and_versions_outlive_the_store
                checkpoints_and_epochs_outlive_the_store
                dead_letters_outlive_the_store
                every_append_acknowledged_before_closing_is_there
            }
        }
    };
}

macro_rules! case_table {
    ([] $($module:ident: $needs:ident { $($case:ident)* })*) => {
        const CASES: &[Case] = &[$($(
            Case {
                name: stringify!($case),
                group: stringify!($module),
                needs: Needs::$needs,
                run: |environment| Box::pin(crate::cases::$module::$case(environment)),
            },
        )*)*];
    };
}
crate::__for_each_case!(case_table);

/// Makes one test per case of the contract suite: `contract::value::..`, `contract::boxed::..` and `contract::shared::..`,
/// and one that shows how many cases there are. `$harness` is an expression for a [`Harness`].
#[macro_export]
macro_rules! contract_tests {
    ($harness:expr) => {
        #[cfg(test)]
        mod contract {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn cases_are_counted() -> Result<(), $crate::ContractViolation> {
                $crate::show_count($harness)
            }

            mod value {
                #[allow(unused_imports)]
                use super::*;
                $crate::__for_each_case!($crate::__contract_tests_of, $harness, $crate::Form::Value);
            }

            mod boxed {
                #[allow(unused_imports)]
                use super::*;
                $crate::__for_each_case!($crate::__contract_tests_of, $harness, $crate::Form::Boxed);
            }

            mod shared {
                #[allow(unused_imports)]
                use super::*;
                $crate::__for_each_case!($crate::__contract_tests_of, $harness, $crate::Form::Shared);
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __contract_tests_of {
    ([$harness:expr, $form:expr] $($module:ident: $needs:ident { $($case:ident)* })*) => {
        $($(
            #[test]
            fn $case() -> Result<(), $crate::ContractViolation> {
                $crate::run_named($harness, $form, stringify!($case))
            }
        )*)*
    };
}
