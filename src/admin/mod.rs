//! The admin listener of a node or an agent: a page for browsers, `/metrics` for Prometheus,
//! `/healthz`, `/readyz` and `/api/v1/status`.

mod body;
mod drain_request;
mod error;
mod exposition;
mod metrics;
mod minute;
mod observed;
mod process;
mod server;
mod status;

pub use error::AdminError;

use self::{drain_request::DrainRequests, observed::Observed, server::AdminServer};
use crate::{agent::Agent, httpd, name::NameError, node::Node};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// A running admin listener. It ends with its node or agent.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    drains: Arc<DrainRequests>,
}

impl Admin {
    /// Starts the admin listener of a node at this TCP address of the loopback interface, as
    /// `"127.0.0.1:9433"`. Must be called in a tokio runtime; returns once the socket is bound.
    ///
    /// Anyone on the machine may read it: its status names peers and methods. A request costs some
    /// 100 microseconds.
    ///
    /// # Errors
    /// The address is not one of loopback, or cannot be listened on.
    pub async fn of_node(node: &Node, listen: impl ToString) -> Result<Self, AdminError> {
        Self::start(&listen.to_string(), Observed::Node(node.view())).await
    }

    /// The same of an agent.
    ///
    /// # Errors
    /// As [`Admin::of_node`].
    pub async fn of_agent(agent: &Agent, listen: impl ToString) -> Result<Self, AdminError> {
        Self::start(&listen.to_string(), Observed::Agent(agent.view())).await
    }

    /// The address that it listens on, with the actual port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Shows a button on the page from now on, by which anyone on this machine may ask for a
    /// graceful stop. Resolves when that was asked for; the program then shuts down its node or
    /// agent. Cancel safe.
    pub fn drain_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.drains.take();
        let drains = self.drains.clone();
        async move { drains.requested().await }
    }

    async fn start(listen: &str, observed: Observed) -> Result<Self, AdminError> {
        let address: SocketAddr = listen.parse().map_err(|_| NameError::of_listen(listen))?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(AdminError::NotLoopback { address });
        }
        let fault = |source| AdminError::Socket { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let tasks = observed.tasks();
        let drains = Arc::<DrainRequests>::default();
        let server = Arc::new(AdminServer::new(observed, drains.clone()));
        let watching = server.clone();
        tasks.spawn_until_stopped(async move { watching.watch().await });
        tasks.spawn_until_stopped(httpd::serve(listener, server, tasks.clone()));
        tracing::info!("status at http://{address}/, metrics at http://{address}/metrics");
        Ok(Self { address, drains })
    }
}
