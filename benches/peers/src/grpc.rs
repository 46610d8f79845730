//! The echo over gRPC: tonic, HTTP/2 over TCP, one connection.

use crate::{
    load::{self, Echo},
    pki,
};
use bytes::Bytes;
use std::{fs, io, net::SocketAddr};
use tonic::{
    Request, Response, Status,
    transport::{
        Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};

mod generated {
    #![allow(clippy::all, missing_docs, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/bench.Bench.rs"));
}

use generated::{
    bench_client::BenchClient,
    bench_server::{Bench, BenchServer},
};

/// A message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
}

struct Answer;

#[tonic::async_trait]
impl Bench for Answer {
    async fn echo(&self, request: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

fn identity(name: &str) -> io::Result<(Identity, Certificate)> {
    let identity =
        Identity::from_pem(fs::read(format!("{name}.pem"))?, fs::read(format!("{name}.key"))?);
    Ok((identity, Certificate::from_pem(fs::read("ca.pem")?)))
}

/// Listens and answers.
pub async fn answer() -> anyhow::Result<()> {
    let (identity, ca) = identity("node-edge")?;
    let incoming =
        TcpIncoming::bind(format!("{}:0", pki::host()).parse()?)?.with_nodelay(Some(true));
    println!("at {}", incoming.local_addr()?);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(ca);
    let server = Server::builder().tls_config(tls)?.add_service(BenchServer::new(Answer));
    tokio::spawn(server.serve_with_incoming(incoming));
    load::until_closed().await
}

/// Dials and makes calls.
pub async fn call(to: SocketAddr) -> anyhow::Result<()> {
    let (identity, ca) = identity("caller-c")?;
    let tls = ClientTlsConfig::new().identity(identity).ca_certificate(ca).domain_name("localhost");
    let channel = Channel::from_shared(format!("https://{to}"))?.tls_config(tls)?.connect().await?;
    load::serve(GrpcEcho(BenchClient::new(channel))).await
}

#[derive(Clone)]
struct GrpcEcho(BenchClient<Channel>);

impl Echo for GrpcEcho {
    async fn echo(&self, message: &[u8]) {
        let request = Blob { body: Bytes::copy_from_slice(message) };
        let reply = self.0.clone().echo(request).await.expect("a reply").into_inner();
        assert_eq!(reply.body.len(), message.len());
    }
}
