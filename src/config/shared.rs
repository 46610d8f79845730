//! The tables that both files share: `[tls]` names files, `[limits]` sets limits.

#[cfg(feature = "otel")]
use super::value::part;
use super::{
    setting::{SettingTable, SettingValue},
    table::Table,
    value::{
        bytes, count, duration, flag, parse_bytes, path, show_bytes, show_duration, text, within,
    },
};
use crate::{
    limits::{Congestion, Limits, MESSAGE_BYTES_CEILING, TIMEOUT_CEILING, TIMEOUT_MIN},
    memory,
    name::{AdminAddress, NameGlob},
    tls::{CredentialFiles, CrlScope},
};
#[cfg(feature = "otel")]
use crate::{
    limits::{PEER_SAMPLED_MAX, SAMPLE_DEFAULT},
    trace::OtlpEndpoint,
};
use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// The files of a peer's credentials as one source (file, flags) names them. Relative paths start
/// at the working directory and stay as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The leaf certificate, then intermediates.
    pub cert: Option<PathBuf>,
    /// The leaf's private key.
    pub key: Option<PathBuf>,
    /// The CA certificates of peers.
    pub ca: Option<PathBuf>,
    /// The CA certificates of nodes, if they differ from those of agents and callers.
    pub node_ca: Option<PathBuf>,
    /// The revocation list; `none`: no certificate counts as revoked (`./none` is a file).
    pub crl: Option<PathBuf>,
    /// Certificates of a chain that are looked up in the list.
    pub crl_scope: Option<CrlScope>,
}

/// Some of certificate, key and CA are named and some are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{missing} missing; set cert, key and ca, by flags or under [tls], or none of the three")]
pub struct TlsFilesError {
    missing: String,
}

impl TlsFiles {
    /// Value of `crl` in place of a file: no revocation list.
    pub const NO_LIST: &str = "none";

    /// Fills missing settings from a source of lower precedence: `flags.or(file)`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            cert: self.cert.or(weaker.cert),
            key: self.key.or(weaker.key),
            ca: self.ca.or(weaker.ca),
            node_ca: self.node_ca.or(weaker.node_ca),
            crl: self.crl.or(weaker.crl),
            crl_scope: self.crl_scope.or(weaker.crl_scope),
        }
    }

    /// True if the configuration excludes a revocation list.
    pub fn is_without_list(&self) -> bool {
        self.crl.as_deref() == Some(Path::new(Self::NO_LIST))
    }

    /// The files after all sources are merged: all three, `None` if none is named, or the gap.
    pub fn complete(&self) -> Result<Option<CredentialFiles>, TlsFilesError> {
        match (&self.cert, &self.key, &self.ca) {
            (Some(cert), Some(key), Some(ca)) => Ok(Some(CredentialFiles {
                cert: cert.clone(),
                key: key.clone(),
                ca: ca.clone(),
                node_ca: self.node_ca.clone(),
                crl: self.crl.clone().filter(|_| !self.is_without_list()),
                crl_scope: self.crl_scope.unwrap_or_default(),
            })),
            (None, None, None) => Ok(None),
            _ => Err(self.gap()),
        }
    }

    fn gap(&self) -> TlsFilesError {
        let named = [("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)];
        let missing: Vec<_> =
            named.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
        let verb = if missing.len() == 1 { "is" } else { "are" };
        TlsFilesError { missing: format!("{} {verb}", missing.join(" and ")) }
    }
}

/// The settings of the audit log from one source (file, flags).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFile {
    /// The file; `-` is standard output.
    pub file: Option<PathBuf>,
    /// True if every call is recorded too.
    pub calls: Option<bool>,
}

impl AuditFile {
    /// Fills missing settings from a source of lower precedence: `flags.or(file)`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self { file: self.file.or(weaker.file), calls: self.calls.or(weaker.calls) }
    }
}

pub(super) fn read_audit(file: &mut Table<'_>) -> AuditFile {
    let Some(mut audit) = file.table("audit", "[audit]") else { return AuditFile::default() };
    let (file, calls) = (audit.optional("file", path), audit.optional("calls", flag));
    refuse_misplaced(&mut audit);
    audit.finish();
    AuditFile { file, calls }
}

/// Lists `[audit]`.
pub(super) fn list_audit(audit: &AuditFile) -> SettingTable {
    let AuditFile { file, calls } = audit;
    let table = SettingTable::new("audit").set_path("file", file.as_deref());
    table.set_flag("calls", calls.unwrap_or(false))
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Address of the listener.
    pub listen: AdminAddress,
    /// Callers whose certificates it asks for; without any it is on loopback or a Unix socket.
    pub callers: Vec<NameGlob>,
    /// True if its page may stop the process gracefully.
    pub drain: bool,
    /// True if metrics of calls have the names of agents and callers.
    pub peer_labels: bool,
}

impl AdminConfig {
    /// A listener at this address, everything else by default.
    pub const fn new(listen: AdminAddress) -> Self {
        Self { listen, callers: Vec::new(), drain: false, peer_labels: false }
    }
}

/// Reads `[admin]`.
pub(super) fn read_admin(file: &mut Table<'_>) -> Option<AdminConfig> {
    let mut admin = file.table("admin", "[admin]")?;
    if !admin.has("listen") {
        let text = "[admin] has no `listen`; add a line as listen = \"127.0.0.1:9433\"";
        admin.fault("listen", text.into());
    }
    let listen = admin.optional("listen", text::<AdminAddress>("127.0.0.1:9433"));
    let remedy = "write [\"ops\", ...], or remove the key for a listener of this machine alone";
    let callers = admin.each_of_some("callers", text::<NameGlob>("ops"), remedy);
    let callers = callers.unwrap_or_default();
    let is_local = listen.as_ref().is_none_or(AdminAddress::is_local);
    if !is_local && callers.is_empty() {
        let text = "`listen`: other machines would reach it without any credential; listen on loopback, as 127.0.0.1:9433, or add `callers`, whose certificates it then asks for";
        admin.fault("listen", text.into());
    }
    let [drain, peer_labels] =
        ["drain", "peer_labels"].map(|key| admin.optional(key, flag).unwrap_or(false));
    admin.finish();
    Some(AdminConfig { callers, drain, peer_labels, ..AdminConfig::new(listen?) })
}

/// Lists `[admin]`.
pub(super) fn list_admin(admin: &AdminConfig) -> Vec<SettingTable> {
    let AdminConfig { listen, callers, drain, peer_labels } = admin;
    let table = SettingTable::new("admin")
        .set_text("listen", Some(listen))
        .set("callers", SettingValue::texts(callers))
        .set_flag("drain", *drain)
        .set_flag("peer_labels", *peer_labels);
    vec![table]
}

/// `[trace]`, as far as it is written.
#[cfg(feature = "otel")]
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct TraceFile {
    /// The collector that spans are exported to.
    pub otlp: Option<OtlpEndpoint>,
    /// Part of the calls without a trace context that is sampled.
    pub sample: Option<f64>,
    /// Calls a second that are sampled because a peer has sampled them.
    pub peer_sampled_max: Option<u32>,
}

/// Lists `[trace]`.
#[cfg(feature = "otel")]
pub(super) fn list_trace(trace: &TraceFile) -> Vec<SettingTable> {
    let TraceFile { otlp, sample, peer_sampled_max } = trace;
    let peer_sampled_max = peer_sampled_max.unwrap_or(PEER_SAMPLED_MAX) as usize;
    let table = SettingTable::new("trace")
        .set_text("otlp", otlp.as_ref())
        .set("sample", SettingValue::Part(sample.unwrap_or(SAMPLE_DEFAULT)))
        .set("peer_sampled_max", SettingValue::Count(peer_sampled_max));
    vec![table]
}

/// Reads `[trace]`. The collector may come from elsewhere.
#[cfg(feature = "otel")]
pub(super) fn read_trace(file: &mut Table<'_>) -> Option<TraceFile> {
    let mut trace = file.table("trace", "[trace]")?;
    let otlp = trace.optional("otlp", text("http://127.0.0.1:4318"));
    let sample = trace.optional("sample", part);
    let peer_sampled_max = trace.optional("peer_sampled_max", count(PEER_SAMPLED_RANGE));
    refuse_misplaced(&mut trace);
    trace.finish();
    let peer_sampled_max = peer_sampled_max.and_then(|count| u32::try_from(count).ok());
    Some(TraceFile { otlp, sample, peer_sampled_max })
}

#[cfg(feature = "otel")]
const PEER_SAMPLED_RANGE: RangeInclusive<usize> = 0..=1_000_000;

/// Reads `cert` and `key` of a table: both, or none for the node's own certificate.
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(super) fn read_certificate(table: &mut Table<'_>) -> Option<[PathBuf; 2]> {
    let [cert, key] = ["cert", "key"].map(|name| table.optional(name, path));
    for (has, lacks, name) in [(&cert, &key, "cert"), (&key, &cert, "key")] {
        if has.is_some() && lacks.is_none() {
            let text = "cert and key go together; remove both to use the node's own certificate";
            table.fault(name, format!("`{name}`: {text}"));
        }
    }
    cert.zip(key).map(|(cert, key)| [cert, key])
}

/// Lists `cert` and `key` of a table.
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(super) fn list_certificate(
    table: SettingTable,
    certificate: Option<&[PathBuf; 2]>,
) -> SettingTable {
    let [cert, key] = [0, 1].map(|at| certificate.map(|files| files[at].as_path()));
    table.set_path("cert", cert).set_path("key", key)
}

/// Reads `[tls]`. Missing keys may come from elsewhere and are checked later.
pub(super) fn read_tls(file: &mut Table<'_>) -> TlsFiles {
    let paths = ["cert", "key", "ca", "node_ca", "crl"];
    file.refuse(&[&paths[..], &["crl_scope"]].concat(), "belongs under [tls]");
    let Some(mut tls) = file.table("tls", "[tls]") else { return TlsFiles::default() };
    let [cert, key, ca, node_ca, crl] = paths.map(|name| tls.optional(name, path));
    let crl_scope = tls.optional("crl_scope", text("chain"));
    refuse_misplaced(&mut tls);
    tls.finish();
    TlsFiles { cert, key, ca, node_ca, crl, crl_scope }
}

/// Lists `[tls]`.
pub(super) fn list_tls(files: &TlsFiles) -> SettingTable {
    let TlsFiles { cert, key, ca, node_ca, crl, crl_scope } = files;
    let table = SettingTable::new("tls")
        .set_path("cert", cert.as_deref())
        .set_path("key", key.as_deref())
        .set_path("ca", ca.as_deref())
        .set_path("node_ca", node_ca.as_deref())
        .set_path("crl", crl.as_deref());
    table.set_text("crl_scope", Some(crl_scope.unwrap_or_default().as_str()))
}

/// In TOML a key after a header belongs to that header, which surprises people.
pub(super) fn refuse_misplaced(table: &mut Table<'_>) {
    table.refuse(
        &["listen", "state", "nodes", "demo", "ledger", "enroll"],
        "belongs above the first [header] of the file",
    );
}

/// Range of message sizes. Less would not hold a useful message.
pub(super) const MESSAGE_RANGE: RangeInclusive<usize> = 1_024..=MESSAGE_BYTES_CEILING;

/// Reads a value of `memory_max`.
///
/// # Errors
/// The value is not a size, or out of range.
pub fn parse_memory_max(text: &str) -> Result<usize, String> {
    let size = parse_bytes(text).map_err(|why| why.to_string())?;
    within(&MEMORY_RANGE, size, |bound| show_bytes(*bound))
}

/// Less memory would hold no message of the default size in a caller's share.
const MEMORY_RANGE: RangeInclusive<usize> = 16 * 1_024 * 1_024..=1 << 40;

/// One stream window per call must add up to less than 4 GiB, the limit of QUIC's windows here.
const CALLS_RANGE: RangeInclusive<usize> = 1..=10_000;
const QUEUE_RANGE: RangeInclusive<usize> = 1..=100_000;
const LINKS_RANGE: RangeInclusive<usize> = 1..=10_000;
/// Lower bound: needed by a fast line. Upper bound: memory, not quinn's counters.
const SEND_BUFFER_RANGE: RangeInclusive<usize> = 256 * 1_024..=1 << 30;
const HANDSHAKES_RANGE: RangeInclusive<usize> = 1..=1_000_000;
const RESETS_RANGE: RangeInclusive<usize> = 1..=100_000;

const fn secs(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

/// Reads `[limits]`. Missing keys keep their defaults.
pub(super) fn read_limits(file: &mut Table<'_>) -> Limits {
    let mut limits = Limits { congestion: read_congestion(file), ..Limits::default() };
    let Some(mut table) = file.table("limits", "[limits]") else { return limits };
    read_counts(&mut table, &mut limits);
    read_durations(&mut table, &mut limits);
    refuse_misplaced(&mut table);
    check_heartbeat(&table, &limits);
    table.finish();
    limits
}

/// Reads `[link]`.
fn read_congestion(file: &mut Table<'_>) -> Congestion {
    let Some(mut table) = file.table("link", "[link]") else { return Congestion::default() };
    let congestion = table.optional("congestion", text("rate")).unwrap_or_default();
    table.finish();
    congestion
}

fn read_counts(table: &mut Table<'_>, limits: &mut Limits) {
    table.set("message_bytes_max", &mut limits.message_bytes_max, bytes(MESSAGE_RANGE));
    if let Some(memory_max) = table.optional("memory_max", bytes(MEMORY_RANGE)) {
        limits.memory_max = Some(memory_max);
        if let Some(why) = memory::misfit(memory_max, limits.message_bytes_max) {
            table.fault("memory_max", why);
        }
    }
    table.set("calls_in_flight_max", &mut limits.calls_in_flight_max, count(CALLS_RANGE));
    let caller_calls = &mut limits.caller_calls_in_flight_max;
    table.set("caller_calls_in_flight_max", caller_calls, count(CALLS_RANGE));
    table.set("queue_max", &mut limits.queue_max, count(QUEUE_RANGE));
    table.set("caller_links_max", &mut limits.caller_links_max, count(LINKS_RANGE));
    let send_buffer = &mut limits.send_buffer_bytes;
    table.set("send_buffer_bytes", send_buffer, bytes(SEND_BUFFER_RANGE));
    let per_address = &mut limits.handshakes_per_address;
    table.set("handshakes_per_address", per_address, count(HANDSHAKES_RANGE));
    table.set("handshakes_burst", &mut limits.handshakes_burst, count(HANDSHAKES_RANGE));
    table.set("resets_max", &mut limits.resets_max, count(RESETS_RANGE));
}

fn read_durations(table: &mut Table<'_>, limits: &mut Limits) {
    let to = |most| duration(TIMEOUT_MIN..=most);
    table.set("queue_wait_max", &mut limits.queue_wait_max, to(Duration::from_secs(60)));
    table.set("timeout_default", &mut limits.timeout_default, to(TIMEOUT_CEILING));
    let stream_timeout = &mut limits.stream_timeout_default;
    table.set("stream_timeout_default", stream_timeout, to(TIMEOUT_CEILING));
    table.set("stream_idle_max", &mut limits.stream_idle_max, duration(secs(1..=86_400)));
    table.set("idle_max", &mut limits.idle_max, duration(secs(1..=600)));
    table.set("heartbeat_every", &mut limits.heartbeat_every, duration(secs(1..=300)));
    table.set("heartbeat_lost", &mut limits.heartbeat_lost, duration(secs(1..=600)));
    table.set("drain_max", &mut limits.drain_max, to(Duration::from_secs(3_600)));
}

/// Lists `[link]` and `[limits]`.
pub(super) fn list_limits(limits: &Limits) -> [SettingTable; 2] {
    let bytes = |bytes: usize| SettingValue::text(show_bytes(bytes));
    let time = |time: Duration| SettingValue::text(show_duration(time));
    let count = SettingValue::Count;
    // Destructured, so that a new limit is not forgotten.
    let Limits {
        message_bytes_max,
        memory_max,
        calls_in_flight_max,
        caller_calls_in_flight_max,
        agent_asks_in_flight_max: _,
        queue_max,
        queue_wait_max,
        timeout_default,
        stream_timeout_default,
        stream_idle_max,
        idle_max,
        heartbeat_every,
        heartbeat_lost,
        send_buffer_bytes,
        caller_links_max,
        handshakes_per_address,
        handshakes_burst,
        resets_max,
        drain_max,
        congestion,
    } = limits;
    let table = SettingTable::new("limits").set("message_bytes_max", bytes(*message_bytes_max));
    let table = match memory_max {
        Some(memory_max) => table.set("memory_max", bytes(*memory_max)),
        None => table.set_implied("memory_max", memory::max_default().map(bytes)),
    };
    let table = table
        .set("calls_in_flight_max", count(*calls_in_flight_max))
        .set("caller_calls_in_flight_max", count(*caller_calls_in_flight_max))
        .set("queue_max", count(*queue_max))
        .set("queue_wait_max", time(*queue_wait_max))
        .set("timeout_default", time(*timeout_default))
        .set("stream_timeout_default", time(*stream_timeout_default))
        .set("stream_idle_max", time(*stream_idle_max))
        .set("idle_max", time(*idle_max))
        .set("heartbeat_every", time(*heartbeat_every))
        .set("heartbeat_lost", time(*heartbeat_lost))
        .set("send_buffer_bytes", bytes(*send_buffer_bytes))
        .set("caller_links_max", count(*caller_links_max))
        .set("handshakes_per_address", count(*handshakes_per_address))
        .set("handshakes_burst", count(*handshakes_burst))
        .set("resets_max", count(*resets_max))
        .set("drain_max", time(*drain_max));
    [SettingTable::new("link").set_text("congestion", Some(congestion.as_str())), table]
}

/// A link that is given up before its next PING would be lost without a fault.
fn check_heartbeat(table: &Table<'_>, limits: &Limits) {
    let every = limits.heartbeat_every;
    for (key, bound) in [("heartbeat_lost", limits.heartbeat_lost), ("idle_max", limits.idle_max)] {
        if bound <= every {
            let [bound, every] = [bound, every].map(show_duration);
            let text = format!("`{key}` ({bound}) must be longer than `heartbeat_every` ({every})");
            table.fault(key, text);
        }
    }
}
