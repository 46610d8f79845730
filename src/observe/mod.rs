//! Events of a node or an agent. Each is reported once, and log lines, audit records and program
//! events are made from it.

mod counts;
mod event;
mod log;
mod observer;
mod peer_counts;
mod program;
mod recent;
mod record;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use counts::ObservedCounts;
#[cfg(feature = "admin")]
pub(crate) use counts::{CallCounts, DURATION_BOUNDS_US, Durations};
pub(crate) use event::Event;
pub(crate) use log::log_path_change;
pub(crate) use observer::Observer;
pub use program::{AgentEvent, NodeEvent};
#[cfg(feature = "admin")]
pub(crate) use recent::{FailedCall, LinkChange, RecentEvents, RefusalCount};
pub(crate) use record::{CallInfo, CallRecord, CallStart, RecordedCaller};
pub use stream::Events;
