//! Broken stores, each with the case that has to notice. A test that did not notice would be worth nothing.

use crate::model::Model;
use eventcore_testing::{ContractViolation, Environment, Form, cases, run_transactional, transactional_cases};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a case gets on a broken store. Most fail at once; those that hang are cut off.
const LIMIT: Duration = Duration::from_secs(1);

/// What takes long by its sheer size, and is not needed to find any of the defects.
const HEAVY: [&str; 2] = ["a_thousand_streams_in_one_append", "ten_thousand_events_in_one_append"];

macro_rules! defects {
    ($($(#[doc = $what:literal])+ $defect:ident => $test:ident caught by $case:ident;)+) => {
        /// What can be wrong with a store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Defect {
            $($(#[doc = $what])+ $defect,)+
        }

        $(
            #[test]
            fn $test() {
                is_caught(Defect::$defect, concat!($($what),+).trim(), stringify!($case));
            }
        )+
    };
}

defects! {
    /// expected versions are not looked at
    NoVersionCheck => lost_updates caught by two_appends_expecting_one_version_one_wins;
    /// versions are judged in one step and events stored in another
    JudgedInAStepOfItsOwn => lost_updates_in_a_race caught by increments_under_contention_lose_none;
    /// streams that are only read are not judged
    OnlyWrittenStreamsJudged => write_skew caught by reading_one_and_writing_the_other_cannot_both_commit;
    /// `NoStream` is taken for `Any`
    NoStreamIsAny => no_stream_is_any caught by exact_zero_means_no_stream;
    /// `StreamExists` is taken for `Any`
    StreamExistsIsAny => stream_exists_is_any caught by stream_exists_needs_an_event;
    /// an exact version is taken for a lowest version
    ExactIsAtLeast => exact_is_at_least caught by an_exact_version_has_to_be_the_stream_s;
    /// a conflict does not tell the actual version
    ConflictTellsNoActual => conflict_without_actual caught by a_conflict_names_stream_expected_and_actual;
    /// of a refused append the events that would fit are stored
    PartialAppend => partial_appends caught by an_append_over_several_streams_is_all_or_nothing;
    /// the events of an append become visible one by one
    HalfAppendsVisible => half_appends_visible caught by no_reader_sees_half_an_append;
    /// positions are drawn first and events shown later, so that readers pass over them
    NaiveVisibility => missed_events caught by followers_with_pages_of_seven_see_every_event_once;
    /// the cursor of a page is the end of the log, though the page was full
    CursorRunsAhead => missed_events_behind_a_page caught by followers_with_pages_of_one_see_every_event_once;
    /// an event of a full page is dropped
    DropsOneOfAFullPage => dropped_events caught by followers_with_pages_of_seven_see_every_event_once;
    /// a page begins with the last event of the one before
    PagesOverlap => duplicates caught by the_cursor_names_the_event_it_stands_at;
    /// pages are as large as their events
    PagesOfAnySize => pages_of_any_size caught by large_events_fill_a_page_early;
    /// a page of a stream begins with the last event of the one before
    StreamPagesOverlap => duplicates_in_a_stream caught by a_stream_is_read_page_by_page;
    /// the events of a page come stream by stream
    PagesOutOfOrder => reordering caught by followers_with_pages_of_a_thousand_see_every_event_once;
    /// positions run against the order of the request
    PositionsAgainstTheOrder => reordering_within_an_append caught by events_stand_in_the_order_of_the_request;
    /// the positions answered are not those stored
    AnswersWrongPositions => wrong_answers caught by events_stand_in_the_order_of_the_request;
    /// a refused append uses up a position
    ConflictBurnsPosition => gaps caught by positions_begin_at_one_without_gaps;
    /// a full page says that there is no more
    FullPageSaysNoMore => full_page_without_more caught by followers_with_pages_of_seven_see_every_event_once;
    /// the cursor stays at the last wanted event
    CursorOnlyAtWanted => cursor_stays_behind caught by a_cursor_moves_over_unwanted_events;
    /// the cursor names another event
    CursorWithoutEvent => cursor_of_another_event caught by the_cursor_names_the_event_it_stands_at;
    /// a cursor of another history is accepted
    DivergenceUnnoticed => divergence_unnoticed caught by another_history_is_noticed;
    /// every log has the same identity
    OneIdentityForAll => one_identity caught by every_log_has_an_identity_of_its_own;
    /// followers are not woken
    NobodyIsWoken => nobody_is_woken caught by an_append_wakes_those_who_wait;
    /// the streams of one read are read one after the other
    TornReads => torn_reads caught by a_read_of_several_streams_is_of_one_moment;
    /// streams are read as they were one event ago
    StaleReads => stale_reads caught by an_acknowledged_append_is_read_at_once;
    /// the events of a read come stream by stream
    ReadsStreamByStream => reads_stream_by_stream caught by streams_are_read_together_in_global_order;
    /// the versions of a read come in an order of their own
    VersionsSorted => versions_sorted caught by versions_come_in_the_order_of_the_request;
    /// a read brings no receipt
    ReceiptNotRead => receipt_not_read caught by the_receipt_comes_with_the_streams;
    /// a read is not limited
    NoReadLimit => no_read_limit caught by a_read_over_the_limit_is_refused_whole;
    /// a replay is stored again
    ReplayStoredAgain => replay_stored_again caught by a_replay_answers_the_receipt_whatever_it_expects;
    /// a replay is judged before its receipt is looked up
    ReplayJudgedFirst => replay_judged_again caught by a_replay_answers_the_receipt_whatever_it_expects;
    /// a replay does not say that it is one
    ReplayNotMarked => replay_not_marked caught by a_replay_answers_the_receipt_whatever_it_expects;
    /// a replay does not tell where the events are
    ReplayWithoutPlaces => replay_without_places caught by a_replay_answers_the_receipt_whatever_it_expects;
    /// a receipt does not keep the order of the events
    ReceiptForgetsOrder => receipt_forgets_order caught by a_replay_answers_the_receipt_whatever_it_expects;
    /// the receipt is looked up in one step and the events stored in another
    ReceiptInAStepOfItsOwn => replay_in_a_race caught by racing_executions_of_one_command_have_one_effect;
    /// a command without events leaves no receipt
    NoReceiptWithoutEvents => no_receipt_without_events caught by a_command_without_events_leaves_a_receipt;
    /// a command that conflicts leaves a receipt
    ReceiptInSpiteOfConflict => receipt_in_spite_of_conflict caught by a_refused_command_leaves_no_receipt;
    /// the same id of another command is taken for a replay
    FingerprintIgnored => fingerprint_ignored caught by an_id_of_another_command_is_refused;
    /// a receipt as old as the limit is pruned
    PrunesOneTooMany => prunes_one_too_many caught by pruned_receipts_are_forgotten;
    /// pruning does nothing
    PrunesNothing => prunes_nothing caught by pruned_receipts_are_forgotten;
    /// JSON is parsed and written anew
    PayloadNormalised => payload_normalised caught by json_comes_back_byte_for_byte;
    /// payloads go through text
    PayloadAsText => payload_as_text caught by binary_comes_back_byte_for_byte;
    /// the content type is not kept
    ContentTypeLost => content_type_lost caught by binary_comes_back_byte_for_byte;
    /// metadata is not kept
    MetadataLost => metadata_lost caught by metadata_comes_back;
    /// the schema version is not kept
    SchemaVersionLost => schema_version_lost caught by types_and_schema_versions_come_back;
    /// the event id is not kept
    EventIdReplaced => event_id_replaced caught by json_comes_back_byte_for_byte;
    /// times are kept in milliseconds
    TimeInMilliseconds => time_in_milliseconds caught by all_events_of_an_append_share_the_time_answered;
    /// there is no limit of size
    NoSizeLimit => no_size_limit caught by an_oversized_event_is_refused_by_name;
    /// stream names ignore case
    NamesIgnoreCase => names_ignore_case caught by names_that_look_alike_are_streams_of_their_own;
    /// stream names are cut off
    NamesCutOff => names_cut_off caught by names_that_look_alike_are_streams_of_their_own;
    /// a prefix is taken for a pattern
    PrefixIsAPattern => prefix_is_a_pattern caught by prefixes_are_taken_literally;
    /// a prefix ignores case
    PrefixIgnoresCase => prefix_ignores_case caught by prefixes_are_taken_literally;
    /// the end of a prefix is left out of the comparison if it is a dash
    PrefixWithoutItsDash => prefix_without_its_dash caught by categories_are_taken_literally;
    /// event types ignore case
    TypesIgnoreCase => types_ignore_case caught by types_are_taken_exactly;
    /// types are not filtered
    TypeFilterIgnored => type_filter_ignored caught by type_and_stream_have_to_fit_both;
    /// a selection of no streams is taken for all streams
    EmptySelectionIsAll => empty_selection_is_all caught by a_filter_of_no_streams_or_types_wants_nothing;
    /// checkpoints are saved whatever their epoch
    FencingIgnored => fencing_ignored caught by only_the_epoch_in_force_may_save;
    /// an epoch that was never given out may save
    FencesOnlyOlderEpochs => fences_only_older_epochs caught by only_the_epoch_in_force_may_save;
    /// the epoch is judged in one step and the checkpoint saved in another
    FencedInAStepOfItsOwn => fenced_in_a_race caught by a_replaced_leader_saves_nothing_more;
    /// the time of a checkpoint is the caller's
    TimeOfTheCaller => time_of_the_caller caught by the_store_says_when_a_checkpoint_was_saved;
    /// the lineage of a checkpoint is replaced by the store's
    LineageOfTheStore => lineage_of_the_store caught by a_checkpoint_of_another_log_is_told;
    /// checkpoints only go forward
    CheckpointsNeverGoBack => checkpoints_never_go_back caught by a_later_checkpoint_replaces_the_earlier;
    /// a reset does nothing
    ResetForgetsNothing => reset_forgets_nothing caught by a_reset_checkpoint_is_gone_and_its_epoch_stays;
    /// a reset lets old leaders in again
    ResetForgetsTheEpoch => reset_forgets_the_epoch caught by a_reset_checkpoint_is_gone_and_its_epoch_stays;
    /// checkpoints are listed in any order
    ListedInAnyOrder => listed_in_any_order caught by checkpoints_are_listed_by_name;
    /// a snapshot has the payload of the one before
    StaleSnapshotPayload => stale_snapshot_payload caught by a_later_snapshot_replaces_all_of_the_earlier;
    /// snapshots only go forward
    SnapshotsNeverGoBack => snapshots_never_go_back caught by a_later_snapshot_replaces_all_of_the_earlier;
    /// the payload of a snapshot is saved in a step of its own
    SnapshotSavedInTwoSteps => snapshot_saved_in_two_steps caught by racing_snapshots_are_whole;
    /// of the streams of a snapshot only the first is kept
    SnapshotStreamsCutOff => snapshot_streams_cut_off caught by a_snapshot_comes_back_as_saved;
    /// the time of a snapshot is the caller's
    SnapshotTimeOfTheCaller => snapshot_time_of_the_caller caught by the_store_says_when_a_snapshot_was_taken;
    /// the keys of snapshots ignore case
    SnapshotKeysIgnoreCase => snapshot_keys_ignore_case caught by snapshots_go_by_their_exact_key;
    /// deleting one snapshot deletes all
    DeletesAllSnapshots => deletes_all_snapshots caught by a_deleted_snapshot_is_gone_and_others_stay;
    /// a snapshot as old as the limit is pruned
    PrunesOneSnapshotTooMany => prunes_one_snapshot_too_many caught by old_snapshots_are_pruned;
    /// several lead at once
    EverybodyLeads => everybody_leads caught by a_second_leader_is_refused;
    /// the epoch does not rise
    EpochStands => epoch_stands caught by a_released_leadership_is_free_at_once_with_a_higher_epoch;
    /// a released leadership is not free
    ReleaseDoesNothing => release_does_nothing caught by a_released_leadership_is_free_at_once_with_a_higher_epoch;
    /// a dropped leadership is not free
    DropDoesNotRelease => drop_does_not_release caught by a_dropped_leadership_becomes_free;
    /// a closed store goes on
    ClosesInName => closes_in_name caught by a_closed_store_says_so;
    /// who waits is not told that the store is closed
    ClosesSilently => closes_silently caught by who_waits_is_woken_when_the_store_closes;
    /// the effects of a page do not wait for its commit
    EffectsAtOnce => effects_at_once caught by an_open_page_is_not_seen;
    /// a page that is rolled back is committed
    RollbackCommits => rollback_commits caught by a_page_rolled_back_leaves_nothing;
    /// a page commits its effects without its checkpoint
    CheckpointForgotten => checkpoint_forgotten caught by a_page_commits_effects_and_checkpoint_together;
    /// a page of a leader that was replaced commits its effects
    EffectsInSpiteOfFencing => effects_in_spite_of_fencing caught by a_page_of_a_replaced_leader_does_nothing;
    /// a letter is answered and not kept
    ParksNothing => parks_nothing caught by a_failed_event_becomes_a_dead_letter_and_the_others_go_on;
    /// of the errors of a letter only the outermost is kept
    CausesLost => causes_lost caught by a_dead_letter_comes_back_as_parked;
    /// the first letter about an event stays
    LettersNeverReplaced => letters_never_replaced caught by a_later_letter_about_an_event_replaces_the_earlier;
    /// letters are listed by position, whoever they are from
    LettersByPosition => letters_by_position caught by dead_letters_are_listed_by_handler_and_position;
    /// a page of letters begins with the last of the one before
    LetterPagesOverlap => letter_pages_overlap caught by dead_letters_are_listed_by_handler_and_position;
    /// one letter is discarded, and with it all of its handler
    DiscardsTheWholeHandler => discards_the_whole_handler caught by a_discarded_letter_is_gone_and_the_others_stay;
    /// of the letters after a position the one at the position is discarded too
    DiscardsTheLastToo => discards_the_last_too caught by letters_about_events_that_come_again_are_discarded;
    /// a leader that was replaced parks letters
    ParksInSpiteOfFencing => parks_in_spite_of_fencing caught by a_replaced_leader_parks_nothing;
    /// a letter does not wait for the commit of its page
    ParksAtOnce => parks_at_once caught by a_letter_and_its_checkpoint_are_committed_together;
    /// a page that is rolled back parks its letters
    RollbackParks => rollback_parks caught by a_page_rolled_back_neither_parks_nor_unparks;
    /// a page of a leader that was replaced parks its letters
    LettersInSpiteOfFencing => letters_in_spite_of_fencing caught by a_page_of_a_replaced_leader_parks_nothing;
    /// a letter that was replayed stays
    UnparksInName => unparks_in_name caught by a_replayed_letter_takes_effect_once;
    /// a letter that is replayed does not wait for the commit of its page
    UnparksAtOnce => unparks_at_once caught by a_page_rolled_back_neither_parks_nor_unparks;
    /// a swap leaves the projection at the checkpoint of the old version
    SwapKeepsTheOldCheckpoint => swap_keeps_the_old_checkpoint caught by a_version_comes_into_force_with_its_checkpoint_and_effects;
    /// a swap leaves a checkpoint of the version behind
    SwapKeepsTheVersionsCheckpoint => swap_keeps_the_versions_checkpoint caught by a_rebuild_is_never_seen_before_it_has_caught_up;
    /// a swap leaves the dead letters of the old version and loses those of the new one
    SwapLeavesTheLetters => swap_leaves_the_letters caught by a_version_comes_into_force_with_its_checkpoint_and_effects;
    /// a swap forgets what was done in its transaction
    SwapWithoutEffects => swap_without_effects caught by a_version_comes_into_force_with_its_checkpoint_and_effects;
    /// a page of a version that is built moves the version in force
    VersionMovesTheProjection => version_moves_the_projection caught by the_next_leader_goes_on_with_a_rebuild;
    /// a replaced leader changes versions
    ChangesUnfenced => version_changes_unfenced caught by a_replaced_leader_changes_no_version;
    /// a change that does not fit keeps its effects
    EffectsOfUnfitChanges => effects_of_unfit_changes caught by a_change_that_does_not_fit_does_nothing;
    /// a version that is removed leaves its checkpoint for the next of its number
    ForgottenVersionKeepsItsCheckpoint => forgotten_version_keeps_its_checkpoint caught by a_rebuild_given_up_leaves_the_version_in_force;
    /// a rebuild that was asked for is forgotten
    RequestForgotten => request_forgotten caught by a_rebuild_asked_for_is_remembered_until_it_begins;
    /// a rebuild that was asked for begins again and again
    RequestOutlivesItsRebuild => request_outlives_its_rebuild caught by a_rebuild_asked_for_is_remembered_until_it_begins;
    /// a rebuild is asked for beside one that is under way
    RequestBesideARebuild => request_beside_a_rebuild caught by a_rebuild_asked_for_is_remembered_until_it_begins;
}

/// Runs the suite on stores with the defect, all cases at once: `expected` has to be among those that notice.
fn is_caught(defect: Defect, what: &str, expected: &'static str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let mut caught = runtime.block_on(caught_by(defect, |name| !HEAVY.contains(&name)));
    // A race need not come out badly every time: such a case gets some more runs.
    for _ in 0..20 {
        if !caught.contains_key(expected) {
            caught.extend(runtime.block_on(caught_by(defect, |name| name == expected)));
        }
    }
    // What did not end in time may only have been slow.
    let found = |(name, violation): &(&&str, &ContractViolation)| {
        **name != expected && !matches!(violation, ContractViolation::TimedOut { .. })
    };
    let others = caught.iter().filter(found).count();
    writeln!(std::io::stderr(), "broken store: {what} -> {expected} (and {others} more)").unwrap();
    assert!(caught.contains_key(expected), "{defect:?} was not caught by {expected}, but by {caught:?}");
}

/// The cases among those wanted that fail on stores with the defect.
async fn caught_by(defect: Defect, wanted: impl Fn(&str) -> bool) -> BTreeMap<&'static str, ContractViolation> {
    let mut running = JoinSet::new();
    for case in cases().iter().filter(|case| case.applies_to::<Model>() && wanted(case.name)) {
        let environment = Environment::new(Model(Some(defect)), Form::Value);
        running.spawn(async move { (case.name, case.run(&environment, LIMIT).await) });
    }
    for name in transactional_cases().iter().filter(|name| wanted(name)) {
        running.spawn(async move { (*name, run_transactional(Model(Some(defect)), name, LIMIT).await) });
    }
    let outcomes = running.join_all().await;
    outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome.err()?))).collect()
}

mod without_defect {
    use super::*;

    eventcore_testing::contract_tests!(Model(None));
    eventcore_testing::transactional_contract_tests!(Model(None));
}

#[test]
fn the_cases_have_names_of_their_own() {
    let names: Vec<_> = cases().iter().map(|case| case.name).chain(transactional_cases().iter().copied()).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), distinct.len());
}
