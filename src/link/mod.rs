//! A link: one QUIC connection between two authenticated peers. Only this module and `net` use
//! quinn.

mod close_sequence;
mod congestion;
mod connection;
mod connector;
mod control;
#[cfg(feature = "cli")]
mod diagnostic;
mod dial;
mod endpoint;
#[cfg(all(test, feature = "certs"))]
pub(crate) mod ends;
#[cfg(feature = "certs")]
mod enrolment;
mod fault;
mod greet;
mod keeper;
mod link_socket;
#[cfg(feature = "admin")]
mod link_stats;
mod listener;
mod migration;
mod path_change;
mod peer_address;
mod peer_chain;
#[cfg(feature = "tunnel")]
mod path_watch;
mod pulse;
#[cfg(feature = "qlog")]
mod qlog;
mod remotes;
mod resets;
mod send_order;
mod stream;
#[cfg(all(test, feature = "certs"))]
mod tests;
mod trust;
#[cfg(feature = "tunnel")]
mod path_selection;
mod windows;

pub(crate) use close_sequence::{CloseSequence, REPLACED};
pub(crate) use connection::{Link, OpenFault};
pub(crate) use control::{ControlStream, LinkNews};
#[cfg(feature = "cli")]
pub use diagnostic::{DiagnosticConnection, DiagnosticDialler, PathMeasurement};
pub(crate) use dial::{Dialler, HelloInfo};
pub use endpoint::BindError;
#[cfg(feature = "certs")]
pub(crate) use enrolment::{
    EnrollerAddress, EnrolmentListener, IncomingEnrolment, request_enrolment,
};
pub use fault::LinkFault;
#[cfg(all(feature = "certs", feature = "tunnel"))]
pub(crate) use fault::sentence;
pub(crate) use greet::{Greeted, NotGreeted};
pub(crate) use keeper::{ActiveLink, EndReason, KeeperHooks, KeeperSignals, Retry, keep};
#[cfg(feature = "admin")]
pub(crate) use link_stats::LinkStats;
pub(crate) use listener::{IncomingLink, LinkListener};
pub(crate) use path_change::PathChange;
pub use path_change::{LinkPath, PathChangeCause};
pub(crate) use peer_address::LinkMove;
#[cfg(feature = "qlog")]
pub use qlog::write_qlog;
pub(crate) use resets::ResetKeys;
pub(crate) use stream::{CallStream, Frame, FrameReader, FrameSender, ReadFault, SendFault};
#[cfg(feature = "gateway")]
pub(crate) use trust::TrustedLinks;
