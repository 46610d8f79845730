//! `dialback agent`: reads its settings, dials its nodes, runs until it is told to stop.

use crate::{args::AgentArgs, credentials, exit::Failure, join, node::runtime, signals::Signals};
use dialback::{
    Agent, AgentPolicy, Credentials, Limits, NodeAddress, Role, Service,
    config::AgentConfig,
    demo::{self, Ledger},
    enroll::Renewal,
};
use std::path::Path;

/// What the agent is to be, once flags, environment and file have spoken.
struct Settings {
    credentials: Credentials,
    nodes: Vec<NodeAddress>,
    policy: AgentPolicy,
    limits: Limits,
    services: Vec<Service>,
    renewal: Option<Renewal>,
}

/// Runs the command.
pub(crate) fn run(args: AgentArgs) -> Result<(), Failure> {
    if let Some(command) = args.command {
        return join::run(Role::Agent, command);
    }
    let settings = Settings::read(args)?;
    let runtime = runtime()?;
    let result = runtime.block_on(serve(settings));
    // A resolver that still hangs in its thread must not keep the process.
    runtime.shutdown_background();
    result
}

impl Settings {
    fn read(args: AgentArgs) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(AgentConfig::read).transpose()?.unwrap_or_default();
        let nodes = if args.node.is_empty() { file.nodes } else { args.node };
        let has_demo = args.demo.unwrap_or(file.demo);
        let ledger = args.ledger.or(file.ledger);
        let services = services(has_demo, ledger.as_deref())?;
        let (credentials, renewal) = match args.enroll.or(file.enroll) {
            None => (credentials::load(Role::Agent, args.tls, file.tls)?, None),
            Some(enroller) => {
                let renewal = join::renewal(Role::Agent, enroller, args.tls, file.tls)?;
                (join::present(&renewal, Role::Agent)?, Some(renewal))
            }
        };
        Ok(Self {
            services,
            credentials,
            renewal,
            nodes: if nodes.is_empty() { vec![node_default()?] } else { nodes },
            policy: file.policy,
            limits: file.limits,
        })
    }
}

fn node_default() -> Result<NodeAddress, Failure> {
    "localhost".parse().map_err(|error: dialback::NameError| Failure::local(&error))
}

fn services(has_demo: bool, ledger: Option<&Path>) -> Result<Vec<Service>, Failure> {
    match (has_demo, ledger) {
        (true, None) => Ok(demo::services(None)),
        (true, Some(path)) => {
            let ledger = Ledger::open(path).map_err(|error| {
                Failure::usage(format!("cannot open the ledger {}: {error}", path.display()))
            })?;
            Ok(demo::services(Some(ledger)))
        }
        (false, None) => Ok(Vec::new()),
        (false, Some(_)) => {
            Err(Failure::usage("the ledger is for Demo/Append; add --demo, or `demo = true`"))
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let Settings { credentials, nodes, policy, limits, services, renewal } = settings;
    let mut signals = Signals::listen()?;
    credentials::announce(&credentials);
    announce(&nodes, services.is_empty());
    let builder = Agent::builder(credentials).policy(policy).limits(limits);
    let builder = nodes.iter().fold(builder, |builder, node| builder.node(node.to_string()));
    let agent = services.into_iter().fold(builder, |builder, service| builder.serve(service));
    let agent = agent.start()?;
    let _renewing = renewal.map(Renewal::start);
    signals.run_until_stopped(agent.shutdown()).await
}

fn announce(nodes: &[NodeAddress], is_idle: bool) {
    let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    tracing::info!("dialling {}", nodes.join(", "));
    if is_idle {
        tracing::warn!("this agent hosts no services; --demo makes it host the demo services");
    }
}
