//! An HTTP client that sends any bytes, well-formed or not, and reads answers chunk by chunk.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl HttpReply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn outcome(&self) -> &str {
        self.header("dialback-outcome").unwrap_or("(none)")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// It is an error of this status, code and outcome, in Connect's format, with the headers of
    /// every answer.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str, outcome: &str) -> String {
        assert_eq!((self.status, self.outcome()), (status, outcome), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        self.expect_common_headers();
        let error = self.json();
        assert_eq!(error["code"], code, "{error}");
        error["message"].as_str().expect("a message").to_owned()
    }

    /// It has the headers of every answer.
    #[track_caller]
    pub(crate) fn expect_common_headers(&self) {
        let call_id = self.header("dialback-call-id").expect("a call id");
        assert!(call_id.len() == 32 && call_id.bytes().all(|b| b.is_ascii_hexdigit()), "{call_id}");
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
    }
}

/// A connection.
pub(crate) struct Http<S = TcpStream>(BufReader<S>);

impl Http {
    pub(crate) async fn connect(at: SocketAddr) -> Self {
        Self::over(TcpStream::connect(at).await.expect("a connection"))
    }

    /// One request on its own connection.
    pub(crate) async fn once(
        at: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpReply {
        let mut http = Self::connect(at).await;
        let close = [headers, &[("connection", "close")]].concat();
        http.request(method, path, &close, body).await;
        http.reply().await.expect("an answer")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends bytes unchanged. The other side may have closed.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let stream = self.0.get_mut();
        stream.write_all(bytes.as_ref()).await.is_ok() && stream.flush().await.is_ok()
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += "host: localhost\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat()).await;
    }

    /// The next complete answer; none if the connection ends before.
    pub(crate) async fn reply(&mut self) -> Option<HttpReply> {
        let mut reply = self.head().await?;
        while let Some(piece) = self.piece(&reply).await {
            reply.body.extend(piece);
            if reply.header("transfer-encoding").is_none() {
                break;
            }
        }
        Some(reply)
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> Option<HttpReply> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(HttpReply { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(": ").expect("a header");
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// The next chunk of an answer with this head, or all of it if it is not chunked.
    pub(crate) async fn piece(&mut self, head: &HttpReply) -> Option<Vec<u8>> {
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        let length = if is_chunked {
            usize::from_str_radix(&self.line().await?, 16).ok()?
        } else {
            head.header("content-length")?.parse().ok()?
        };
        let mut piece = vec![0; length];
        self.0.read_exact(&mut piece).await.ok()?;
        if is_chunked {
            self.line().await?;
        }
        (length > 0).then_some(piece)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Reads more bytes into the buffer. False if the connection ends before.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> bool {
        self.0.read_exact(buffer).await.is_ok()
    }

    /// Returns when the other side has closed.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        drop(self.0.read_to_end(&mut rest).await);
    }
}
