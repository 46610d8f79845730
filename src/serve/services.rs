//! Services of an agent or a node: checked at the start, looked up by calls.

use super::{Description, Service, ServiceError, fallback::Fallback, service::Method};
use crate::{
    call::SharedHandler,
    health::ServiceHealth,
    name::{MethodName, MethodPath, ServiceName},
    status::{Code, Status},
    wire::{CallKind, MethodInfo, ServiceInfo, WireError, expect_registrable},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// All hosted methods, by name.
#[derive(Default)]
pub(crate) struct Services {
    methods: HashMap<MethodPath, Method>,
    fallbacks: HashMap<String, Fallback>,
    infos: Arc<[ServiceInfo]>,
    /// By the names that host rules have.
    health: BTreeMap<String, Arc<ServiceHealth>>,
}

impl Services {
    /// Checks and merges services. Two services of one name become one.
    pub(crate) fn new(services: Vec<Service>) -> Result<Self, ServiceError> {
        for service in &services {
            let name: ServiceName = service.name.parse()?;
            let has_rpc = service.fallback.is_some()
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
        let (mut found, mut fallbacks) = (HashMap::new(), HashMap::new());
        let mut listed: BTreeMap<(String, bool), Listed> = BTreeMap::new();
        let mut health = BTreeMap::new();
        for Service { name: service, methods, description, described, fallback, check } in services
        {
            let parsed: ServiceName = service.parse()?;
            let key = (service.clone(), methods.iter().any(|(_, method)| method.kind.is_forward()));
            if (!key.1 && fallbacks.contains_key(&service))
                || (fallback.is_some() && listed.contains_key(&key))
            {
                return Err(ServiceError::FallbackNotAlone(service));
            }
            let listed = listed.entry(key).or_default();
            if let Some(fallback) = fallback {
                listed.methods.extend(fallback.infos()?);
                health.insert(service.clone(), check);
                fallbacks.insert(service, fallback);
            } else if let (Some(check), [(name, method)]) = (check, &methods[..]) {
                let hosted = path(&parsed, name, method.kind)?.hosted().to_owned();
                health.insert(hosted, Some(check));
            }
            for (name, method) in methods {
                let path = path(&parsed, &name, method.kind)?;
                health.entry(path.hosted().to_owned()).or_insert(None);
                listed.methods.push(MethodInfo::new(name, method.kind));
                if found.insert(path.clone(), method).is_some() {
                    return Err(ServiceError::Twice(path));
                }
            }
            listed.describe(&parsed, description, described)?;
        }
        let infos: Arc<[_]> = listed.into_iter().map(info).collect();
        match infos.iter().find_map(ServiceInfo::too_long) {
            Some(what) => Err(ServiceError::TooLong(what)),
            None => {
                let health = health
                    .into_iter()
                    .map(|(name, check)| (name, Arc::new(ServiceHealth::with_check(check))));
                Ok(Self { methods: found, fallbacks, infos, health: health.collect() })
            }
        }
    }

    /// Checks that all of them fit one registration of an agent.
    pub(crate) fn expect_registrable(&self) -> Result<(), ServiceError> {
        expect_registrable(&self.infos)
            .map_err(|error: WireError| ServiceError::TooMuch(error.to_string()))
    }

    /// Finds the handler of a method that is called as its kind. Else `UNIMPLEMENTED`, not
    /// executed, with the unknown half of the name, or the kind of the method.
    pub(crate) fn find(&self, path: &MethodPath, kind: CallKind) -> Result<&SharedHandler, Status> {
        // A forward is not part of a service, even if one has the name of its kind.
        let fallback = self.fallbacks.get(path.service()).filter(|_| !path.is_forward());
        if let Some(fallback) = fallback {
            return fallback.find(path, kind);
        }
        let method = self.named(path)?;
        if method.kind == kind {
            return Ok(&method.handler);
        }
        let text = format!("{path} is of the kind {}, and was called as {kind}", method.kind);
        Err(Status::not_executed(Code::Unimplemented, text))
    }

    fn named(&self, method: &MethodPath) -> Result<&Method, Status> {
        // The tools of an MCP server are not registered.
        let registered = method.registered();
        self.methods.get(registered).ok_or_else(|| {
            if method.is_forward() {
                let text = format!("no forward {registered} is hosted here");
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

    /// Health of the service of a method; `None` if none is hosted here.
    pub(crate) fn health_of(&self, method: &MethodPath) -> Option<&Arc<ServiceHealth>> {
        self.health.get(method.hosted())
    }

    /// Health of all services, by the names that host rules have.
    pub(crate) fn health(&self) -> impl Iterator<Item = (&String, &Arc<ServiceHealth>)> {
        self.health.iter()
    }

    /// Takes over what is known of services that are hosted already.
    pub(crate) fn keep_health_of(&mut self, before: &Self) {
        for (name, health) in &mut self.health {
            let known = before.health.get(name).filter(|known| known.has_check_of(health));
            if let Some(known) = known {
                *health = known.clone();
            }
        }
    }

    /// All hosted services, sorted by name.
    pub(crate) const fn infos(&self) -> &Arc<[ServiceInfo]> {
        &self.infos
    }
}

/// A service merged from those of its name.
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

fn path(service: &ServiceName, name: &str, kind: CallKind) -> Result<MethodPath, ServiceError> {
    if !kind.is_forward() {
        return Ok(MethodPath::new(service, &name.parse::<MethodName>()?));
    }
    if !kind.calls_forwards_of(service.as_str()) {
        let (service, method) = (service.to_string(), name.to_owned());
        return Err(ServiceError::Forward { service, method, kind });
    }
    Ok(MethodPath::registered_forward(service.as_str(), name)?)
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.infos).finish()
    }
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
        call::{Context, DynHandler},
        health::{CheckFuture, HealthCheck},
        status::Outcome,
        wire::{decode_value, encode_value},
    };
    use std::sync::Arc;

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
    async fn an_error_of_a_handler_is_an_app_error() {
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
    fn fallback(methods: Option<&[&str]>) -> Service {
        let methods = methods.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let kinds = [CallKind::Unary, CallKind::ServerStream];
        Service::fallback("Fallback", kinds, methods, Silent)
    }

    /// Answers nothing.
    struct Silent;

    impl DynHandler for Silent {
        fn call_boxed(self: Arc<Self>, _: crate::call::Request) -> crate::call::ReplyFuture {
            Box::pin(async { Ok(crate::call::Reply::default()) })
        }
    }

    #[test]
    fn a_fallback_service_answers_any_method_or_the_named_ones_in_its_kinds() {
        let found = |methods: Option<&[&str]>, path: &str, kind| {
            let services = Services::new(vec![fallback(methods), hello()]).expect("services");
            let path = path.parse().expect("a method");
            services.find(&path, kind).map(|_| ()).map_err(|status| status.message().to_owned())
        };
        for kind in [CallKind::Unary, CallKind::ServerStream] {
            assert_eq!(found(None, "Fallback/Anything", kind), Ok(()));
            assert_eq!(found(Some(&["Known"]), "Fallback/Known", kind), Ok(()));
            let fault = found(Some(&["Known"]), "Fallback/Other", kind).expect_err("not named");
            assert_eq!(fault, "the service Fallback has no method Other");
        }
        let fault = found(None, "Fallback/X", CallKind::Bidirectional).expect_err("another shape");
        assert!(fault.contains("takes unary or server_stream calls"), "{fault}");
        assert_eq!(found(None, "HelloService/Hello", CallKind::Unary), Ok(()));
    }

    #[test]
    fn a_fallback_service_is_listed_as_an_asterisk_or_its_names_once_per_kind() {
        let listed = |methods| {
            let services = Services::new(vec![fallback(methods)]).expect("services");
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
    fn nothing_else_is_hosted_under_the_name_of_a_fallback_service() {
        let named = || Service::new("Fallback").raw_method("X", Silent);
        for twice in
            [[fallback(None), named()], [named(), fallback(None)], [fallback(None), fallback(None)]]
        {
            let fault = Services::new(twice.into()).map(|_| ()).expect_err("twice");
            assert_eq!(fault, ServiceError::FallbackNotAlone("Fallback".into()));
        }
        assert!(
            Services::new(vec![named(), Service::new("Fallback").raw_method("Y", Silent)]).is_ok()
        );
        assert!(matches!(
            Services::new(vec![fallback(Some(&["a-b"]))]),
            Err(ServiceError::Name(_))
        ));
    }

    #[test]
    fn the_name_of_a_kind_of_forwards_is_for_forwards_alone() {
        let kinds = [CallKind::Unary];
        let forward = || Service::new("tcp").raw_method_of(CallKind::Tcp, "db", Silent);
        let fallback = |name: &str| Service::fallback(name, kinds, None, Silent);
        for bad in [fallback("tcp"), fallback("http"), forward().raw_method("X", Silent)] {
            let fault = Services::new(vec![forward(), bad]).map(|_| ()).expect_err("reserved");
            assert!(matches!(fault, ServiceError::ReservedForForwards(_)), "{fault}");
        }
        let services = Services::new(vec![forward(), fallback("tcpX")]).expect("services");
        let finds =
            |path: &str, kind| services.find(&path.parse().expect("a method"), kind).is_ok();
        assert!(finds("tcp:db", CallKind::Tcp) && finds("tcpX/db", CallKind::Unary));
        assert!(!finds("tcp/db", CallKind::Tcp) && !finds("tcp:db", CallKind::Unary));
    }

    #[test]
    fn a_fallback_service_of_the_name_of_a_kind_answers_no_forward() {
        let forward = Service::new("tcp").raw_method_of(CallKind::Tcp, "db", Silent);
        let fallback = Service::fallback("tcp", [CallKind::Tcp], Some(Vec::new()), Silent);
        let services = Services::with_reserved(vec![forward, fallback]).expect("services");
        let found = services.find(&"tcp:db".parse().expect("a method"), CallKind::Tcp);
        assert!(found.is_ok());
    }

    #[test]
    fn descriptions_are_listed_with_their_service() {
        let described = hello()
            .describe("For greeting.")
            .describe_method("Hello", Description::new("Greets.").request("1").reply("2"));
        // Two of one name are one service, and the second adds nothing.
        let more =
            Service::new("HelloService").method("Bye", |(): (), _: Context| async { Ok(()) });
        let services = Services::new(vec![described, more]).expect("services");
        let [info] = &services.infos()[..] else { panic!("{services:?}") };
        assert_eq!((info.description.as_str(), info.methods.len()), ("For greeting.", 2));
        assert_eq!(info.methods[0], MethodInfo::new("Bye", CallKind::Unary));
        let hello = &info.methods[1];
        assert_eq!((hello.description.as_str(), hello.kind), ("Greets.", CallKind::Unary));
        assert_eq!([&hello.request_schema, &hello.reply_schema], ["1", "2"]);
        assert_eq!(services.expect_registrable(), Ok(()));
    }

    #[test]
    fn description_of_an_unknown_method_or_over_its_limit_is_reported() {
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
        let text = services.expect_registrable().expect_err("too much").to_string();
        assert!(text.contains("one registration"), "{text}");
    }

    #[test]
    fn what_is_known_of_a_service_stays_while_it_is_checked_in_the_same_way() {
        let forward = |name: &str| {
            let run = || -> CheckFuture { Box::pin(async { Ok(()) }) };
            let check = HealthCheck { run: Box::new(run), is_active: false };
            Service::new("tcp").raw_method_of(CallKind::Tcp, name, Silent).checked_by(check)
        };
        let (same, other) = (forward("same"), forward("other"));
        let services = |all: Vec<Service>| Services::new(all).expect("services");
        let before = services(vec![same.clone(), other, hello()]);
        let mut next = services(vec![same, forward("other"), forward("new"), hello()]);
        next.keep_health_of(&before);
        let is_kept = |path: &str| {
            let path = path.parse().expect("a method");
            let known = before.health_of(&path);
            known
                .is_some_and(|known| next.health_of(&path).is_some_and(|it| Arc::ptr_eq(it, known)))
        };
        assert!(is_kept("tcp:same") && is_kept("HelloService/Hello"));
        assert!(!is_kept("tcp:other") && !is_kept("tcp:new"));
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
            Service::new(service).raw_method_of(kind, name, Silent)
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

    #[test]
    fn a_call_of_a_tool_is_answered_by_its_server() {
        let server = |name| Service::new("mcp").raw_method_of(CallKind::Http, name, Silent);
        let services = Services::new(vec![server("jira"), server("acme.git")]).expect("services");
        let find = |text: &str, kind| {
            let path = text.parse().expect("a method");
            services.find(&path, kind).map(|_| ()).map_err(|status| status.message().to_owned())
        };
        for path in ["mcp:jira", "mcp:jira/create_issue", "mcp:jira/a/b", "mcp:acme.git/client"] {
            assert_eq!(find(path, CallKind::Http), Ok(()), "{path}");
        }
        let fault = find("mcp:other/x", CallKind::Http).expect_err("another server");
        assert_eq!(fault, "no forward mcp:other is hosted here");
        assert!(
            find("http:jira", CallKind::Http).is_err() && find("mcp:jira", CallKind::Tcp).is_err()
        );
        let paths: Vec<_> = services.infos()[0].methods.iter().map(|it| it.path("mcp")).collect();
        assert_eq!(paths, ["mcp:acme.git", "mcp:jira"]);
        for (service, kind, name) in [
            ("mcp", CallKind::Tcp, "jira"),
            ("S", CallKind::Http, "jira"),
            ("tcp", CallKind::Http, "jira"),
        ] {
            let bad = Services::new(vec![Service::new(service).raw_method_of(kind, name, Silent)]);
            assert!(matches!(bad, Err(ServiceError::Forward { .. })), "{service} {kind}");
        }
        for name in ["jira/create_issue", "*", "Jira"] {
            assert!(matches!(Services::new(vec![server(name)]), Err(ServiceError::Name(_))));
        }
        let rpc = Services::new(vec![Service::new("mcp").raw_method("X", Silent)]);
        assert!(matches!(rpc, Err(ServiceError::ReservedForForwards(_))));
    }
}
