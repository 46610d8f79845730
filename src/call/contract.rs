//! The `contract!` macro: a service written once and shared by both sides, so that a wrong type
//! does not compile.

/// Declares a service: a trait for the side that hosts it, and a type for the side that calls it.
///
/// `fn say_bye(name: String) -> String` is `HelloService/SayBye` on the wire. A method without
/// arguments takes `null`, one with a single argument takes the argument itself, one with several
/// takes an array of them. Arguments and results are serde types.
///
/// ```
/// use dialback::{Context, Status};
///
/// dialback::contract! {
///     /// Greets.
///     pub service HelloService {
///         /// `hello` is answered with `hello:hello`.
///         fn hello(name: String) -> String;
///     }
/// }
///
/// struct Hello;
///
/// impl HelloService for Hello {
///     async fn hello(&self, name: String, _ctx: &Context) -> Result<String, Status> {
///         Ok(format!("hello:{name}"))
///     }
/// }
///
/// let service = Hello.into_service();      // for `Agent::builder(..).serve(service)`
/// # async fn call(agent: &dialback::Callee) -> Result<(), Status> {
/// let reply = HelloServiceCaller::new(agent).hello("hello".into()).await?;
/// # Ok(()) }
/// ```
///
/// `stream` before a type makes that direction a stream: the host gets an
/// [`Inbound`](crate::Inbound) or an [`Outbound`](crate::Outbound) for it, and the caller's method
/// gives them when its call is awaited.
///
/// ```
/// # use dialback::{Context, Inbound, Outbound, Status};
/// dialback::contract! {
///     pub service Meter {
///         fn watch(n: u32) -> stream u32;
///         fn sum(values: stream u64) -> u64;
///         fn chat(lines: stream String) -> stream String;
///     }
/// }
///
/// struct Host;
///
/// impl Meter for Host {
///     async fn watch(&self, n: u32, mut replies: Outbound<u32>, _ctx: &Context) -> Result<(), Status> {
///         for i in 0..n {
///             replies.send(&i).await?;
///         }
///         Ok(())
///     }
///     async fn sum(&self, mut values: Inbound<u64>, _ctx: &Context) -> Result<u64, Status> {
///         let mut sum = 0;
///         while let Some(value) = values.next().await {
///             sum += value?;
///         }
///         Ok(sum)
///     }
///     async fn chat(&self, mut lines: Inbound<String>, mut replies: Outbound<String>, _ctx: &Context) -> Result<(), Status> {
///         while let Some(line) = lines.next().await {
///             replies.send(&line?).await?;
///         }
///         Ok(())
///     }
/// }
///
/// # async fn call(agent: &dialback::Callee) -> Result<(), Status> {
/// let meter = MeterCaller::new(agent);
/// let mut ticks = meter.watch(5).await?;
/// while let Some(tick) = ticks.next().await {
///     println!("{}", tick?);
/// }
/// let (mut values, sum) = meter.sum().await?;
/// values.send(&7).await?;
/// values.finish().await?;
/// println!("{}", sum.await?);
/// # Ok(()) }
/// ```
///
/// On the trait, `into_service` makes the value a [`Service`](crate::Service). On the caller's type
/// each method gives a [`Call`](crate::Call), so that `.timeout(..)` and the like can be set before
/// it is awaited.
#[macro_export]
macro_rules! contract {
    ($(#[$doc:meta])* $vis:vis service $service:ident { $($methods:tt)* }) => {
        $crate::__contract! { [$(#[$doc])* $vis $service] [] $($methods)* }
    };
    ($($other:tt)*) => {
        ::core::compile_error!("contract!: expected `pub service Name { fn method(argument: Type) -> Type; }`");
    };
}

/// The work of `contract!`: sorts the methods by their shape first, one after the other, and then
/// writes trait and caller.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract {
    // A stream in, a stream out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($arg:ident : stream $in:ty $(,)?) -> stream $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*]
            [$($done)* { bidirectional $(#[$doc])* $method ($arg: $in) $out }] $($rest)* }
    };
    // A stream in, one value out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($arg:ident : stream $in:ty $(,)?) -> $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*]
            [$($done)* { client_stream $(#[$doc])* $method ($arg: $in) $out }] $($rest)* }
    };
    // Values in, a stream out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($($arg:ident : $in:ty),* $(,)?) -> stream $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*]
            [$($done)* { server_stream $(#[$doc])* $method ($($arg: $in),*) $out }] $($rest)* }
    };
    // Values in, one value out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($($arg:ident : $in:ty),* $(,)?) -> $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*]
            [$($done)* { unary $(#[$doc])* $method ($($arg: $in),*) $out }] $($rest)* }
    };
    ([$(#[$service_doc:meta])* $vis:vis $service:ident]
     [$({ $shape:ident $(#[$doc:meta])* $method:ident $args:tt $out:ty })*]) => {
        $(#[$service_doc])*
        $vis trait $service: ::core::marker::Send + ::core::marker::Sync + ::core::marker::Sized + 'static {
            $(
                $crate::__contract_host! { $shape [$(#[$doc])*] $method $args $out }
            )*

            /// Makes this a service that an agent or a node can host.
            fn into_service(self) -> $crate::Service {
                let host = ::std::sync::Arc::new(self);
                let service = $crate::__private::new_service(::core::stringify!($service));
                $(
                    let service = $crate::__contract_add! { $shape service host $method $args };
                )*
                ::core::mem::drop(host);
                service
            }
        }

        $crate::__private::pastey::paste! {
            #[doc = ::core::concat!("Calls [`", ::core::stringify!($service), "`] on somebody who hosts it. Cloning is cheap.")]
            #[derive(::core::clone::Clone, ::core::fmt::Debug)]
            $vis struct [<$service Caller>] {
                callee: $crate::Callee,
            }

            #[allow(dead_code, reason = "a program may call only some of a contract's methods")]
            impl [<$service Caller>] {
                /// Calls this one.
                $vis fn new(callee: impl ::core::convert::AsRef<$crate::Callee>) -> Self {
                    Self { callee: ::core::clone::Clone::clone(callee.as_ref()) }
                }

                $(
                    $crate::__contract_call! { $shape [$(#[$doc])* $vis] $service $method $args $out }
                )*
            }
        }
    };
    // Common mistakes, each with the correction.
    ($head:tt $done:tt $(#[$doc:meta])* async $($rest:tt)*) => {
        ::core::compile_error!("contract!: write `fn` without `async`; every method is asynchronous");
    };
    ($head:tt $done:tt $(#[$doc:meta])* pub $($rest:tt)*) => {
        ::core::compile_error!("contract!: write `fn` without `pub`; methods are as visible as their service");
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident(& $($args:tt)*) $($rest:tt)*) => {
        $crate::__contract_self! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident(self $($args:tt)*) $($rest:tt)*) => {
        $crate::__contract_self! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident(mut self $($args:tt)*) $($rest:tt)*) => {
        $crate::__contract_self! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident < $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!("contract!: `", ::core::stringify!($method),
            "` has generic parameters; a method on the wire has fixed types"));
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($($arg:ident : $in:ty),* $(,)?); $($rest:tt)*) => {
        $crate::__contract_result! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($arg:ident : stream $in:ty $(,)?); $($rest:tt)*) => {
        $crate::__contract_result! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($($args:tt)*) { $($body:tt)* } $($rest:tt)*) => {
        $crate::__contract_result! { $method }
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($($args:tt)*) -> $(stream)? $out:ty { $($body:tt)* } $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!("contract!: `", ::core::stringify!($method),
            "` has a body; end the method with `;` and write the body in `impl` of the service"));
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($($args:tt)*) $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!("contract!: the arguments of `", ::core::stringify!($method),
            "` are not `name: Type, ...`, or it does not end with `-> Type;`; a `stream` is the only argument of its method"));
    };
    ($head:tt $done:tt $($rest:tt)+) => {
        ::core::compile_error!("contract!: expected `fn method(argument: Type, ...) -> Type;`");
    };
}

/// The error for a method that names `self`.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_self {
    ($method:ident) => {
        ::core::compile_error!(::core::concat!(
            "contract!: write `",
            ::core::stringify!($method),
            "` without `&self`; the trait adds it"
        ));
    };
}

/// The error for a method without a result type.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_result {
    ($method:ident) => {
        ::core::compile_error!(::core::concat!(
            "contract!: `",
            ::core::stringify!($method),
            "` has no result type; write `-> ()` for none"
        ));
    };
}

/// A method of the trait, for whoever hosts it.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_host {
    (unary [$($doc:tt)*] $method:ident ($($arg:ident : $in:ty),*) $out:ty) => {
        $($doc)*
        fn $method(&self, $($arg: $in,)* ctx: &$crate::Context)
            -> impl ::core::future::Future<Output = ::core::result::Result<$out, $crate::Status>> + ::core::marker::Send;
    };
    (server_stream [$($doc:tt)*] $method:ident ($($arg:ident : $in:ty),*) $out:ty) => {
        $($doc)*
        fn $method(&self, $($arg: $in,)* replies: $crate::Outbound<$out>, ctx: &$crate::Context)
            -> impl ::core::future::Future<Output = ::core::result::Result<(), $crate::Status>> + ::core::marker::Send;
    };
    (client_stream [$($doc:tt)*] $method:ident ($arg:ident : $in:ty) $out:ty) => {
        $($doc)*
        fn $method(&self, $arg: $crate::Inbound<$in>, ctx: &$crate::Context)
            -> impl ::core::future::Future<Output = ::core::result::Result<$out, $crate::Status>> + ::core::marker::Send;
    };
    (bidirectional [$($doc:tt)*] $method:ident ($arg:ident : $in:ty) $out:ty) => {
        $($doc)*
        fn $method(&self, $arg: $crate::Inbound<$in>, replies: $crate::Outbound<$out>, ctx: &$crate::Context)
            -> impl ::core::future::Future<Output = ::core::result::Result<(), $crate::Status>> + ::core::marker::Send;
    };
}

/// Adds a method of the trait to a service.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_add {
    (unary $service:ident $host:ident $method:ident ($($arg:ident : $in:ty),*)) => {{
        let host = ::std::sync::Arc::clone(&$host);
        let run = move |request: ($($in),*), ctx: $crate::Context| {
            let host = ::std::sync::Arc::clone(&host);
            async move {
                let ($($arg),*) = request;
                host.$method($($arg,)* &ctx).await
            }
        };
        $crate::__private::add_method($service, $crate::__contract_name!($method), run)
    }};
    (server_stream $service:ident $host:ident $method:ident ($($arg:ident : $in:ty),*)) => {{
        let host = ::std::sync::Arc::clone(&$host);
        let run = move |request: ($($in),*), replies, ctx: $crate::Context| {
            let host = ::std::sync::Arc::clone(&host);
            async move {
                let ($($arg),*) = request;
                host.$method($($arg,)* replies, &ctx).await
            }
        };
        $crate::__private::add_server_stream($service, $crate::__contract_name!($method), run)
    }};
    (client_stream $service:ident $host:ident $method:ident ($arg:ident : $in:ty)) => {{
        let host = ::std::sync::Arc::clone(&$host);
        let run = move |$arg: $crate::Inbound<$in>, ctx: $crate::Context| {
            let host = ::std::sync::Arc::clone(&host);
            async move { host.$method($arg, &ctx).await }
        };
        $crate::__private::add_client_stream($service, $crate::__contract_name!($method), run)
    }};
    (bidirectional $service:ident $host:ident $method:ident ($arg:ident : $in:ty)) => {{
        let host = ::std::sync::Arc::clone(&$host);
        let run = move |$arg: $crate::Inbound<$in>, replies, ctx: $crate::Context| {
            let host = ::std::sync::Arc::clone(&host);
            async move { host.$method($arg, replies, &ctx).await }
        };
        $crate::__private::add_bidirectional($service, $crate::__contract_name!($method), run)
    }};
}

/// A method of the caller's type.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_call {
    (unary [$($head:tt)*] $service:ident $method:ident ($($arg:ident : $in:ty),*) $out:ty) => {
        $($head)* fn $method(&self, $($arg: $in),*) -> $crate::Call<$out> {
            self.callee.call($crate::__contract_path!($service $method), &($($arg),*))
        }
    };
    (server_stream [$($head:tt)*] $service:ident $method:ident ($($arg:ident : $in:ty),*) $out:ty) => {
        $($head)* fn $method(&self, $($arg: $in),*) -> $crate::Call<$out, $crate::ServerStream> {
            self.callee.server_stream($crate::__contract_path!($service $method), &($($arg),*))
        }
    };
    (client_stream [$($head:tt)*] $service:ident $method:ident ($arg:ident : $in:ty) $out:ty) => {
        $($head)* fn $method(&self) -> $crate::Call<$out, $crate::ClientStream<$in>> {
            self.callee.client_stream($crate::__contract_path!($service $method))
        }
    };
    (bidirectional [$($head:tt)*] $service:ident $method:ident ($arg:ident : $in:ty) $out:ty) => {
        $($head)* fn $method(&self) -> $crate::Call<$out, $crate::Bidirectional<$in>> {
            self.callee.bidirectional($crate::__contract_path!($service $method))
        }
    };
}

/// The path of a contract's method, parsed once.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_path {
    ($service:ident $method:ident) => {{
        static METHOD: ::std::sync::OnceLock<$crate::MethodPath> = ::std::sync::OnceLock::new();
        METHOD.get_or_init(|| {
            $crate::__private::method_path(
                ::core::stringify!($service),
                $crate::__contract_name!($method),
            )
        })
    }};
}

/// `say_bye` as `"SayBye"`, at compile time.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_name {
    ($method:ident) => {{
        const SNAKE: &str = ::core::stringify!($method);
        const BYTES: [u8; $crate::__private::pascal_len(SNAKE)] = $crate::__private::pascal(SNAKE);
        const NAME: &str = match ::core::str::from_utf8(&BYTES) {
            ::core::result::Result::Ok(name) => name,
            ::core::result::Result::Err(_) => ::core::panic!("method names are ASCII"),
        };
        NAME
    }};
}

/// How long a snake-case name is in Pascal case: the same without its underscores.
pub const fn pascal_len(snake: &str) -> usize {
    let bytes = snake.as_bytes();
    let mut length = 0;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'_' {
            length += 1;
        }
        at += 1;
    }
    length
}

/// A snake-case name in Pascal case.
pub const fn pascal<const N: usize>(snake: &str) -> [u8; N] {
    let bytes = snake.as_bytes();
    let mut out = [0; N];
    let (mut from, mut to, mut starts_word) = (0, 0, true);
    while from < bytes.len() {
        if bytes[from] == b'_' {
            starts_word = true;
        } else {
            out[to] = if starts_word { bytes[from].to_ascii_uppercase() } else { bytes[from] };
            starts_word = false;
            to += 1;
        }
        from += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn method_names_are_pascal_case_on_the_wire() {
        assert_eq!(crate::__contract_name!(hello), "Hello");
        assert_eq!(crate::__contract_name!(say_bye), "SayBye");
        assert_eq!(crate::__contract_name!(list_v2_items), "ListV2Items");
    }
}
