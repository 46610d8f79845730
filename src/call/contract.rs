//! The `contract!` macro: a service written once and shared by both sides, so that a wrong type
//! does not compile.

/// Declares a service: a trait for the side that hosts it, and a type for the side that calls it.
///
/// `fn send_bye(name: String) -> String` is `HelloService/SendBye` on the wire. A method without
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

/// Implements `contract!`: first writes each method with the types of both sides, one after the
/// other, then the trait and the caller's type.
///
/// A method is written as `{ [docs] name, add (host arguments) [replies] result, call (arguments)
/// [message] [type of the call] }`, where `add` is the method of `Service` that hosts it and `call`
/// the method of `Callee` that calls it.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract {
    // A stream in, a stream out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($arg:ident : stream $in:ty $(,)?) -> stream $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*] [$($done)* { [$(#[$doc])*] $method,
            bidirectional ($arg: $crate::Inbound<$in>) [replies: $crate::Outbound<$out>] (),
            bidirectional () [] [$crate::Call<$out, $crate::Bidirectional<$in>>] }] $($rest)* }
    };
    // A stream in, one value out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($arg:ident : stream $in:ty $(,)?) -> $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*] [$($done)* { [$(#[$doc])*] $method,
            client_stream ($arg: $crate::Inbound<$in>) [] $out,
            client_stream () [] [$crate::Call<$out, $crate::ClientStream<$in>>] }] $($rest)* }
    };
    // Values in, a stream out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($($arg:ident : $in:ty),* $(,)?) -> stream $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*] [$($done)* { [$(#[$doc])*] $method,
            server_stream ($($arg: $in),*) [replies: $crate::Outbound<$out>] (),
            server_stream ($($arg: $in),*) [($($arg),*)] [$crate::Call<$out, $crate::ServerStream>] }] $($rest)* }
    };
    // Values in, one value out.
    ([$($head:tt)*] [$($done:tt)*]
     $(#[$doc:meta])* fn $method:ident($($arg:ident : $in:ty),* $(,)?) -> $out:ty; $($rest:tt)*) => {
        $crate::__contract! { [$($head)*] [$($done)* { [$(#[$doc])*] $method,
            method ($($arg: $in),*) [] $out,
            call ($($arg: $in),*) [($($arg),*)] [$crate::Call<$out>] }] $($rest)* }
    };
    ([$(#[$service_doc:meta])* $vis:vis $service:ident]
     [$({ [$($doc:tt)*] $method:ident,
          $add:ident ($($arg:ident: $in:ty),*) [$($replies:ident: $outbound:ty)?] $result:ty,
          $call:ident ($($given:ident: $given_type:ty),*) [$($message:tt)?] [$reply:ty] })*]) => {
        $(#[$service_doc])*
        $vis trait $service: ::core::marker::Send + ::core::marker::Sync + ::core::marker::Sized + 'static {
            $(
                $($doc)*
                fn $method(&self, $($arg: $in,)* $($replies: $outbound,)? ctx: &$crate::Context)
                    -> impl ::core::future::Future<Output = ::core::result::Result<$result, $crate::Status>>
                        + ::core::marker::Send;
            )*

            /// Makes this a service that an agent or a node can host.
            fn into_service(self) -> $crate::Service {
                let host = ::std::sync::Arc::new(self);
                let service = $crate::Service::new(::core::stringify!($service));
                $(
                    let run = {
                        let host = ::std::sync::Arc::clone(&host);
                        move |request: ($($in),*), $($replies: $outbound,)? ctx: $crate::Context| {
                            let host = ::std::sync::Arc::clone(&host);
                            async move {
                                let ($($arg),*) = request;
                                host.$method($($arg,)* $($replies,)? &ctx).await
                            }
                        }
                    };
                    let name = $crate::__private::pascal(::core::stringify!($method));
                    let service = $crate::Service::$add(service, name, run);
                )*
                ::core::mem::drop(host);
                service
            }
        }

        $crate::__private::pastey::paste! {
            #[doc = ::core::concat!("Calls [`", ::core::stringify!($service), "`] on a peer that hosts it. Cloning is cheap.")]
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
                    $($doc)*
                    $vis fn $method(&self, $($given: $given_type),*) -> $reply {
                        self.callee.$call($crate::__contract_path!($service $method) $(, &$message)?)
                    }
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
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($(& $($lt:lifetime)?)? $(mut)? self $($args:tt)*) $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!("contract!: write `", ::core::stringify!($method),
            "` without `&self`; the trait adds it"));
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident < $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!("contract!: `", ::core::stringify!($method),
            "` has generic parameters; a method on the wire has fixed types"));
    };
    ($head:tt $done:tt $(#[$doc:meta])* fn $method:ident($($args:tt)*); $($rest:tt)*) => {
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

/// The path of a contract's method, parsed once.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_path {
    ($service:ident $method:ident) => {{
        static METHOD: ::std::sync::OnceLock<$crate::MethodPath> = ::std::sync::OnceLock::new();
        METHOD.get_or_init(|| {
            $crate::__private::method_path(
                ::core::stringify!($service),
                ::core::stringify!($method),
            )
        })
    }};
}

/// A snake-case name in Pascal case: `send_bye` as `SendBye`.
pub fn pascal(snake: &str) -> String {
    let (mut name, mut starts_word) = (String::with_capacity(snake.len()), true);
    for letter in snake.chars() {
        if letter != '_' {
            name.push(if starts_word { letter.to_ascii_uppercase() } else { letter });
        }
        starts_word = letter == '_';
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_names_are_pascal_case_on_the_wire() {
        assert_eq!(pascal("hello"), "Hello");
        assert_eq!(pascal("send_bye"), "SendBye");
        assert_eq!(pascal("list_v2_items"), "ListV2Items");
    }
}
