//! The names of peers, services, methods and calls: parsed once at the edge, trusted after.

mod address;
mod admin_address;
mod call_id;
mod error;
mod glob;
mod http_target;
mod method;
mod peer;
mod text;
mod tool;
#[cfg(any(feature = "forward", feature = "gateway"))]
mod tool_name;

pub use address::NodeAddress;
pub use admin_address::AdminAddress;
pub use call_id::CallId;
pub(crate) use call_id::CallIds;
pub use error::NameError;
pub use glob::{MethodGlob, NameGlob, ServiceGlob};
pub(crate) use http_target::{HttpSuffix, check_verb, decode_escapes, escaped_byte};
pub use http_target::{HttpTarget, HttpTargetError};
pub(crate) use method::is_of_nodes;
pub use method::{MethodName, MethodPath, ServiceName};
pub use peer::{Name, PeerName, Role};
#[cfg(any(feature = "forward", feature = "gateway"))]
pub(crate) use tool_name::ToolName;
