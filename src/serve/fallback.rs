//! Fallback (catch-all) service: one handler answers all methods, such as a forward whose methods
//! are not known here.

use crate::{
    call::SharedHandler,
    name::{MethodPath, NameError},
    status::{Code, Status},
    wire::{ANY_METHOD, CallKind, MethodInfo},
};
use std::collections::BTreeSet;

/// Handler of every method of a service, or of the listed ones.
#[derive(Clone)]
pub(super) struct Fallback {
    pub(super) handler: SharedHandler,
    /// Kinds of calls that it accepts.
    pub(super) kinds: Vec<CallKind>,
    /// Methods of the service; `None` for any.
    pub(super) names: Option<BTreeSet<String>>,
}

impl Fallback {
    /// Methods as registered and listed: one entry for each kind of call.
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

    /// Finds the handler of a method of an accepted kind; else `UNIMPLEMENTED`, not executed.
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
