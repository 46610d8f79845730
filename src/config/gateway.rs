//! `[gateway]` of a node's file: address, authentication, proxies and origins.

use super::{
    setting::{SettingTable, SettingValue},
    shared::{list_certificate, read_certificate},
    table::Table,
    value::{flag, listen, path, text},
};
use crate::{httpd::IpRange, name::Name};
use std::{net::SocketAddr, path::PathBuf};

/// The `[gateway]` table of a node's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayFile {
    /// TCP address to listen on.
    pub listen: Option<SocketAddr>,
    /// The file of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// The caller of requests without credentials.
    pub anonymous: Option<Name>,
    /// Addresses of the trusted proxies.
    pub trusted_proxy: Vec<IpRange>,
    /// Origins whose pages may send requests.
    pub cors_origins: Vec<String>,
    /// TLS certificate, if it uses TLS.
    pub tls: Option<GatewayTls>,
}

/// TLS certificate of the gateway: a named one, or the node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayTls {
    /// A chain for clients that do not trust the node's CA, the leaf first, and its key.
    pub certificate: Option<[PathBuf; 2]>,
}

pub(super) fn read_gateway(file: &mut Table<'_>) -> Option<GatewayFile> {
    file.refuse(
        &["tokens", "anonymous", "trusted_proxy", "cors_origins"],
        "belongs under [gateway]",
    );
    let mut table = file.table("gateway", "[gateway]")?;
    let gateway = GatewayFile {
        listen: table.optional("listen", listen),
        tokens: table.optional("tokens", path),
        anonymous: table.optional("anonymous", text("everybody")),
        trusted_proxy: table.each("trusted_proxy", text("10.0.0.0/8")).unwrap_or_default(),
        cors_origins: table.each("cors_origins", origin).unwrap_or_default(),
        tls: read_tls(&mut table),
    };
    check(&table, &gateway);
    table.refuse(&["cert", "key"], "belongs under [gateway.tls]");
    table.finish();
    Some(gateway)
}

/// Lists `[gateway]` and `[gateway.tls]`.
pub(super) fn list_gateway(gateway: &GatewayFile) -> Vec<SettingTable> {
    let GatewayFile { listen, tokens, anonymous, trusted_proxy, cors_origins, tls } = gateway;
    let table = SettingTable::new("gateway")
        .set_text("listen", *listen)
        .set_path("tokens", tokens.as_deref())
        .set_text("anonymous", anonymous.as_ref())
        .set("trusted_proxy", SettingValue::all(trusted_proxy))
        .set("cors_origins", SettingValue::all(cors_origins));
    match tls.as_ref().and_then(|tls| tls.certificate.as_ref()) {
        None => vec![table.set_flag("tls", tls.is_some())],
        files => vec![table, list_certificate(SettingTable::new("gateway.tls"), files)],
    }
}

fn read_tls(table: &mut Table<'_>) -> Option<GatewayTls> {
    if !table.is_table("tls") {
        return table.optional("tls", flag)?.then(GatewayTls::default);
    }
    let mut tls = table.table("tls", "[gateway.tls]")?;
    let certificate = read_certificate(&mut tls);
    tls.finish();
    Some(GatewayTls { certificate })
}

/// Records settings that the gateway would reject, with their lines.
fn check(table: &Table<'_>, gateway: &GatewayFile) {
    let is_loopback = gateway.listen.is_none_or(|listen| listen.ip().to_canonical().is_loopback());
    let has_proxy = !gateway.trusted_proxy.is_empty();
    if !is_loopback && !has_proxy && gateway.tls.is_none() {
        let text = "`listen`: plain HTTP is allowed on loopback only; listen on 127.0.0.1, or set tls = true or [gateway.tls], or name the proxy in front in trusted_proxy";
        table.fault("listen", text.into());
    }
    if gateway.anonymous.is_some() && (!is_loopback || has_proxy) {
        let text = "`anonymous`: would let every client of the gateway call; it is allowed on loopback only, and not behind a trusted_proxy: use tokens or certificates";
        table.fault("anonymous", text.into());
    }
}

/// An origin as browsers write it: scheme, host, and the port unless it is the usual one.
fn origin(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let text: String = text("https://app.example.com")(value)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_byte = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
    let is_host = |rest: &str| !rest.is_empty() && rest.bytes().all(is_byte);
    if rest.is_some_and(is_host) {
        return Ok(text);
    }
    let shown: String = text.chars().take(80).collect();
    Err(format!(
        "{shown:?} is not an origin; write scheme and host in lower case, without a path, as \"https://app.example.com\""
    ))
}
