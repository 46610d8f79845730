//! Calls through the HTTP gateway: HTTP/1.1 and JSON, a connection for each call in flight.

use super::{gateway_url::GatewayUrl, load::Way, tally::Traffic};
use crate::exit::chain;
use bytes::Bytes;
use dialback::{Code, GatewayClientTls, MethodPath, Name, Outcome, Status};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{Connection, SendRequest, handshake},
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{
    error::Error,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Idle time after which a connection is replaced: a gateway closes it after 8 s and announces 6.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Time for an answer beyond the timeout of the call, which the gateway keeps itself.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Bytes of an error's body that are kept.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What each call of a run does.
pub(super) struct GatewayCall {
    pub(super) url: GatewayUrl,
    pub(super) tls: Option<GatewayClientTls>,
    path: Uri,
    headers: HeaderMap,
    message: Bytes,
    timeout: Duration,
    kept: KeptConnections,
}

impl GatewayCall {
    /// A call of an agent, or of any, with this message in JSON.
    pub(super) fn new(
        (url, tls): (GatewayUrl, Option<GatewayClientTls>),
        (agent, method): (Option<&Name>, &MethodPath),
        token: Option<&str>,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Self, String> {
        let (prefix, method) = (&url.prefix, method.as_str());
        let path = match agent {
            Some(agent) => format!("{prefix}/v1/agents/{agent}/{method}"),
            None => format!("{prefix}/v1/services/{method}"),
        };
        let path = path.parse().map_err(|why| format!("{path} is not a path of a URL: {why}"))?;
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| "the token is not printable ASCII".to_owned())
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(&url.authority)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("connect-timeout-ms", HeaderValue::from(timeout_ms(timeout)));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, value(&format!("Bearer {token}"))?);
        }
        Ok(Self { url, tls, path, headers, message, timeout, kept: KeptConnections::default() })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.message.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Ways for this number of calls in flight.
    pub(super) fn ways(self, in_flight: usize) -> Vec<GatewayWay> {
        vec![GatewayWay(Arc::new(self)); in_flight]
    }
}

/// The header's limit is ten digits.
fn timeout_ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, 9_999_999_999)
}

/// One slot's way through the gateway.
#[derive(Clone)]
pub(super) struct GatewayWay(Arc<GatewayCall>);

trait HttpStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> HttpStream for S {}

/// Reads and writes a connection while it is polled.
type Driver = Connection<TokioIo<Box<dyn HttpStream>>, Full<Bytes>>;

/// A connection between two calls. The slot drives it itself while it waits: a task for each would
/// cost two wake-ups a call.
struct KeptConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    used_at: Instant,
}

impl KeptConnection {
    async fn over(stream: Box<dyn HttpStream>) -> hyper::Result<Self> {
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), used_at: Instant::now() })
    }
}

/// Connections between two calls, the one used last at the end. All slots share them and take the
/// last, so that a low rate needs few of them and leaves none idle between its calls.
#[derive(Default)]
struct KeptConnections(Mutex<Vec<KeptConnection>>);

impl KeptConnections {
    /// Takes out the connection used last, and drops all if that is too old: so are the others.
    fn take(&self, now: Instant) -> Option<KeptConnection> {
        let mut kept = self.lock();
        let last = kept.pop()?;
        if now.saturating_duration_since(last.used_at) < IDLE_MAX {
            return Some(last);
        }
        kept.clear();
        None
    }

    fn put(&self, connection: KeptConnection) {
        self.lock().push(connection);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KeptConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way for GatewayWay {
    async fn call(&mut self) -> Result<Traffic, Status> {
        let Self(call) = self;
        // Taken out: a call that fails or is cancelled leaves no connection in the middle of one.
        let kept = call.kept.take(Instant::now());
        let exchanged = async {
            let connection = match kept {
                Some(connection) => connection,
                None => call.connect().await?,
            };
            call.exchange(connection).await
        };
        let wait_max = call.timeout.saturating_add(ANSWER_WAIT);
        let exchanged = tokio::time::timeout(wait_max, exchanged).await;
        let (answer, kept) = exchanged.unwrap_or_else(|_elapsed| {
            Err(Status::unknown(Code::DeadlineExceeded, "no answer from the gateway in time"))
        })?;
        kept.into_iter().for_each(|connection| call.kept.put(connection));
        let received = answer.into_result()?;
        Ok(Traffic::unary(call.message.len(), received))
    }
}

impl GatewayCall {
    async fn connect(&self) -> Result<KeptConnection, Status> {
        let GatewayUrl { host, port, .. } = &self.url;
        let failed = |what: &str, why: &dyn Error| {
            let text = format!("cannot {what} the gateway at {}: {}", self.url, chain(why));
            Status::not_executed(Code::Unavailable, text)
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|why| failed("connect to", &why))?;
        stream.set_nodelay(true).map_err(|why| failed("connect to", &why))?;
        let stream: Box<dyn HttpStream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let shaken = tls.connect(stream).await;
                Box::new(shaken.map_err(|why| failed("complete the TLS handshake with", &why))?)
            }
        };
        KeptConnection::over(stream).await.map_err(|why| failed("speak HTTP with", &why))
    }

    /// Sends a request and reads the answer. Returns the connection if it can be used again.
    async fn exchange(
        &self,
        connection: KeptConnection,
    ) -> Result<(HttpAnswer, Option<KeptConnection>), Status> {
        let KeptConnection { mut sender, mut driver, .. } = connection;
        let (answer, is_open) = {
            let answered = pin!(HttpAnswer::of(&mut sender, self.request()));
            drive(driver.as_mut(), answered).await
        };
        let answer = answer.map_err(|why| {
            let why = chain(&why);
            let text = format!("the connection to the gateway at {} failed: {why}", self.url);
            Status::unknown(Code::Unavailable, text)
        })?;
        let used_at = Instant::now();
        let kept = KeptConnection { sender, driver, used_at };
        let is_kept = is_open && !answer.closes;
        Ok((answer, is_kept.then_some(kept)))
    }
}

/// Awaits an answer while the connection is driven. Returns also whether the connection is open.
async fn drive<T>(
    mut driver: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    mut answered: Pin<&mut impl Future<Output = T>>,
) -> (T, bool) {
    tokio::select! {
        biased;
        answer = answered.as_mut() => return (answer, true),
        // Its error, if there is one, is in the answer too.
        _ended = driver.as_mut() => {}
    }
    (answered.await, false)
}

/// The answer to a request.
struct HttpAnswer {
    status: u16,
    outcome: Option<Outcome>,
    closes: bool,
    received: usize,
    /// Body of an error, as far as it is kept.
    error: Vec<u8>,
}

impl HttpAnswer {
    async fn of(
        sender: &mut SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Self> {
        sender.ready().await?;
        let (mut answer, mut body) = Self::head(sender.send_request(request).await?);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            answer.received += data.len();
            if answer.status != 200 && answer.error.len() < ERROR_BYTES_MAX {
                answer.error.extend_from_slice(&data);
            }
        }
        Ok(answer)
    }

    fn head(response: Response<Incoming>) -> (Self, Incoming) {
        let (head, body) = response.into_parts();
        let outcome = head.headers.get("dialback-outcome").and_then(|value| value.to_str().ok());
        let is_close = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
        let closes = head.headers.get_all(CONNECTION).iter().any(is_close);
        let (status, outcome) = (head.status.as_u16(), outcome.and_then(outcome_of));
        (Self { status, outcome, closes, received: 0, error: Vec::new() }, body)
    }

    /// Bytes of the reply, or the failure.
    fn into_result(self) -> Result<usize, Status> {
        let Self { status, outcome, received, error, .. } = self;
        match (status, serde_json::from_slice::<ConnectFailure>(&error)) {
            (200, _) => Ok(received),
            (_, Ok(failure)) => {
                let outcome = outcome.unwrap_or(Outcome::Unknown);
                Err(Status::with_outcome(code_of(&failure.code), outcome, failure.message))
            }
            (_, Err(_)) => {
                let text = format!("HTTP status {status}, and not by a gateway of dialback");
                Err(Status::unknown(Code::Unknown, text))
            }
        }
    }
}

/// An error in Connect's format.
#[derive(Deserialize)]
struct ConnectFailure {
    code: String,
    #[serde(default)]
    message: String,
}

fn code_of(name: &str) -> Code {
    match name {
        "canceled" => Code::Cancelled,
        _ => name.to_ascii_uppercase().parse().unwrap_or(Code::Unknown),
    }
}

fn outcome_of(name: &str) -> Option<Outcome> {
    let all = [Outcome::Ok, Outcome::AppError, Outcome::NotExecuted, Outcome::Unknown];
    all.into_iter().find(|outcome| outcome.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn call(agent: Option<&str>, token: Option<&str>) -> Result<GatewayCall, String> {
        let url: GatewayUrl = "http://localhost:1/p".parse()?;
        let agent = agent.map(|name| name.parse::<Name>().expect("a name"));
        let method: MethodPath = "acme.Stock/Get".parse().expect("a method");
        let target = (agent.as_ref(), &method);
        GatewayCall::new((url, None), target, token, "1".into(), Duration::from_secs(2))
    }

    #[test]
    fn a_request_names_agent_or_service_and_carries_timeout_and_token() {
        let request = call(Some("warehouse"), Some("t")).expect("a call").request();
        assert_eq!(request.uri().path(), "/p/v1/agents/warehouse/acme.Stock/Get");
        assert_eq!(request.headers()["authorization"], "Bearer t");
        assert_eq!(request.headers()["connect-timeout-ms"], "2000");
        assert_eq!(request.headers()["host"], "localhost:1");
        let request = call(None, None).expect("a call").request();
        assert_eq!(request.uri().path(), "/p/v1/services/acme.Stock/Get");
        assert!(!request.headers().contains_key("authorization"));
        assert!(call(None, Some("a\nb")).is_err());
        assert_eq!([timeout_ms(Duration::MAX), timeout_ms(Duration::ZERO)], [9_999_999_999, 1]);
    }

    fn answer(status: u16, outcome: Option<Outcome>, error: &str) -> Result<usize, Status> {
        let error = error.as_bytes().to_vec();
        HttpAnswer { status, outcome, closes: false, received: 7, error }.into_result()
    }

    #[test]
    fn an_answer_is_a_reply_or_has_code_and_outcome() {
        assert_eq!(answer(200, Some(Outcome::Ok), "").ok(), Some(7));
        let failure = |status, outcome, body| {
            let status = answer(status, outcome, body).expect_err("a failure");
            (status.code(), status.outcome(), status.message().to_owned())
        };
        let body = r#"{"code":"permission_denied","message":"no"}"#;
        let denied = failure(403, outcome_of("not_executed"), body);
        assert_eq!(denied, (Code::PermissionDenied, Outcome::NotExecuted, "no".into()));
        let cancelled = failure(499, outcome_of("app_error"), r#"{"code":"canceled"}"#);
        assert_eq!((cancelled.0, cancelled.1), (Code::Cancelled, Outcome::AppError));
        let proxy = failure(502, None, "<html>");
        assert_eq!((proxy.0, proxy.1), (Code::Unknown, Outcome::Unknown));
        assert!(proxy.2.contains("502"), "{}", proxy.2);
    }

    /// Sends a request to a server that gives this answer, and then closes or keeps the connection.
    async fn exchange(answer: &str, closes: bool) -> Result<(HttpAnswer, bool), Status> {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        let connection = KeptConnection::over(Box::new(ours)).await.expect("a connection");
        let call = call(None, None).expect("a call");
        let serves = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n1") {
                theirs.read_buf(&mut request).await.expect("a request");
            }
            theirs.write_all(answer.as_bytes()).await.expect("written");
            (!closes).then_some(theirs)
        };
        let (exchanged, _open) = tokio::join!(call.exchange(connection), serves);
        exchanged.map(|(answer, kept)| (answer, kept.is_some()))
    }

    #[tokio::test]
    async fn a_connection_is_kept_unless_the_gateway_announces_its_end() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ndialback-outcome: ok\r\n";
        let kept = exchange(&format!("{head}\r\n\"x\""), false).await.expect("an answer");
        assert_eq!((kept.0.received, kept.0.outcome, kept.1), (3, Some(Outcome::Ok), true));
        let closing = format!("{head}connection: close\r\n\r\n\"x\"");
        let closed = exchange(&closing, true).await.expect("an answer");
        assert_eq!((closed.0.received, closed.1), (3, false));
    }

    #[tokio::test]
    async fn slots_share_connections_and_take_the_one_used_last() {
        let GatewayCall { kept, .. } = call(None, None).expect("a call");
        let began = Instant::now();
        assert!(kept.take(began).is_none());
        let put = async |used_at| {
            let (ours, _) = tokio::io::duplex(64);
            let connection = KeptConnection::over(Box::new(ours)).await.expect("a connection");
            kept.put(KeptConnection { used_at, ..connection });
        };
        put(began).await;
        put(began + IDLE_MAX / 2).await;
        let last = kept.take(began + IDLE_MAX).expect("a connection");
        assert_eq!(last.used_at, began + IDLE_MAX / 2);
        put(began).await;
        assert!(kept.take(began + IDLE_MAX).is_none(), "the last is too old");
        assert!(kept.lock().is_empty(), "the one before is closed too");
    }

    #[tokio::test]
    async fn calls_of_several_slots_one_after_the_other_use_one_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut call = call(None, None).expect("a call");
        call.url.host = "127.0.0.1".into();
        call.url.port = listener.local_addr().expect("an address").port();
        let serves = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            for _ in 0..3 {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n1") {
                    assert!(stream.read_buf(&mut request).await.expect("a request") > 0);
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
                stream.write_all(answer).await.expect("written");
            }
        };
        let calls = async {
            for mut way in call.ways(3) {
                assert_eq!(way.call().await.expect("a reply"), Traffic::unary(1, 1));
            }
        };
        tokio::join!(serves, calls);
    }

    #[tokio::test]
    async fn a_connection_that_fails_leaves_the_outcome_unknown() {
        for answer in ["nonsense\r\n\r\n", "HTTP/1.1 200", ""] {
            let failed = exchange(answer, true).await.map(|(answer, _)| answer.status);
            let status = failed.expect_err("a failure");
            assert_eq!((status.code(), status.outcome()), (Code::Unavailable, Outcome::Unknown));
        }
    }
}
