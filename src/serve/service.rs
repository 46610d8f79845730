//! Services and their methods: built by programs, looked up by calls.

use super::{Description, fallback::Whole};
use crate::{
    call::{
        BidirectionalMethod, ClientStreamMethod, Context, DynHandler, Inbound, Outbound,
        ServerStreamMethod, SharedHandler, TypedMethod,
    },
    name::{MethodName, MethodPath, ServiceName},
    status::{Code, Status},
    wire::{CallKind, MethodInfo, ServiceInfo, WireError, expect_registrable},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::Arc,
};

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
/// starts.
#[must_use = "a service answers once it is hosted"]
pub struct Service {
    name: String,
    methods: Vec<(String, Method)>,
    description: String,
    described: Vec<(String, Description)>,
    whole: Option<Whole>,
}

/// What answers a method, and how many messages it takes and gives.
#[derive(Clone)]
pub(crate) struct Method {
    /// The shape of its calls.
    pub(crate) kind: CallKind,
    /// What answers them.
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
            whole: None,
        }
    }

    /// Says what the service is for, to those who may call it: plain text or CommonMark, at most 1
    /// KiB.
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Says what a method does and, if wanted, of which form its messages are. A text alone will
    /// do. A method that the service does not have, and what is too long, is reported when the
    /// agent or node starts.
    pub fn describe_method(
        mut self,
        name: impl Into<String>,
        description: impl Into<Description>,
    ) -> Self {
        self.described.push((name.into(), description.into()));
        self
    }

    /// A service that one handler answers as a whole, called in one of these shapes, with methods
    /// that need not be known: every one, or those that are named. Nothing else can be hosted under
    /// its name.
    ///
    /// It is registered as `SERVICE/*` where no methods are named. What the handler returns is
    /// taken at its word, outcome included, as with [`Service::raw_method`].
    pub fn whole(
        name: impl Into<String>,
        kinds: impl IntoIterator<Item = CallKind>,
        methods: Option<Vec<String>>,
        handler: impl DynHandler,
    ) -> Self {
        let (kinds, names) = (kinds.into_iter().collect(), methods.map(Vec::into_iter));
        let whole =
            Whole { handler: Arc::new(handler), kinds, names: names.map(Iterator::collect) };
        Self { whole: Some(whole), ..Self::new(name) }
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
        self.add(name, CallKind::Unary, Arc::new(TypedMethod::new(function)))
    }

    /// Adds a method that takes one value and answers with a stream: what it sends into the
    /// [`Outbound`]. Its return ends the stream.
    ///
    /// It is polled by whoever takes the replies, so that a slow reader holds it back; its future
    /// is dropped when the call is cancelled.
    pub fn server_stream<F, T, R, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(T, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        self.add(name, CallKind::ServerStream, Arc::new(ServerStreamMethod::new(function)))
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
        self.add(name, CallKind::ClientStream, Arc::new(ClientStreamMethod::new(function)))
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
        self.add(name, CallKind::Bidirectional, Arc::new(BidirectionalMethod::new(function)))
    }

    /// Adds a unary method that reads and writes encoded messages itself. Its outcomes are taken at
    /// their word.
    pub fn raw_method(self, name: impl Into<String>, handler: impl DynHandler) -> Self {
        self.raw_method_of(CallKind::Unary, name, handler)
    }

    /// The same for a method of any kind: request and reply carry a stream where the kind says so.
    pub fn raw_method_of(
        self,
        kind: CallKind,
        name: impl Into<String>,
        handler: impl DynHandler,
    ) -> Self {
        self.add(name, kind, Arc::new(handler))
    }

    /// Puts something around every method that was added so far: logging, quotas, a test's eye. The
    /// wrapper gets what answers the method and gives what is to answer it from now on, and sees
    /// each request and its outcome.
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
        if let Some(whole) = &mut self.whole {
            whole.handler = wrapper(whole.handler.clone());
        }
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

/// What is wrong with the services that a program wants to host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// A name that breaks the grammar.
    #[error(transparent)]
    Name(#[from] crate::name::NameError),
    /// The same method came twice.
    #[error("the method {0} was added twice")]
    Twice(MethodPath),
    /// A service that one handler answers as a whole, and something else of the same name.
    #[error(
        "the service {0} is hosted twice: a service that is forwarded, or answered as a whole, can have nothing else under its name"
    )]
    TwiceWhole(String),
    /// A method whose kind is a forward's, in a service that is not named as that kind.
    #[error(
        "the method {method} of the service {service} is of the kind {kind}; forwards of that kind stand in the service `{kind}`, as {kind}:{method}"
    )]
    Forward {
        /// The service.
        service: String,
        /// The method.
        method: String,
        /// Its kind.
        kind: CallKind,
    },
    /// Names that dialback keeps for itself.
    #[error("the service name {0} is taken: dialback's own services start with dialback.")]
    Reserved(String),
    /// A service of RPC methods under the name of a kind of forwards.
    #[error("the service name {0} is reserved for forwards; give the service another name")]
    ReservedForForwards(String),
    /// A method was described that is not there.
    #[error(
        "{service}/{method} is described and has no handler; is the name the one under which it was added?"
    )]
    DescribedOnly {
        /// The service.
        service: String,
        /// The method.
        method: String,
    },
    /// A description or a schema is too long. It names which.
    #[error("{0}; shorten it")]
    TooLong(String),
    /// All of them together do not fit a registration.
    #[error("the services do not fit one registration: {0}; host fewer, or say less of them")]
    TooMuch(String),
}

/// All hosted methods, by name.
pub(crate) struct Services {
    methods: HashMap<MethodPath, Method>,
    wholes: HashMap<String, Whole>,
    infos: Vec<ServiceInfo>,
}

impl Services {
    /// Checks and joins services. Two services of one name are one service.
    pub(crate) fn new(services: Vec<Service>) -> Result<Self, ServiceError> {
        for service in &services {
            let name: ServiceName = service.name.parse()?;
            let has_rpc = service.whole.is_some()
                || service.methods.iter().any(|(_, method)| !method.kind.is_forward());
            if name.is_of_nodes() {
                return Err(ServiceError::Reserved(service.name.clone()));
            }
            if name.is_of_forwards() && has_rpc {
                return Err(ServiceError::ReservedForForwards(service.name.clone()));
            }
        }
        Self::with_reserved(services)
    }

    /// The same, for dialback's own services.
    pub(crate) fn with_reserved(services: Vec<Service>) -> Result<Self, ServiceError> {
        let (mut found, mut wholes) = (HashMap::new(), HashMap::new());
        let mut listed: BTreeMap<(String, bool), Listed> = BTreeMap::new();
        for Service { name: service, methods, description, described, whole } in services {
            let parsed: ServiceName = service.parse()?;
            let key = (service.clone(), methods.iter().any(|(_, method)| method.kind.is_forward()));
            if (!key.1 && wholes.contains_key(&service))
                || (whole.is_some() && listed.contains_key(&key))
            {
                return Err(ServiceError::TwiceWhole(service));
            }
            let listed = listed.entry(key).or_default();
            if let Some(whole) = whole {
                listed.methods.extend(whole.infos()?);
                wholes.insert(service, whole);
            }
            for (name, method) in methods {
                let path = path(&parsed, &name, method.kind)?;
                listed.methods.push(MethodInfo::new(name, method.kind));
                if found.insert(path.clone(), method).is_some() {
                    return Err(ServiceError::Twice(path));
                }
            }
            listed.describe(&parsed, description, described)?;
        }
        let infos: Vec<_> = listed.into_iter().map(info).collect();
        match infos.iter().find_map(ServiceInfo::too_long) {
            Some(what) => Err(ServiceError::TooLong(what)),
            None => Ok(Self { methods: found, wholes, infos }),
        }
    }

    /// Whether an agent can register all of them.
    pub(crate) fn expect_registrable(&self) -> Result<(), ServiceError> {
        expect_registrable(&self.infos)
            .map_err(|error: WireError| ServiceError::TooMuch(error.to_string()))
    }

    /// Who answers a method, if it is called as what it is.
    ///
    /// # Errors
    /// `UNIMPLEMENTED`, not executed, saying which half of the name is unknown, or of which kind
    /// the method is.
    pub(crate) fn find(&self, path: &MethodPath, kind: CallKind) -> Result<&SharedHandler, Status> {
        // A forward is of no service, also where one has the name of its kind.
        let whole = self.wholes.get(path.service()).filter(|_| !path.is_forward());
        if let Some(whole) = whole {
            return whole.find(path, kind);
        }
        let method = self.named(path)?;
        if method.kind == kind {
            return Ok(&method.handler);
        }
        let text = format!("{path} is of the kind {}, and was called as {kind}", method.kind);
        Err(Status::not_executed(Code::Unimplemented, text))
    }

    fn named(&self, method: &MethodPath) -> Result<&Method, Status> {
        self.methods.get(method.as_str()).ok_or_else(|| {
            if method.is_forward() {
                let text = format!("no forward {method} is hosted here");
                return Status::not_executed(Code::Unimplemented, text);
            }
            let has_service = self.infos.iter().any(|info| info.name == method.service());
            let text = if has_service {
                format!("the service {} has no method {}", method.service(), method.method())
            } else {
                format!("no service {} is hosted here", method.service())
            };
            Status::not_executed(Code::Unimplemented, text)
        })
    }

    /// What is hosted, sorted by name.
    pub(crate) fn infos(&self) -> &[ServiceInfo] {
        &self.infos
    }
}

/// A service as it comes together from one or several of its name.
#[derive(Default)]
struct Listed {
    description: String,
    methods: Vec<MethodInfo>,
}

impl Listed {
    fn describe(
        &mut self,
        service: &ServiceName,
        description: String,
        described: Vec<(String, Description)>,
    ) -> Result<(), ServiceError> {
        if !description.is_empty() {
            self.description = description;
        }
        for (method, description) in described {
            let mut named = self.methods.iter_mut().filter(|info| info.name == method).peekable();
            if named.peek().is_none() {
                let service = service.to_string();
                return Err(ServiceError::DescribedOnly { service, method });
            }
            named.for_each(|info| description.clone().into_info(info));
        }
        Ok(())
    }
}

/// A service's methods, or the forwards of one kind.
fn info(((name, _), Listed { description, mut methods }): ((String, bool), Listed)) -> ServiceInfo {
    methods.sort_by(|one, other| one.name.cmp(&other.name));
    ServiceInfo { description, ..ServiceInfo::new(name, methods) }
}

/// What a method is called by.
fn path(service: &ServiceName, name: &str, kind: CallKind) -> Result<MethodPath, ServiceError> {
    if !kind.is_forward() {
        return Ok(MethodPath::new(service, &name.parse::<MethodName>()?));
    }
    if service.as_str() != kind.as_str() {
        let (service, method) = (service.to_string(), name.to_owned());
        return Err(ServiceError::Forward { service, method, kind });
    }
    Ok(format!("{kind}:{name}").parse()?)
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.infos).finish()
    }
}

/// For the contract macro: a service whose name is an identifier.
#[doc(hidden)]
pub fn new_service(name: &str) -> Service {
    Service::new(name)
}

/// For the contract macro: as [`Service::method`].
#[doc(hidden)]
pub fn add_method<F, T, R, Fut>(service: Service, name: &str, function: F) -> Service
where
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    service.method(name, function)
}

/// For the contract macro: as [`Service::server_stream`].
#[doc(hidden)]
pub fn add_server_stream<F, T, R, Fut>(service: Service, name: &str, function: F) -> Service
where
    F: Fn(T, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    service.server_stream(name, function)
}

/// For the contract macro: as [`Service::client_stream`].
#[doc(hidden)]
pub fn add_client_stream<F, T, R, Fut>(service: Service, name: &str, function: F) -> Service
where
    F: Fn(Inbound<T>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    service.client_stream(name, function)
}

/// For the contract macro: as [`Service::bidirectional`].
#[doc(hidden)]
pub fn add_bidirectional<F, T, R, Fut>(service: Service, name: &str, function: F) -> Service
where
    F: Fn(Inbound<T>, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    service.bidirectional(name, function)
}

/// For the contract macro: both names are identifiers, so they always join.
#[doc(hidden)]
pub fn method_path(service: &str, method: &str) -> MethodPath {
    #[expect(
        clippy::expect_used,
        reason = "Rust's identifiers in ASCII are identifiers here; others fail at the first call"
    )]
    format!("{service}/{method}").parse().expect("a contract's names are ASCII identifiers")
}

/// A request for tests of handlers.
#[cfg(test)]
pub(crate) fn request(method: &str, message: bytes::Bytes) -> crate::call::Request {
    use crate::call::{Body, CallMeta, Request, Requester, Target};
    let (method, call_id) =
        (method.parse().expect("a method"), crate::name::CallId::from_bytes([0; 16]));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    Request {
        meta: CallMeta::new(method, CallKind::Unary, Target::Here, call_id, deadline),
        requester: Requester::Verified("caller/test".parse().expect("a name")),
        body: Body::Message(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        status::Outcome,
        wire::{decode_value, encode_value},
    };

    fn hello() -> Service {
        Service::new("HelloService").method("Hello", |name: String, _: Context| async move {
            if name.is_empty() {
                Err(Status::not_executed(Code::NotFound, "nobody"))
            } else {
                Ok(format!("hello:{name}"))
            }
        })
    }

    async fn call(method: &str, message: bytes::Bytes) -> Result<String, Status> {
        let services = Services::new(vec![hello()]).expect("services");
        let request = request(method, message);
        let reply = services
            .find(&request.meta.method, CallKind::Unary)?
            .clone()
            .call_boxed(request)
            .await?;
        Ok(decode_value(reply.message()?).expect("a text"))
    }

    #[tokio::test]
    async fn a_method_answers_and_unknown_ones_are_not_executed() {
        let message = encode_value("x").expect("encodes");
        assert_eq!(call("HelloService/Hello", message.clone()).await, Ok("hello:x".into()));
        for unknown in ["HelloService/Bye", "Other/Hello"] {
            let status = call(unknown, message.clone()).await.expect_err("unknown");
            assert_eq!(
                (status.code(), status.outcome()),
                (Code::Unimplemented, Outcome::NotExecuted)
            );
        }
    }

    #[tokio::test]
    async fn whatever_a_handler_returns_is_an_app_error() {
        let status = call("HelloService/Hello", encode_value("").expect("encodes"))
            .await
            .expect_err("an error");
        assert_eq!((status.code(), status.outcome()), (Code::NotFound, Outcome::AppError));
    }

    #[tokio::test]
    async fn a_message_that_does_not_decode_is_not_executed() {
        let status = call("HelloService/Hello", encode_value(&7).expect("encodes"))
            .await
            .expect_err("an error");
        assert_eq!(
            (status.code(), status.outcome()),
            (Code::InvalidArgument, Outcome::NotExecuted)
        );
    }

    /// A service that is answered as a whole, with these methods.
    fn whole(methods: Option<&[&str]>) -> Service {
        let methods = methods.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let kinds = [CallKind::Unary, CallKind::ServerStream];
        Service::whole("Whole", kinds, methods, Silent)
    }

    /// Answers nothing.
    struct Silent;

    impl DynHandler for Silent {
        fn call_boxed(self: Arc<Self>, _: crate::call::Request) -> crate::call::ReplyFuture {
            Box::pin(async { Ok(crate::call::Reply::default()) })
        }
    }

    #[test]
    fn a_whole_service_answers_any_method_in_its_shapes_and_named_ones_only_if_some_are_named() {
        let found = |methods: Option<&[&str]>, path: &str, kind| {
            let services = Services::new(vec![whole(methods), hello()]).expect("services");
            let path = path.parse().expect("a method");
            services.find(&path, kind).map(|_| ()).map_err(|status| status.message().to_owned())
        };
        for kind in [CallKind::Unary, CallKind::ServerStream] {
            assert_eq!(found(None, "Whole/Anything", kind), Ok(()));
            assert_eq!(found(Some(&["Known"]), "Whole/Known", kind), Ok(()));
            let fault = found(Some(&["Known"]), "Whole/Other", kind).expect_err("not named");
            assert_eq!(fault, "the service Whole has no method Other");
        }
        let fault = found(None, "Whole/X", CallKind::Bidirectional).expect_err("another shape");
        assert!(fault.contains("takes unary or server_stream calls"), "{fault}");
        assert_eq!(found(None, "HelloService/Hello", CallKind::Unary), Ok(()));
    }

    #[test]
    fn a_whole_service_is_listed_with_an_asterisk_or_its_names_once_for_each_shape() {
        let listed = |methods| {
            let services = Services::new(vec![whole(methods)]).expect("services");
            let infos = services.infos()[0].methods.clone();
            infos.into_iter().map(|info| (info.name, info.kind)).collect::<Vec<_>>()
        };
        let in_both = |name: &str| {
            [CallKind::Unary, CallKind::ServerStream].map(|kind| (name.to_owned(), kind))
        };
        assert_eq!(listed(None), in_both("*"));
        assert_eq!(listed(Some(&["B", "A", "A"])), [in_both("A"), in_both("B")].concat());
    }

    #[test]
    fn nothing_else_is_hosted_under_the_name_of_a_whole_service() {
        let named = || Service::new("Whole").raw_method("X", Silent);
        for twice in [[whole(None), named()], [named(), whole(None)], [whole(None), whole(None)]] {
            let fault = Services::new(twice.into()).map(|_| ()).expect_err("twice");
            assert_eq!(fault, ServiceError::TwiceWhole("Whole".into()));
        }
        assert!(
            Services::new(vec![named(), Service::new("Whole").raw_method("Y", Silent)]).is_ok()
        );
        assert!(matches!(Services::new(vec![whole(Some(&["a-b"]))]), Err(ServiceError::Name(_))));
    }

    #[test]
    fn the_name_of_a_kind_of_forwards_is_for_forwards_alone() {
        let kinds = [CallKind::Unary];
        let forward = || Service::new("tcp").raw_method_of(CallKind::Tcp, "db", Silent);
        let whole = |name: &str| Service::whole(name, kinds, None, Silent);
        for bad in [whole("tcp"), whole("http"), forward().raw_method("X", Silent)] {
            let fault = Services::new(vec![forward(), bad]).map(|_| ()).expect_err("reserved");
            assert!(matches!(fault, ServiceError::ReservedForForwards(_)), "{fault}");
        }
        let services = Services::new(vec![forward(), whole("tcpX")]).expect("services");
        let finds =
            |path: &str, kind| services.find(&path.parse().expect("a method"), kind).is_ok();
        assert!(finds("tcp:db", CallKind::Tcp) && finds("tcpX/db", CallKind::Unary));
        assert!(!finds("tcp/db", CallKind::Tcp) && !finds("tcp:db", CallKind::Unary));
    }

    #[test]
    fn what_is_said_of_a_service_is_listed_with_it() {
        let described = hello()
            .describe("For greeting.")
            .describe_method("Hello", Description::new("Greets.").request("1").reply("2"));
        // Two of one name are one service, and the second says nothing.
        let more =
            Service::new("HelloService").method("Bye", |(): (), _: Context| async { Ok(()) });
        let services = Services::new(vec![described, more]).expect("services");
        let [info] = services.infos() else { panic!("{services:?}") };
        assert_eq!((info.description.as_str(), info.methods.len()), ("For greeting.", 2));
        assert_eq!(info.methods[0], MethodInfo::new("Bye", CallKind::Unary));
        let hello = &info.methods[1];
        assert_eq!((hello.description.as_str(), hello.kind), ("Greets.", CallKind::Unary));
        assert_eq!([&hello.request_schema, &hello.reply_schema], ["1", "2"]);
        assert_eq!(services.expect_registrable(), Ok(()));
    }

    #[test]
    fn what_is_said_of_nothing_or_at_too_great_length_is_reported() {
        let refused = |service| Services::new(vec![service]).expect_err("refused").to_string();
        let nobody = hello().describe_method("Hallo", "Greets.");
        assert!(refused(nobody).starts_with("HelloService/Hallo is described"));
        let long = hello().describe("x".repeat(1025));
        assert!(refused(long).contains("the description of HelloService has 1025 bytes"));
        let methods = (0..70).fold(Service::new("S"), |service, n| {
            let schema = Description::default().request("x".repeat(4096));
            let name = format!("M{n}");
            service
                .method(&name, |(): (), _: Context| async { Ok(()) })
                .describe_method(name, schema)
        });
        let services = Services::new(vec![methods]).expect("good for a node");
        let told = services.expect_registrable().expect_err("too much").to_string();
        assert!(told.contains("one registration"), "{told}");
    }

    #[test]
    fn bad_names_and_methods_added_twice_are_reported() {
        assert!(Services::new(vec![hello()]).is_ok());
        assert!(matches!(Services::new(vec![hello(), hello()]), Err(ServiceError::Twice(_))));
        assert!(matches!(Services::new(vec![Service::new("a-b")]), Err(ServiceError::Name(_))));
        for name in ["dialback.v1.X", "dialback"] {
            let refused = Services::new(vec![Service::new(name)]);
            assert!(matches!(refused, Err(ServiceError::Reserved(_))), "{name}");
        }
        assert!(Services::new(vec![Service::new("dialbacks.X")]).is_ok());
    }

    #[tokio::test]
    async fn a_forward_stands_in_the_service_of_its_kind_and_apart_from_methods() {
        let raw = |service: &str, kind, name: &str| {
            Service::new(service).raw_method_of(
                kind,
                name,
                TypedMethod::new(|(): (), _| async { Ok(()) }),
            )
        };
        let both = vec![raw("tcp", CallKind::Tcp, "db-1"), raw("S", CallKind::Unary, "db")];
        let services = Services::new(both).expect("services");
        let find = |text: &str, kind| services.find(&text.parse().expect("a method"), kind).is_ok();
        assert!(find("tcp:db-1", CallKind::Tcp) && find("S/db", CallKind::Unary));
        assert!(!find("tcp:db-1", CallKind::Unary) && !find("tcp/db", CallKind::Tcp));
        assert!(!find("tcp:db", CallKind::Tcp) && !find("http:db-1", CallKind::Tcp));
        let kinds: Vec<_> = services.infos().iter().map(|info| info.methods[0].kind).collect();
        assert_eq!(kinds, [CallKind::Unary, CallKind::Tcp]);
        for bad in [raw("x", CallKind::Tcp, "db"), raw("http", CallKind::Tcp, "db")] {
            assert!(matches!(Services::new(vec![bad]), Err(ServiceError::Forward { .. })));
        }
        let bad = Services::new(vec![raw("tcp", CallKind::Tcp, "a_b")]);
        assert!(matches!(bad, Err(ServiceError::Name(_))));
    }
}
