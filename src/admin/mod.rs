//! The admin listener of a node or an agent: a page for browsers, `/metrics` for Prometheus,
//! `/healthz`, `/readyz` and `/api/v1/status`.

mod body;
mod drain_request;
mod error;
mod exposition;
mod listen;
mod metrics;
mod minute;
mod observed;
mod process;
mod server;
mod socket;
mod status;

pub use error::AdminError;
pub use listen::AdminListen;

use self::{
    drain_request::DrainRequests, observed::Observed, server::AdminServer, socket::AdminSocket,
};
use crate::{agent::Agent, name::AdminAddress, node::Node};
use std::sync::Arc;

/// A running admin listener. It ends with its node or agent.
#[derive(Debug)]
pub struct Admin {
    address: AdminAddress,
    drains: Arc<DrainRequests>,
}

impl Admin {
    /// Starts the admin listener of a node. Must be called in a tokio runtime; returns once the
    /// socket is bound. The file of a Unix socket is removed when the listener ends; one that
    /// nobody listens on any more is replaced.
    ///
    /// Who may connect may read it: its status names peers and methods. A request costs some 100
    /// microseconds.
    ///
    /// # Errors
    /// Other machines could read it without a certificate, or the address cannot be listened on.
    pub async fn of_node(node: &Node, listen: &AdminListen) -> Result<Self, AdminError> {
        Self::start(listen, Observed::Node(node.view())).await
    }

    /// The same of an agent.
    ///
    /// # Errors
    /// As [`Admin::of_node`].
    pub async fn of_agent(agent: &Agent, listen: &AdminListen) -> Result<Self, AdminError> {
        Self::start(listen, Observed::Agent(agent.view())).await
    }

    /// The address that it listens on, with the actual port.
    pub const fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Shows a button on the page from now on, by which its readers may ask for a graceful
    /// stop. Resolves when that was asked for; the program then shuts down its node or agent.
    /// Cancel safe.
    pub fn drain_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.drains.take();
        let drains = self.drains.clone();
        async move { drains.requested().await }
    }

    async fn start(listen: &AdminListen, observed: Observed) -> Result<Self, AdminError> {
        listen.expect_guarded()?;
        let socket = AdminSocket::bind(&listen.address).await?;
        let (address, tasks) = (socket.address().clone(), observed.tasks());
        if listen.has_peer_labels {
            observed.counts().peers.turn_on();
        }
        let drains = Arc::<DrainRequests>::default();
        let callers = listen.callers.clone();
        let server = Arc::new(AdminServer::new(observed, drains.clone(), callers));
        let watching = server.clone();
        tasks.spawn_until_stopped(async move { watching.watch().await });
        tasks.spawn_until_stopped(socket.serve(server, tasks.clone()));
        let scheme = if listen.has_tls() { "https" } else { "http" };
        match &address {
            AdminAddress::Tcp(at) => {
                tracing::info!(%address, "status at {scheme}://{at}/, metrics at {scheme}://{at}/metrics");
            }
            AdminAddress::Unix(_) => {
                tracing::info!(%address, "status and metrics at {address}");
            }
        }
        Ok(Self { address, drains })
    }
}
