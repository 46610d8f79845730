//! Shapes of a call: unary, three kinds of stream, and TCP connection.

use crate::wire::CallKind;
use std::marker::PhantomData;

/// Number of messages of a call in each direction. Sealed: there are four, and TCP connections.
pub trait Shape: sealed::Sealed {
    /// As it travels.
    #[doc(hidden)]
    const KIND: CallKind;
}

mod sealed {
    #[expect(unnameable_types, reason = "that nobody can name it is what seals the shapes")]
    pub trait Sealed {}
}

/// One message each way.
#[derive(Debug)]
pub enum Unary {}

/// One message out, a stream of replies.
#[derive(Debug)]
pub enum ServerStream {}

/// A stream of messages `T` out, one reply.
#[derive(Debug)]
pub struct ClientStream<T>(PhantomData<fn(T)>);

/// A stream of messages `T` out, a stream of replies.
#[derive(Debug)]
pub struct Bidirectional<T>(PhantomData<fn(T)>);

/// The shape of a TCP connection: bytes each way, each direction with an end of its own.
#[derive(Debug)]
pub enum Tcp {}

macro_rules! shapes {
    ($($shape:ty $([$t:ident])? = $kind:ident;)*) => {$(
        impl $(<$t>)? sealed::Sealed for $shape {}
        impl $(<$t>)? Shape for $shape {
            const KIND: CallKind = CallKind::$kind;
        }
    )*};
}

shapes! {
    Unary = Unary;
    Tcp = Tcp;
    ServerStream = ServerStream;
    ClientStream<T> [T] = ClientStream;
    Bidirectional<T> [T] = Bidirectional;
}
