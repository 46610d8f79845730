//! The sessions of one server.

use super::{
    process::Written,
    routes::NoRoute,
    session::{ProcessSettings, Session},
};
use crate::{
    drain::Signal,
    limits::{MCP_PROCESSES_MAX, MCP_PROCESSES_PER_CALLER_MAX},
    mcp::RequestId,
    memory::MemoryAccount,
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
        let found = open
            .iter()
            .find(|it| it.is_open() && it.id.as_deref() == Some(id) && it.owner == *caller);
        found.inspect(|session| session.touch()).cloned()
    }

    /// Begins a session.
    pub(super) fn begin(
        &self,
        caller: &PeerName,
        memory: MemoryAccount,
    ) -> Result<Arc<Session>, Status> {
        let id = random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        self.start(&mut self.open(), Some(id), caller, memory)
    }

    /// The process that this caller's requests without a session share, and the route of the
    /// answer. A request whose id is in use there gets another process.
    pub(super) fn share(
        &self,
        caller: &PeerName,
        memory: MemoryAccount,
        request: &RequestId,
    ) -> Result<(Arc<Session>, mpsc::Receiver<Bytes>), Status> {
        let mut open = self.open();
        let is_shared = |it: &&Arc<Session>| {
            it.is_open() && it.id.is_none() && it.owner == *caller && !it.routes.are_worn_out()
        };
        for session in open.iter().filter(is_shared) {
            if let Ok(route) = session.routes.add(request) {
                session.touch();
                return Ok((session.clone(), route));
            }
        }
        let session = self.start(&mut open, None, caller, memory)?;
        match session.routes.add(request) {
            Ok(route) => Ok((session, route)),
            Err(NoRoute::Taken) => Err(unavailable("its process is busy")),
            Err(NoRoute::Ended(why)) => Err(unavailable(&format!("its process has ended: {why}"))),
        }
    }

    /// The process that this caller's messages without a session share, if there is one.
    pub(super) fn shared(&self, caller: &PeerName) -> Option<Arc<Session>> {
        let open = self.open();
        open.iter().find(|it| it.is_open() && it.id.is_none() && it.owner == *caller).cloned()
    }

    /// Those whose process has not ended; some are closed.
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|session| session.routes.ended().is_none());
        open
    }

    fn start(
        &self,
        open: &mut Vec<Arc<Session>>,
        id: Option<String>,
        caller: &PeerName,
        memory: MemoryAccount,
    ) -> Result<Arc<Session>, Status> {
        let running = [open.iter().filter(|session| session.owner == *caller).count(), open.len()];
        let taking = open.iter().filter(|session| session.is_open());
        let used = [
            taking.clone().filter(|session| session.owner == *caller).count(),
            taking.clone().count(),
        ];
        let limits = [MCP_PROCESSES_PER_CALLER_MAX, MCP_PROCESSES_MAX];
        if used[0] >= limits[0] || used[1] >= limits[1] {
            // A client that is gone without a word leaves its session behind.
            let unused =
                taking.filter(|session| session.owner == *caller && !session.routes.are_used());
            match unused.min_by_key(|session| session.used()) {
                Some(session) => session.close(),
                None => return Err(self.too_many()),
            }
        }
        // Those that were closed end within seconds.
        if running[0] >= 2 * limits[0] || running[1] >= 2 * limits[1] {
            return Err(self.too_many());
        }
        let session = Session::start(id, caller, memory, &self.settings).map_err(|fault| {
            let program = self.settings.command.first().map_or("", String::as_str);
            let method = &self.settings.path;
            tracing::warn!(
                %method,
                program,
                reason = %fault,
                "the process {program} of {method} does not start: {fault}"
            );
            unavailable("its process does not start; the log of the agent says why")
        })?;
        open.push(session.clone());
        Ok(session)
    }

    fn too_many(&self) -> Status {
        let text = format!(
            "{} runs as many processes as it may: {MCP_PROCESSES_PER_CALLER_MAX} for a caller, {MCP_PROCESSES_MAX} in all",
            self.settings.path
        );
        Status::not_executed(Code::ResourceExhausted, text)
    }

    pub(super) fn drain(&self) -> &Signal {
        &self.settings.drain
    }

    /// Status of a request that a process did not get, or perhaps.
    pub(super) fn unwritten(&self, written: Written, session: &Session) -> Status {
        let why = session.routes.ended().unwrap_or_else(|| "its process has ended".into());
        match written {
            Written::Perhaps => {
                let path = &self.settings.path;
                let text = format!("the process of {path} ended while it got the message: {why}");
                Status::unknown(Code::Unavailable, text)
            }
            Written::Yes | Written::No => self.unavailable(&why),
        }
    }

    /// Status of a request that no process got.
    fn unavailable(&self, why: &str) -> Status {
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
