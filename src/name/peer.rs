//! The names of nodes, agents and callers, and the role that goes with each.

use super::{NameError, error::as_name};
use std::{fmt, str::FromStr, sync::Arc};

const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 200;

/// Role of a peer, from its certificate. It decides what the peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The public peer. Listens, and opens a stream to an agent for each call.
    Node,
    /// The peer inside. Dials out, and hosts services.
    Agent,
    /// A program that makes calls.
    Caller,
}

impl Role {
    /// All roles, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::Node, Self::Agent, Self::Caller];

    /// Name in certificates, file names and rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Caller => "caller",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            NameError::new("role", text, "is none of node, agent, caller")
                .or_write::<Self>(text, [as_name(text)])
        })
    }
}

/// The name of a peer, without its role: labels of `a-z`, `0-9` and `-`, joined by dots. At most 63
/// bytes a label and 200 in all; no label starts or ends with `-`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fault of a text that is not a dotted name.
pub(super) fn name_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > NAME_BYTES_MAX {
        return Some("is longer than 200 bytes");
    }
    text.split('.').find_map(label_fault)
}

fn label_fault(label: &str) -> Option<&'static str> {
    if label.is_empty() {
        Some("has an empty label")
    } else if label.len() > LABEL_BYTES_MAX {
        Some("has a label longer than 63 bytes")
    } else if !label.bytes().all(is_label_byte) {
        Some("may have only a-z, 0-9 and - in labels joined by dots")
    } else if label.starts_with('-') || label.ends_with('-') {
        Some("has a label that starts or ends with -")
    } else {
        None
    }
}

pub(super) fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match name_fault(text) {
            Some(why) => {
                let bare = text.split_once(['/', ':']).map(|(_, name)| as_name(name));
                let spellings = [as_name(text)].into_iter().chain(bare);
                Err(NameError::new("name", text, why).or_write::<Self>(text, spellings))
            }
            None => Ok(Self(text.into())),
        }
    }
}

/// Role and name of a peer: `agent/warehouse`, in verified certificates and in rules.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    /// The role.
    pub role: Role,
    /// The name.
    pub name: Name,
}

impl PeerName {
    /// Joins a role and a name.
    pub const fn new(role: Role, name: Name) -> Self {
        Self { role, name }
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (role, name) = text
            .split_once('/')
            .ok_or_else(|| NameError::new("peer name", text, "is not written ROLE/NAME"))?;
        Ok(Self { role: role.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_or_are_refused() {
        for good in ["a", "warehouse", "acme.warehouse-1", "0", "a-b.c-d", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().map(|name| name.to_string()), Ok(good.into()));
        }
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63).as_str(); 4].join(".");
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "A",
            "a_b",
            "a/b",
            "..",
            "é",
            "a\0",
            "a b",
            &long_label,
            &long_name,
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken for a name");
        }
    }

    #[test]
    fn a_name_of_200_bytes_passes_and_one_of_201_does_not() {
        let label = "a".repeat(49);
        let at_limit = format!("{label}.{label}.{label}.{label}a");
        assert_eq!(at_limit.len(), 200);
        assert!(at_limit.parse::<Name>().is_ok());
        assert!(format!("{at_limit}a").parse::<Name>().is_err());
    }

    #[test]
    fn a_wrong_name_is_refused_with_the_likely_spelling() {
        let long = "A".repeat(300);
        for (bad, right) in [
            ("Warehouse", Some("warehouse")),
            (" ware_house-1", Some("ware-house-1")),
            ("agent/warehouse", Some("warehouse")),
            ("tcp:DB", Some("db")),
            ("a/b/c", None),
            ("É", None),
            ("-a", None),
            ("", None),
            (&long, None),
        ] {
            let message = bad.parse::<Name>().expect_err(bad).to_string();
            assert_eq!(message.split_once("; write ").map(|(_, right)| right), right, "{message}");
        }
        let message = "Agent/x".parse::<PeerName>().expect_err("a capital").to_string();
        assert!(message.ends_with("; write agent"), "{message}");
    }

    #[test]
    fn a_peer_is_written_role_slash_name() {
        let peer: PeerName = "agent/acme.warehouse-1".parse().expect("a peer");
        assert_eq!((peer.role, peer.name.as_str()), (Role::Agent, "acme.warehouse-1"));
        assert_eq!(peer.to_string(), "agent/acme.warehouse-1");
        for bad in ["agent", "Agent/a", "boss/a", "agent/", "/a", "agent/a/b"] {
            assert!(bad.parse::<PeerName>().is_err(), "{bad:?} was accepted as a peer");
        }
    }
}
