//! A node that calls every agent that attaches, prints the reply and closes the link.
//!
//!     make certs
//!     cargo run --example hello_node       # in one shell
//!     cargo run --example hello_agent      # in another

use dialback::{Credentials, Node};

// In a real program the contract is in a crate that both sides use.
dialback::contract! {
    service HelloService {
        fn hello(name: String) -> String;            // on the wire: HelloService/Hello
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let credentials = Credentials::from_dir("certs", "node-edge-1")?;
    let node = Node::builder(credentials).listen("[::]:4433").start().await?;
    println!("{} listens on {}; Ctrl-C ends it", node.name(), node.local_addr());

    // An agent reconnects after its link is closed: it dials as long as it runs.
    let mut arrivals = node.arrivals();
    loop {
        let agent = tokio::select! {
            Some(agent) = arrivals.next() => agent,
            _ = tokio::signal::ctrl_c() => break,
        };
        match HelloServiceCaller::new(&agent).hello("hello".into()).await {
            Ok(reply) => println!("{} says {reply}", agent.name()),
            Err(status) => println!("{}: {status}", agent.name()),
        }
        agent.disconnect();
    }
    node.shutdown().await;
    Ok(())
}
