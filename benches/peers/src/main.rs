//! dialback beside its peers, each process a process of its own.
//!
//! `peers compare` starts all of them and prints the table, `peers growth` measures dialback alone
//! with more and more calls and agents; the other commands are the processes that these start, in a
//! directory with the certificates of all.

mod compare;
mod curves;
mod grpc;
mod growth;
mod http;
mod load;
mod nats;
mod processes;
mod path;
mod pki;
mod plot;
mod raw;
mod through;

use anyhow::Context;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context("a command is missing: compare, growth or path")?;
    if command == "compare" {
        return compare::run(arguments.collect());
    }
    if command == "growth" {
        return growth::run(arguments.collect());
    }
    if command == "path" {
        let arguments: Vec<_> = arguments.collect();
        anyhow::ensure!(arguments.len() == 6, "path DEVICE DEVICE DELAY LOSS RATE QUEUE");
        let path = path::Path::parse(&arguments[2..])?;
        return path::run([&arguments[0], &arguments[1]], path);
    }
    let to = arguments.next().unwrap_or_default();
    let mut number =
        || arguments.next().context("a number is missing")?.parse().context("a number");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build()?.block_on(async {
        let address = || to.parse().with_context(|| format!("{command} {to:?}: an address"));
        match command.as_str() {
            "raw" => raw::call(false).await,
            "raw-answer" => raw::answer(address()?, false).await,
            "raw-batched" => raw::call(true).await,
            "raw-batched-answer" => raw::answer(address()?, true).await,
            "direct" => through::direct().await,
            "node" => through::node().await,
            "agent" => through::agent(&to).await,
            "caller" => through::caller(&to).await,
            "agents" => through::agents(&to, number()?..number()?).await,
            "caller-in-turn" => through::caller_in_turn(&to, number()?).await,
            "caller-any" => through::caller_any(&to).await,
            "http" => http::call(address()?).await,
            "grpc" => grpc::call(address()?).await,
            "grpc-answer" => grpc::answer().await,
            "nats" => nats::call(&to).await,
            "nats-answer" => nats::answer(&to).await,
            other => anyhow::bail!("unknown command {other:?}"),
        }
    })
}
