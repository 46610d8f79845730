//! Integration tests over QUIC on loopback in one binary: each file covers one subject, `world` has
//! the shared parts.

#[cfg(feature = "admin")]
mod admin;
mod audit;
mod bidirectional;
mod call;
mod cancel;
mod chains;
#[cfg(all(feature = "cli", unix))]
mod cli;
mod contract;
mod deadline;
mod enroll;
mod faults;
mod faults_drain;
#[cfg(feature = "forward")]
mod forward;
mod hostile;
mod service_changes;
#[cfg(feature = "gateway")]
mod http;
mod identity;
mod limits;
#[cfg(unix)]
mod openssl;
mod outcomes;
#[cfg(feature = "gateway")]
mod pages;
mod policy;
mod protocol;
mod quotas;
mod raw_peer;
mod reconnect;
mod rejections;
mod renewal;
mod restart;
mod retries;
mod mcp;
mod migration;
mod roles;
mod routing;
mod shutdown;
#[cfg(all(feature = "forward", feature = "gateway"))]
mod sites;
mod streams;
mod structure;
mod tcp;
mod tidy;
#[cfg(all(feature = "forward", feature = "gateway", feature = "otel"))]
mod traces;
mod tunnel;
mod wire;
mod world;
