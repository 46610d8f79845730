//! Reverse RPC over QUIC.

#[cfg(feature = "config")]
pub mod config;
pub mod node;
pub mod agent;
pub mod caller;
pub mod serve;
pub mod call;
pub mod link;
pub mod tls;
pub mod policy;
pub mod drain;
pub mod wire;
pub mod backoff;
pub mod name;
pub mod metadata;
pub mod status;
pub mod limits;

/// What the macros need.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::{pascal, pascal_len};
    pub use crate::serve::{add_method, method_path, new_service};
    pub use pastey;
}
pub use call::{Call, Callee, Context};
pub use name::MethodPath;
pub use serve::Service;
pub use status::Status;
