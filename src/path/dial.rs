//! Opens tunnels: TCP, perhaps through a proxy, TLS, and the WebSocket handshake.

use super::{
    SUBPROTOCOL,
    carry::web_socket_config,
    fault::TunnelFault,
    proxy::{self, HttpProxy},
    url::TunnelUrl,
};
use crate::{
    limits::{TUNNEL_DIAL_WAIT_MAX, TUNNEL_UNSENT_BYTES_MAX},
    name::NodeAddress,
    printable::printable,
    race, system,
    tls::TunnelTls,
};
use std::{collections::BTreeMap, fmt, str::FromStr, time::SystemTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder,
        http::{HeaderMap, HeaderValue, Response},
    },
};

/// A byte stream below a WebSocket.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// An open tunnel that carries nothing yet.
pub(crate) struct Tunnel {
    pub(super) socket: WebSocketStream<Box<dyn Io>>,
    pub(super) name: String,
    /// The clock of the HTTP server that opened it, if it tells.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "for `dialback doctor`"))]
    pub(crate) server_time: Option<SystemTime>,
}

/// The paths that links take, and how tunnels leave the network.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PathSettings {
    pub(crate) choice: PathChoice,
    urls: BTreeMap<NodeAddress, TunnelUrl>,
    url: Option<TunnelUrl>,
    proxy: Option<HttpProxy>,
    no_proxy: String,
    tls: TunnelTls,
}

/// The paths that links may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathChoice {
    /// UDP, and a tunnel where UDP does not get through.
    #[default]
    Auto,
    /// UDP only.
    Udp,
    /// A tunnel only.
    Tunnel,
}

impl PathChoice {
    /// The word in files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A text that names no paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path; write auto, udp or tunnel")]
pub struct PathChoiceError(String);

impl FromStr for PathChoice {
    type Err = PathChoiceError;

    fn from_str(text: &str) -> Result<Self, PathChoiceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "udp" => Ok(Self::Udp),
            "tunnel" => Ok(Self::Tunnel),
            _ => Err(PathChoiceError(text.chars().take(80).collect())),
        }
    }
}

impl PathSettings {
    /// UDP only, as without settings.
    pub fn udp() -> Self {
        Self { choice: PathChoice::Udp, ..Self::default() }
    }

    /// Sets the paths that links may take.
    pub fn choice(mut self, choice: PathChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Returns true if links may take tunnels.
    pub fn uses_tunnels(&self) -> bool {
        self.choice != PathChoice::Udp
    }

    /// Returns true if links may take UDP.
    pub fn uses_udp(&self) -> bool {
        self.choice != PathChoice::Tunnel
    }

    /// Sets the URL of the tunnels of all nodes that have none of their own. Default: port 443 at
    /// the node's host.
    pub fn tunnel_url(mut self, url: TunnelUrl) -> Self {
        self.url = Some(url);
        self
    }

    /// Sets the URL of one node's tunnel.
    pub fn tunnel_url_of(mut self, node: NodeAddress, url: TunnelUrl) -> Self {
        self.urls.insert(node, url);
        self
    }

    /// Sets the proxy through which tunnels go, except to hosts in `no_proxy`: names and domains,
    /// separated by commas, or `*`.
    pub fn proxy(mut self, proxy: HttpProxy, no_proxy: impl Into<String>) -> Self {
        (self.proxy, self.no_proxy) = (Some(proxy), no_proxy.into());
        self
    }

    /// Verifies the certificates of tunnels, with these CAs (PEM) beside the system's. Without it,
    /// no certificate of a tunnel is verified: the link inside verifies the node.
    ///
    /// # Errors
    /// A text without CAs, or none at all.
    pub fn verify(mut self, ca_pem: Option<&[u8]>) -> Result<Self, TunnelFault> {
        self.tls = TunnelTls::verifying(ca_pem).map_err(TunnelFault::Local)?;
        Ok(self)
    }

    /// Returns the same paths to an enroller, whose tunnel has this URL. Default: port 443 at its
    /// host.
    pub fn of_enroller(self, url: Option<TunnelUrl>) -> Self {
        Self { urls: BTreeMap::new(), url, ..self }
    }

    pub(crate) fn url_of(&self, node: &NodeAddress) -> TunnelUrl {
        let url = self.urls.get(node).or(self.url.as_ref());
        url.cloned().unwrap_or_else(|| TunnelUrl::of_node(node.host()))
    }

    /// Opens a tunnel to a node. Dropping the future ends it.
    pub(crate) async fn open(&self, node: &NodeAddress) -> Result<Tunnel, TunnelFault> {
        let url = self.url_of(node);
        let mut step = ("the TCP connection", url.authority());
        match timeout(TUNNEL_DIAL_WAIT_MAX, self.open_url(&url, &mut step)).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(TunnelFault::Silent { to: step.1, step: step.0 }),
        }
    }

    async fn open_url(
        &self,
        url: &TunnelUrl,
        step: &mut (&'static str, String),
    ) -> Result<Tunnel, TunnelFault> {
        let to = url.authority();
        let stream = match self.proxy_for(url) {
            None => tcp(url.host(), url.port(), false).await?,
            Some(proxy) => {
                step.1 = proxy.to_string();
                let mut stream = tcp(proxy.host(), proxy.port(), true).await?;
                step.0 = "its answer to CONNECT";
                proxy.connect(&mut stream, &to).await?;
                step.1.clone_from(&to);
                stream
            }
        };
        let stream: Box<dyn Io> = if url.has_tls() {
            step.0 = "the TLS handshake";
            let connected = self.tls.connect(url.host(), stream).await;
            Box::new(connected.map_err(|error| TunnelFault::tls(to, &error))?)
        } else {
            Box::new(stream)
        };
        step.0 = "the WebSocket handshake";
        let (socket, server_time) = handshake(url, stream).await?;
        Ok(Tunnel { socket, name: url.to_string(), server_time })
    }

    /// Returns the proxy through which tunnels to a node go.
    #[cfg(feature = "cli")]
    pub(crate) fn proxy_of(&self, node: &NodeAddress) -> Option<&HttpProxy> {
        self.proxy_for(&self.url_of(node))
    }

    fn proxy_for(&self, url: &TunnelUrl) -> Option<&HttpProxy> {
        self.proxy.as_ref().filter(|_| !proxy::is_excluded(&self.no_proxy, url.host()))
    }
}

async fn tcp(host: &str, port: u16, is_proxy: bool) -> Result<TcpStream, TunnelFault> {
    let addresses = race::resolve(host, port).await.map_err(|error| TunnelFault::Unresolved {
        host: host.into(),
        reason: system::explain(&error),
        is_proxy,
    })?;
    let connected = race::connect_tcp_to(addresses).await;
    let stream = connected.map_err(|error| {
        let to =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        TunnelFault::tcp(to, &error, is_proxy)
    })?;
    drop(stream.set_nodelay(true));
    system::limit_unsent(&stream, TUNNEL_UNSENT_BYTES_MAX);
    Ok(stream)
}

async fn handshake(
    url: &TunnelUrl,
    stream: Box<dyn Io>,
) -> Result<(WebSocketStream<Box<dyn Io>>, Option<SystemTime>), TunnelFault> {
    let refused = |reason: String| TunnelFault::NotATunnel { url: url.to_string(), reason };
    // The library knows the scheme `ws` for a stream that is connected.
    let uri = format!("ws://{}{}", url.authority(), url.path()).parse();
    let uri =
        uri.map_err(|error: tungstenite::http::uri::InvalidUri| refused(error.to_string()))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let opened = client_async_with_config(request, stream, Some(web_socket_config())).await;
    let server_time =
        |answer: &HeaderMap| httpdate::parse_http_date(answer.get("date")?.to_str().ok()?).ok();
    let opened = opened.map(|(socket, answer)| (socket, server_time(answer.headers())));
    opened.map_err(|error| match error {
        tungstenite::Error::Http(answer) => refused(shown(&answer)),
        error => refused(printable(&error.to_string())),
    })
}

/// The status of an answer, and the first line of its text: a node says there why it refuses.
fn shown(answer: &Response<Option<Vec<u8>>>) -> String {
    let status = answer.status();
    let kind = answer.headers().get("content-type").map_or(&b""[..], HeaderValue::as_bytes);
    let body = answer.body().as_deref().filter(|_| kind.starts_with(b"text/plain"));
    let text = String::from_utf8_lossy(body.unwrap_or_default());
    let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
    let colon = if line.is_empty() { "" } else { ": " };
    format!("the answer is {status}{colon}{}", printable(&line))
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_with_the_first_line_of_its_plain_text_only() {
        let answer = |kind: &str, body: &str| {
            let answer = Response::builder().status(429).header("content-type", kind);
            shown(&answer.body(Some(body.into())).expect("an answer"))
        };
        let status = "the answer is 429 Too Many Requests";
        let full = answer("text/plain; charset=utf-8", "too many tunnels\nmore");
        assert_eq!(full, format!("{status}: too many tunnels"));
        assert_eq!(answer("text/html", "<html>"), status);
        assert_eq!(answer("text/plain", ""), status);
        assert!(!answer("text/plain", "\u{1b}[31m").contains('\u{1b}'));
        assert!(answer("text/plain", &"x".repeat(5_000)).len() < 300);
    }
}
