//! Rules for calls and for hosts. Pure: no clock, no socket, no file, no certificates.
//!
//! Both ends decide. A [`NodePolicy`] denies every call that no rule allows; an [`AgentPolicy`]
//! without rules trusts every verified node, and with rules denies the rest.

mod agent;
mod glob;
mod http_scope;
mod mcp;
mod node;
mod path_glob;
mod path_reading;
mod rule;
#[cfg(test)]
mod tests;
mod view;

pub use agent::{AgentDecision, AgentPolicy};
pub use glob::{PolicyTarget, RequesterGlob, TargetGlob};
pub use http_scope::{HttpScope, HttpVerb};
pub use node::{Decision, Denied, Grant, NodePolicy};
pub use path_glob::PathGlob;
pub use path_reading::other_readings;
pub use rule::{AgentRule, AllowRule, DenyRule, HostRule, Origin, Rate, RateError};
pub use view::PolicyView;
