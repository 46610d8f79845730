//! `[[service]]` of an agent's file: services that a local HTTP server answers.

use super::{
    setting::{SettingTable, SettingValue},
    shared::refuse_misplaced,
    table::Table,
    value::{flag, path, text},
};
use crate::{
    agent::{Forward, ForwardFormat, UpstreamAddress, UpstreamCheck},
    name::{MethodName, ServiceName},
};
use std::path::PathBuf;
use toml::de::DeValue;

/// One service that is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardConfig {
    /// The service's name.
    pub service: ServiceName,
    /// The upstream.
    pub upstream: UpstreamAddress,
    /// The trusted CAs of an `https` upstream.
    pub upstream_ca: Option<PathBuf>,
    /// Format of requests.
    pub format: ForwardFormat,
    /// The methods that are forwarded; `None` is all of them.
    pub methods: Option<Vec<MethodName>>,
    /// True if connections to the upstream are used for further calls.
    pub keep_alive: bool,
    /// The names of metadata that become headers; `None` is all that may.
    pub metadata: Option<Vec<String>>,
    /// The check of the upstream.
    pub health: Option<UpstreamCheck>,
}

impl ForwardConfig {
    /// A service and where its calls go, everything else by default.
    pub fn new(service: ServiceName, upstream: UpstreamAddress) -> Self {
        let format = ForwardFormat::default();
        let (upstream_ca, methods, keep_alive, metadata) = (None, None, true, None);
        let health = None;
        Self { service, upstream, upstream_ca, format, methods, keep_alive, metadata, health }
    }
}

/// Reads all of them. Those with a fault are left out; the fault refuses the file.
pub(super) fn read_forwards(file: &mut Table<'_>) -> Vec<ForwardConfig> {
    let mut found: Vec<ForwardConfig> = Vec::new();
    for mut table in file.tables("service", "[[service]]") {
        let read = read_forward(&mut table);
        if let Some(forward) = read {
            check_against(&table, &forward, &found);
            found.push(forward);
        }
        table.finish();
    }
    found
}

fn read_forward(table: &mut Table<'_>) -> Option<ForwardConfig> {
    let name = table.required("name", "HelloService");
    let upstream = table.required("forward", "http://127.0.0.1:9000");
    let upstream_ca = table.optional("upstream_ca", path);
    let format = table.optional("format", text("json")).unwrap_or_default();
    let remedy = "write [\"Hello\", ...], or remove the key for all methods";
    let methods = table.each_of_some("methods", text::<MethodName>("Hello"), remedy);
    let keep_alive = table.optional("keep_alive", flag).unwrap_or(true);
    let metadata = table.each("metadata", metadata_name);
    let health = table.optional("health", text("GET /healthz"));
    table.refuse(&["upstream"], "belongs in [[tcp]]; here it is `forward`");
    refuse_misplaced(table);
    let (service, upstream) = (name?, upstream?);
    Some(ForwardConfig {
        service,
        upstream,
        upstream_ca,
        format,
        methods,
        keep_alive,
        metadata,
        health,
    })
}

/// Lists one `[[service]]`.
pub(super) fn list_service(forward: &ForwardConfig) -> SettingTable {
    let ForwardConfig {
        service,
        upstream,
        upstream_ca,
        format,
        methods,
        keep_alive,
        metadata,
        health,
    } = forward;
    let table = SettingTable::one_of("service")
        .set_text("name", Some(service))
        .set_text("forward", Some(upstream))
        .set_path("upstream_ca", upstream_ca.as_deref())
        .set_text("format", Some(format.as_str()))
        .set("methods", methods.as_deref().and_then(SettingValue::texts))
        .set_flag("keep_alive", *keep_alive)
        .set("metadata", metadata.as_deref().map(SettingValue::all));
    table.set_url("health", health.as_ref())
}

fn metadata_name(value: &DeValue<'_>) -> Result<String, String> {
    let name: String = text("x-request-id")(value)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is not a header name; write one as \"x-request-id\""));
    }
    if Forward::never_travels(&name) {
        return Err(format!(
            "{name} never becomes a header, because servers trust it as set by a proxy or the agent; remove it"
        ));
    }
    Ok(name)
}

fn check_against(table: &Table<'_>, forward: &ForwardConfig, others: &[ForwardConfig]) {
    let service = &forward.service;
    if service.as_str().starts_with("dialback.") {
        table.fault(
            "name",
            format!("`name`: {service} is reserved: the names of dialback's own services start with dialback."),
        );
    }
    if others.iter().any(|other| other.service == *service) {
        table.fault("name", format!("`name`: duplicate [[service]] {service}"));
    }
    match (forward.upstream.is_tls(), &forward.upstream_ca) {
        (true, None) => table.fault(
            "forward",
            "`forward`: an https upstream needs a CA; add a line as upstream_ca = \"certs/upstream-ca.pem\"".into(),
        ),
        (false, Some(_)) => table.fault(
            "upstream_ca",
            format!("`upstream_ca`: {} is not https; remove the key, or write https", forward.upstream),
        ),
        _ => {}
    }
    table.fault_repeats("methods", forward.methods.as_deref().unwrap_or_default());
}
