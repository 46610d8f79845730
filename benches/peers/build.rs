//! Writes the client and the server of the gRPC echo, without `protoc`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let echo = Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::grpc::Blob")
        .output_type("crate::grpc::Blob")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = Service::builder().name("Bench").package("bench").method(echo).build();
    Builder::new().compile(&[service]);
}
