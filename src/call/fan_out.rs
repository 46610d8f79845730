//! Many calls at once, but not all of them.

use std::{collections::VecDeque, future::Future, pin::Pin, task::Poll};

/// Runs the calls, so many at once, and gives their outputs in their order. Dropping it cancels those that run.
pub(crate) async fn some_at_once<F: Future>(calls: Vec<F>, at_once: usize) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    let mut waiting: VecDeque<(usize, F)> = calls.into_iter().enumerate().collect();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            while running.len() < at_once.max(1)
                && let Some((place, call)) = waiting.pop_front()
            {
                running.push((place, Box::pin(call)));
            }
            let before = running.len();
            running.retain_mut(|(place, call)| match call.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    outputs[*place] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && waiting.is_empty() {
                return Poll::Ready(());
            }
            // A place that came free is given on in the same turn, or nobody would wake the next.
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
    async fn outputs_keep_their_order_and_no_more_run_at_once_than_may() {
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
