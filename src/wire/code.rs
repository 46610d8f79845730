//! Codes that close streams and links, and the reaction of the peer to each. Never zero.

/// Reaction of the dialler to the close code of its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Dial again at once: the other side, or another node, is ready.
    ReconnectNow,
    /// Dial again by the backoff of an unreachable node.
    BackOff,
    /// Dial again by the long backoff of a refusal: a retry soon would fail as well.
    BackOffLong,
}

/// Declares an enum whose values travel as numbers, with methods of this visibility for them, and
/// are shown by name.
macro_rules! codes {
    ($(#[$doc:meta])* $numbers:vis $type:ident: $int:ident { $($(#[$item_doc:meta])* $name:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$item_doc])* $name = $number,)*
        }

        impl $type {
            /// Every value, by number.
            $numbers const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number as it travels.
            $numbers const fn number(self) -> $int {
                self as $int
            }

            /// The value of a number, if it is a known one.
            $numbers fn from_number(number: $int) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.number() == number)
            }

            /// The name in the manual, in lists and in logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Reason of the reset or stop of one direction of a call's stream.
    #[repr(u16)]
    pub StreamCode: u64 {
        /// The call was refused before its handler started.
        Refused = 0x01, "REFUSED";
        /// The side is draining; the handler did not start.
        Draining = 0x02, "DRAINING";
        /// No permit, no queue place, no credit; the handler did not start.
        Overloaded = 0x03, "OVERLOADED";
        /// The initiator dropped the call.
        Cancelled = 0x04, "CANCELLED";
        /// The deadline passed.
        Deadline = 0x05, "DEADLINE";
        /// A frame over its limit.
        TooLarge = 0x06, "TOO_LARGE";
        /// Bytes that are not the protocol.
        Malformed = 0x07, "MALFORMED";
        /// The handler broke, or the side did.
        Internal = 0x08, "INTERNAL";
        /// The other side sent or read too slowly.
        Slow = 0x09, "SLOW";
        /// The side lost its link to the one that answers, in the middle of the reply.
        Lost = 0x0b, "LOST";
    }
}

codes! {
    /// Reason of the close of a link.
    #[repr(u16)]
    pub CloseCode: u64 {
        /// The side stops, in good order.
        Goodbye = 0x40, "GOODBYE";
        /// A later link of the same identity took over.
        Superseded = 0x41, "SUPERSEDED";
        /// The side has drained.
        Drained = 0x42, "DRAINED";
        /// The certificate was revoked.
        Revoked = 0x43, "REVOKED";
        /// The certificate has reached its end.
        Expired = 0x44, "EXPIRED";
        /// The certificate is no longer under a trusted CA.
        TrustChanged = 0x45, "TRUST_CHANGED";
        /// The other side broke the protocol.
        Protocol = 0x46, "PROTOCOL";
        /// No protocol version in common.
        Version = 0x47, "VERSION";
        /// The identity is not one that may have this link.
        Unauthorized = 0x48, "UNAUTHORIZED";
        /// The other side asks for more than its share.
        ExcessiveLoad = 0x49, "EXCESSIVE_LOAD";
        /// Nothing was received for too long.
        Idle = 0x4a, "IDLE";
    }
}

impl CloseCode {
    /// Reaction of the dialler.
    pub const fn reaction(self) -> Reaction {
        match self {
            Self::Drained | Self::Idle => Reaction::ReconnectNow,
            Self::Goodbye | Self::Protocol | Self::TrustChanged => Reaction::BackOff,
            Self::Superseded
            | Self::Unauthorized
            | Self::Revoked
            | Self::Expired
            | Self::ExcessiveLoad
            | Self::Version => Reaction::BackOffLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_code_is_zero_and_no_number_is_used_twice() {
        let numbers: Vec<_> = StreamCode::ALL
            .iter()
            .map(|code| code.number())
            .chain(CloseCode::ALL.iter().map(|code| code.number()))
            .collect();
        assert!(!numbers.contains(&0));
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
    }

    #[test]
    fn codes_come_back_from_their_numbers() {
        for code in StreamCode::ALL {
            assert_eq!(StreamCode::from_number(code.number()), Some(*code));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(StreamCode::from_number(0), None);
        assert_eq!(CloseCode::from_number(0), None);
    }
}
