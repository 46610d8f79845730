//! A session: the process of one client, or of the clients of one caller that have none.

use super::{
    process::{Process, ProcessInput, line},
    routes::ProcessRoutes,
};
use crate::{
    drain::{Signal, Tasks},
    mcp::{self, RequestId},
    memory::MemoryAccount,
    name::{MethodPath, PeerName},
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) struct Session {
    /// `None` if requests without a session use it.
    pub(super) id: Option<String>,
    pub(super) owner: PeerName,
    pub(super) input: ProcessInput,
    pub(super) routes: ProcessRoutes,
    /// Counts what is held of its output.
    memory: MemoryAccount,
    used: Mutex<Instant>,
    closed: CancellationToken,
}

/// What the processes of a server have in common.
pub(super) struct ProcessSettings {
    pub(super) path: MethodPath,
    pub(super) command: Vec<String>,
    pub(super) idle_max: Duration,
    pub(super) message_bytes_max: usize,
    pub(super) tasks: Tasks,
    pub(super) drain: Arc<Signal>,
}

impl Session {
    /// Starts its process, which ends when the session is closed or idle for too long.
    pub(super) fn start(
        id: Option<String>,
        owner: &PeerName,
        memory: MemoryAccount,
        settings: &Arc<ProcessSettings>,
    ) -> io::Result<Arc<Self>> {
        let (process, input) = Process::start(&settings.command)?;
        let session = Arc::new(Self {
            id,
            owner: owner.clone(),
            input,
            routes: ProcessRoutes::default(),
            memory,
            used: Mutex::new(Instant::now()),
            closed: CancellationToken::new(),
        });
        let (running, settings) = (session.clone(), settings.clone());
        settings.tasks.clone().spawn(async move { running.run(process, &settings).await });
        Ok(session)
    }

    async fn run(&self, process: Process, settings: &ProcessSettings) {
        let ProcessSettings { path, idle_max, message_bytes_max, tasks, .. } = settings;
        let end = async {
            tokio::select! {
                () = self.closed.cancelled() => "its session was closed, or its entry has changed",
                () = tasks.stopped() => "the agent stops",
                () = self.idle(*idle_max) => "its session was not used for long",
            }
        };
        let output = (path, *message_bytes_max);
        let why = process.run(output, &self.memory, &self.routes, end).await;
        self.routes.end(why);
    }

    /// Ends the session and its process.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// True if it takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.is_cancelled() && self.routes.ended().is_none()
    }

    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when it was not used for this time.
    async fn idle(&self, idle_max: Duration) {
        loop {
            let until = self.used() + idle_max;
            tokio::time::sleep_until(until).await;
            if self.routes.are_used() {
                self.touch();
            } else if self.used() + idle_max <= until {
                return;
            }
        }
    }

    /// Nobody waits for the answer to a request any more, if it has not come. The request that
    /// begins a session cannot be cancelled, and without its answer nobody knows the session.
    pub(super) fn give_up(&self, id: &RequestId, begins: bool) {
        match self.routes.give_up(id) {
            true if begins => self.close(),
            true => self.input.try_write(line(&mcp::cancelled(id))),
            false => {}
        }
    }
}
