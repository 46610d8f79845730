//! Faults without an attacker: many reconnects, bad paths, bad handlers, long runs. The table shows
//! where each row of faults is tested.
//!
//! Every test here also checks the column "always": no panic, each outcome true (`world::Oracle` or
//! a count of runs), and in the end tasks, permits and, where a test has its own process, open
//! files and memory are back at their baseline (`world::Baseline`).
//!
//! | row | fault | tests |
//! |---|---|---|
//! | F01 | agent killed at five points | `outcomes`; by SIGKILL and a ledger on disk: `cli::killed`; `reconnect::calls_of_a_killed_agent_end_unknown_and_later_ones_are_not_executed_at_once` |
//! | F05 | many agents reconnect at once | `faults::mass_reconnect`; that attempts are spread: `backoff` (unit) |
//! | F06 | no stream, one stream granted | `hostile::credit`; waiting in order: `limits::the_queue_fills_to_its_limit_refuses_one_more_and_keeps_its_order` |
//! | F07 | silent streams | `hostile::silence` |
//! | | huge lengths, deep nesting, wrong lengths, trailing bytes, duplicate keys | `hostile::requests::frames_at_their_limit_pass_and_over_it_are_refused_by_their_header`, `cbor_with_wrong_lengths_deep_nesting_or_duplicate_keys_is_refused`, `keys_are_unique_unsigned_numbers_and_unknown_ones_are_ignored`; memory: `faults::length_claims` |
//! | | END twice, data after END, unknown kinds | `hostile::requests::a_request_is_one_message_then_end_then_fin`, `unknown_frame_kinds_are_refused_below_0x80_and_skipped_above`, `a_first_frame_that_is_not_a_head_ends_the_stream`; in replies: `hostile::replies`; on the control stream: `hostile::control` |
//! | F08 | handshake floods, stalled handshakes, garbage | `hostile::unauthenticated`; limits and fairness: `handshake_limiter`, `fair_queue` (unit) |
//! | F09 | loss, corruption, duplicates, reordering, dead times, delay | `faults::paths` |
//! | F10 | the agent's address changes | `reconnect::a_call_in_flight_survives_a_change_of_the_agents_address`, `faults::paths::calls_and_link_survive_an_agents_port_that_changes_every_half_second` |
//! | F14 | an agent stops under load, over bad paths | `faults::stops`; over good ones: `shutdown`, `cli::draining` |
//! | F16 | odd names | `call::agents_with_similar_names_are_never_confused`, `hostile::requests::malformed_agent_names_are_refused`, `malformed_method_names_are_refused`, `hostile::control::registrations_follow_the_grammar_of_names_or_end_the_link`; in certificates: `identity` |
//! | F18 | odd timeouts | `hostile::requests::a_timeout_is_a_number_of_at_least_one`, `a_timeout_of_one_millisecond_is_kept_or_never_started`, `deadline::a_timeout_of_0_is_refused_and_one_below_a_millisecond_expires_at_once`, `an_endless_timeout_is_a_year` |
//! | F19 | most of the time is spent in a queue | `deadline::a_handler_has_the_time_the_queue_left_and_is_stopped_after_it`, `a_queued_call_has_only_the_rest_of_its_time`, `a_node_subtracts_the_time_for_which_it_kept_a_remote_call` |
//! | F20 | the caller drops | `cancel` |
//! | F25 | handlers that panic, block, spin | `faults::handlers`; `call::handlers_that_panic_return_their_permits`, `cancel::the_permit_is_held_until_a_cancelled_handler_has_ended` |
//! | F26 | one link too many | `limits::the_last_link_of_a_caller_is_accepted_and_one_more_is_refused_until_one_closes`, `a_caller_at_its_link_limit_renews_and_its_old_link_ends_after_its_calls` |
//! | | handshakes of one address, per time and concurrent | `hostile::floods::handshakes_over_the_rate_of_an_address_wait_and_other_addresses_do_not`, `hostile::unauthenticated::a_validated_address_gets_its_whole_limit_and_delays_no_other`, `an_unvalidated_address_gets_half_of_its_limit_and_delays_no_other` |
//! | | calls over a quota | `quotas` |
//! | F27 | long runs | `faults::leaks` |
//! | F28 | other versions, other protocols, unknown keys | `hostile::admission::unauthenticated_clients_and_other_protocols_get_only_an_alert`, `hostile::control::version_ranges_with_ours_are_welcomed_and_others_are_refused_naming_both`, `hostile::requests::keys_are_unique_unsigned_numbers_and_unknown_ones_are_ignored` |
//! | F29 | texts of peers that break lines or control terminals, 100,000 method names | `audit::peer_text`; in output of the command line: `bin::dialback::output` (unit) |

mod length_claims;
mod mass_reconnect;
mod leaks;
mod handlers;
mod paths;
mod stops;
