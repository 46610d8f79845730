//! The same call over HTTP/1.1 and JSON: kept connections, one for each call in flight.

use crate::load::{self, Echo};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An echo call through the HTTP gateway.
#[derive(Clone)]
struct HttpEcho {
    at: SocketAddr,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Makes calls through a gateway.
pub async fn call(at: SocketAddr) -> anyhow::Result<()> {
    load::serve(HttpEcho { at, idle: Arc::default() }).await
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl HttpEcho {
    async fn connection(&self) -> Connection {
        let idle = self.idle.lock().expect("whole").pop();
        if let Some(connection) = idle {
            return connection;
        }
        let stream = TcpStream::connect(self.at).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Connection { stream, read: Vec::new() }
    }
}

impl Echo for HttpEcho {
    fn begin(&self) {
        self.idle.lock().expect("whole").clear();
    }

    async fn echo(&self, message: &[u8]) {
        let mut connection = self.connection().await;
        let body = format!("\"{}\"", "x".repeat(message.len()));
        let request = format!(
            "POST /v1/agents/a/Bench/Say HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.stream.write_all(request.as_bytes()).await.expect("written");
        let reply = connection.reply().await;
        assert_eq!(reply.len(), body.len());
        self.idle.lock().expect("whole").push(connection);
    }
}

impl Connection {
    /// The body of the next answer, which must be a success.
    async fn reply(&mut self) -> Vec<u8> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
        while self.read.len() < end + length {
            self.more().await;
        }
        self.read.drain(..end + length).skip(end).collect()
    }

    async fn more(&mut self) {
        assert!(self.stream.read_buf(&mut self.read).await.expect("bytes") > 0, "closed");
    }
}
