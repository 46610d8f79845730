//! The `contract!` macro: a service written once and shared by both sides, so that a wrong type does not compile.

/// Declares a service: a trait for the side that hosts it, and a type for the side that calls it.
///
/// `fn say_bye(name: String) -> String` is `HelloService/SayBye` on the wire. A method without arguments takes `null`, one with a
/// single argument takes the argument itself, one with several takes an array of them. Arguments and results are serde types.
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
/// On the trait, `into_service` makes the value a [`Service`](crate::Service). On the caller's type each method gives a
/// [`Call`](crate::Call), so that `.timeout(..)` and the like can be set before it is awaited.
#[macro_export]
macro_rules! contract {
    (
        $(#[$service_doc:meta])*
        $vis:vis service $service:ident {
            $(
                $(#[$method_doc:meta])*
                fn $method:ident( $($arg:ident : $arg_type:ty),* $(,)? ) -> $reply:ty;
            )*
        }
    ) => {
        $(#[$service_doc])*
        $vis trait $service: ::core::marker::Send + ::core::marker::Sync + ::core::marker::Sized + 'static {
            $(
                $(#[$method_doc])*
                fn $method(
                    &self,
                    $($arg: $arg_type,)*
                    ctx: &$crate::Context,
                ) -> impl ::core::future::Future<Output = ::core::result::Result<$reply, $crate::Status>> + ::core::marker::Send;
            )*

            /// Makes this a service that an agent or a node can host.
            fn into_service(self) -> $crate::Service {
                let host = ::std::sync::Arc::new(self);
                let service = $crate::__private::new_service(::core::stringify!($service));
                $(
                    let service = {
                        let host = ::std::sync::Arc::clone(&host);
                        $crate::__private::add_method(
                            service,
                            $crate::__contract_name!($method),
                            move |request: ($($arg_type),*), ctx: $crate::Context| {
                                let host = ::std::sync::Arc::clone(&host);
                                async move {
                                    let ($($arg),*) = request;
                                    host.$method($($arg,)* &ctx).await
                                }
                            },
                        )
                    };
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
                    $(#[$method_doc])*
                    $vis fn $method(&self, $($arg: $arg_type),*) -> $crate::Call<$reply> {
                        static METHOD: ::std::sync::OnceLock<$crate::MethodPath> = ::std::sync::OnceLock::new();
                        let method = METHOD.get_or_init(|| {
                            $crate::__private::method_path(::core::stringify!($service), $crate::__contract_name!($method))
                        });
                        self.callee.call(method, &($($arg),*))
                    }
                )*
            }
        }
    };
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
