//! Every bound and default, with its unit and its reason. What users may set stands in [`Limits`].

use std::time::Duration;

/// One head, HELLO, WELCOME or other frame of words. They are read before anybody was authorised.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// One REGISTER or VIEW frame: a thousand methods with long names fit.
pub const CONTROL_BYTES_MAX: usize = 256 * 1024;

/// What an agent's program says of a service or a method: some sentences. A hundred of them are
/// less than half of a REGISTER.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;

/// A JSON Schema of a method's messages, as text: some thirty fields with a sentence each.
pub const SCHEMA_BYTES_MAX: usize = 4 * 1024;

/// Depth of maps and arrays in a head. Ours go four deep; serde_cbor's own bound of 127 is fixed in
/// it.
pub const HEAD_DEPTH_MAX: usize = 32;

/// Items in a head: keys, values, maps and arrays together.
pub const HEAD_ITEMS_MAX: usize = 1_024;

/// The same for control frames, which list services.
pub const CONTROL_ITEMS_MAX: usize = 32 * 1_024;

/// Pairs of metadata on one head or status.
pub const METADATA_PAIRS_MAX: usize = 64;

/// Text of all metadata on one head or status.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;

/// The sentence in a STATUS or GOODBYE. Longer ones are cut by the sender.
pub const MESSAGE_TEXT_BYTES_MAX: usize = 2 * 1024;

/// Details in a STATUS: with text and metadata at their limits too, it still fits a head.
pub const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// What any setting of the message limit may reach.
pub const MESSAGE_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// A peer whose TLS handshake takes longer is not ours, or its path does not carry UDP. Three
/// probes of QUIC (at 0, 1 and 3 s) fit, and what is left is short enough to find a node within 5 s
/// of its start.
pub const DIAL_WAIT_MAX: Duration = Duration::from_secs(4);

/// A handshake that has not ended after this long is helped by a probe, which hears what the system
/// and ICMP say of the address. Most handshakes end before and need none.
pub const PROBE_AFTER: Duration = Duration::from_millis(100);

/// The large datagram of a probe: the smallest size that a path has to carry for QUIC (RFC 9000
/// section 14).
pub const PROBE_BYTES: usize = 1_200;

/// Between two looks at the files that a party goes by. A change is taken up at the second look
/// that shows it, within a second.
pub const RELOAD_CHECK_EVERY: Duration = Duration::from_millis(500);

/// So much of a file is looked at for changes: the largest revocation list that is read.
pub const WATCHED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Between two tries to take up what could not be taken up. A mended mode or a clock that has come
/// round is noticed so soon.
pub const RELOAD_RETRY_EVERY: Duration = Duration::from_secs(5);

/// How long before its end a revocation list is worth a word: there is a day to make the next one.
pub const CRL_NEAR_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// A worry about certificates is said again after this long, so that it stands in every day's log
/// and fills none.
pub const EXPIRY_WARNING_EVERY: Duration = Duration::from_secs(3600);

/// Before a peer's certificate ends, the dialling side makes another link this early, if the peer
/// has another certificate by then.
pub const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(30);

/// Between two looks at whether a node whose certificate is about to end shows a newer one, give or
/// take half of it.
pub const NEWER_CHECK_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at whether the certificate of a link has ended. A link outlives its
/// certificate by no more.
pub const TRUST_CHECK_EVERY: Duration = Duration::from_secs(1);

/// A link that ends sooner was no success: the wait before the next dial goes on growing.
pub const STEADY_LINK_MIN: Duration = Duration::from_secs(5);

/// The accepting side's bound on a handshake. Three bad round trips fit.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Handshakes in progress at once on one node. One address has a quarter of them, one site of IPv6
/// three eighths, one network half. With 100 ms there and back a handshake takes some 150 ms, so
/// that 400 a second of one address fit; and on a machine that does 25 a second the 64 of one
/// address still end before their diallers give up.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 256;

/// Handshakes in progress at once, up to which an address need not prove itself. Each may be under
/// a made-up address.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 64;

/// The same of one address: packets under its name leave most of its share to the one that can
/// prove it.
pub const HANDSHAKES_UNPROVEN_PER_ADDRESS_MAX: usize = 16;

/// Handshakes of addresses that have proved themselves and wait for their turn: two seconds' worth,
/// some 2 KiB each.
pub const HANDSHAKES_WAITING_MAX: usize = 2_048;

/// How long they wait. After that they are ignored: a dialler gives up at 4 s, and needs a Retry
/// and the handshake itself before that.
pub const HANDSHAKE_TURN_WAIT_MAX: Duration = Duration::from_millis(2_500);

/// A handshake in progress for longer makes way for one that waits, where its block or the node has
/// its full number. A handshake is over after one and a half round trips: with so much time those
/// of 650 ms pass also then.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Between two looks at the handshakes that wait, beside those when one has ended.
pub const HANDSHAKE_CHECK_EVERY: Duration = Duration::from_millis(50);

/// Room that a UDP socket asks the system for: the first packets of 1,000 peers that come at once,
/// or what some busy links send in one go. Linux gives twice `net.core.rmem_max` at most, which is
/// 416 KiB unless it was raised.
pub const UDP_RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// What QUIC keeps of a stranger's packets until its handshake is begun or refused: some first
/// flights. And of all strangers together.
pub const INCOMING_BYTES_MAX: u64 = 16 * 1024;

/// See [`INCOMING_BYTES_MAX`].
pub const INCOMING_BYTES_TOTAL_MAX: u64 = 8 * 1024 * 1024;

/// The asking side waits so long for the end of a reply whose STATUS has come, to notice frames
/// that must not follow. The FIN is usually in the same packet; a reply without one counts after
/// this wait.
pub const REPLY_FIN_WAIT_MAX: Duration = Duration::from_millis(50);

/// How long past its deadline a node waits for the STATUS of an agent, which is nearer to the
/// handler and may know that it did not run. The agent's own timer ends at about the same time;
/// this covers a round trip within a region.
pub const RELAY_STATUS_GRACE: Duration = Duration::from_millis(75);

/// How long past its deadline any other asking side waits for the STATUS. Longer than
/// [`RELAY_STATUS_GRACE`], which comes before it.
pub const STATUS_GRACE: Duration = Duration::from_millis(200);

/// Addresses whose handshakes are counted at once, each for 32 bytes or so. More are a flood of
/// made-up ones.
pub const COUNTED_ADDRESSES_MAX: usize = 65_536;

/// Between two lines of the log that say how many handshakes were ignored.
pub const IGNORED_HANDSHAKES_LOG_EVERY: Duration = Duration::from_secs(10);

/// Lines of the audit log that wait to be written: a second's worth on a busy node, and 8 MiB at
/// the most. Nobody waits for a place.
pub const AUDIT_LINES_WAITING_MAX: usize = 8_192;

/// Characters of the name that a refused certificate claims, in the audit log. No name of a party
/// is longer.
pub const CLAIM_CHARS_MAX: usize = 300;

/// A text of a peer in the audit log, in characters: names are shorter, and of a reason this is
/// enough.
pub const AUDIT_TEXT_CHARS_MAX: usize = 512;

/// What the audit log writes at once when many lines wait.
pub const AUDIT_BATCH_BYTES: usize = 64 * 1024;

/// Between two lines of the log that say that the audit log cannot be written.
pub const AUDIT_FAULT_LOG_EVERY: Duration = Duration::from_secs(10);

/// Between two attempts to have a full queue flushed. A bounded queue of std tells nobody when it
/// has room.
pub const AUDIT_FLUSH_STEP: Duration = Duration::from_millis(1);

/// How long a program that ends waits for the lines of its audit log.
pub const AUDIT_FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);

/// Log lines of the binary that wait to be written: about 4 MiB at 500 bytes each. More are dropped
/// and counted.
pub const LOG_LINES_WAITING_MAX: usize = 8_192;

/// Between two attempts of a program that ends to find a place for its last log lines.
pub const LOG_FLUSH_STEP: Duration = Duration::from_millis(1);

/// How long a program that ends waits for its log lines to be written. Long enough for a slow
/// terminal.
pub const LOG_FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Calls in a rule's `rate`, in whatever time.
pub const RATE_CALLS_MAX: u32 = 1_000_000;

/// Callers whose calls under rules with a `rate` or an `in_flight` are counted at once, each for
/// some 100 bytes a rule. They all have a certificate of ours, so more are refused: a rule that
/// cannot be counted does not hold.
pub const RULE_CALLERS_MAX: usize = 65_536;

/// Lines of the log about refusals of one kind that one party, or one address, can cause at once.
/// Enough to see what is wrong.
pub const LOG_LINES_PER_CAUSE_BURST: u32 = 20;

/// And one more of its lines every so often: whoever is refused for ever is still heard of.
pub const LOG_LINES_PER_CAUSE_EVERY: Duration = Duration::from_secs(10);

/// The same of all parties together: a crowd that was locked out by one mistake is seen whole.
pub const LOG_LINES_BURST: u32 = 200;

/// Two a second are 35 MB a day, which no rotation of logs is overcome by.
pub const LOG_LINES_EVERY: Duration = Duration::from_millis(500);

/// Parties or addresses whose lines are counted one by one. Of more, only the bound of all together
/// holds.
pub const LOG_CAUSES_MAX: usize = 4_096;

/// The time within which the calls that a caller breaks off are counted.
pub const RESETS_WITHIN: Duration = Duration::from_secs(10);

/// A peer that has not said hello, or not welcomed, by now is not ours.
pub const HELLO_WAIT_MAX: Duration = Duration::from_secs(5);

/// Between the attempts on two addresses of one name, as RFC 8305 section 5 recommends.
pub const RACE_STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried in one race. The last one starts after 3.75 s, within the
/// five seconds that a forward has to connect; a node's name with more goes on with the rest at the
/// next dial.
pub const RACE_ADDRESSES_MAX: usize = 16;

/// The head of a call must be whole by then; whoever opens a stream has it at hand.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// A peer that sends nothing of an unfinished request for this long is stalled.
pub const STALL_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a call may wait for a permit and for stream credit together: failing fast beats a pile.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Between two looks at the clock by which a process notices that it stood still (SIGSTOP, a
/// suspended machine).
pub const SUSPEND_TICK: Duration = Duration::from_millis(100);

/// No tick for this long and the process is taken to have stood still. Five ticks: a busy machine
/// delays one.
pub const SUSPEND_MIN: Duration = Duration::from_millis(500);

/// Ticks on time after a pause until what is read is taken to have come after it: a second, and
/// longer on a machine that is busy with what has piled up. Concerns what comes over no link.
pub const SUSPEND_SETTLED_TICKS: u32 = 10;

/// Ticks on time between two pauses until what came before the first is taken to have been read
/// between them: where a process stands still again and again, its pauses do not add up for what
/// comes anew.
pub const SUSPEND_READ_TICKS: u32 = 3;

/// Nothing shorter is worth sending: the wire counts milliseconds.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// What the wire's milliseconds are clamped to: a year, so that no clock arithmetic overflows.
pub const TIMEOUT_CEILING: Duration = Duration::from_secs(365 * 24 * 3600);

/// A link on which nothing is heard for this long is gone. QUIC's idle timeout.
pub const IDLE_MAX: Duration = Duration::from_secs(15);

/// Between two PINGs. NAT bindings live about 30 s.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// No setting makes it shorter.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// No PONG for this long: the data path is dead even if packets are acknowledged.
pub const HEARTBEAT_LOST: Duration = Duration::from_secs(12);

/// Between two stateless resets of a node, over all peers together. quinn's 20 ms would tell 50
/// peers a second that their link is gone, and a node that was killed may have thousands. 1,000 a
/// second cost about a hundredth of a core, and none is longer than what it answers.
pub const RESET_EVERY_MIN: Duration = Duration::from_millis(1);

/// Between two looks at the way to each node, by which a change of the network is noticed.
pub const MIGRATION_CHECK_EVERY: Duration = Duration::from_secs(2);

/// What a stream may send ahead of its reader.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// What a connection may send ahead before its peer is admitted.
pub const UNAUTHENTICATED_WINDOW_BYTES: u32 = 64 * 1024;

/// Streams a peer may open before it is admitted: the control stream and one to spare.
pub const UNAUTHENTICATED_STREAMS: u32 = 2;

/// Of the send buffer of a link, what calls leave to control frames: some hundred PINGs, or the
/// longest REGISTER but for its tail.
pub const CONTROL_RESERVE_BYTES: u64 = 64 * 1024;

/// Added to a connection's window beside one stream window per call in flight.
pub const CONNECTION_WINDOW_BASE_BYTES: u32 = 1024 * 1024;

/// Streams beyond the permitted calls, so that refusals and the control stream never wait for
/// calls.
pub const STREAMS_SPARE: u32 = 32;

/// Agents that a node remembers after they left, for lists. The oldest are forgotten first.
pub const DETACHED_REMEMBERED_MAX: usize = 10_000;

/// Arrivals that wait for the program to take them. A program that takes none loses the oldest.
pub const ARRIVALS_WAITING_MAX: usize = 1_024;

/// Links of one agent identity on one node: one in use, and those that it has taken the place of.
pub const AGENT_LINKS_MAX: usize = 1 + RETIRING_LINKS_MAX;

/// Links of one instance of a caller beyond `caller_links_max`, which are for the renewal of its
/// certificate: as many as it keeps itself. Of all instances there are at most twice
/// `caller_links_max`.
pub const CALLER_LINKS_OVER_MAX: usize = 1 + RETIRING_LINKS_MAX;

/// Links to one node whose place another one has taken, while calls are on them. With so many, a
/// renewal waits for the drain time until one has ended, and then closes the oldest.
pub const RETIRING_LINKS_MAX: usize = 3;

/// Closing: how long to wait in all until the other sides have heard it.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(3);

/// A config file or a file of rules: ten thousand rules fit, and a wrong path (a device, a log) is
/// not read whole.
pub const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a side that has finished waits for the others to close its links, which they do once
/// they have all replies: a round trip, and then some for a bad path. It is part of
/// [`CLOSE_WAIT_MAX`].
pub const GOODBYE_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a side whose graceful close is aborted waits for its CONNECTION_CLOSE frames to be
/// sent, so that its peers need not notice by silence (12 s). They leave at the next turn of the
/// runtime; a busy machine has ten turns for it, and a person does not feel the wait.
pub const ABORT_WAIT_MAX: Duration = Duration::from_millis(100);

/// Events that wait for the program to take them. A program that takes none loses the oldest.
pub const EVENTS_WAITING_MAX: usize = 1_024;

/// Superseded instances that a node remembers of one agent. The oldest is forgotten first, and has
/// then never been seen.
pub const INSTANCES_REMEMBERED_MAX: usize = 64;

/// Returns of superseded instances of one agent within [`RETURNS_WITHIN`]; one more, and a
/// certificate is in use twice. Dialback's own agents wait 10 s to 15 s after they were superseded,
/// so that two of them return four to six times a minute.
pub const RETURNS_MAX: usize = 3;

/// The time in which returns are counted.
pub const RETURNS_WITHIN: Duration = Duration::from_secs(60);

/// Returns of one instance within [`RETURNS_WITHIN`] that, with [`NEWCOMERS_MIN`], tell of a
/// certificate that a process which starts anew uses too. One return may be chance.
pub const RETURNS_SUSPICIOUS: usize = 2;

/// New instances of one agent within [`RETURNS_WITHIN`] that count as a series: the agent's own
/// start, one other, and one that was not needed.
pub const NEWCOMERS_MIN: usize = 3;

/// How long after its last attempt an instance that returned too often is held back. Longer than
/// the longest wait of an agent that was refused, five minutes, so that two that run side by side
/// do not start over.
pub const HELD_BACK_FOR: Duration = Duration::from_secs(600);

/// Messages that a streaming call holds between a program and its stream: enough to fill one write,
/// little enough to hold the program back.
pub const STREAM_MESSAGES_AHEAD: usize = 4;

/// How long an agent waits until the upstream of a forward has taken the connection. It is in the
/// same network; an upstream that is down says so at once.
pub const TCP_CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long whoever asks for a connection waits until it is there: a queue for a place at each hop,
/// the agent's wait for its upstream, and some for the way.
pub const TCP_OPEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// A forwarded connection in which no byte moved in either direction for this long is reset, unless
/// its owner has set another time.
pub const TCP_IDLE_MAX: Duration = Duration::from_secs(300);

/// Between two looks at a connection of which nothing is read or written for now, whether its other
/// side has reset it.
pub const TCP_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The most that is read of a connection at once, and travels as one message. Larger ones gain
/// nothing, and wait longer at each hop.
pub const TCP_READ_BYTES_MAX: usize = 64 * 1024;

/// With less room than this a buffer is made anew.
pub const TCP_READ_BYTES_MIN: usize = 16 * 1024;

/// The priority of a streaming call that sets none: below unary calls, so that bulk does not hold
/// up what is small.
pub const STREAM_PRIORITY: i8 = -16;

/// Attempts of one call in all. Two spare ones find another agent or a new link; more would only
/// add to whatever is wrong.
pub const ATTEMPTS_MAX: u32 = 3;

/// Retries per hundred calls. When everything fails, retries are a tenth more load, not a multiple
/// of it.
pub const RETRIES_PER_HUNDRED: u32 = 10;

/// Retries that may come at once before that share counts, so that a quiet node has some too.
pub const RETRIES_SAVED_MAX: u32 = 10;

/// Agents that are looked at when a call names only its service, before all are: two good ones
/// among them are nearly always found.
pub const CANDIDATES_MAX: usize = 16;

/// Of these, so many first: with rules that open a service to most of its callers, two good ones
/// are among them.
pub const CANDIDATES_FIRST: usize = 4;

/// Agents that are copied out of the registry under one hold of its lock: some 20 us.
pub const AGENTS_COPIED_AT_ONCE: usize = 256;

/// Callers and methods of which a node remembers which hosts may be called, where those are few.
/// Each is some 200 bytes and 16 an agent.
pub const CANDIDATE_LISTS_MAX: usize = 4_096;

/// Of these, those of one caller. A method more is judged anew, at one look at the rules for each
/// of its hosts.
pub const CANDIDATE_LISTS_PER_CALLER_MAX: usize = 1_024;

/// The most agents that are remembered of one of them. Where more may be called, a look at random
/// soon meets one.
pub const CANDIDATE_LIST_AGENTS_MAX: usize = 256;

/// Calls in flight at once when all agents of a service are called.
pub const CALL_ALL_AT_ONCE: usize = 16;

/// A request to an enroller, which strangers may send: a certificate request of an RSA key of 4,096
/// bits with many names in it fits.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// An enroller's answer: certificates, and a revocation list of some ten thousand entries. A longer
/// list is left out of it.
pub const JOIN_REPLY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Handshakes and requests in progress at once on one enroller. More wait for their turn, as on a
/// node.
pub const JOINS_AT_ONCE_MAX: usize = 128;

/// Between two handshakes of one address with an enroller: a hundred a second, each of which costs
/// a signature and a look at the tokens.
pub const JOIN_HANDSHAKE_EVERY: Duration = Duration::from_millis(10);

/// Handshakes of one address with an enroller that may come at once: a rack of machines that is
/// switched on.
pub const JOIN_HANDSHAKES_BURST: u32 = 500;

/// A request to an enroller must be whole by then after the handshake, and its answer must be taken
/// by then: three bad round trips fit.
pub const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long whoever has joined stays to say so. Where the word gets lost the enroller waits for it
/// in vain, and that is all.
pub const JOIN_CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Wrong tokens that one address may try at once.
pub const TOKEN_TRIES_BURST: u32 = 10;

/// Between two wrong tokens of one address after that: ten a minute. A secret has 128 bits, so this
/// is against noise, not against luck.
pub const TOKEN_TRIES_EVERY: Duration = Duration::from_secs(6);

/// The longest time of a join token. One that lies about for longer is found by somebody else.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an enroller remembers a token after its time, to say that it was used or is over rather
/// than that it is unknown.
pub const TOKEN_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Tokens of one CA directory at once. Each try reads them all: some 2 MiB, and 1 KiB for each that
/// was used and is still within its time.
pub const TOKENS_MAX: usize = 10_000;

/// Bearer tokens in one file. Each is some 200 bytes in memory, and the file is read whole at every
/// change.
pub const BEARER_TOKENS_MAX: usize = 10_000;

/// A file of bearer tokens: that many with the longest names fit, and a wrong path (a device, a
/// log) is not read whole.
pub const BEARER_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a bearer token holds unless it is said. A month of somebody else's use is the most that
/// a token lost unseen is worth.
pub const BEARER_TTL_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest time of a bearer token: a year and a day, for those who renew once a year.
pub const BEARER_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Agents of one method that the OpenAPI document names. Of more, a choice in a list is no help to
/// people, and the names would be most of it.
pub const OPENAPI_AGENTS_MAX: usize = 100;

/// How long an enroller's own certificate holds. It lies in memory and is signed again at half of
/// that.
pub const ENROLLER_LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The shortest life of a leaf that an enroller signs: certificates count whole seconds, and a
/// renewal takes a moment.
pub const LEAF_LIFE_MIN: Duration = Duration::from_secs(3);

/// Between two looks at the certificate that is to be renewed: the clock may have been set, and
/// somebody else may have renewed it.
pub const RENEWAL_CHECK_EVERY: Duration = Duration::from_secs(60);

/// The shortest wait after a renewal that failed.
pub const RENEWAL_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait after a renewal that failed: with leafs of 90 days there are 30 left to try in.
pub const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(3600);

/// A renewal that goes on failing for the same reason says so again after this long.
pub const RENEWAL_FAULT_LOG_EVERY: Duration = Duration::from_secs(600);

/// The share of one caller's requests in the memory for messages: this part of it, and twice as
/// much with its replies. A few callers together can still hold all of it.
pub const MEMORY_SHARE: usize = 4;

/// Messages of fewer bytes are not counted: those of all calls that one caller link may have in
/// flight hold 512 KiB.
pub const MEMORY_COUNTED_BYTES_MIN: usize = 4 * 1024;

/// HTTP connections at once on one door. Each is a file and, at its worst, the buffers below. When
/// all are held, the oldest one over which no known caller has asked makes room.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;

/// Of these, those of one host, unless it is a trusted proxy: of one IPv4 address or one /64 of
/// IPv6. A quarter, as with handshakes.
pub const HTTP_CONNECTIONS_PER_HOST_MAX: usize = 256;

/// Of one site, a /56 of IPv6, as homes have: three eighths. A /64 each of its connections gains it
/// little.
pub const HTTP_CONNECTIONS_PER_SITE_MAX: usize = 384;

/// Of one network, a /24 of IPv4 or a /48 of IPv6, as companies and rented machines have: half, so
/// that one network never holds all.
pub const HTTP_CONNECTIONS_PER_NETWORK_MAX: usize = 512;

/// Until the first bytes of a connection have come. Browsers connect ahead of their requests, and
/// connect again.
pub const HTTP_FIRST_BYTES_WAIT_MAX: Duration = Duration::from_secs(5);

/// Until the head of a request is whole, and with it the longest rest between two requests of an
/// HTTP/1 connection. With the wait for the first bytes it stays below 15 s, within which whoever
/// is slow is to be cut off.
pub const HTTP_HEAD_WAIT_MAX: Duration = Duration::from_secs(8);

/// What a client of HTTP/1 is told of that rest (`Keep-Alive: timeout=6`). Two seconds less, so
/// that a request that is sent at the last moment is not on its way when the connection is closed.
pub const HTTP_KEEP_ALIVE_ADVERTISED: Duration = Duration::from_secs(6);

/// What the head of an HTTP request may take: the longest metadata, a token, and what browsers and
/// proxies add.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of one request: all pairs of metadata, and what browsers and proxies add.
pub const HTTP_HEADERS_MAX: usize = 128;

/// The path of a request: names of agents, services and methods fit, all of them percent-encoded.
pub const HTTP_PATH_BYTES_MAX: usize = 2 * 1024;

/// The time in which a body, or an answer, has to move on by [`HTTP_STEP_BYTES_MIN`]: 1 KiB/s, as
/// on streams.
pub const HTTP_STEP: Duration = Duration::from_secs(10);

/// See [`HTTP_STEP`].
pub const HTTP_STEP_BYTES_MIN: usize = 10 * 1024;

/// What a client still sends when its answer has gone is read and discarded this long, so that it
/// sees the answer: at 1 MB/s, a message of the default size and more. It takes no memory, and
/// holds the connection's place.
pub const HTTP_DISCARD_WAIT_MAX: Duration = Duration::from_secs(10);

/// In each such step some of it has to come, or that is the end of it. With the wait for a head or
/// a body before it, a slow client is still cut off within 15 s.
pub const HTTP_DISCARD_STEP: Duration = Duration::from_secs(1);

/// See [`HTTP_DISCARD_STEP`]: 1 KiB/s, as of bodies that are read.
pub const HTTP_DISCARD_STEP_BYTES_MIN: usize = 1024;

/// HTTP/2 streams of one connection at once: as many as one caller's calls in flight by default.
pub const HTTP2_STREAMS_MAX: u32 = 128;

/// What an HTTP/2 stream may send ahead of its reader, and all of a connection together.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// See [`HTTP2_STREAM_WINDOW_BYTES`].
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams of one HTTP/2 connection that were reset before we had looked at them (CVE-2023-44487).
/// One more ends the connection.
pub const HTTP2_RESETS_PENDING_MAX: usize = 20;

/// Frames of HTTP/2 at once that carry no request forward: PING, SETTINGS, WINDOW_UPDATE, PRIORITY,
/// RST_STREAM, empty DATA. More end the connection with ENHANCE_YOUR_CALM. Each costs about a
/// microsecond, so this is a millisecond.
pub const HTTP2_FRAMES_UNASKED_MAX: usize = 1_000;

/// So many more at each [`HTTP_CHECK_EVERY`]. Clients that measure their connection send some PINGs
/// a second.
pub const HTTP2_FRAMES_PER_CHECK: usize = 100;

/// And so many more for each request and for each piece of its answer: clients give room for what
/// they have read, on the stream and on the connection, once for each frame at the most, and a
/// piece may go in a few frames.
pub const HTTP2_FRAMES_PER_STEP: usize = 8;

/// What a client may have of these at once: it may read late, and answers then for each of the
/// small frames that its window has held.
pub const HTTP2_FRAMES_EARNED_MAX: usize = 65_536;

/// And for each piece of a body that was read: one that was padded counts itself.
pub const HTTP2_FRAMES_PER_READ: usize = 2;

/// Between two PINGs of HTTP/2, and until one is answered. A peer in the midst of a head cannot
/// answer, so this bounds slow heads too.
pub const HTTP2_PING_EVERY: Duration = Duration::from_secs(6);

/// An HTTP/2 connection without a request. The client makes another when it has one.
pub const HTTP2_IDLE_MAX: Duration = Duration::from_secs(60);

/// Between two looks at a connection's state.
pub const HTTP_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The largest piece of an answer that is handed to HTTP at once, so that a client that takes none
/// holds no more. It has to go within [`HTTP_STEP`], so that it also bounds how slow a client may
/// be. One frame of HTTP/2.
pub const HTTP_PIECE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of answers that the system holds for a client and has not sent, where it can be told so.
/// By its own measure it takes megabytes, and then none until a third of them has gone, which at a
/// client's 50 KiB/s is longer than [`HTTP_STEP`].
pub const HTTP_UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// How long the head of a stream's answer waits for the first message, so that a refusal has a
/// status of its own.
pub const HTTP_STREAM_HEAD_WAIT_MAX: Duration = Duration::from_secs(1);

/// Between two signs of life in a stream of server-sent events: proxies cut what is silent for a
/// minute or less.
pub const HTTP_EVENTS_KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Between two looks at whether whoever asks may still: a token that has ended or was revoked, a
/// certificate that is trusted no more.
pub const HTTP_CALLER_CHECK_EVERY: Duration = Duration::from_secs(2);

/// How long the refusal of a wrong token waits once its address has tried too many: with 256
/// connections some thousand tries a second, which cost a hundredth of a core each way.
pub const TOKEN_GUESS_WAIT: Duration = Duration::from_millis(250);

/// A message of more bytes than this is converted between JSON and CBOR off the threads of the
/// runtime. Less takes a millisecond at most.
pub const CONVERTED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Large messages that are converted at once: a small machine has two cores, and the runtime needs
/// some of them.
pub const CONVERSIONS_AT_ONCE_MAX: usize = 2;

/// Large messages of one caller that wait for their turn. More than the calls in flight of a caller
/// by default, so that no reply is refused.
pub const CONVERSIONS_WAITING_PER_CALLER_MAX: usize = 1_024;

/// And of all callers.
pub const CONVERSIONS_WAITING_MAX: usize = 16_384;

/// Pages of what there is to call that are put together at once: each takes a thread for as long as
/// it takes.
pub const HTTP_PAGES_AT_ONCE_MAX: usize = 2;

/// Callers whose calls through a door are counted at once; those without a call are forgotten
/// first.
pub const GATEWAY_CALLERS_MAX: usize = 4_096;

/// How often a full map looks for entries that are not in use: a look costs the whole map, and one
/// at each call would be the attack.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// After a failure to accept, as when no file is left.
pub const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Connecting to the upstream of a forward, TLS included. It is near; one that takes longer would
/// not be in time for most deadlines.
pub const FORWARD_CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// An idle connection to an upstream is not used after this long, and closed after twice that.
/// Shorter than the time for which servers keep one (2 s is the shortest in use), because a request
/// on one that its server closes at that moment ends unknown. A new one costs 0.1 ms.
pub const FORWARD_IDLE_MAX: Duration = Duration::from_secs(1);

/// A connection to an upstream is not used for a call after this long, less up to half of it at
/// random, so that a name that leads elsewhere now is looked up again under steady traffic too. A
/// new connection every ten seconds costs nothing beside its calls.
pub const FORWARD_AGE_MAX: Duration = Duration::from_secs(20);

/// How long a connection rests after an answer before it is used again, until one of its upstream
/// was still open after that time. Upstreams that close after each answer without `connection:
/// close` do so within it, also on a busy machine.
pub const FORWARD_REST: Duration = Duration::from_millis(100);

/// How long it counts that an upstream closed a connection after its n-th answer without saying so.
/// Short, because a restart looks the same, and a connection for each call takes a port for a
/// minute.
pub const FORWARD_HABIT_KEPT: Duration = Duration::from_secs(10);

/// Idle connections to one upstream. More are closed when their call has ended.
pub const FORWARD_IDLE_CONNECTIONS_MAX: usize = 64;

/// The head of an upstream's reply, and what is read ahead of its body: the usual servers bound
/// heads at 8 to 64 KiB.
pub const FORWARD_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers in it.
pub const FORWARD_HEADERS_MAX: usize = 100;

/// The body of an upstream's error, and the message that ends its stream. What travels of it is
/// bounded by a STATUS anyhow.
pub const FORWARD_ERROR_BYTES_MAX: usize = 64 * 1024;

/// Bounds that the embedding program may set. `Default` gives the values of the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One message, in bytes. Default 4 MiB, at most 64 MiB.
    pub message_bytes_max: usize,
    /// Messages that are held at once for all callers, in bytes: those that are being read, those
    /// of calls in flight and replies that wait for their reader. A quarter of it is the share of
    /// one caller, and a half with its replies; what is over it is refused, `RESOURCE_EXHAUSTED`.
    /// The process needs about twice as much. Default: half of what the process may use, by its
    /// cgroup and the memory of the machine.
    pub memory_max: Option<usize>,
    /// Calls in flight that this side answers per link. Default 256.
    pub calls_in_flight_max: usize,
    /// Calls in flight that a node answers per caller link. Default 128.
    pub caller_calls_in_flight_max: usize,
    /// Calls in flight that a node answers per agent link: what agents ask of the node and of each
    /// other. Default 32.
    pub agent_asks_in_flight_max: usize,
    /// Calls that wait for a permit per link, first come first served. Default 256.
    pub queue_max: usize,
    /// How long a call may wait for a permit and stream credit together. Default 2 s.
    pub queue_wait_max: Duration,
    /// The deadline of a unary call that names none. Default 30 s.
    pub timeout_default: Duration,
    /// The deadline of a streaming call that names none. Default 24 h.
    pub stream_timeout_default: Duration,
    /// A streaming call in which nothing moved in either direction for this long is ended. Default
    /// 5 min.
    pub stream_idle_max: Duration,
    /// A link on which nothing is heard for this long is lost. Default 15 s.
    pub idle_max: Duration,
    /// Between two PINGs. Default 5 s.
    pub heartbeat_every: Duration,
    /// No PONG for this long and the link is closed. Default 12 s.
    pub heartbeat_lost: Duration,
    /// What a link keeps of sent bytes until the peer has acknowledged them, calls and control
    /// together. Default 8 MiB: 640 Mbit/s at a round trip of 100 ms, and the most that a link with
    /// a peer that stalls costs in memory on the way out. Calls leave 64 KiB of it to control
    /// frames, so that a bulk call on a slow line does not hold the heartbeat back.
    pub send_buffer_bytes: usize,
    /// Links of one caller identity on one node. Default 256. An instance that has one may renew
    /// its certificate beyond that: at most twice as many links are held in all.
    pub caller_links_max: usize,
    /// Handshakes that one address (of IPv6 one /64) may begin on a node per second. Default 1,000,
    /// which two cores are busy with: behind one NAT there may be many agents. More wait for their
    /// turn, once their address has proved itself.
    pub handshakes_per_address: usize,
    /// How many of them may begin at once. Default 1,000.
    pub handshakes_burst: usize,
    /// Calls that a caller may break off long before their deadline, in ten seconds on one link,
    /// before the node closes it. Default 100.
    pub resets_max: usize,
    /// How long work in hand may go on after a stop was asked for. Default 25 s.
    pub drain_max: Duration,
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
        }
    }
}
