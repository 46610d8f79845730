//! Paths of links: `path`, `tunnel_url`, `proxy` and `[tunnel]` of an agent's file, `[tunnel]` of a
//! node's.

use super::{
    setting::{MASK, SettingTable, SettingValue},
    shared::{list_certificate, read_certificate},
    table::Table,
    value::{flag, listen, path, text},
};
use crate::{
    httpd::IpRange,
    name::NodeAddress,
    path::{HttpProxy, PathChoice, TUNNEL_PATH, TunnelUrl},
};
use std::{net::SocketAddr, path::PathBuf};

/// The settings of paths from one source (file, flags).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathsFile {
    /// The paths that links may take.
    pub path: Option<PathChoice>,
    /// The URL of the tunnels of all nodes.
    pub tunnel_url: Option<TunnelUrl>,
    /// The URLs of the tunnels of single nodes.
    pub tunnel_urls: Vec<(NodeAddress, TunnelUrl)>,
    /// The URL of the tunnel of the enroller.
    pub enroll_tunnel_url: Option<TunnelUrl>,
    /// The proxy through which tunnels go.
    pub proxy: Option<HttpProxy>,
    /// The file of the proxy's password.
    pub proxy_password_file: Option<PathBuf>,
    /// True if the certificates of tunnels are verified.
    pub verify: Option<bool>,
    /// CAs of tunnels, beside the system's.
    pub ca: Option<PathBuf>,
}

impl PathsFile {
    /// Fills missing settings from a source of lower precedence: `flags.or(file)`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            path: self.path.or(weaker.path),
            // A URL of a flag is for all nodes.
            tunnel_urls: if self.tunnel_url.is_some() { Vec::new() } else { weaker.tunnel_urls },
            tunnel_url: self.tunnel_url.or(weaker.tunnel_url),
            enroll_tunnel_url: self.enroll_tunnel_url.or(weaker.enroll_tunnel_url),
            // A password belongs to its proxy.
            proxy_password_file: match &self.proxy {
                Some(_) => self.proxy_password_file,
                None => self.proxy_password_file.or(weaker.proxy_password_file),
            },
            proxy: self.proxy.or(weaker.proxy),
            verify: self.verify.or(weaker.verify),
            ca: self.ca.or(weaker.ca),
        }
    }

    /// The URL that a node has for itself.
    pub(super) fn url_of(&self, node: &NodeAddress) -> Option<&TunnelUrl> {
        self.tunnel_urls.iter().find(|(of, _)| of == node).map(|(_, url)| url)
    }
}

/// The `[tunnel]` table of a node's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelFile {
    /// TCP address to listen on.
    pub listen: Option<SocketAddr>,
    /// The path of the URL.
    pub path: Option<String>,
    /// Certificate and key that tunnels see, instead of the node's own.
    pub certificate: Option<[PathBuf; 2]>,
    /// True if the HTTP gateway accepts tunnels too.
    pub on_gateway: bool,
    /// False if a proxy in front ends TLS.
    pub tls: Option<bool>,
    /// Addresses of the trusted proxies.
    pub trusted_proxy: Vec<IpRange>,
}

const URL: &str = "wss://edge-1.example.com/dialback/tunnel";
const ENROLLER_URL: &str = "wss://ca.example.com/dialback/tunnel";

/// Reads the settings of an agent, and the nodes of `[[node]]`.
pub(super) fn read_paths(file: &mut Table<'_>) -> (PathsFile, Vec<NodeAddress>) {
    file.refuse(&["verify"], "belongs under [tunnel]");
    let mut paths = PathsFile {
        path: file.optional("path", text("auto")),
        tunnel_url: file.optional("tunnel_url", text(URL)),
        enroll_tunnel_url: file.optional("enroll_tunnel_url", text(ENROLLER_URL)),
        proxy: file.optional("proxy", text("http://proxy.example.com:3128")),
        proxy_password_file: file.optional("proxy_password_file", path),
        ..PathsFile::default()
    };
    if paths.proxy.is_none() && paths.proxy_password_file.is_some() {
        let text = "`proxy_password_file`: needs `proxy`, as proxy = \"http://USER@HOST:PORT\"";
        file.fault("proxy_password_file", text.into());
    }
    let mut nodes = Vec::new();
    for mut node in file.tables("node", "[[node]]") {
        let address = node.required::<NodeAddress>("address", "edge-1.example.com:4433");
        let url = node.optional("tunnel_url", text(URL));
        node.finish();
        let Some(address) = address else { continue };
        paths.tunnel_urls.extend(url.map(|url| (address.clone(), url)));
        nodes.push(address);
    }
    if let Some(mut tunnel) = file.table("tunnel", "[tunnel]") {
        (paths.verify, paths.ca) = (tunnel.optional("verify", flag), tunnel.optional("ca", path));
        if paths.ca.is_some() && paths.verify != Some(true) {
            tunnel.fault("ca", "`ca`: is used with verify = true only".into());
        }
        let of_node = ["listen", "on_gateway", "cert", "key", "tls", "trusted_proxy"];
        tunnel.refuse(&of_node, "belongs in a node's file");
        tunnel.refuse(&["path"], "belongs to a node; an agent has it in tunnel_url");
        let why = "belongs above [tunnel], at the top of the file";
        tunnel.refuse(
            &["tunnel_url", "enroll_tunnel_url", "url", "proxy", "proxy_password_file"],
            why,
        );
        tunnel.finish();
    }
    (paths, nodes)
}

/// Lists the settings of an agent that stand at the top of its file.
pub(super) fn list_paths(paths: &PathsFile, top: SettingTable) -> SettingTable {
    let PathsFile { path, tunnel_url, enroll_tunnel_url, proxy, proxy_password_file, .. } = paths;
    let top = top
        .set_text("path", Some(path.unwrap_or_default().as_str()))
        .set_url("tunnel_url", tunnel_url.as_ref())
        .set_url("enroll_tunnel_url", enroll_tunnel_url.as_ref());
    let [url, masked] = [None, Some(MASK)]
        .map(|mask| proxy.as_ref().map(|proxy| SettingValue::Text(proxy.url(mask))));
    top.set_masked("proxy", url, masked)
        .set_path("proxy_password_file", proxy_password_file.as_deref())
}

/// Lists `[[node]]`: the nodes that have a URL of their own.
pub(super) fn list_nodes(
    paths: &PathsFile,
    nodes: &[NodeAddress],
) -> impl Iterator<Item = SettingTable> {
    nodes.iter().filter_map(|node| {
        let table = SettingTable::one_of("node").set_text("address", Some(node));
        Some(table.set_url("tunnel_url", Some(paths.url_of(node)?)))
    })
}

/// Lists `[tunnel]` of an agent.
pub(super) fn list_tunnel_of_agent(paths: &PathsFile) -> SettingTable {
    let table = SettingTable::new("tunnel").set_flag("verify", paths.verify.unwrap_or(false));
    table.set_path("ca", paths.ca.as_deref())
}

/// Reads `[tunnel]` of a node.
pub(super) fn read_tunnel(file: &mut Table<'_>) -> Option<TunnelFile> {
    file.refuse(&["on_gateway"], "belongs under [tunnel]");
    let mut table = file.table("tunnel", "[tunnel]")?;
    let certificate = read_certificate(&mut table);
    let tunnel = TunnelFile {
        listen: table.optional("listen", listen),
        path: table.optional("path", url_path),
        certificate,
        on_gateway: table.optional("on_gateway", flag).unwrap_or(false),
        tls: table.optional("tls", flag),
        trusted_proxy: table.each("trusted_proxy", text("10.0.0.0/8")).unwrap_or_default(),
    };
    check(&table, &tunnel);
    table.refuse(&["verify", "ca"], "belongs in an agent's file");
    table.finish();
    Some(tunnel)
}

/// Lists `[tunnel]` of a node. Keys of the listener are not set without one.
pub(super) fn list_tunnel(tunnel: &TunnelFile) -> SettingTable {
    let TunnelFile { listen, path, certificate, on_gateway, tls, trusted_proxy } = tunnel;
    let of_listener = |value| listen.map(|_| value);
    let table = SettingTable::new("tunnel")
        .set_text("listen", *listen)
        .set_text("path", Some(path.as_deref().unwrap_or(TUNNEL_PATH)))
        .set_flag("on_gateway", *on_gateway)
        .set("tls", of_listener(SettingValue::Flag(tls.unwrap_or(true))))
        .set("trusted_proxy", of_listener(SettingValue::all(trusted_proxy)));
    list_certificate(table, certificate.as_ref())
}

/// Records settings that the node would reject, with their lines.
fn check(table: &Table<'_>, tunnel: &TunnelFile) {
    let is_loopback = tunnel.listen.is_none_or(|listen| listen.ip().to_canonical().is_loopback());
    if tunnel.tls == Some(false) && !is_loopback && tunnel.trusted_proxy.is_empty() {
        let text = "`tls`: without TLS, listen on loopback (127.0.0.1), or name the proxy in front in trusted_proxy";
        table.fault("tls", text.into());
    }
    let is_of_api = |path: &String| path == "/" || path == "/v1" || path.starts_with("/v1/");
    if tunnel.on_gateway && tunnel.path.as_ref().is_some_and(is_of_api) {
        let text = "`path`: with on_gateway it may not be \"/\" or begin with \"/v1\", where the gateway has its API";
        table.fault("path", text.into());
    }
    let of_listener = [
        ("cert", tunnel.certificate.is_some()),
        ("tls", tunnel.tls.is_some()),
        ("trusted_proxy", !tunnel.trusted_proxy.is_empty()),
    ];
    for (key, is_set) in of_listener {
        if is_set && tunnel.listen.is_none() && tunnel.on_gateway {
            let text = format!("`{key}`: is used with `listen` only; the gateway has its own");
            table.fault(key, text);
        }
    }
    if tunnel.tls == Some(false) && tunnel.certificate.is_some() {
        table.fault("cert", "`cert`: is not used with tls = false; remove one of them".into());
    }
}

fn url_path(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let path: String = text("/dialback/tunnel")(value)?;
    let is_byte = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if path.starts_with('/') && path.bytes().all(is_byte) {
        return Ok(path);
    }
    let shown: String = path.chars().take(80).collect();
    Err(format!("{shown:?} is not a path; write it as \"/dialback/tunnel\""))
}
