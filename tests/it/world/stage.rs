//! The service `Stage`: its handlers record the start and the end of every run. The ledger of the
//! tests.

use super::{Ledger, soon};
use dialback::{Code, Context, Service, Status};
use serde_bytes::ByteBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// The end of a handler's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// It returned.
    Finished,
    /// It was dropped before it returned, or it panicked.
    Dropped,
}

/// One run of a handler.
struct Run {
    id: String,
    context: Context,
    end: Option<RunEnd>,
}

/// The ledger, and the gate at which `Stage/Hold` waits.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    runs: Arc<watch::Sender<Vec<Run>>>,
    is_open: Arc<watch::Sender<bool>>,
}

impl Stage {
    /// The service, for an agent or a node. All methods take an id for the ledger, except Echo.
    ///
    /// `Hold` waits for the gate, `Note` answers, `Fail` fails with NOT_FOUND, `Panic` panics,
    /// `Huge` answers with this many bytes once the gate is open, `Linger` finishes its run and
    /// waits for the gate before it answers, `Copy` returns the bytes that come with the id,
    /// `Weigh` their number.
    pub(crate) fn service(&self) -> Service {
        let [hold, note, fail, broken] = std::array::from_fn(|_| self.clone());
        let [huge, linger, copy, weigh] = std::array::from_fn(|_| self.clone());
        Service::new("Stage")
            .method("Hold", move |id: String, ctx: Context| hold.clone().hold(id, ctx))
            .method("Note", move |id: String, ctx: Context| {
                note.enter(&id, ctx).finish();
                async move { Ok(id) }
            })
            .method("Fail", move |id: String, ctx: Context| {
                fail.enter(&id, ctx).finish();
                async move { Err::<(), _>(Status::new(Code::NotFound, id)) }
            })
            .method("Panic", move |id: String, ctx: Context| {
                let run = broken.enter(&id, ctx);
                async move { panic_on_purpose(run) }
            })
            .method("Huge", move |(id, bytes): (String, usize), ctx: Context| {
                huge.clone().huge(id, bytes, ctx)
            })
            .method("Linger", move |id: String, ctx: Context| linger.clone().linger(id, ctx))
            .method("Copy", move |(id, bytes): (String, ByteBuf), ctx: Context| {
                copy.enter(&id, ctx).finish();
                async move { Ok(bytes) }
            })
            .method("Weigh", move |(id, bytes): (String, ByteBuf), ctx: Context| {
                weigh.enter(&id, ctx).finish();
                async move { Ok(bytes.len()) }
            })
            .method("Echo", |bytes: ByteBuf, _: Context| async move { Ok(bytes) })
    }

    async fn hold(self, id: String, ctx: Context) -> Result<String, Status> {
        let run = self.enter(&id, ctx);
        self.wait_for_gate().await;
        run.finish();
        Ok(id)
    }

    /// Waits for the gate, then returns this many bytes.
    async fn huge(self, id: String, bytes: usize, ctx: Context) -> Result<ByteBuf, Status> {
        let run = self.enter(&id, ctx);
        self.wait_for_gate().await;
        run.finish();
        Ok(ByteBuf::from(vec![7; bytes]))
    }

    /// Finishes its run before it waits for the gate: a kill at that point cannot undo the run.
    async fn linger(self, id: String, ctx: Context) -> Result<String, Status> {
        self.enter(&id, ctx).finish();
        self.wait_for_gate().await;
        Ok(id)
    }

    async fn wait_for_gate(&self) {
        drop(self.is_open.subscribe().wait_for(|is_open| *is_open).await);
    }

    /// Opens the gate for all waiting and all later handlers.
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Closes the gate again.
    pub(crate) fn close(&self) {
        self.is_open.send_replace(false);
    }

    fn enter(&self, id: &str, context: Context) -> ActiveRun {
        let mut index = 0;
        self.runs.send_modify(|runs| {
            index = runs.len();
            runs.push(Run { id: id.to_owned(), context, end: None });
        });
        ActiveRun { stage: self.clone(), index }
    }

    /// The number of runs with this id.
    pub(crate) fn runs(&self, id: &str) -> usize {
        self.runs.borrow().iter().filter(|run| run.id == id).count()
    }

    /// The number of all runs.
    pub(crate) fn all_runs(&self) -> usize {
        self.runs.borrow().len()
    }

    /// The ledger that the oracle compares outcomes with.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for run in &*self.runs.borrow() {
            ledger.started(&run.id, run.context.attempt());
            if run.end == Some(RunEnd::Finished) {
                ledger.finished(&run.id);
            }
        }
        ledger
    }

    /// The ids of all runs, in the order in which they began.
    pub(crate) fn order(&self) -> Vec<String> {
        self.runs.borrow().iter().map(|run| run.id.clone()).collect()
    }

    /// Waits until this many handlers are running.
    #[track_caller]
    pub(crate) fn busy(&self, count: usize) -> impl Future<Output = ()> + use<> {
        let mut runs = self.runs.subscribe();
        soon(&format!("{count} handlers run"), async move {
            let is_busy =
                |runs: &Vec<Run>| runs.iter().filter(|run| run.end.is_none()).count() == count;
            drop(runs.wait_for(is_busy).await.expect("the stage lives"));
        })
    }

    /// Waits until a run with this id has begun, and returns its context.
    #[track_caller]
    pub(crate) fn started(&self, id: &str) -> impl Future<Output = Context> + use<> {
        let (mut runs, id) = (self.runs.subscribe(), id.to_owned());
        soon(&format!("the handler of {id} starts"), async move {
            let runs = runs.wait_for(|runs| runs.iter().any(|run| run.id == id)).await;
            let runs = runs.expect("the stage lives");
            runs.iter().find(|run| run.id == id).expect("it was found").context.clone()
        })
    }

    /// Waits until the first run with this id has ended, and returns how.
    #[track_caller]
    pub(crate) fn ended(&self, id: &str) -> impl Future<Output = RunEnd> + use<> {
        let (mut runs, id) = (self.runs.subscribe(), id.to_owned());
        soon(&format!("the handler of {id} ends"), async move {
            let end_of =
                |runs: &Vec<Run>| runs.iter().find(|run| run.id == id).and_then(|run| run.end);
            let runs = runs.wait_for(|runs| end_of(runs).is_some()).await;
            end_of(&runs.expect("the stage lives")).expect("it has ended")
        })
    }
}

/// A run in progress. A drop before `finish` is recorded.
struct ActiveRun {
    stage: Stage,
    index: usize,
}

impl ActiveRun {
    fn finish(self) {
        self.stage.runs.send_modify(|runs| runs[self.index].end = Some(RunEnd::Finished));
    }
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        self.stage.runs.send_if_modified(|runs| {
            let end = &mut runs[self.index].end;
            end.is_none().then(|| *end = Some(RunEnd::Dropped)).is_some()
        });
    }
}

#[expect(clippy::panic, reason = "that is what the method is for")]
fn panic_on_purpose(_run: ActiveRun) -> Result<(), Status> {
    panic!("a handler panics on purpose")
}
