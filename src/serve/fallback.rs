//! A service that one handler answers as a whole: its methods are not known here, as those of a
//! forward.

use crate::{
    call::SharedHandler,
    name::{MethodPath, NameError},
    status::{Code, Status},
    wire::{ANY_METHOD, CallKind, MethodInfo},
};
use std::collections::BTreeSet;

/// What answers every method of a service, or every one of those that are named.
#[derive(Clone)]
pub(super) struct Whole {
    pub(super) handler: SharedHandler,
    /// The shapes of call that it takes.
    pub(super) kinds: Vec<CallKind>,
    /// The methods that there are; `None` is any.
    pub(super) names: Option<BTreeSet<String>>,
}

impl Whole {
    /// Its methods as they are registered and listed: a line for each shape in which each may be
    /// called.
    ///
    /// # Errors
    /// A name that breaks the grammar.
    pub(super) fn infos(&self) -> Result<Vec<MethodInfo>, NameError> {
        let Some(names) = &self.names else { return Ok(self.in_each_kind(ANY_METHOD)) };
        let mut infos = Vec::new();
        for name in names {
            name.parse::<crate::name::MethodName>()?;
            infos.extend(self.in_each_kind(name));
        }
        Ok(infos)
    }

    fn in_each_kind(&self, name: &str) -> Vec<MethodInfo> {
        self.kinds.iter().map(|kind| MethodInfo::new(name, *kind)).collect()
    }

    /// What answers a method, if it is one of them and is called in a shape that can be answered.
    ///
    /// # Errors
    /// `UNIMPLEMENTED`, not executed.
    pub(super) fn find(&self, path: &MethodPath, kind: CallKind) -> Result<&SharedHandler, Status> {
        let is_there = self.names.as_ref().is_none_or(|names| names.contains(path.method()));
        let text = if !is_there {
            format!("the service {} has no method {}", path.service(), path.method())
        } else if !self.kinds.contains(&kind) {
            let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.as_str()).collect();
            let kinds = kinds.join(" or ");
            format!("{path} was called as {kind}, and what answers it here takes {kinds} calls")
        } else {
            return Ok(&self.handler);
        };
        Err(Status::not_executed(Code::Unimplemented, text))
    }
}
