//! The echo over NATS: requests through a server between two processes.

use crate::load::{self, Echo};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use std::{fs, io, path::PathBuf};

/// Settings of the server: mutual TLS, and messages of more than 1 MiB.
pub fn write_config(host: &str, port: u16) -> io::Result<()> {
    let text = format!(
        "listen: \"{host}:{port}\"\nmax_payload: 8388608\nmax_pending: 268435456\ntls {{\n  cert_file: \"node-edge.pem\"\n  key_file: \"node-edge.key\"\n  ca_file: \"ca.pem\"\n  verify: true\n}}\n"
    );
    fs::write("nats.conf", text)
}

async fn connect(name: &str, to: &str) -> anyhow::Result<Client> {
    let (cert, key) = (PathBuf::from(format!("{name}.pem")), PathBuf::from(format!("{name}.key")));
    let options = ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates("ca.pem".into())
        .add_client_certificate(cert, key);
    Ok(options.connect(format!("tls://{to}")).await?)
}

/// Subscribes and answers.
pub async fn answer(to: &str) -> anyhow::Result<()> {
    let client = connect("agent-a", to).await?;
    let mut requests = client.subscribe("bench.echo").await?;
    client.flush().await?;
    println!("ready");
    tokio::spawn(async move {
        use futures_util::StreamExt;
        while let Some(request) = requests.next().await {
            let (Some(reply), client) = (request.reply, client.clone()) else { continue };
            client.publish(reply, request.payload).await.expect("a reply");
        }
    });
    load::until_closed().await
}

/// Makes calls.
pub async fn call(to: &str) -> anyhow::Result<()> {
    load::serve(NatsEcho(connect("caller-c", to).await?)).await
}

#[derive(Clone)]
struct NatsEcho(Client);

impl Echo for NatsEcho {
    async fn echo(&self, message: &[u8]) {
        let request = Bytes::copy_from_slice(message);
        let reply = self.0.request("bench.echo", request).await.expect("a reply");
        assert_eq!(reply.payload.len(), message.len());
    }
}
