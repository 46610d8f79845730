//! An agent that hosts one service: it dials out and answers. It listens on nothing.
//!
//!     make certs
//!     cargo run --example hello_node       # in one shell
//!     cargo run --example hello_agent      # in another

use dialback::{Agent, Context, Credentials, Status};

// In a real program the contract is in a crate that both sides use.
dialback::contract! {
    service HelloService {
        fn hello(name: String) -> String;            // on the wire: HelloService/Hello
    }
}

struct Hello;

impl HelloService for Hello {
    async fn hello(&self, name: String, ctx: &Context) -> Result<String, Status> {
        println!("{} asks for {name}", ctx.caller());
        Ok(format!("hello:{name}"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let credentials = Credentials::from_dir("certs", "agent-warehouse")?;
    let agent =
        Agent::builder(credentials).node("localhost:4433").serve(Hello.into_service()).start()?;

    agent.registered(1).await;
    println!("{} is registered with {:?}; Ctrl-C ends it", agent.name(), agent.nodes());

    // Lost links are redialled as long as this runs.
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    agent.run_until(ctrl_c).await;
    Ok(())
}
