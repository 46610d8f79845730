//! Limits and defaults, each with its unit and its reason. A program sets those in [`Limits`]; all
//! others are constants.

use std::time::Duration;

/// Bytes of a head, HELLO, WELCOME or other text frame, read before the peer is authorised.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a REGISTER or VIEW frame. A thousand methods with long names fit.
pub const CONTROL_BYTES_MAX: usize = 256 * 1024;

/// Bytes of the description of a service or a method: a hundred take less than half of a REGISTER.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;

/// Bytes of the JSON Schema of a method's messages: about thirty fields with a sentence each.
pub const SCHEMA_BYTES_MAX: usize = 4 * 1024;

/// Depth of maps and arrays in a head. This version's are four deep; serde_cbor's limit is 127.
pub const HEAD_DEPTH_MAX: usize = 32;

/// Items in a head: keys, values, maps and arrays together.
pub const HEAD_ITEMS_MAX: usize = 1_024;

/// Items in a control frame. Control frames list services, so they have more than heads.
pub const CONTROL_ITEMS_MAX: usize = 32 * 1_024;

/// Pairs of metadata in one head or status.
pub const METADATA_PAIRS_MAX: usize = 64;

/// Bytes of all metadata text in one head or status.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the message in a STATUS or GOODBYE. The sender truncates longer ones.
pub const MESSAGE_TEXT_BYTES_MAX: usize = 2 * 1024;

/// Bytes of a STATUS's details. With full message and metadata it still fits in a head.
pub const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// Largest value that any setting of the message limit may have, in bytes.
pub const MESSAGE_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// Time for a dial and its TLS handshake. Three probes of QUIC (at 0, 1 and 3 s) fit, and a node
/// that starts is still found within 5 s. A peer that takes longer is not a node, or its path does
/// not carry UDP.
pub const DIAL_WAIT_MAX: Duration = Duration::from_secs(4);

/// Age of a handshake at which a probe is sent, which receives what the system and ICMP report for
/// the address. Most handshakes end earlier and need no probe.
pub const PROBE_AFTER: Duration = Duration::from_millis(100);

/// Bytes of a probe's large datagram: the least that QUIC needs of a path (RFC 9000 section 14).
pub const PROBE_BYTES: usize = 1_200;

/// Time in which UDP may answer before a tunnel is opened as well: nearly all nodes answer a first
/// packet sooner, and a network without UDP costs each start no more.
pub const TUNNEL_HEAD_START: Duration = Duration::from_secs(1);

/// Time for which a node that was reached by a tunnel alone gets no head start for UDP.
pub const UDP_SILENT_REMEMBERED: Duration = Duration::from_secs(600);

/// Time for a tunnel's TCP connection, proxy, TLS and WebSocket handshakes together: at most five
/// round trips, and two packets of TCP that are sent again. With the head start of UDP it ends
/// within the five seconds that a command waits for its node.
pub const TUNNEL_DIAL_WAIT_MAX: Duration = Duration::from_millis(3_800);

/// Bytes of the file of a proxy's password. Another file, named by mistake, is larger or not text.
pub const PROXY_PASSWORD_BYTES_MAX: u64 = 4 * 1024;

/// Time in which a link must use a tunnel, from its start or the end of the last link. A handshake
/// of a link takes less.
pub const TUNNEL_UNUSED_MAX: Duration = Duration::from_secs(10);

/// Tunnels of one address that no link uses yet, also behind a trusted proxy, whose connections
/// have no limit of their own. A crowd of agents behind one address uses each within a second or
/// two.
pub const TUNNELS_UNUSED_PER_HOST_MAX: usize = 128;

/// The same for a /56 of IPv6.
pub const TUNNELS_UNUSED_PER_SITE_MAX: usize = 192;

/// The same for a /24 of IPv4 or a /48 of IPv6.
pub const TUNNELS_UNUSED_PER_NETWORK_MAX: usize = 256;

/// Silence after which a tunnel's other side is asked for an answer, and then is given up.
pub const TUNNEL_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes of a tunnel that wait unsent in the operating system, which would be a second queue.
pub const TUNNEL_UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Interval between looks at the paths of links that may use tunnels. They count acknowledgements,
/// and send nothing.
pub const PATH_CHECK_EVERY: Duration = Duration::from_millis(500);

/// Interval between checks of configuration files. The second that shows a change applies it.
pub const RELOAD_CHECK_EVERY: Duration = Duration::from_millis(500);

/// Bytes of a file that are checked for changes: the largest revocation list that is read.
pub const WATCHED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Interval between two attempts to apply a file that could not be applied. A corrected mode or
/// clock is noticed within this time.
pub const RELOAD_RETRY_EVERY: Duration = Duration::from_secs(5);

/// Time before the end of a revocation list at which a warning is logged: a day to make a new one.
pub const CRL_NEAR_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// Interval between two log lines of one warning about certificates: every day's log has the
/// warning, and no log is filled by it.
pub const EXPIRY_WARNING_EVERY: Duration = Duration::from_secs(3600);

/// Time before the end of a peer's certificate at which a dialler makes a link by a newer one.
pub const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(30);

/// Interval, give or take half of it, between checks of an expiring node for a newer certificate.
pub const NEWER_CHECK_EVERY: Duration = Duration::from_secs(5);

/// Interval between checks of a link's certificates, and the most by which it outlives them.
pub const TRUST_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Age from which a link counts as a success. After a shorter one the wait for a dial still grows.
pub const STEADY_LINK_MIN: Duration = Duration::from_secs(5);

/// Time that the accepting side allows a handshake. Three slow round trips fit.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Handshakes in progress at once on one node. One address may have a quarter of them, one site of
/// IPv6 three eighths, one network half. With a round trip of 100 ms a handshake takes some 150 ms,
/// so one address can complete 400 per second. On a machine that completes 25 per second, the 64 of
/// one address still end before their diallers give up.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 256;

/// Handshakes in progress up to which a node accepts unvalidated, perhaps spoofed, addresses.
pub const HANDSHAKES_UNVALIDATED_MAX: usize = 64;

/// Handshakes in progress at once without address validation from one address. Packets with its
/// address as a spoofed source leave most of its share to the client that validates it.
pub const HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX: usize = 16;

/// Handshakes from validated addresses that wait: two seconds' worth, some 2 KiB each.
pub const HANDSHAKES_WAITING_MAX: usize = 2_048;

/// Time that a handshake may wait; after it the node ignores the client. A dialler gives up at 4 s
/// and needs a Retry and the handshake itself before that.
pub const HANDSHAKE_TURN_WAIT_MAX: Duration = Duration::from_millis(2_500);

/// Age from which a handshake in progress gives way to a waiting one if its block or the node is
/// full. A handshake takes one and a half round trips, so clients with a round trip of up to 650 ms
/// pass even then.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Interval between two checks of the waiting handshakes, besides those when a handshake ends.
pub const HANDSHAKE_CHECK_EVERY: Duration = Duration::from_millis(50);

/// Receive buffer that a UDP socket requests, in bytes: the first packets of 1,000 peers that
/// arrive at once, or what some busy links send in one burst. Linux grants at most twice
/// `net.core.rmem_max`, which is 416 KiB by default.
pub const UDP_RECEIVE_BUFFER_BYTES: usize = 7 * 1024 * 1024;

/// Send buffer that a UDP socket requests, in bytes: two batches of the largest datagrams at least,
/// because a batch that does not fit as a whole is sent again from its start.
pub const UDP_SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// Bytes that QUIC buffers for an unauthenticated client before its handshake: some first flights.
pub const INCOMING_BYTES_MAX: u64 = 16 * 1024;

/// The same for all unauthenticated clients together, in bytes.
pub const INCOMING_BYTES_TOTAL_MAX: u64 = 8 * 1024 * 1024;

/// Bytes of the largest UDP payload that a link tries: what an interface with an MTU of 9,000
/// carries over IPv6. Larger ones would cost each idle link over the loopback interface their size.
pub const DATAGRAM_BYTES_MAX: u16 = 8_952;

/// Bytes of the largest UDP payload where the MTU of the route is not known: Ethernet's over IPv6.
pub const DATAGRAM_BYTES_USUAL: u16 = 1_452;

/// Bytes of a UDP payload that each path of QUIC carries (RFC 9000 section 14).
pub const DATAGRAM_BYTES_MIN: u16 = 1_200;

/// Time that the initiator of a call waits for the FIN of a reply whose STATUS has arrived, to
/// notice frames that must not follow. The FIN is usually in the same packet; a reply without one
/// counts after this wait.
pub const REPLY_FIN_WAIT_MAX: Duration = Duration::from_millis(50);

/// Time after the deadline for which a node waits for the STATUS of an agent, which is closer to
/// the handler and may know that it did not run. The agent's own timer ends at about the same time;
/// this covers a round trip within a region.
pub const RELAY_STATUS_GRACE: Duration = Duration::from_millis(75);

/// Time after the deadline that others wait for the STATUS: longer than [`RELAY_STATUS_GRACE`].
pub const STATUS_GRACE: Duration = Duration::from_millis(200);

/// Addresses whose handshakes or wrong tokens are counted, some 32 bytes each; more are a flood.
pub const COUNTED_ADDRESSES_MAX: usize = 65_536;

/// Interval between two log lines about ignored handshakes.
pub const IGNORED_HANDSHAKES_LOG_EVERY: Duration = Duration::from_secs(10);

/// Audit lines that wait to be written: a second's worth on a busy node, and 8 MiB at most. A line
/// that finds no room is counted as lost.
pub const AUDIT_LINES_WAITING_MAX: usize = 8_192;

/// Characters of a refused certificate's claimed name in the audit log. Peer names are shorter.
pub const CLAIM_CHARS_MAX: usize = 300;

/// Characters of a peer's text in the audit log. Names are shorter, and enough of a reason is kept.
pub const AUDIT_TEXT_CHARS_MAX: usize = 512;

/// Bytes that the audit log writes at once when many lines wait.
pub const AUDIT_BATCH_BYTES: usize = 64 * 1024;

/// Interval between two log lines about an audit log that cannot be written.
pub const AUDIT_FAULT_LOG_EVERY: Duration = Duration::from_secs(10);

/// Interval between attempts to flush a full queue, as std's bounded queue does not report room.
pub const AUDIT_FLUSH_STEP: Duration = Duration::from_millis(1);

/// Time that an exiting program waits for the lines of its audit log.
pub const AUDIT_FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);

/// Log lines of the binary that wait to be written: about 4 MiB. More are dropped and counted.
pub const LOG_LINES_WAITING_MAX: usize = 8_192;

/// Interval between two attempts of an exiting program to queue its last log lines.
pub const LOG_FLUSH_STEP: Duration = Duration::from_millis(1);

/// Time that an exiting program waits for its log lines: long enough for a slow terminal.
pub const LOG_FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Largest count in a rule's `rate`, whatever its period.
pub const RATE_CALLS_MAX: u32 = 1_000_000;

/// Callers whose calls under rules with a `rate` or an `in_flight` are counted at once, some 100
/// bytes each per rule. Further callers are refused: they all have a certificate, and a rule that
/// is not counted would not be enforced.
pub const RULE_CALLERS_MAX: usize = 65_536;

/// Log lines about refusals of one kind that one peer or address can cause in a burst.
pub const LOG_LINES_PER_CAUSE_BURST: u32 = 20;

/// Interval of further such lines of one peer or address, so that a lasting refusal stays visible.
pub const LOG_LINES_PER_CAUSE_EVERY: Duration = Duration::from_secs(10);

/// Log lines about refusals of one kind that all peers together can cause in a burst. A crowd that
/// one mistake locked out is seen completely.
pub const LOG_LINES_BURST: u32 = 200;

/// Interval at which all peers together may cause one more such line. Two per second are 35 MB per
/// day, which log rotation can handle.
pub const LOG_LINES_EVERY: Duration = Duration::from_millis(500);

/// Peers or addresses whose lines are counted separately; beyond these the common limit applies.
pub const LOG_CAUSES_MAX: usize = 4_096;

/// Period in which the resets of a caller are counted.
pub const RESETS_WITHIN: Duration = Duration::from_secs(10);

/// Time in which a peer must send HELLO, WELCOME or its first REGISTER.
pub const HELLO_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time for which an agent still answers for services that it has ceased to host, once its nodes
/// have confirmed that: at least and at most. Between them, four round trips, in which a packet
/// that was lost arrives.
pub const PREVIOUS_SERVICES_WAIT: [Duration; 2] =
    [Duration::from_millis(100), Duration::from_secs(2)];

/// Interval of the PINGs of a diagnostic connection, beside the time of their answers: some dozens
/// in its time.
pub const DIAGNOSTIC_PINGS_EVERY: Duration = Duration::from_millis(25);

/// Time for which a diagnostic connection measures its path.
pub const DIAGNOSTIC_MEASURE: Duration = Duration::from_secs(2);

/// Time for which it measures while the size of datagrams is still being found out. Below
/// [`HELLO_WAIT_MAX`]: it sends no HELLO.
pub const DIAGNOSTIC_MEASURE_MAX: Duration = Duration::from_secs(4);

/// Time in which the node may learn that a diagnostic connection was closed.
pub const DIAGNOSTIC_CLOSE_WAIT_MAX: Duration = Duration::from_millis(100);

/// Interval between the attempts on two addresses of one name, as RFC 8305 section 5 recommends.
pub const RACE_STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried in one race. The last attempt starts after 3.75 s, within
/// the five seconds that a forward has to connect. A node's name with more addresses continues with
/// the rest at the next dial.
pub const RACE_ADDRESSES_MAX: usize = 16;

/// Time in which a call's head must be complete; initiators have it when they open the stream.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time after which a peer that sends nothing of an unfinished request counts as stalled.
pub const STALL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time that a call may wait for a permit and stream credit: failing beats a growing queue.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of a unary message from which a node passes it on while it comes. A smaller one is in
/// flight as a whole on most paths, and comes at once.
pub const PASSED_ON_BYTES_MIN: usize = 64 * 1024;

/// Bytes of a part of such a message, unless it is the last: each is a buffer and a write of its
/// own, and a peer decides how few bytes come at a time.
pub const PART_BYTES_MIN: usize = 16 * 1024;

/// Time for which a call whose message is still coming may use an agent, and half of
/// `queue_wait_max` if that is shorter: then a call that waits for its permit gets it in time. Four
/// megabytes come within it at 32 Mbit/s.
pub const PASSED_ON_WAIT_MAX: Duration = Duration::from_secs(1);

/// Interval between two readings of the clock that detects suspends (SIGSTOP, a suspended machine).
pub const SUSPEND_TICK: Duration = Duration::from_millis(100);

/// Gap between two ticks that counts as a suspend: five, because a busy machine delays one.
pub const SUSPEND_MIN: Duration = Duration::from_millis(500);

/// Ticks on time after a suspend until incoming requests count as sent after it: a second, and
/// longer on a machine that is busy with its backlog. Applies to requests that do not come over a
/// link.
pub const SUSPEND_SETTLED_TICKS: u32 = 10;

/// Ticks on time between two suspends until everything sent before the first counts as read. In a
/// process that is suspended repeatedly, the gaps then do not add up for new requests.
pub const SUSPEND_READ_TICKS: u32 = 3;

/// Shortest timeout that is sent: the wire counts milliseconds.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Longest timeout, to which the wire's are clamped: a year, so that no clock overflows.
pub const TIMEOUT_CEILING: Duration = Duration::from_secs(365 * 24 * 3600);

/// Silence after which a link is lost. QUIC's idle timeout.
pub const IDLE_MAX: Duration = Duration::from_secs(15);

/// Interval between two PINGs. NAT bindings live about 30 s.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// Shortest heartbeat interval that can be set.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// Time without a PONG after which the data path is dead even if packets are acknowledged.
pub const HEARTBEAT_LOST: Duration = Duration::from_secs(12);

/// Interval between two stateless resets of a node, over all peers together. quinn's 20 ms would
/// notify only 50 peers per second that their link is gone, and a node that was killed may have
/// thousands. 1,000 per second cost about a hundredth of a core, and none is longer than the packet
/// that it answers.
pub const RESET_EVERY_MIN: Duration = Duration::from_millis(1);

/// Interval between two checks of the source address towards each node, to notice a new network.
pub const MIGRATION_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Bytes that a stream may send ahead of its reader without a grant of the reader's side.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes that a stream may send ahead of its reader at most: 1.6 Gbit/s at a round trip of 40 ms.
pub const STREAM_WINDOW_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// Bytes that all streams of a link together may send ahead of their grants, so that the start of a
/// large message does not wait for one: four messages of 1 MiB.
pub const LINK_AHEAD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes beyond [`STREAM_WINDOW_BYTES`] that all streams of a link together may send ahead of their
/// readers: four streams that fill a long path, or thirty messages of 1 MiB.
pub const LINK_GROWTH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Bytes that a connection may send ahead before its peer is admitted.
pub const UNAUTHENTICATED_WINDOW_BYTES: u32 = 64 * 1024;

/// Streams that a peer may open before it is admitted: the control stream and one spare.
pub const UNAUTHENTICATED_STREAMS: u32 = 2;

/// Bytes of a link's send buffer that calls leave to control frames: thousands of PINGs, or a
/// quarter of the longest REGISTER.
pub const CONTROL_RESERVE_BYTES: u64 = 64 * 1024;

/// Bytes of a connection's window in addition to one stream window per call in flight.
pub const CONNECTION_WINDOW_BASE_BYTES: u32 = 1024 * 1024;

/// Streams beyond the permitted calls, so that refusals and the control stream do not wait.
pub const STREAMS_SPARE: u32 = 32;

/// Detached agents that a node keeps for its lists. The oldest are removed first.
pub const DETACHED_REMEMBERED_MAX: usize = 10_000;

/// Arrivals that wait for the program. A program that takes none loses the oldest.
pub const ARRIVALS_WAITING_MAX: usize = 1_024;

/// Links of one agent identity on one node: one active and its retiring ones.
pub const AGENT_LINKS_MAX: usize = 1 + RETIRING_LINKS_MAX;

/// Links of one instance of a caller beyond `caller_links_max`, needed to renew its certificate: as
/// many as it keeps itself. All instances together have at most twice `caller_links_max`.
pub const CALLER_LINKS_OVER_MAX: usize = 1 + RETIRING_LINKS_MAX;

/// Retiring links to one node, which were replaced and still carry calls. At this number a renewal
/// waits up to the drain time until one has ended, and then closes the oldest.
pub const RETIRING_LINKS_MAX: usize = 3;

/// Time that closing waits in all until the peers have been notified.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(3);

/// Bytes of a configuration file or a file of rules: ten thousand rules fit, and a wrong path (a
/// device, a log) is not read completely.
pub const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time that a side that has finished waits for its peers to close the links, which they do once
/// they have all replies: a round trip and some margin for a slow path. Part of [`CLOSE_WAIT_MAX`].
pub const GOODBYE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Time that an aborted graceful close waits for its CONNECTION_CLOSE frames to be sent, so that
/// its peers do not have to notice by silence (12 s). They leave at the next turn of the runtime;
/// on a busy machine ten turns fit, and a person does not notice the wait.
pub const ABORT_WAIT_MAX: Duration = Duration::from_millis(100);

/// Events that wait for the program. A program that takes none loses the oldest.
pub const EVENTS_WAITING_MAX: usize = 1_024;

/// Superseded instances remembered for one agent. The oldest is forgotten first and counts as new.
pub const INSTANCES_REMEMBERED_MAX: usize = 64;

/// Returns of superseded instances of one agent within [`RETURNS_WITHIN`]. One more means that a
/// certificate is in use twice. Dialback's own agents wait 10 s to 15 s after they were superseded,
/// so two of them return four to six times a minute.
pub const RETURNS_MAX: usize = 3;

/// Period in which returns are counted.
pub const RETURNS_WITHIN: Duration = Duration::from_secs(60);

/// Returns of one instance within [`RETURNS_WITHIN`] that, with [`NEW_INSTANCES_MIN`], show a
/// restarting process with the same certificate. A single return may be a coincidence.
pub const RETURNS_SUSPICIOUS: usize = 2;

/// New instances of one agent within [`RETURNS_WITHIN`] that count as a series: the agent's own
/// start, one other, and one spare.
pub const NEW_INSTANCES_MIN: usize = 3;

/// Time after its last attempt for which an instance that returned too often is held back. Longer
/// than the longest wait of a refused agent, five minutes, so that two that run side by side do not
/// start over.
pub const HELD_BACK_FOR: Duration = Duration::from_secs(600);

/// Messages held between a program and its stream: enough to fill one write, few for back-pressure.
pub const STREAM_MESSAGES_AHEAD: usize = 4;

/// Time that an agent waits for the upstream of a forward to accept a connection. The upstream is
/// in the same network; if it is down it refuses at once.
pub const TCP_CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time that opening a forwarded connection may take: a queue for a permit at each hop, the agent's
/// wait for its upstream, and the round trips.
pub const TCP_OPEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time without a byte either way after which a forwarded connection is reset; owners may set it.
pub const TCP_IDLE_MAX: Duration = Duration::from_secs(300);

/// Time without a byte either way after which a request to an HTTP upstream ends, while its
/// response is awaited; owners may set it.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(300);

/// The same once the response has begun: event streams and WebSockets may be silent for long.
pub const HTTP_STREAM_IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Interval between two checks whether the other side has reset an idle connection.
pub const TCP_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Bytes read from a connection for one message: larger ones gain nothing and wait longer.
pub const TCP_READ_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one message of an HTTP call: a head, trailers, or a piece of a body.
pub const HTTP_MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Free bytes below which a read buffer is replaced by a new one.
pub const TCP_READ_BYTES_MIN: usize = 16 * 1024;

/// Priority of streaming calls that set none: below unary ones, which bulk data must not delay.
pub const STREAM_PRIORITY: i8 = -16;

/// Attempts of one call: two retries find another agent or link; more would load a failing system.
pub const ATTEMPTS_MAX: u32 = 3;

/// Retries per hundred calls: when everything fails, they add a tenth to the load.
pub const RETRIES_PER_HUNDRED: u32 = 10;

/// Retries that are available before that share counts, so that a quiet node has some too.
pub const RETRIES_SAVED_MAX: u32 = 10;

/// Agents that are sampled when a call names only its service, before all of them are examined. Two
/// suitable ones are nearly always among them.
pub const CANDIDATES_MAX: usize = 16;

/// Agents that are sampled first: enough where rules open a service to most callers.
pub const CANDIDATES_FIRST: usize = 4;

/// Agents that are copied out of the registry under one hold of its lock: some 20 us.
pub const AGENTS_COPIED_AT_ONCE: usize = 256;

/// Pairs of caller and method for which a node caches the permitted hosts, where those are few.
/// Some 200 bytes each and 16 per agent.
pub const CANDIDATE_LISTS_MAX: usize = 4_096;

/// Such pairs of one caller. For a further method the policy is evaluated again for each host.
pub const CANDIDATE_LISTS_PER_CALLER_MAX: usize = 1_024;

/// Permitted hosts that are cached for one pair. Where there are more, sampling soon finds one.
pub const CANDIDATE_LIST_AGENTS_MAX: usize = 256;

/// Calls in flight at once when all agents of a service are called.
pub const CALL_ALL_AT_ONCE: usize = 16;

/// Bytes of a request to an enroller, which unauthenticated clients may send. A certificate request
/// of an RSA key of 4,096 bits with many names fits.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Bytes of an enroller's answer. A revocation list of over some ten thousand entries is omitted.
pub const JOIN_REPLY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Handshakes and requests in progress at once on one enroller. More wait, as on a node.
pub const JOINS_AT_ONCE_MAX: usize = 128;

/// Interval between two handshakes of one address with an enroller: a hundred per second, each of
/// which costs a signature and a token lookup.
pub const JOIN_HANDSHAKE_EVERY: Duration = Duration::from_millis(10);

/// Handshakes of one address with an enroller in a burst: a rack of machines that is switched on.
pub const JOIN_HANDSHAKES_BURST: u32 = 500;

/// Time after the handshake in which a request to an enroller must be complete and its answer be
/// read. Three slow round trips fit.
pub const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time that a client that has joined stays to confirm it. If the confirmation is lost, the
/// enroller waits for it without consequence.
pub const JOIN_CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Wrong tokens that one address may try in a burst.
pub const TOKEN_TRIES_BURST: u32 = 10;

/// Interval between two further wrong tokens of one address: ten per minute. A secret has 128 bits,
/// so this limits noise, not guessing.
pub const TOKEN_TRIES_EVERY: Duration = Duration::from_secs(6);

/// Longest lifetime of a join token. A token that stays around longer may be found by others.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Time for which an enroller remembers an ended token, to report it as used or expired.
pub const TOKEN_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Tokens of one CA directory at once. Each attempt reads them all: some 2 MiB, and 1 KiB for each
/// used token that has not expired.
pub const TOKENS_MAX: usize = 10_000;

/// Bearer tokens in one file: some 200 bytes of memory each, read completely at every change.
pub const BEARER_TOKENS_MAX: usize = 10_000;

/// Bytes of a file of bearer tokens: that many with the longest names. As [`CONFIG_BYTES_MAX`].
pub const BEARER_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Default lifetime of a bearer token: a month at most of use for one that was lost unnoticed.
pub const BEARER_TTL_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest lifetime of a bearer token: a year and a day, for operators who renew once a year.
pub const BEARER_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Agents of one method that the OpenAPI document names. A longer list does not help people to
/// choose, and the names would fill the document.
pub const OPENAPI_AGENTS_MAX: usize = 100;

/// Lifetime of an enroller's own certificate, kept in memory and signed again at half of it.
pub const ENROLLER_LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Shortest lifetime of a signed leaf: certificates count seconds, and a renewal takes a moment.
pub const LEAF_LIFE_MIN: Duration = Duration::from_secs(3);

/// Interval between two checks of a certificate that is renewed later: the clock may have been set,
/// and another process may have renewed it.
pub const RENEWAL_CHECK_EVERY: Duration = Duration::from_secs(60);

/// Shortest wait after a failed renewal.
pub const RENEWAL_RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait after a failed renewal. Leaf certificates of 90 days leave 30 days to retry in.
pub const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(3600);

/// Interval between two log lines of a renewal that keeps failing for the same reason.
pub const RENEWAL_FAULT_LOG_EVERY: Duration = Duration::from_secs(600);

/// Divisor that gives the share of one caller's requests in the memory for messages. With its
/// replies the caller has twice as much. A few callers together can still use all of it.
pub const MEMORY_SHARE: usize = 4;

/// Bytes from which a message is counted. Smaller ones of one caller link take 512 KiB at most.
pub const MEMORY_COUNTED_BYTES_MIN: usize = 4 * 1024;

/// HTTP connections at once on one gateway. Each costs a file descriptor and, at worst, the buffers
/// below. When all are in use, the oldest without an authenticated request is closed for a new one.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;

/// Such connections of one host, which is one IPv4 address or one /64 of IPv6, unless it is a
/// trusted proxy. A quarter, as with handshakes.
pub const HTTP_CONNECTIONS_PER_HOST_MAX: usize = 256;

/// Such connections of one site, a /56 of IPv6, as homes have: three eighths, for all its /64s.
pub const HTTP_CONNECTIONS_PER_SITE_MAX: usize = 384;

/// Such connections of one network, a /24 of IPv4 or a /48 of IPv6, as companies and rented
/// machines have: half, so that one network cannot hold all.
pub const HTTP_CONNECTIONS_PER_NETWORK_MAX: usize = 512;

/// Time until the first bytes of a connection: browsers connect ahead of requests, and reconnect.
pub const HTTP_FIRST_BYTES_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time until the head of a request must be complete, and the longest idle time between two
/// requests of an HTTP/1 connection. With the wait for the first bytes it stays below 15 s, after
/// which a slow client must be disconnected.
pub const HTTP_HEAD_WAIT_MAX: Duration = Duration::from_secs(8);

/// Idle time that an HTTP/1 client is promised (`Keep-Alive: timeout=6`). Two seconds less than the
/// real one, so that a request sent at the last moment does not meet a closing connection.
pub const HTTP_KEEP_ALIVE_ADVERTISED: Duration = Duration::from_secs(6);

/// Bytes of an HTTP request's head: the longest metadata, a token, what browsers and proxies add.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of one HTTP request: all pairs of metadata, and what browsers and proxies add.
pub const HTTP_HEADERS_MAX: usize = 128;

/// Bytes of an HTTP request's path: percent-encoded names of agent, service and method fit.
pub const HTTP_PATH_BYTES_MAX: usize = 2 * 1024;

/// Messages in one batch of MCP (JSON-RPC): revisions that had batches used them to start up.
pub const MCP_BATCH_MAX: usize = 64;

/// Depth of arrays and objects in a message of MCP. Schemas and results are rarely half as deep,
/// and readers of JSON have limits from about 64 on.
pub const MCP_DEPTH_MAX: usize = 64;

/// Bytes of the id of a message of MCP, if it is a text. Programs use numbers or UUIDs.
pub const MCP_ID_BYTES_MAX: usize = 256;

/// Sessions of one caller that an agent remembers, for each MCP server over HTTP.
pub const MCP_SESSIONS_KNOWN_MAX: usize = 1_000;

/// Time for telling an MCP server that its client does not get a request of it.
pub const MCP_REFUSAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Processes of one MCP server that an agent runs at a time: each session has one.
pub const MCP_PROCESSES_MAX: usize = 64;

/// The same for the sessions of one caller.
pub const MCP_PROCESSES_PER_CALLER_MAX: usize = 16;

/// Time that an MCP server's process has to end once its input is closed, and then once more
/// before it is killed.
pub const MCP_PROCESS_END_WAIT_MAX: Duration = Duration::from_secs(1);

/// Messages of an MCP server's process that wait for a client: for one request, and for a client
/// that listens to none.
pub const MCP_MESSAGES_AHEAD: usize = 32;

/// Requests to a process of an MCP server that were given up and have no answer, whose ids are kept
/// from others.
pub const MCP_GIVEN_UP_MAX: usize = 64;

/// Bytes of a line on the standard error of an MCP server's process that are logged.
pub const MCP_LOG_LINE_BYTES_MAX: usize = 512;

/// Period in which a body or answer must progress by [`HTTP_STEP_BYTES_MIN`]: 1 KiB/s, as streams.
pub const HTTP_STEP: Duration = Duration::from_secs(10);

/// Bytes of progress per [`HTTP_STEP`].
pub const HTTP_STEP_BYTES_MIN: usize = 10 * 1024;

/// Time for which data that a client still sends after its answer is read and discarded, so that it
/// sees the answer: at 1 MB/s a message of the default size and more. It takes no memory and
/// occupies the connection.
pub const HTTP_DISCARD_WAIT_MAX: Duration = Duration::from_secs(10);

/// Period in which discarded data must progress by [`HTTP_DISCARD_STEP_BYTES_MIN`], or the
/// connection is closed. Together with the wait for a head or a body a slow client is still
/// disconnected within 15 s.
pub const HTTP_DISCARD_STEP: Duration = Duration::from_secs(1);

/// Bytes of progress per [`HTTP_DISCARD_STEP`]: 1 KiB/s, as for bodies that are read.
pub const HTTP_DISCARD_STEP_BYTES_MIN: usize = 1024;

/// HTTP/2 streams of one connection at once: as many as one caller's calls in flight by default.
pub const HTTP2_STREAMS_MAX: u32 = 128;

/// Bytes that an HTTP/2 stream may send ahead of its reader.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes that all streams of an HTTP/2 connection together may send ahead: more than its streams
/// fill, so that those which nobody reads do not hold up the others. h2 takes small frames for a
/// flood in proportion to it, and clients of gRPC send one for each message.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Streams of one HTTP/2 connection that were reset before they were processed (CVE-2023-44487).
/// One more ends the connection.
pub const HTTP2_RESETS_PENDING_MAX: usize = 20;

/// HTTP/2 frames in a burst that do not advance a request: PING, SETTINGS, WINDOW_UPDATE, PRIORITY,
/// RST_STREAM, empty DATA. More end the connection with ENHANCE_YOUR_CALM. Each costs about a
/// microsecond, so the burst costs a millisecond.
pub const HTTP2_FRAMES_UNASKED_MAX: usize = 1_000;

/// Such frames that are added at each [`HTTP_CHECK_EVERY`]. Clients that measure their connection
/// send some PINGs per second.
pub const HTTP2_FRAMES_PER_CHECK: usize = 100;

/// Such frames that are added for each request and for each piece of its answer: a client updates
/// two windows at most once per frame, and a piece may be sent in a few frames.
pub const HTTP2_FRAMES_PER_STEP: usize = 8;

/// Such frames that a client may accumulate: it may read late and then acknowledges each of the
/// small frames that its window held.
pub const HTTP2_FRAMES_EARNED_MAX: usize = 65_536;

/// Such frames that are added for each piece of a body that was read. A padded piece counts itself.
pub const HTTP2_FRAMES_PER_READ: usize = 2;

/// Interval between two PINGs of HTTP/2, and the wait for the answer to one. A peer in the middle
/// of a head cannot answer, so this limits slow heads too.
pub const HTTP2_PING_EVERY: Duration = Duration::from_secs(6);

/// Time after which an HTTP/2 connection without a request is closed; clients open another.
pub const HTTP2_IDLE_MAX: Duration = Duration::from_secs(60);

/// Interval between two checks of an HTTP connection's state.
pub const HTTP_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of an answer that are handed to HTTP at once, one frame of HTTP/2, so that a client that
/// reads nothing holds no more. They must be sent within [`HTTP_STEP`], which bounds slowness.
pub const HTTP_PIECE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of answers that the system buffers unsent for a client, where this can be set. By default
/// it accepts megabytes, and then nothing until a third of them is sent, which at a client's 50
/// KiB/s takes longer than [`HTTP_STEP`].
pub const HTTP_UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Time that a stream's answer waits for the first message: a refusal then has its HTTP status.
pub const HTTP_STREAM_HEAD_WAIT_MAX: Duration = Duration::from_secs(1);

/// Time without a byte after which a stream of server-sent events gets a comment and a WebSocket a
/// ping. Proxies close a connection whose server is silent for a minute or less.
pub const HTTP_STREAM_KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Time for which the check of an upstream, and the probe of a link, count as its present state.
pub const HEALTH_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Longest time of the check of an upstream and of the probe of a link: what hangs is not ready.
pub const HEALTH_CHECK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Time for which a failed call makes a service unready that has no check.
pub const HEALTH_KEPT: Duration = Duration::from_secs(30);

/// Calls in a row whose deadlines passed, from which a service is taken to hang.
pub const HUNG_CALLS_MIN: u32 = 3;

/// Interval between two readings of the counts of calls, for the rates of the last minute.
pub const RATES_EVERY: Duration = Duration::from_secs(1);

/// Time over which `dialback status` counts calls.
pub const RATES_OVER: Duration = Duration::from_secs(60);

/// Age up to which the usual end of a caller's link is not worth a line at `info`: it is one of a
/// command, and its start has a line.
pub const SHORT_LINK_MAX: Duration = Duration::from_secs(60);

/// Names of agents and callers that have series of their own, where such series are asked for.
pub const PEER_LABELS_MAX: usize = 1_000;

/// Bytes of one text of a span: an attribute, a name or the reason of a failure. Peers choose some.
pub const SPAN_TEXT_BYTES_MAX: usize = 256;

/// Attributes of one span.
pub const SPAN_ATTRIBUTES_MAX: usize = 32;

/// Spans that wait to be exported, of up to some 2 KiB each. Those beyond are lost.
pub const SPANS_WAITING_MAX: usize = 4_096;

/// Calls a second that are sampled because a peer has sampled them, unless set otherwise: enough
/// for a person who looks for something, and no load for a collector.
pub const PEER_SAMPLED_MAX: u32 = 100;

/// Part of the calls without a trace context that is sampled, unless set otherwise: who names a
/// collector wants to see the first call.
pub const SAMPLE_DEFAULT: f64 = 1.0;

/// Spans in one request to a collector.
pub const OTLP_BATCH_MAX: usize = 512;

/// Time for which a span waits for others, to be exported with them.
pub const OTLP_BATCH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Time for a collector to take a request.
pub const OTLP_ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Attempts to export the same spans, with waits of [`OTLP_RETRY_WAIT`], twice that and so on
/// between them: a collector that restarts misses nothing.
pub const OTLP_ATTEMPTS_MAX: u32 = 4;

/// Wait before spans are sent for the second time.
pub const OTLP_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Time to export the last spans of a node, an agent or a caller that shuts down gracefully.
pub const SPANS_FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of one qlog file: some minutes of a busy link.
pub const QLOG_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// qlog files of one process. Further connections have none.
pub const QLOG_FILES_MAX: u32 = 1_000;

/// Failed calls, and changes of links, that are kept for `dialback status`.
pub const RECENT_EVENTS_MAX: usize = 50;

/// Kinds of refusals whose numbers are kept for `dialback status`.
pub const REFUSAL_KINDS_MAX: usize = 100;

/// Bytes of one text that is kept for `dialback status`.
pub const RECENT_TEXT_BYTES_MAX: usize = 300;

/// Time since the last answer to a probe up to which a link counts as answering: two probes may be
/// lost.
pub const PROBE_AGE_MAX: Duration = Duration::from_secs(5);

/// Interval between two checks of the caller of a call in flight: its token may have expired or
/// been revoked, its certificate may no longer be trusted.
pub const HTTP_CALLER_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Delay of the refusal of a wrong token from an address that has tried too many. With 256
/// connections that leaves some thousand attempts per second: a hundredth of a core on each side.
pub const TOKEN_GUESS_WAIT: Duration = Duration::from_millis(250);

/// Bytes from which a message is converted between JSON and CBOR off the threads of the runtime. A
/// smaller one takes a millisecond at most.
pub const CONVERTED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Large messages converted at once: a small machine has two cores, which the runtime needs too.
pub const CONVERSIONS_AT_ONCE_MAX: usize = 2;

/// Large messages of one caller that wait for conversion. More than the calls in flight of a caller
/// by default, so that no reply is refused.
pub const CONVERSIONS_WAITING_PER_CALLER_MAX: usize = 1_024;

/// Large messages of all callers that wait for conversion.
pub const CONVERSIONS_WAITING_MAX: usize = 16_384;

/// Pages of the directory that are built at once. Each occupies a thread while it is built.
pub const HTTP_PAGES_AT_ONCE_MAX: usize = 2;

/// Callers of the gateway whose calls are counted. Those without a call in flight go first.
pub const GATEWAY_CALLERS_MAX: usize = 4_096;

/// Interval between two searches of a full map for unused entries. A search costs the whole map;
/// one per call could be used as an attack.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Wait after a failed accept, as when no file descriptor is left.
pub const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Time for connecting to the upstream of a forward, TLS included. The upstream is near; one that
/// takes longer would miss most deadlines.
pub const FORWARD_CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time after which an idle connection to an upstream is no longer used; it is closed after twice
/// that. Shorter than the keep-alive of servers (2 s is the shortest in use), because a request on
/// a connection that its server closes at that moment ends unknown. A new connection costs 0.1 ms.
pub const FORWARD_IDLE_MAX: Duration = Duration::from_secs(1);

/// Age, less up to half of it at random, after which a connection to an upstream is no longer used,
/// so that a name is resolved again under steady traffic too. A new connection every ten seconds
/// costs nothing compared with its calls.
pub const FORWARD_AGE_MAX: Duration = Duration::from_secs(20);

/// Time that a connection rests after an answer before it is used again, until one of its upstream
/// was still open after that time. Upstreams that close after each answer without `connection:
/// close` do so within it, even on a busy machine.
pub const FORWARD_REST: Duration = Duration::from_millis(100);

/// Time for which it is remembered that an upstream closed a connection after its n-th answer
/// without announcing it. Short, because a restart looks the same, and a connection for each call
/// occupies a port for a minute.
pub const FORWARD_HABIT_KEPT: Duration = Duration::from_secs(10);

/// Idle connections to one upstream. More are closed when their call has ended.
pub const FORWARD_IDLE_CONNECTIONS_MAX: usize = 64;

/// Bytes that all streams of an HTTP/2 connection to an upstream may send ahead: 1,024 that nobody
/// reads. The limit on calls in flight is what bounds them.
pub const FORWARD_HTTP2_WINDOW_BYTES: u32 = 64 * 1024 * 1024;

/// Time without a request after which an HTTP/2 connection to an upstream is not used again.
pub const FORWARD_HTTP2_IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes of the head of an upstream's reply, and bytes that are read ahead of its body. Common
/// servers limit heads to 8 to 64 KiB.
pub const FORWARD_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers in the head of an upstream's reply.
pub const FORWARD_HEADERS_MAX: usize = 100;

/// Bytes of the body of an upstream's error, and of the message that ends its stream. A STATUS
/// carries only part of it.
pub const FORWARD_ERROR_BYTES_MAX: usize = 64 * 1024;

/// Congestion control of the sending side of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// By the rate and the round-trip time of the path: fills long paths in spite of random losses,
    /// and leaves their queues nearly empty.
    #[default]
    Rate,
    /// CUBIC (RFC 9438), which takes every loss for congestion.
    Cubic,
    /// BBR, version 1, as in quinn, where it is experimental. It overfills short queues.
    Bbr,
}

/// A text that names no congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be rate, cubic or bbr")]
pub struct CongestionError;

impl Congestion {
    /// The word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl std::str::FromStr for Congestion {
    type Err = CongestionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rate" => Ok(Self::Rate),
            "cubic" => Ok(Self::Cubic),
            "bbr" => Ok(Self::Bbr),
            _ => Err(CongestionError),
        }
    }
}

/// Limits that the embedding program may set. `Default` gives the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. Default 4 MiB, at most 64 MiB.
    pub message_bytes_max: usize,
    /// Bytes of messages that are held at once for all callers: those that are being read, those of
    /// calls in flight, and replies that wait for their reader. One caller may use a quarter of it,
    /// and half with its replies; messages beyond that are refused with `RESOURCE_EXHAUSTED`. The
    /// process needs about twice as much. Default: half of the memory that the process may use, by
    /// its cgroup and the memory of the machine.
    pub memory_max: Option<usize>,
    /// Calls in flight that this side answers per link. Default 256.
    pub calls_in_flight_max: usize,
    /// Calls in flight that a node answers per caller link. Default 128.
    pub caller_calls_in_flight_max: usize,
    /// Calls of an agent in flight per link, to the node and to other agents. Default 32.
    pub agent_asks_in_flight_max: usize,
    /// Calls that wait for a permit per link, first come, first served. Default 256.
    pub queue_max: usize,
    /// Time that a call may wait for a permit and stream credit together. Default 2 s.
    pub queue_wait_max: Duration,
    /// Timeout of a unary call that sets none. Default 30 s.
    pub timeout_default: Duration,
    /// Timeout of a streaming call that sets none. Default 24 h.
    pub stream_timeout_default: Duration,
    /// Time without progress either way after which a streaming call is ended. Default 5 min.
    pub stream_idle_max: Duration,
    /// Silence after which a link is lost. Default 15 s.
    pub idle_max: Duration,
    /// Interval between two PINGs. Default 5 s.
    pub heartbeat_every: Duration,
    /// Time without a PONG after which the link is closed. Default 12 s.
    pub heartbeat_lost: Duration,
    /// Sent bytes that a link keeps until the peer has acknowledged them, calls and control
    /// together. Default 8 MiB: 640 Mbit/s at a round trip of 100 ms. It is also the memory that a
    /// link with a stalled peer costs on the sending side. Calls leave 64 KiB of it to control
    /// frames, so that a bulk call on a slow line does not delay the heartbeat.
    pub send_buffer_bytes: usize,
    /// Links of one caller identity on one node; up to twice that during renewals. Default 256.
    pub caller_links_max: usize,
    /// Handshakes that one address (of IPv6 one /64) may begin on a node per second. Default 1,000,
    /// which keeps two cores busy: many agents may be behind one NAT. Further ones wait once their
    /// address is validated.
    pub handshakes_per_address: usize,
    /// Handshakes that one address may begin in a burst. Default 1,000.
    pub handshakes_burst: usize,
    /// Calls that a caller may reset long before their deadline, in ten seconds on one link, before
    /// the node closes the link. Default 100.
    pub resets_max: usize,
    /// Time that calls in flight have to finish after a graceful close has begun. Default 25 s.
    pub drain_max: Duration,
    /// Congestion control of new links. Not a limit, but it belongs to a link as these do.
    pub congestion: Congestion,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 * 1024 * 1024,
            memory_max: None,
            calls_in_flight_max: 256,
            caller_calls_in_flight_max: 128,
            agent_asks_in_flight_max: 32,
            queue_max: 256,
            queue_wait_max: QUEUE_WAIT_MAX,
            timeout_default: Duration::from_secs(30),
            stream_timeout_default: Duration::from_secs(24 * 3600),
            stream_idle_max: Duration::from_secs(300),
            idle_max: IDLE_MAX,
            heartbeat_every: HEARTBEAT_EVERY,
            heartbeat_lost: HEARTBEAT_LOST,
            send_buffer_bytes: 8 * 1024 * 1024,
            caller_links_max: 256,
            handshakes_per_address: 1_000,
            handshakes_burst: 1_000,
            resets_max: 100,
            drain_max: Duration::from_secs(25),
            congestion: Congestion::default(),
        }
    }
}
