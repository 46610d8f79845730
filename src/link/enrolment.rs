//! Enrolment over QUIC: one request and one answer per connection, with a time limit for each step.

use super::{
    connector::Connector,
    endpoint::{self, BindError, DiallingConfig, IncomingConnection, TransportSettings},
    fault::LinkFault,
    peer_chain,
    remotes::Remotes,
};
use crate::{
    handshake_limiter::Accept,
    limits::{
        JOIN_CLOSE_WAIT_MAX, JOIN_REPLY_BYTES_MAX, JOIN_REQUEST_BYTES_MAX, JOIN_WAIT_MAX, Limits,
    },
    name::NodeAddress,
    net,
    tls::{EnrollerTls, Identity, ToEnroller},
    wire::CloseCode,
};
#[cfg(feature = "tunnel")]
use crate::{
    path::{PathSettings, TunnelUse, Tunnels},
    shared_value::SharedValue,
    tls::ServerCertificate,
};
use quinn::{ReadToEndError, VarInt};
use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use zeroize::Zeroizing;

pub(crate) struct EnrolmentListener {
    endpoint: quinn::Endpoint,
    remotes: Remotes,
    trust_domain: Arc<str>,
    /// The enroller's present certificate.
    #[cfg(feature = "tunnel")]
    certificate: SharedValue<ServerCertificate>,
}

impl EnrolmentListener {
    /// Listens for requests to join or to renew. Needs a tokio runtime.
    pub(crate) fn bind(
        address: SocketAddr,
        tls: &EnrollerTls,
        trust_domain: &str,
    ) -> Result<Self, BindError> {
        let (config, server) = (endpoint::endpoint_config(), server_config(tls)?);
        let (endpoint, remotes) =
            endpoint::open_accepting(&*net::system(), address, config, server)?;
        Ok(Self {
            endpoint,
            remotes,
            trust_domain: trust_domain.into(),
            #[cfg(feature = "tunnel")]
            certificate: SharedValue::new(tls.server_certificate()),
        })
    }

    /// The tunnels whose datagrams this listener receives.
    #[cfg(feature = "tunnel")]
    pub(crate) fn tunnels(&self) -> Option<Arc<Tunnels>> {
        self.remotes.tunnels()
    }

    /// The enroller's present certificate.
    #[cfg(feature = "tunnel")]
    pub(crate) fn certificate(&self) -> ServerCertificate {
        ServerCertificate::clone(&self.certificate.get())
    }

    /// Uses this for connections from now on.
    pub(crate) fn show(&self, tls: &EnrollerTls) -> Result<(), BindError> {
        self.endpoint.set_server_config(Some(server_config(tls)?));
        #[cfg(feature = "tunnel")]
        self.certificate.set(tls.server_certificate());
        Ok(())
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap_or_else(|_| (Ipv6Addr::UNSPECIFIED, 0).into())
    }

    /// Closes all connections, takes no more, and waits until peers know, at most `wait_max`.
    pub(crate) async fn close(&self, text: &str, wait_max: Duration) {
        self.close_at_once(text);
        drop(tokio::time::timeout(wait_max, self.endpoint.wait_idle()).await);
    }

    pub(crate) fn close_at_once(&self, text: &str) {
        let code = VarInt::from_u32(CloseCode::Goodbye.number() as u32);
        self.endpoint.close(code, text.as_bytes());
    }
}

impl Accept for EnrolmentListener {
    type Incoming = IncomingEnrolment;

    async fn accept(&self) -> Option<IncomingEnrolment> {
        let incoming = self.endpoint.accept().await?;
        let (remotes, settings) = (self.remotes.clone(), self.trust_domain.clone());
        Some(IncomingEnrolment { incoming, remotes, settings })
    }

    fn ignored(&self, last: SocketAddr, count: u64) {
        tracing::warn!(
            address = %last,
            count,
            "ignored {count} handshakes, the last from {last}: too many waited for their turn"
        );
    }
}

fn server_config(tls: &EnrollerTls) -> Result<quinn::ServerConfig, BindError> {
    let window = JOIN_REQUEST_BYTES_MAX as u32;
    let transport = TransportSettings::new(&Limits::default(), 1, window);
    endpoint::accepting(tls.config(), transport)
}

/// A request that was read. Dropping it closes the connection without an answer.
pub(crate) struct EnrolmentRequest {
    connection: quinn::Connection,
    /// The address of the client; its connection may have ended.
    pub(crate) from: SocketAddr,
    send: quinn::SendStream,
    /// Keeps its tunnel open.
    #[cfg(feature = "tunnel")]
    _used: Option<TunnelUse>,
    /// The identity in the client's certificate; `None` if it has shown none.
    pub(crate) identity: Option<Identity>,
    /// The request, which may contain a secret.
    pub(crate) request: Zeroizing<Vec<u8>>,
}

/// An incoming connection to an enroller, with the trust domain of its clients.
pub(crate) type IncomingEnrolment = IncomingConnection<Arc<str>>;

impl IncomingEnrolment {
    /// Does the handshake and reads the request, each within its time and its size.
    pub(crate) async fn receive(self) -> Result<EnrolmentRequest, LinkFault> {
        let connecting = self.incoming.accept().map_err(LinkFault::lost)?;
        let connection = endpoint::handshake(connecting).await?;
        let reading = read_request(&connection, &self.remotes, &self.settings);
        let request = endpoint::within(JOIN_WAIT_MAX, reading, "no request came in time").await;
        request.inspect_err(|fault| endpoint::refuse(&connection, fault))
    }
}

async fn read_request(
    connection: &quinn::Connection,
    remotes: &Remotes,
    trust_domain: &str,
) -> Result<EnrolmentRequest, LinkFault> {
    let address = connection.remote_address();
    let from = remotes.real(address).ok_or(LinkFault::Silent("its tunnel has ended"))?;
    // A certificate must name an identity.
    let identity = match connection.peer_identity() {
        Some(_) => Some(peer_chain::identity_of(connection, trust_domain)?),
        None => None,
    };
    // A client without a certificate is nobody yet, so its tunnel makes room for others.
    #[cfg(feature = "tunnel")]
    let used = identity.as_ref().and_then(|_| remotes.used_at(address));
    let (send, mut recv) = connection.accept_bi().await.map_err(LinkFault::lost)?;
    let request = recv.read_to_end(JOIN_REQUEST_BYTES_MAX).await.map_err(read_fault)?;
    let request = Zeroizing::new(request);
    Ok(EnrolmentRequest {
        connection: connection.clone(),
        from,
        send,
        #[cfg(feature = "tunnel")]
        _used: used,
        identity,
        request,
    })
}

fn read_fault(error: ReadToEndError) -> LinkFault {
    match error {
        ReadToEndError::TooLong => LinkFault::Broken("it is longer than it may be".into()),
        ReadToEndError::Read(quinn::ReadError::ConnectionLost(error)) => LinkFault::lost(error),
        ReadToEndError::Read(error) => LinkFault::Broken(error.to_string()),
    }
}

impl EnrolmentRequest {
    /// Answers, and waits for a limited time until the other side has read it and closes.
    pub(crate) async fn answer(mut self, reply: &[u8]) -> Result<(), LinkFault> {
        let answer = async {
            self.send.write_all(reply).await.map_err(|error| match error {
                quinn::WriteError::ConnectionLost(error) => LinkFault::lost(error),
                error => LinkFault::Broken(error.to_string()),
            })?;
            // It fails only if the other side has stopped the stream.
            drop(self.send.finish());
            self.connection.closed().await;
            Ok(())
        };
        endpoint::within(JOIN_WAIT_MAX, answer, "the answer was not taken in time").await
    }
}

impl Drop for EnrolmentRequest {
    fn drop(&mut self) {
        endpoint::close(&self.connection, CloseCode::Goodbye, "that is all");
    }
}

/// An enroller's address, and the paths to it.
#[derive(Debug, Clone)]
pub(crate) struct EnrollerAddress {
    pub(crate) address: NodeAddress,
    #[cfg(feature = "tunnel")]
    pub(crate) paths: PathSettings,
}

impl EnrollerAddress {
    /// UDP only.
    pub(crate) fn udp(address: NodeAddress) -> Self {
        Self {
            address,
            #[cfg(feature = "tunnel")]
            paths: PathSettings::udp(),
        }
    }

    fn connector(&self) -> Connector {
        let connector = Connector::new(net::system());
        #[cfg(feature = "tunnel")]
        let connector = connector.with_paths(self.paths.clone());
        connector
    }
}

/// Sends one request to an enroller and returns its answer. Dropping it cancels the request.
pub(crate) async fn request_enrolment(
    enroller: &EnrollerAddress,
    tls: &ToEnroller,
    request: &[u8],
) -> Result<Vec<u8>, LinkFault> {
    let (connector, address) = (enroller.connector(), &enroller.address);
    let transport = TransportSettings::new(&Limits::default(), 0, JOIN_REPLY_BYTES_MAX as u32);
    let config = DiallingConfig::new(tls.config(), transport).map_err(|error| {
        LinkFault::Unsendable { address: address.clone(), reason: error.to_string() }
    })?;
    let (connection, _socket) = connector.connect(address, &config).await?;
    let exchange = exchange_on(&connection, request);
    let answer = endpoint::within(JOIN_WAIT_MAX, exchange, "no answer came in time").await;
    endpoint::close(&connection, CloseCode::Goodbye, "thank you");
    drop(tokio::time::timeout(JOIN_CLOSE_WAIT_MAX, connector.endpoints().wait_idle()).await);
    answer
}

async fn exchange_on(connection: &quinn::Connection, request: &[u8]) -> Result<Vec<u8>, LinkFault> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(LinkFault::lost)?;
    // An enroller may answer before it has read all; then the answer counts.
    if let Err(quinn::WriteError::ConnectionLost(error)) = send.write_all(request).await {
        return Err(LinkFault::lost(error));
    }
    drop(send.finish());
    recv.read_to_end(JOIN_REPLY_BYTES_MAX).await.map_err(read_fault)
}
