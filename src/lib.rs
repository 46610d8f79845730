//! dialback: reverse RPC over QUIC. The side that serves is the side that dials.
//!
//! An [`Agent`] inside a private network dials *out*, over QUIC with mutual TLS, to a public
//! [`Node`]. The node opens one QUIC stream per call to run services that the agent hosts. A
//! [`Caller`] reaches agents through the node from anywhere else.
//!
//! ```no_run
//! use dialback::{Agent, AllowRule, Caller, Context, Credentials, Node, NodePolicy, Status};
//!
//! // A contract, written once, shared by both sides. A wrong type does not compile.
//! dialback::contract! {
//!     pub service HelloService {
//!         fn hello(name: String) -> String;            // on the wire: HelloService/Hello
//!     }
//! }
//!
//! struct Hello;
//! impl HelloService for Hello {
//!     async fn hello(&self, name: String, _ctx: &Context) -> Result<String, Status> {
//!         Ok(format!("hello:{name}"))
//!     }
//! }
//!
//! # async fn inside() -> Result<(), Box<dyn std::error::Error>> {
//! // In the private network: dial out, then serve calls.
//! let credentials = Credentials::from_dir("certs", "agent-warehouse")?;
//! let agent = Agent::builder(credentials).node("edge-1.example.com:4433").serve(Hello.into_service()).start()?;
//! # Ok(()) }
//! # async fn outside() -> Result<(), Box<dyn std::error::Error>> {
//! // On the public side: say who may call what, wait for an agent, call it, disconnect it.
//! let rules = NodePolicy::default().allow(AllowRule::parse("ops", "warehouse", "HelloService/*")?);
//! let credentials = Credentials::from_dir("certs", "node-edge-1")?;
//! let node = Node::builder(credentials).listen("[::]:4433").policy(rules).start().await?;
//! let mut arrivals = node.arrivals();
//! while let Some(agent) = arrivals.next().await {
//!     println!("{}", HelloServiceCaller::new(&agent).hello("hello".into()).await?);
//!     agent.disconnect();
//! }
//! # Ok(()) }
//! # async fn elsewhere() -> Result<(), Box<dyn std::error::Error>> {
//! // From anywhere else: a caller, through the node.
//! let credentials = Credentials::from_dir("certs", "caller-ops")?;
//! let caller = Caller::builder(credentials).node("edge-1.example.com:4433").connect().await?;
//! let warehouse = caller.agent("warehouse")?;
//! println!("{}", HelloServiceCaller::new(&warehouse).hello("hello".into()).await?);
//! # Ok(()) }
//! ```
//!
//! Every call ends in exactly one [`Outcome`], and a failure states whether its handler ran: see
//! [`Status`].
//!
//! # Features
//!
//! `cli`: the binary, with all others but `qlog`. `certs`: creation of certificates. `config`: TOML
//! files. `json`: JSON messages. `forward`: services that an agent forwards to a local HTTP
//! upstream. `gateway`: the HTTP gateway of a node, its bearer tokens and its pages. `tunnel`:
//! links through TCP where UDP does not pass. `otel`: traces of calls, exported to an OpenTelemetry
//! collector. `qlog`: files about the packets of links. `aws-lc-rs` (default) or `ring`: the
//! cryptography, one of the two is needed.

// The layers, from top to bottom: a module uses only modules below it. `tests/it/tidy.rs` reads
// this list and enforces it.
#[cfg(all(test, feature = "certs"))]
mod simulation;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "admin")]
mod admin;
#[cfg(feature = "gateway")]
mod gateway;
mod caller;
mod agent;
mod node;
#[cfg(feature = "certs")]
pub mod enroll;
mod start_error;
#[cfg(feature = "tunnel")]
mod tunnel;
#[cfg(feature = "cli")]
pub mod diagnostic;
pub mod testing;
mod serve;
mod probe;
#[cfg(any(feature = "forward", feature = "gateway"))]
#[cfg_attr(
    not(all(feature = "forward", feature = "gateway")),
    allow(dead_code, unused_imports, reason = "each end writes what the other reads")
)]
mod http_call;
mod call;
mod suspend_guard;
mod directory;
mod observe;
mod health;
mod readiness;
mod audit;
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only an exporter switches traces on"))]
mod trace;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "tunnels authenticate no client"))]
mod httpd;
mod link;
#[cfg(feature = "tunnel")]
mod path;
mod net;
mod config_update;
#[cfg(feature = "certs")]
pub mod certs;
#[cfg(feature = "gateway")]
pub mod tokens;
mod files;
mod tls;
mod durable;
pub mod policy;
#[cfg(any(feature = "forward", feature = "gateway"))]
mod convert;
#[cfg(any(feature = "forward", feature = "gateway"))]
#[cfg_attr(
    not(all(feature = "forward", feature = "gateway")),
    allow(dead_code, unused_imports, reason = "each of the two ends uses a part")
)]
mod mcp;
mod drain;
mod lazy_timeout;
mod race;
mod memory;
mod system;
mod handshake_limiter;
mod fair_queue;
mod prefixes;
mod rate_limit;
mod wire;
mod backoff;
mod name;
mod status;
mod metadata;
mod printable;
#[cfg(any(feature = "config", feature = "gateway"))]
mod line_faults;
mod shared_value;
pub mod limits;

#[cfg(feature = "admin")]
pub use admin::{Admin, AdminError, AdminListen};
#[cfg(feature = "cli")]
pub use agent::demo;
pub use agent::{
    Agent, AgentBuilder, AgentUpdate, ServiceSet, TcpForward, Upstream, UpstreamCheck,
    UpstreamCheckError,
};
#[cfg(feature = "forward")]
pub use agent::{Forward, ForwardFormat, HttpForward, McpForward, UpstreamAddress, UpstreamError};
pub use audit::Audit;
pub use call::{
    Answer, Bidirectional, Body, ByteStream, Call, CallFuture, CallMeta, Callee, ClientStream,
    Context, DynHandler, Handler, Inbound, IntoMethod, MessageParts, MessageSender, Messages,
    Outbound, Reply, ReplyFuture, Request, Requester, ServerStream, Shape, SharedHandler, Socket,
    Target, Tcp, Unary,
};
pub use caller::{Caller, CallerBuilder, ConnectError};
pub use config_update::{Applied, ConfigUpdate};
pub use directory::{AgentInfo, DIRECTORY, Directory, ListedMethod, ListedService};
#[cfg(feature = "gateway")]
pub use gateway::{
    Gateway, GatewayBuilder, GatewayError, Site, SiteHost, TokenVerifier, agents_page, openapi,
    services_page,
};
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub use httpd::{IpRange, IpRangeError};
pub use limits::Limits;
#[cfg(feature = "qlog")]
pub use link::write_qlog;
pub use link::{BindError, LinkFault, LinkPath, PathChangeCause};
pub use metadata::Metadata;
pub use name::{
    AdminAddress, CallId, HttpTarget, HttpTargetError, MethodGlob, MethodName, MethodPath, Name,
    NameError, NameGlob, NodeAddress, PeerName, Role, ServiceGlob, ServiceName,
};
pub use node::{AgentHandle, AgentRef, Arrivals, Node, NodeBuilder, NotConnected};
pub use observe::{AgentEvent, Events, NodeEvent};
#[cfg(feature = "tunnel")]
pub use path::{
    HttpProxy, HttpProxyError, PathChoice, PathChoiceError, PathSettings, ProxyPasswordError,
    TUNNEL_PATH, TunnelFault, TunnelUrl, TunnelUrlError,
};
pub use policy::{AgentPolicy, AgentRule, AllowRule, DenyRule, HostRule, NodePolicy, Rate};
pub use readiness::{Readiness, ServiceReadiness};
pub use serve::{Description, Service, ServiceError};
pub use start_error::{StartError, StateError};
pub use status::{Code, Outcome, Status, UnknownCode};
#[cfg(feature = "certs")]
pub use tls::CsrInfo;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub use tls::ServerCertificate;
pub use tls::{
    CertificateInfo, ChainBound, CredentialFiles, CredentialPem, Credentials, CredentialsError,
    CrlInfo, CrlScope, CrlScopeError, ExpiryNotice, Identity, IdentityError, PemError,
    RevokedSerial, Utc, Validity, log_tls_keys,
};
#[cfg(feature = "gateway")]
pub use tls::{GatewayClientTls, GatewayClientTlsError};
#[cfg(feature = "otel")]
pub use trace::{OtlpEndpoint, OtlpEndpointError, Traces};
#[cfg(feature = "tunnel")]
pub use tunnel::{TunnelListen, TunnelListenError};
#[cfg(feature = "json")]
pub use wire::json;
pub use wire::{
    ALPN, ANY_METHOD, CallKind, CloseCode, MethodInfo, PROTOCOL_VERSION, Reaction, ServiceInfo,
    StreamCode,
};
#[cfg(feature = "certs")]
pub use wire::{JOIN_ALPN, JoinRefusal};

/// Items that the macros need.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::pascal;
    pub use crate::serve::method_path;
    pub use pastey;
}
