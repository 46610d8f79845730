//! Where an admin listener listens, and who may read it.

use super::error::AdminError;
use crate::name::{AdminAddress, NameGlob};

/// Address and readers of an admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminListen {
    pub(super) address: AdminAddress,
    pub(super) callers: Vec<NameGlob>,
    pub(super) has_peer_labels: bool,
}

impl AdminListen {
    /// Everybody who can connect may read it. Must be loopback or a Unix socket.
    pub const fn new(address: AdminAddress) -> Self {
        Self { address, callers: Vec::new(), has_peer_labels: false }
    }

    /// Asks for a certificate of one of these callers instead, by TLS with the certificate of the
    /// node or agent. Then it may be on any address.
    #[must_use]
    pub fn callers(mut self, callers: impl IntoIterator<Item = NameGlob>) -> Self {
        self.callers.extend(callers);
        self
    }

    /// Adds metrics of calls with the names of agents and callers, a thousand at most: all others
    /// count as `other`. Costs a lock for each call.
    #[must_use]
    pub const fn peer_labels(mut self) -> Self {
        self.has_peer_labels = true;
        self
    }

    pub(super) fn has_tls(&self) -> bool {
        !self.callers.is_empty()
    }

    /// Refuses a listener that other machines could read without any credential.
    pub(super) fn expect_guarded(&self) -> Result<(), AdminError> {
        match &self.address {
            AdminAddress::Tcp(address) if !self.address.is_local() && !self.has_tls() => {
                Err(AdminError::NotLoopback { address: *address })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_certificate() {
        let open = |text: &str| AdminListen::new(text.parse().expect("an address"));
        assert!(open("127.0.0.1:1").expect_guarded().is_ok());
        assert!(open("0.0.0.0:1").expect_guarded().is_err());
        let ops = "ops".parse().expect("a glob");
        assert!(open("0.0.0.0:1").callers([ops]).expect_guarded().is_ok());
    }
}
