//! Enrolment: an [`Enroller`] signs certificates of agents and callers, a new peer joins by a
//! token, and a peer renews its certificate by itself.
//!
//! An enroller is a process with a UDP port of its own on the machine of the CA, and speaks
//! [`JOIN_ALPN`](crate::JOIN_ALPN) and no links. Keys are never sent: a machine makes its own, and
//! sends a request that proves it. The token or the present certificate decides the contents of the
//! leaf, not the request.
//!
//! ```no_run
//! use dialback::{certs::CertsDir, enroll::{Enroller, Join}};
//! use std::time::{Duration, SystemTime};
//!
//! # async fn on_the_machine_of_the_ca() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = CertsDir::new("ca");
//! let token = dir.make_token(&"agent/warehouse".parse()?, Duration::from_secs(3600), SystemTime::now())?;
//! println!("{}", *token.to_line());
//! let enroller = Enroller::builder(dir).listen("[::]:4434").start().await?;
//! # Ok(()) }
//! # async fn on_the_new_machine(line: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let enroller = dialback::NodeAddress::parse_with_port("ca.example.com", Enroller::PORT_DEFAULT)?;
//! let joined = Join::new(enroller, line.parse()?, "certs").run().await?;
//! println!("{} until {:?}", joined.peer, joined.not_after);
//! # Ok(()) }
//! ```

mod service;
mod listener;
mod error;
mod join;
mod lists;
mod renew;
mod schedule;

pub use error::EnrollError;
pub use join::{Join, JoinedPeer};
pub use listener::{Enroller, EnrollerBuilder, EnrollerError};
pub use renew::{Renewal, Renewed, Renewing};
