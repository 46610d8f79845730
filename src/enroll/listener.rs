//! The enroller's port: each client may send one request, within limits, and receives one answer.

use super::service::{Clocks, EnrolmentService, RequestOrigin};
use crate::{
    certs::{CertsDir, CertsError, EnrolmentIssuer},
    drain::{self, Tasks},
    handshake_limiter::{self, HandshakeLimiter, HandshakePermit, Incoming},
    limits::{
        ABORT_WAIT_MAX, CLOSE_WAIT_MAX, ENROLLER_LEAF_LIFE, JOIN_HANDSHAKE_EVERY,
        JOIN_HANDSHAKES_BURST, JOINS_AT_ONCE_MAX, LEAF_LIFE_MIN,
    },
    link::{BindError, EnrolmentListener, IncomingEnrolment, LinkFault},
    name::{NameError, NodeAddress},
    rate_limit::RateLimit,
    tls::{CredentialsError, EnrollerTls},
    wire::{JOIN_ALPN, JoinReply},
};
#[cfg(feature = "tunnel")]
use crate::{
    tls::ServerCertificate,
    tunnel::{self, ListeningTunnels, TunnelListen, TunnelListenError},
};
use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// Error of starting an enroller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollerError {
    /// The directory has no CA that can sign.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The enroller's own TLS cannot be set up.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Tunnels cannot be listened for.
    #[cfg(feature = "tunnel")]
    #[error(transparent)]
    Tunnel(#[from] TunnelListenError),
    /// The lifetime of leafs is zero.
    #[error("leaf certificates must be valid for at least {LEAF_LIFE_MIN:?}; write --leaf-ttl 90d")]
    BadLeafLife,
}

/// Configures an enroller. Made by [`Enroller::builder`].
#[must_use = "an enroller listens once it is started"]
#[derive(Debug, Clone)]
pub struct EnrollerBuilder {
    dir: CertsDir,
    listen: Result<SocketAddr, String>,
    leaf_life: Duration,
    #[cfg(feature = "tunnel")]
    tunnel: Option<TunnelListen>,
}

impl EnrollerBuilder {
    /// Sets the UDP address to listen on. Default: `"[::]:4434"`; `"127.0.0.1:0"` is any free port.
    pub fn listen(mut self, address: impl ToString) -> Self {
        let text = address.to_string();
        self.listen = text.parse().map_err(|_| text);
        self
    }

    /// Sets the lifetime of leafs; 90 days unless set. They end with the CA at the latest.
    pub fn leaf_life(mut self, life: Duration) -> Self {
        self.leaf_life = life;
        self
    }

    /// Listens for tunnels too, for machines that UDP does not reach. Default: no.
    #[cfg(feature = "tunnel")]
    pub fn tunnel(mut self, tunnel: TunnelListen) -> Self {
        self.tunnel = Some(tunnel);
        self
    }

    /// Takes the CA's key from its directory and listens. Needs a tokio runtime.
    ///
    /// # Errors
    /// No CA that can sign now, a damaged revocation list, leafs of no life, an address in use.
    pub async fn start(self) -> Result<Enroller, EnrollerError> {
        if self.leaf_life < LEAF_LIFE_MIN {
            return Err(EnrollerError::BadLeafLife);
        }
        let address = self.listen.map_err(|text| NameError::of_listen(&text))?;
        let now = SystemTime::now();
        let issuer = EnrolmentIssuer::open(self.dir, self.leaf_life, now)?;
        let listener = Arc::new(EnrolmentListener::bind(
            address,
            &own_tls(&issuer, now)?,
            issuer.trust_domain(),
        )?);
        let (service, tasks) = (Arc::new(EnrolmentService::new(issuer)), Tasks::default());
        #[cfg(feature = "tunnel")]
        let (tunnel, tunnel_tasks) = (self.tunnel, Tasks::default());
        let accept_loop = AcceptLoop {
            service,
            listener: listener.clone(),
            tasks: tasks.clone(),
            shown_since: now,
        };
        #[cfg(feature = "tunnel")]
        let tunnel = match (tunnel, listener.tunnels()) {
            (Some(settings), Some(tunnels)) => {
                let (to, shown) = ((tunnels, listener.local_addr().port()), listener.clone());
                let own = Box::new(move || shown.certificate());
                Some(tunnel::listen(settings, to, own, &tunnel_tasks).await?)
            }
            _ => None,
        };
        tasks.spawn_until_stopped(accept_loop.take_all());
        let address = listener.local_addr();
        tracing::info!(%address, "enroller listens on {address}");
        #[cfg(feature = "tunnel")]
        tunnel.iter().for_each(ListeningTunnels::announce);
        Ok(Enroller {
            listener,
            tasks,
            #[cfg(feature = "tunnel")]
            tunnel,
            #[cfg(feature = "tunnel")]
            tunnel_tasks,
        })
    }
}

/// A running enroller. Dropping it closes its port at once. It holds the CA's key in memory and
/// signs only agents and callers.
pub struct Enroller {
    listener: Arc<EnrolmentListener>,
    tasks: Tasks,
    #[cfg(feature = "tunnel")]
    tunnel: Option<ListeningTunnels>,
    /// They end last, because answers leave through tunnels.
    #[cfg(feature = "tunnel")]
    tunnel_tasks: Tasks,
}

impl Enroller {
    /// The port of an enroller unless another is named.
    pub const PORT_DEFAULT: u16 = NodeAddress::ENROLLER_PORT_DEFAULT;

    /// Returns a builder for an enroller of the CA in this directory.
    pub fn builder(dir: CertsDir) -> EnrollerBuilder {
        EnrollerBuilder {
            dir,
            listen: Ok((Ipv6Addr::UNSPECIFIED, Self::PORT_DEFAULT).into()),
            leaf_life: Duration::from_secs(90 * 24 * 3600),
            #[cfg(feature = "tunnel")]
            tunnel: None,
        }
    }

    /// Local address, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// TCP address that it listens on for tunnels, with the actual port.
    #[cfg(feature = "tunnel")]
    pub fn tunnel_addr(&self) -> Option<SocketAddr> {
        self.tunnel.as_ref().map(|tunnel| tunnel.address)
    }

    /// Replaces the certificate that later tunnels see. `None`: the enroller's own.
    #[cfg(feature = "tunnel")]
    pub fn set_tunnel_certificate(&self, certificate: Option<ServerCertificate>) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.set_certificate(certificate);
        }
    }

    /// Accepts no new clients, answers those in progress, and closes: within 3 s.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Enroller::shutdown`], until `abort` ends. Then its port is closed at once, and this
    /// returns when waiting clients were notified, after 100 ms at most.
    pub async fn shutdown_or_abort(self, abort: impl Future<Output = ()>) {
        tokio::select! {
            () = self.close_gracefully() => {}
            () = abort => self.listener.close(STOPS, ABORT_WAIT_MAX).await,
        }
    }

    async fn close_gracefully(&self) {
        let finish_by = Instant::now() + CLOSE_WAIT_MAX;
        // Ends the accept loop; requests in progress end by themselves.
        self.tasks.stop();
        self.tasks.wait(CLOSE_WAIT_MAX).await;
        self.listener.close(STOPS, finish_by.saturating_duration_since(Instant::now())).await;
    }
}

const STOPS: &str = "the enroller stops";

impl Drop for Enroller {
    fn drop(&mut self) {
        self.listener.close_at_once(STOPS);
        self.tasks.stop();
        #[cfg(feature = "tunnel")]
        self.tunnel_tasks.stop();
    }
}

/// The enroller's own certificate, made again.
fn own_tls(issuer: &EnrolmentIssuer, now: SystemTime) -> Result<EnrollerTls, EnrollerError> {
    let leaf = issuer.enroller_leaf(now)?;
    Ok(EnrollerTls::new(&leaf.cert, &leaf.key, issuer.ca_pem(), JOIN_ALPN)?)
}

/// The loop that takes unauthenticated clients, and only that.
struct AcceptLoop {
    service: Arc<EnrolmentService>,
    listener: Arc<EnrolmentListener>,
    tasks: Tasks,
    /// Time since which the enroller's present certificate is shown.
    shown_since: SystemTime,
}

impl AcceptLoop {
    async fn take_all(mut self) {
        let limit = RateLimit::new(JOIN_HANDSHAKES_BURST, JOIN_HANDSHAKE_EVERY);
        let mut limiter = HandshakeLimiter::new(JOINS_AT_ONCE_MAX, limit);
        let listener = self.listener.clone();
        while let Some((incoming, permit)) = limiter.next(&*listener).await {
            self.stay_current(SystemTime::now());
            self.tasks.spawn(serve(self.service.clone(), incoming, permit));
        }
    }

    /// Shows a new certificate once the present one is half over, or the clock was set back.
    fn stay_current(&mut self, now: SystemTime) {
        let is_young =
            now.duration_since(self.shown_since).is_ok_and(|since| since < ENROLLER_LEAF_LIFE / 2);
        if is_young {
            return;
        }
        let shown = own_tls(self.service.issuer(), now)
            .and_then(|tls| self.listener.show(&tls).map_err(EnrollerError::from));
        match shown {
            Ok(()) => self.shown_since = now,
            Err(error) => {
                tracing::error!(reason = %error, "the enroller's own certificate cannot be renewed: {error}");
            }
        }
    }
}

/// Serves one client, from its handshake to its end.
async fn serve(
    service: Arc<EnrolmentService>,
    incoming: IncomingEnrolment,
    permit: HandshakePermit,
) {
    let from = incoming.remote_address();
    let received = tokio::select! {
        biased;
        received = incoming.receive() => received,
        () = permit.revoked() => Err(LinkFault::Silent(handshake_limiter::REVOKED)),
    };
    // From here on it may use up a token.
    permit.settle();
    let mut received = match received {
        Ok(received) => received,
        Err(fault) => return service.note_silent(from, &fault.to_string(), Instant::now()),
    };
    let requester = RequestOrigin { from: received.from, identity: received.identity.take() };
    let request = std::mem::take(&mut received.request);
    let answering = service.clone();
    let reply =
        drain::blocking(move || answering.answer(&requester, &request, Clocks::read())).await;
    let Some(reply) = reply.as_ref().map(JoinReply::encode).and_then(Result::ok) else {
        return tracing::error!(address = %from, "internal error while answering a request from {from}");
    };
    if let Err(fault) = received.answer(&reply).await {
        service.note_silent(from, &fault.to_string(), Instant::now());
    }
}
