//! Log lines about handlers that panic, with the call that ended so. The panic hook of the program
//! has the place in the code.

use crate::{
    name::{CallId, MethodPath},
    printable::{printable, truncated},
};
use std::any::Any;

/// Bytes of the text of a panic in its line.
const TEXT_BYTES_MAX: usize = 300;

/// Logs that the handler of this call panicked.
pub(super) fn log_panic(panic: &(dyn Any + Send), call_id: CallId, method: &MethodPath) {
    let text = text_of(panic);
    tracing::error!(%call_id, %method, "the handler of {method} panicked and ended call {call_id}: {text}");
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(truncated(text.unwrap_or("no text"), TEXT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_its_text_if_it_is_one() {
        assert_eq!(text_of(&"a\nb"), "a\\nb");
        assert_eq!(text_of(&"x".repeat(1_000)).len(), TEXT_BYTES_MAX);
        assert_eq!(text_of(&7), "no text");
    }
}
