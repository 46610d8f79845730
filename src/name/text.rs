//! Formatting of types that wrap a string.

use std::fmt;

/// Displays types by their `as_str`. `Debug` quotes it.
macro_rules! display_text {
    ($($type:ident)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}

/// Shows types by `Debug` as they are displayed.
macro_rules! debug_as_display {
    ($($type:ident)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

use super::{
    CallId, MethodGlob, MethodName, MethodPath, Name, NameGlob, NodeAddress, PeerName, ServiceGlob,
    ServiceName,
};

display_text!(Name ServiceName MethodName NameGlob ServiceGlob MethodGlob);
debug_as_display!(PeerName MethodPath NodeAddress CallId);
