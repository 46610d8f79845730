//! Conversion between JSON and CBOR for many callers: small messages at once, large ones on
//! blocking threads, in fair turns between callers.

mod text;
mod turns;

pub(crate) use text::Text;

use crate::{
    drain::blocking,
    limits::{
        CONVERSIONS_AT_ONCE_MAX, CONVERSIONS_WAITING_MAX, CONVERSIONS_WAITING_PER_CALLER_MAX,
        CONVERTED_INLINE_BYTES_MAX, MEMORY_COUNTED_BYTES_MIN,
    },
    name::PeerName,
    status::{Code, Outcome, Status},
    wire::json,
};
use bytes::Bytes;
use std::sync::Arc;
use turns::{TurnLimits, Turns};

/// Turns of one process, or of one part of it.
#[derive(Clone)]
pub(crate) struct Conversions(Arc<Turns<PeerName>>);

impl Default for Conversions {
    fn default() -> Self {
        let bounds = TurnLimits {
            at_once: CONVERSIONS_AT_ONCE_MAX,
            waiting_max: CONVERSIONS_WAITING_MAX,
            waiting_per_caller_max: CONVERSIONS_WAITING_PER_CALLER_MAX,
        };
        Self(Arc::new(Turns::new(bounds)))
    }
}

impl Conversions {
    pub(crate) fn of(&self, caller: &PeerName) -> Converter {
        Converter { turns: self.0.clone(), caller: caller.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Converter {
    turns: Arc<Turns<PeerName>>,
    caller: PeerName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConvertError {
    /// The message is invalid, with the reason.
    Invalid(String),
    Full,
    Panicked,
}

impl ConvertError {
    /// Status of the failed call: with this code for an invalid message, which `what` names.
    pub(crate) fn into_status(self, outcome: Outcome, code: Code, what: &str) -> Status {
        match self {
            Self::Invalid(why) => Status::with_outcome(code, outcome, format!("{what}: {why}")),
            Self::Full => {
                let text = "too many large messages wait for their conversion between JSON and CBOR; try again";
                Status::with_outcome(Code::ResourceExhausted, outcome, text)
            }
            Self::Panicked => {
                let text = "the conversion between JSON and CBOR panicked";
                Status::with_outcome(Code::Internal, outcome, text)
            }
        }
    }
}

/// A conversion that may have to wait for its turn.
#[cfg(feature = "forward")]
pub(crate) type Converting<T> =
    std::pin::Pin<Box<dyn Future<Output = Result<T, ConvertError>> + Send>>;

impl Converter {
    /// Converts a message to JSON. A large one is checked in its turn, and written as it is sent.
    /// Fails for invalid CBOR, or if too many conversions are waiting.
    pub(crate) async fn to_text(&self, cbor: Bytes) -> Result<Text, ConvertError> {
        if cbor.len() < MEMORY_COUNTED_BYTES_MIN {
            return json::cbor_to_text(&cbor).map(Text::complete).map_err(ConvertError::Invalid);
        }
        if is_small(&cbor) {
            // A counted message stays counted until written: its text may be six times as long.
            return json::JsonText::new(cbor).map(Text::written).map_err(ConvertError::Invalid);
        }
        self.in_turn(move || json::JsonText::new(cbor).map(Text::written)).await
    }

    /// Converts JSON to a message; errors as [`Converter::to_text`]. Duplicate keys are refused.
    #[cfg(any(feature = "gateway", test))]
    pub(crate) async fn to_cbor(&self, text: Bytes) -> Result<Bytes, ConvertError> {
        self.run(text, json::text_to_cbor).await
    }

    /// The same, but of equal keys the last stays.
    #[cfg(feature = "forward")]
    pub(crate) async fn to_cbor_leniently(&self, text: Bytes) -> Result<Bytes, ConvertError> {
        self.run(text, json::lenient_text_to_cbor).await
    }

    /// The same CBOR, if it is well-formed: the last reader should not be the first to find out.
    #[cfg(feature = "forward")]
    pub(crate) async fn well_formed(&self, cbor: Bytes) -> Result<Bytes, ConvertError> {
        let check = |bytes: &[u8]| crate::wire::decode_value::<serde::de::IgnoredAny>(bytes);
        self.run(cbor.clone(), move |bytes| check(bytes).map(|_| ())).await?;
        Ok(cbor)
    }

    async fn run<T: Send + 'static>(
        &self,
        bytes: Bytes,
        convert: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> Result<T, ConvertError> {
        if is_small(&bytes) {
            return convert(&bytes).map_err(ConvertError::Invalid);
        }
        self.in_turn(move || convert(&bytes)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, ConvertError> {
        let turn = self.turns.turn(&self.caller).await.map_err(|_full| ConvertError::Full)?;
        let done = blocking(move || {
            // Held to the end of the work, also after the waiter was dropped.
            let _turn = turn;
            work()
        });
        done.await.map_or(Err(ConvertError::Panicked), |done| done.map_err(ConvertError::Invalid))
    }
}

const fn is_small(bytes: &Bytes) -> bool {
    bytes.len() <= CONVERTED_INLINE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lazy_timeout::poll_once;
    use std::pin::pin;

    fn converter(conversions: &Conversions, caller: &str) -> Converter {
        conversions.of(&format!("caller/{caller}").parse().expect("a name"))
    }

    fn json_of(bytes: usize) -> Bytes {
        format!("\"{}\"", "x".repeat(bytes - 2)).into()
    }

    #[tokio::test]
    async fn small_messages_wait_for_no_turn_and_one_byte_more_does() {
        let conversions = Conversions::default();
        let caller = converter(&conversions, "a");
        let mut turns = Vec::new();
        for _ in 0..CONVERSIONS_AT_ONCE_MAX {
            turns.push(conversions.0.turn(&caller.caller).await.expect("a turn"));
        }
        let small = json_of(CONVERTED_INLINE_BYTES_MAX);
        assert!(poll_once(pin!(caller.to_cbor(small))).await.is_ready());
        let small = caller.to_cbor(json_of(CONVERTED_INLINE_BYTES_MAX - 1)).await.expect("JSON");
        assert_eq!(small.len(), CONVERTED_INLINE_BYTES_MAX);
        assert!(poll_once(pin!(caller.to_text(small))).await.is_ready());
        let mut large = pin!(caller.to_cbor(json_of(CONVERTED_INLINE_BYTES_MAX + 1)));
        assert!(poll_once(large.as_mut()).await.is_pending());
        drop(turns);
        let cbor = large.await.expect("converted in its turn");
        let text = caller.to_text(cbor).await.expect("converted in its turn");
        assert_eq!(text.left(), CONVERTED_INLINE_BYTES_MAX as u64 + 1);
    }

    #[tokio::test]
    async fn invalid_text_is_reported_and_a_panic_is_internal() {
        let caller = converter(&Conversions::default(), "a");
        let bad = Bytes::from(vec![b'['; CONVERTED_INLINE_BYTES_MAX + 1]);
        let fault = caller.to_cbor(bad).await.expect_err("not JSON");
        let status = fault.into_status(Outcome::NotExecuted, Code::InvalidArgument, "the body");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("the body: recursion limit"), "{status}");
        let panicked = caller.in_turn::<()>(|| panic!("on purpose")).await;
        assert_eq!(panicked, Err(ConvertError::Panicked));
        // Its turn was given back.
        for _ in 0..CONVERSIONS_AT_ONCE_MAX {
            assert_eq!(caller.in_turn(|| Ok(1)).await, Ok(1));
        }
    }
}
