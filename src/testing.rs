//! Test support for programs: calls services in memory, without a node, a link or a certificate.

use crate::{
    call::{CallOrigin, Callee, Handler, Reply, Request, SharedHandler, Target},
    drain::Tasks,
    limits::Limits,
    name::{CallIds, Name, PeerName, Role},
    serve::{Service, ServiceError, Services},
    status::{Code, Status},
};
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll};

/// Hosts the services in memory, and returns a callee for them, as for an agent.
///
/// Messages are encoded and decoded as on a link, methods of all four kinds work, deadlines hold
/// (also those of tokio's paused time), a handler that panics ends its call `INTERNAL`, unknown,
/// and dropping a call drops its handler. Policy and limits on calls in flight do not apply. The
/// handlers see the caller `caller/test`.
///
/// ```
/// use dialback::{Context, Service, testing};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let service = Service::new("HelloService")
///     .method("Hello", |name: String, _: Context| async move { Ok(format!("hello:{name}")) });
/// let agent = testing::join([service])?;
/// assert_eq!(agent.call::<String>("HelloService/Hello", "hello").await?, "hello:hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
/// A name that breaks the grammar, or a method added twice.
pub fn join(services: impl IntoIterator<Item = Service>) -> Result<Callee, ServiceError> {
    let services = Services::new(services.into_iter().collect())?;
    let handler: SharedHandler = Arc::new(InMemoryAgent { services });
    let peer = PeerName::new(Role::Caller, "test".parse::<Name>()?);
    let requester = CallOrigin {
        handler,
        peer: &peer,
        call_ids: &Arc::new(CallIds::new([0; 16])),
        limits: &Limits::default(),
        tasks: &Tasks::default(),
    };
    Ok(Callee::new(requester, Target::Here))
}

struct InMemoryAgent {
    services: Services,
}

impl Handler for InMemoryAgent {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        let deadline = request.meta.deadline;
        let handler = self.services.find(&request.meta.method, request.meta.kind)?.clone();
        let mut work = pin!(handler.call_boxed(request));
        let caught = std::future::poll_fn(|cx| {
            let poll = AssertUnwindSafe(|| work.as_mut().poll(cx));
            std::panic::catch_unwind(poll).unwrap_or_else(|_panic| {
                Poll::Ready(Err(Status::unknown(Code::Internal, "the handler panicked")))
            })
        });
        tokio::time::timeout_at(deadline, caught).await.unwrap_or_else(|_elapsed| {
            Err(Status::unknown(Code::DeadlineExceeded, "the deadline passed"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Context, Inbound, Outbound},
        status::Outcome,
    };
    use std::time::Duration;

    fn service() -> Service {
        Service::new("S")
            .method("Double", |value: u64, _: Context| async move { Ok(2 * value) })
            .method("Sleep", |(): (), _: Context| async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            })
            .method("Panic", |(): (), _: Context| async move { on_purpose() })
            .bidirectional(
                "Echo",
                |mut values: Inbound<u64>, mut out: Outbound<u64>, _: Context| async move {
                    while let Some(value) = values.next().await {
                        out.send(&value?).await?;
                    }
                    Ok(())
                },
            )
    }

    #[expect(clippy::panic, reason = "that is what the method is for")]
    fn on_purpose() -> Result<(), Status> {
        panic!("on purpose")
    }

    #[tokio::test(start_paused = true)]
    async fn services_are_called_in_memory_as_over_a_link() {
        let agent = join([service()]).expect("services");
        assert_eq!(agent.call::<u64>("S/Double", &4).await, Ok(8));
        let late = agent.call::<()>("S/Sleep", &()).await.expect_err("the deadline");
        assert_eq!((late.code(), late.outcome()), (Code::DeadlineExceeded, Outcome::Unknown));
        let broken = agent.call::<()>("S/Panic", &()).await.expect_err("a panic");
        assert_eq!((broken.code(), broken.outcome()), (Code::Internal, Outcome::Unknown));
        let none = agent.call::<()>("S/None", &()).await.expect_err("unknown");
        assert_eq!((none.code(), none.outcome()), (Code::Unimplemented, Outcome::NotExecuted));
        let (mut out, mut echoes) =
            agent.bidirectional::<u64, u64>("S/Echo").await.expect("a call");
        for value in [1, 2] {
            out.send(&value).await.expect("room");
            assert_eq!(echoes.next().await, Some(Ok(value)));
        }
        out.finish().await.expect("room");
        assert_eq!(echoes.next().await, None);
    }
}
