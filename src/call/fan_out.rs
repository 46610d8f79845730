//! Calls many agents with bounded concurrency.

use super::{
    Callee, IntoMethod, Reply, Target,
    codec::{decode_reply, invalid},
};
use crate::{
    limits::CALL_ALL_AT_ONCE,
    name::{MethodPath, Name},
    status::Status,
    wire::encode_value,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::VecDeque, future::Future, pin::Pin, task::Poll, time::Duration};

/// One unary call, to be made of many agents.
pub(crate) struct ToMany {
    pub(crate) method: MethodPath,
    message: Bytes,
    timeout: Duration,
}

impl ToMany {
    /// Encodes the message once for all.
    pub(crate) fn new(
        method: impl IntoMethod,
        message: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Self, Status> {
        Self::encoded(method, encode_value(message).map_err(invalid)?, timeout)
    }

    /// The same with a message that is CBOR already.
    pub(crate) fn encoded(
        method: impl IntoMethod,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Self, Status> {
        let method = method.into_method().map_err(|fault| invalid(fault.to_string()))?;
        Ok(Self { method, message, timeout })
    }

    /// Calls each agent, some at once, and returns the outcomes in order.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        agents: Vec<Name>,
        callee: impl Fn(Target) -> Callee,
    ) -> Vec<(Name, Result<R, Status>)> {
        self.call_each(agents, callee, |reply| decode_reply(reply.message()?)).await
    }

    /// The same, with the replies as they came.
    pub(crate) async fn call_raw(
        &self,
        agents: Vec<Name>,
        callee: impl Fn(Target) -> Callee,
    ) -> Vec<(Name, Result<Reply, Status>)> {
        self.call_each(agents, callee, Ok).await
    }

    /// Reads each reply as it comes, so that its message is not held until the last one is here.
    async fn call_each<T>(
        &self,
        agents: Vec<Name>,
        callee: impl Fn(Target) -> Callee,
        read: impl Fn(Reply) -> Result<T, Status>,
    ) -> Vec<(Name, Result<T, Status>)> {
        let read = &read;
        let calls = agents.into_iter().map(|agent| {
            let callee = callee(Target::Agent(agent.clone()));
            let call = callee.call_encoded::<()>(&self.method, self.message.clone());
            let call = call.timeout(self.timeout).raw();
            async move { (agent, call.await.and_then(read)) }
        });
        some_at_once(calls.collect(), CALL_ALL_AT_ONCE).await
    }
}

/// Runs the calls, at most `at_once` at a time; outputs are in order. Dropping it cancels the rest.
async fn some_at_once<F: Future>(calls: Vec<F>, at_once: usize) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    let mut waiting: VecDeque<(usize, F)> = calls.into_iter().enumerate().collect();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            while running.len() < at_once.max(1)
                && let Some((index, call)) = waiting.pop_front()
            {
                running.push((index, Box::pin(call)));
            }
            let before = running.len();
            running.retain_mut(|(index, call)| match call.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    outputs[*index] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && waiting.is_empty() {
                return Poll::Ready(());
            }
            // A free slot is used in the same poll: nothing would wake the next call.
            if running.len() == before || waiting.is_empty() {
                return Poll::Pending;
            }
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn outputs_keep_their_order_and_concurrency_is_bounded() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (running, most) = (&running, &most);
        let calls = (0..20usize).map(|n| async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..(20 - n) {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            n
        });
        assert_eq!(some_at_once(calls.collect(), 3).await, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert!(some_at_once(Vec::<std::future::Ready<u8>>::new(), 3).await.is_empty());
    }
}
