//! Error of services that cannot be hosted.

use crate::{name::MethodPath, wire::CallKind};

/// Error of services that cannot be hosted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// A name that breaks the grammar.
    #[error(transparent)]
    Name(#[from] crate::name::NameError),
    /// The same method came twice.
    #[error("the method {0} was added twice")]
    Twice(MethodPath),
    /// A fallback service, and another service of the same name.
    #[error(
        "the service {0} is hosted twice: a service that is forwarded, or answered by a fallback, can have nothing else under its name"
    )]
    FallbackNotAlone(String),
    /// A method whose kind is a forward's, in a service that is not named as that kind.
    #[error(
        "the method {method} of the service {service} is of the kind {kind}; forwards of that kind stand in the service `{kind}`, as {kind}:{method}, and MCP servers in the service `mcp`"
    )]
    Forward {
        /// The service.
        service: String,
        /// The method.
        method: String,
        /// Its kind.
        kind: CallKind,
    },
    /// Names that dialback keeps for itself.
    #[error("the service name {0} is taken: dialback's own services start with dialback.")]
    Reserved(String),
    /// A service of RPC methods under the name of a kind of forwards.
    #[error("the service name {0} is reserved for forwards; give the service another name")]
    ReservedForForwards(String),
    /// A method was described that is not there.
    #[error(
        "{service}/{method} is described and has no handler; is the name the one under which it was added?"
    )]
    DescribedOnly {
        /// The service.
        service: String,
        /// The method.
        method: String,
    },
    /// A description or a schema is too long. It names which.
    #[error("{0}; shorten it")]
    TooLong(String),
    /// All of them together do not fit a registration.
    #[error("the services do not fit one registration: {0}; host fewer, or say less of them")]
    TooMuch(String),
}
