//! Service and its methods, as programs build them.

use super::{Description, fallback::Fallback};
use crate::{
    call::{
        Context, DynHandler, Inbound, Outbound, SharedHandler, answer_once, answer_with_stream,
        decode_request, inbound, pascal, typed_handler,
    },
    health::HealthCheck,
    name::MethodPath,
    status::Status,
    wire::CallKind,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, future::Future, sync::Arc};

/// A service with its methods, to be hosted by an agent or a node.
///
/// Made by a contract's `into_service`, or by hand from closures:
///
/// ```
/// use dialback::{Context, Service, Status};
///
/// let service = Service::new("HelloService")
///     .method("Hello", |name: String, _ctx: Context| async move { Ok(format!("hello:{name}")) });
/// ```
///
/// A name that breaks the grammar, or a method added twice, is reported when the agent or node
/// starts. A clone is the same service: it shares the handlers and what they hold.
#[derive(Clone)]
#[must_use = "a service answers once it is hosted"]
pub struct Service {
    pub(super) name: String,
    pub(super) methods: Vec<(String, Method)>,
    pub(super) description: String,
    pub(super) described: Vec<(String, Description)>,
    pub(super) fallback: Option<Fallback>,
    pub(super) check: Option<Arc<HealthCheck>>,
}

/// Handler and kind of a method.
#[derive(Clone)]
pub(crate) struct Method {
    pub(crate) kind: CallKind,
    pub(crate) handler: SharedHandler,
}

impl Service {
    /// A service without methods.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            methods: Vec::new(),
            description: String::new(),
            described: Vec::new(),
            fallback: None,
            check: None,
        }
    }

    /// Sets the description of the service for callers: plain text or CommonMark, at most 1 KiB.
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Sets the description of a method, and optionally the schemas of its messages. An unknown
    /// method, or a text that is too long, is reported when the agent or node starts.
    pub fn describe_method(
        mut self,
        name: impl Into<String>,
        description: impl Into<Description>,
    ) -> Self {
        self.described.push((name.into(), description.into()));
        self
    }

    /// Creates a fallback service: one handler answers all methods, or the listed ones, for these
    /// kinds of calls. Nothing else can be hosted under its name. It is registered as `SERVICE/*`
    /// where no methods are named. The result of the handler is sent unchanged, including its
    /// outcome, as with [`Service::raw_method`].
    pub fn fallback(
        name: impl Into<String>,
        kinds: impl IntoIterator<Item = CallKind>,
        methods: Option<Vec<String>>,
        handler: impl DynHandler,
    ) -> Self {
        let (kinds, names) = (kinds.into_iter().collect(), methods.map(Vec::into_iter));
        let fallback =
            Fallback { handler: Arc::new(handler), kinds, names: names.map(Iterator::collect) };
        Self { fallback: Some(fallback), ..Self::new(name) }
    }

    /// Adds a unary method. Whatever error the function returns travels with outcome `app_error`; a
    /// panic ends the call with `INTERNAL`. Its future is dropped when the call is cancelled or its
    /// deadline passes.
    pub fn method<F, T, R, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(T, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Status>> + Send + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        let handler = typed_handler(function, |handler, request| {
            let run = move |value, ctx| (handler.function)(value, ctx);
            Box::pin(answer_once(request, decode_request, run))
        });
        self.add(name, CallKind::Unary, handler)
    }

    /// Adds a method that takes one value and answers with the stream of values that it sends into
    /// the [`Outbound`]. Its return ends the stream. Polling the replies drives it, so a slow
    /// reader delays it; its future is dropped when the call is cancelled.
    pub fn server_stream<F, T, R, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(T, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        let handler = typed_handler(function, |handler, request| {
            let run = move |value, replies, ctx| (handler.function)(value, replies, ctx);
            Box::pin(answer_with_stream(request, decode_request, run))
        });
        self.add(name, CallKind::ServerStream, handler)
    }

    /// Adds a method that takes a stream, the [`Inbound`], and answers with one value. It starts
    /// with the first message, or with the end of a stream that has none.
    pub fn client_stream<F, T, R, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Inbound<T>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Status>> + Send + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        let handler = typed_handler(function, |handler, request| {
            let run = move |values, ctx| (handler.function)(values, ctx);
            Box::pin(answer_once(request, inbound, run))
        });
        self.add(name, CallKind::ClientStream, handler)
    }

    /// Adds a method that takes a stream and answers with another. It starts with the first
    /// message, or with the end of a stream that has none; its return ends the replies, whether it
    /// has taken all messages or not.
    pub fn bidirectional<F, T, R, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Inbound<T>, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        let handler = typed_handler(function, |handler, request| {
            let run = move |values, replies, ctx| (handler.function)(values, replies, ctx);
            Box::pin(answer_with_stream(request, inbound, run))
        });
        self.add(name, CallKind::Bidirectional, handler)
    }

    /// Adds a unary method that handles encoded messages itself. Its outcomes are sent unchanged.
    pub fn raw_method(self, name: impl Into<String>, handler: impl DynHandler) -> Self {
        self.raw_method_of(CallKind::Unary, name, handler)
    }

    /// The same for a method of any kind: request and reply are streams where the kind has them.
    pub fn raw_method_of(
        self,
        kind: CallKind,
        name: impl Into<String>,
        handler: impl DynHandler,
    ) -> Self {
        self.add(name, kind, Arc::new(handler))
    }

    /// Wraps the handler of every method that was added so far, for logging, quotas or tests. The
    /// wrapper receives a handler and returns its replacement, which sees each request and its
    /// outcome.
    ///
    /// ```
    /// use dialback::{Handler, Reply, Request, Service, SharedHandler, Status};
    ///
    /// struct Logged(SharedHandler);
    ///
    /// impl Handler for Logged {
    ///     async fn call(&self, request: Request) -> Result<Reply, Status> {
    ///         let method = request.meta.method.clone();
    ///         let result = self.0.clone().call_boxed(request).await;
    ///         println!("{method}: {:?}", result.as_ref().err());
    ///         result
    ///     }
    /// }
    ///
    /// let service = Service::new("Clock").wrap(|inner| std::sync::Arc::new(Logged(inner)));
    /// ```
    pub fn wrap(mut self, wrapper: impl Fn(SharedHandler) -> SharedHandler) -> Self {
        for (_, method) in &mut self.methods {
            method.handler = wrapper(method.handler.clone());
        }
        if let Some(fallback) = &mut self.fallback {
            fallback.handler = wrapper(fallback.handler.clone());
        }
        self
    }

    /// Sets how its upstream is checked.
    pub(crate) fn checked_by(mut self, check: HealthCheck) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    fn add(mut self, name: impl Into<String>, kind: CallKind, handler: SharedHandler) -> Self {
        self.methods.push((name.into(), Method { kind, handler }));
        self
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|(name, _)| name).collect();
        f.debug_struct("Service").field("name", &self.name).field("methods", &methods).finish()
    }
}

/// For the contract macro: the path of a method by its name in Rust. Two identifiers always join.
#[doc(hidden)]
pub fn method_path(service: &str, method: &str) -> MethodPath {
    #[expect(
        clippy::expect_used,
        reason = "Rust's identifiers in ASCII are identifiers here; others fail at the first call"
    )]
    format!("{service}/{}", pascal(method))
        .parse()
        .expect("a contract's names are ASCII identifiers")
}
