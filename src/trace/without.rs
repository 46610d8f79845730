//! Settings of traces in a build without an exporter: nobody can make any.

use super::tracer::Tracer;
use crate::name::PeerName;

#[derive(Debug, Clone)]
pub(crate) enum NoTraces {}

impl NoTraces {
    pub(crate) fn start(self, _own: &PeerName) -> Tracer {
        match self {}
    }
}
