//! Reasons why a tunnel could not be opened, with the remedy.

use std::io;

/// Reason why a tunnel could not be opened. Its text has the cause and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelFault {
    /// A host name has no address.
    #[error("the name {host} does not resolve: {reason}; check the name, and the DNS of this machine{}", if *.is_proxy { "" } else { "; behind an HTTP proxy, set proxy" })]
    Unresolved {
        /// The host.
        host: String,
        /// The error of the resolver.
        reason: String,
        /// True if it is the name of the proxy.
        is_proxy: bool,
    },
    /// The TCP connection could not be made.
    #[error("no answer of {to} over TCP: {reason}; {}", tcp_remedy(*.is_proxy))]
    Tcp {
        /// The host and the port.
        to: String,
        /// The error of the system.
        reason: String,
        /// True if it is the proxy.
        is_proxy: bool,
    },
    /// The proxy wants other credentials.
    #[error("the proxy {proxy} wants a user and a password ({status}): {}", if *.has_sent { "those that were sent are wrong; correct proxy and proxy_password_file" } else { "set proxy = \"http://USER@HOST:PORT\" and proxy_password_file" })]
    ProxyAuthentication {
        /// The host and the port of the proxy.
        proxy: String,
        /// True if credentials were sent.
        has_sent: bool,
        /// 407, or 401 of a proxy that does not know that one.
        status: u16,
    },
    /// The proxy refused to connect.
    #[error(
        "the proxy {proxy} refused to connect to {to}: {status}; ask its administrator to allow CONNECT to that host and port"
    )]
    ProxyRefused {
        /// The host and the port of the proxy.
        proxy: String,
        /// The host and the port of the node.
        to: String,
        /// The status line of the answer.
        status: String,
    },
    /// The TLS handshake failed.
    #[error(
        "{to} does not speak TLS as it should: {reason}; is it the tunnel's port, or does something on the way intercept TLS?"
    )]
    Tls {
        /// The host and the port.
        to: String,
        /// The error of TLS.
        reason: String,
    },
    /// The certificate of the tunnel is not trusted, and it is to be verified.
    #[error(
        "the certificate of {to} is refused: {reason}; name its CA in [tunnel] ca, or dial a host that it names, or leave verify out: the link inside verifies the node in any case"
    )]
    Certificate {
        /// The host and the port.
        to: String,
        /// The error of TLS.
        reason: String,
    },
    /// The tunnel is open, and the node or the enroller does not answer inside it.
    #[error(
        "the tunnel {url} is open, and what was dialled does not answer inside it; is it the tunnel of another node or enroller, or does it shut down?"
    )]
    NoNode {
        /// The URL.
        url: String,
    },
    /// The HTTP server did not open a WebSocket.
    #[error(
        "{url} is not a tunnel: {reason}; are tunnels accepted there ([tunnel] of a node, --tunnel of an enroller), is the path right, and does each proxy on the way let WebSockets through?"
    )]
    NotATunnel {
        /// The URL.
        url: String,
        /// The status of the answer, or the error of HTTP.
        reason: String,
    },
    /// A step took too long.
    #[error("{to} does not answer: {step} took too long; does a firewall block it?")]
    Silent {
        /// The host and the port of the node or the proxy.
        to: String,
        /// The step.
        step: &'static str,
    },
    /// The system refused this process something.
    #[error("a tunnel cannot be opened: {0}")]
    Local(String),
}

const fn tcp_remedy(is_proxy: bool) -> &'static str {
    if is_proxy {
        "is it the right proxy, and is it running?"
    } else {
        "are tunnels accepted there ([tunnel] of a node, --tunnel of an enroller), and does a firewall block it? behind an HTTP proxy, set proxy"
    }
}

impl TunnelFault {
    /// Returns true if waiting alone does not help: the proxy refused this process.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::ProxyAuthentication { .. })
    }

    /// Returns true if the resolver or the network reported that nothing leads there.
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unresolved { .. } | Self::Tcp { .. })
    }

    pub(super) fn tls(to: String, error: &io::Error) -> Self {
        let reason = error.to_string();
        if reason.contains("certificate") {
            return Self::Certificate { to, reason };
        }
        Self::Tls { to, reason }
    }

    pub(super) fn tcp(to: String, error: &io::Error, is_proxy: bool) -> Self {
        Self::Tcp { to, reason: crate::system::explain(error), is_proxy }
    }
}
