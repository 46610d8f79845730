//! The admin listener of a node or an agent: `/metrics` for Prometheus, `/healthz`, `/readyz` and
//! `/api/v1/status`.

mod error;
mod exposition;
mod metrics;
mod minute;
mod observed;
mod process;
mod server;
mod status;

pub use error::AdminError;

use self::{observed::Observed, server::AdminServer};
use crate::{agent::Agent, httpd, name::NameError, node::Node};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// A running admin listener. It ends with its node or agent.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
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

    async fn start(listen: &str, observed: Observed) -> Result<Self, AdminError> {
        let address: SocketAddr = listen.parse().map_err(|_| NameError::of_listen(listen))?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(AdminError::NotLoopback { address });
        }
        let fault = |source| AdminError::Socket { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let tasks = observed.tasks();
        let server = Arc::new(AdminServer::new(observed));
        let watching = server.clone();
        tasks.spawn_until_stopped(async move { watching.watch().await });
        tasks.spawn_until_stopped(httpd::serve(listener, server, tasks.clone()));
        tracing::info!("metrics at http://{address}/metrics");
        Ok(Self { address })
    }
}
