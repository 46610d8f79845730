//! The sessions of one server.

use super::{
    routes::NoRoute,
    session::{ProcessSettings, Session},
};
use crate::{
    limits::{MCP_PROCESSES_MAX, MCP_PROCESSES_PER_CALLER_MAX},
    mcp::RequestId,
    name::PeerName,
    status::{Code, Status},
    tls::random_bytes,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

pub(super) struct Sessions {
    settings: Arc<ProcessSettings>,
    open: Mutex<Vec<Arc<Session>>>,
}

impl Sessions {
    pub(super) fn new(settings: ProcessSettings) -> Self {
        Self { settings: Arc::new(settings), open: Mutex::default() }
    }

    /// The session of this id, for its owner.
    pub(super) fn find(&self, id: &str, caller: &PeerName) -> Option<Arc<Session>> {
        let open = self.open();
        let found = open.iter().find(|it| it.id.as_deref() == Some(id) && it.owner == *caller);
        found.inspect(|session| session.touch()).cloned()
    }

    /// Begins a session.
    pub(super) fn begin(&self, caller: &PeerName) -> Result<Arc<Session>, Status> {
        let id = random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        self.start(&mut self.open(), Some(id), caller)
    }

    /// The process that this caller's requests without a session share, and the route of the
    /// answer. A request whose id is in use there gets another process.
    pub(super) fn share(
        &self,
        caller: &PeerName,
        request: &RequestId,
    ) -> Result<(Arc<Session>, mpsc::Receiver<Bytes>), Status> {
        let mut open = self.open();
        let shared = open.iter().filter(|it| it.id.is_none() && it.owner == *caller);
        for session in shared {
            if let Ok(route) = session.routes.add(request) {
                session.touch();
                return Ok((session.clone(), route));
            }
        }
        let session = self.start(&mut open, None, caller)?;
        match session.routes.add(request) {
            Ok(route) => Ok((session, route)),
            Err(NoRoute::Taken) => Err(unavailable("its process is busy")),
            Err(NoRoute::Ended(why)) => Err(unavailable(&format!("its process has ended: {why}"))),
        }
    }

    /// The process that this caller's messages without a session share, if there is one.
    pub(super) fn shared(&self, caller: &PeerName) -> Option<Arc<Session>> {
        let open = self.open();
        open.iter().find(|it| it.id.is_none() && it.owner == *caller).cloned()
    }

    /// Those that are open. Those whose process has ended are forgotten.
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|session| session.is_open());
        open
    }

    fn start(
        &self,
        open: &mut Vec<Arc<Session>>,
        id: Option<String>,
        caller: &PeerName,
    ) -> Result<Arc<Session>, Status> {
        let own = open.iter().filter(|session| session.owner == *caller).count();
        if own >= MCP_PROCESSES_PER_CALLER_MAX || open.len() >= MCP_PROCESSES_MAX {
            // A client that is gone without a word leaves its session behind.
            let unused = open
                .iter()
                .enumerate()
                .filter(|(_, session)| session.owner == *caller && !session.routes.are_used());
            let Some((at, _)) = unused.min_by_key(|(_, session)| session.used()) else {
                let text = format!(
                    "{} runs as many processes as it may: {MCP_PROCESSES_PER_CALLER_MAX} for a caller, {MCP_PROCESSES_MAX} in all",
                    self.settings.path
                );
                return Err(Status::not_executed(Code::ResourceExhausted, text));
            };
            open.remove(at).close();
        }
        let session = Session::start(id, caller, &self.settings).map_err(|fault| {
            let program = self.settings.command.first().map_or("", String::as_str);
            tracing::warn!(
                "the process {program} of {} does not start: {fault}",
                self.settings.path
            );
            unavailable("its process does not start; the log of the agent says why")
        })?;
        open.push(session.clone());
        Ok(session)
    }

    /// Status of a request that no process got.
    pub(super) fn unavailable(&self, why: &str) -> Status {
        unavailable(&format!("{} did not get the message: {why}", self.settings.path))
    }
}

fn unavailable(why: &str) -> Status {
    Status::not_executed(Code::Unavailable, format!("the server is not available: {why}"))
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in self.open().drain(..) {
            session.close();
        }
    }
}
