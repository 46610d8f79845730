//! Ways into a node: links, the HTTP gateway and the program that runs it. All take the same steps.

#[cfg(feature = "gateway")]
mod accounts;
#[cfg(feature = "gateway")]
mod gateway;
mod in_process;
mod link;
mod steps;
#[cfg(test)]
mod tests;

#[cfg(feature = "gateway")]
pub(crate) use gateway::{GatewayCall, GatewayIngress};
pub(super) use in_process::callee;
pub(super) use link::LinkIngress;
