//! Programs without support for dialback, over HTTP forwards and sites.
//!
//! `make test` installs them. Where one is missing its test fails and says so, as in `programs`.

mod examples;
mod grpc;

use super::{
    process::{DialbackProcess, WorkDir},
    programs::run,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Python with the packages of `examples/requirements.txt` and of `tests/browser`, in the target
/// directory.
#[track_caller]
pub(super) fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
    let python = target.join("python-programs/bin/python");
    assert!(python.is_file(), "{} is missing: `make test` installs it", python.display());
    python
}

/// A node with a site `NAME.test`, which `http:NAME` of an agent answers, and a token of its
/// caller in the file `token`. The gateway shows the node's certificate.
struct ProgramSite {
    work_dir: WorkDir,
    name: &'static str,
    _node: DialbackProcess,
    /// Address of the node for agents.
    at: String,
    /// Address of its gateway.
    gateway: String,
}

impl ProgramSite {
    fn new(name: &'static str) -> Self {
        let config = format!(
            "[gateway]\ntokens = \"certs/tokens\"\ntls = true\n\
             [[site]]\nhost = \"{name}.test\"\nagent = \"warehouse\"\nhttp = \"{name}\"\n\
             [[allow]]\ncaller = \"ops\"\nagent = \"warehouse\"\nmethod = \"http:{name}\"\n"
        );
        Self::with_config(name, |work_dir| {
            work_dir.write("node.toml", config);
            work_dir.path("node.toml")
        })
    }

    /// The same with a config file of a node, but on free ports.
    fn with_config(name: &'static str, config: impl FnOnce(&WorkDir) -> PathBuf) -> Self {
        let work_dir = WorkDir::new();
        let host = format!("{name}.test");
        let names = ["--san", "localhost", "127.0.0.1", &host];
        work_dir
            .run(&[&["certs", "issue", "node", "edge-1", "--force"][..], &names].concat())
            .expect(0, &[]);
        let created = work_dir.run(&["token", "create", "ops", "--ttl", "1h"]).expect(0, &[]);
        work_dir.write("token", created.stdout.trim());
        let config = config(&work_dir);
        let config = config.to_str().expect("UTF-8");
        let ports = ["--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];
        let (mut node, at) =
            work_dir.listening(&[&["node", "--config", config][..], &ports].concat());
        let line = node.wait_for_line("the gateway listens on https://");
        let gateway = line.split("https://").nth(1).expect("an address").trim().to_owned();
        Self { work_dir, name, _node: node, at, gateway }
    }

    /// An agent with this upstream, registered.
    fn agent(&self, upstream: &str) -> DialbackProcess {
        let forward = format!("{}={upstream}", self.name);
        let mut agent = self.work_dir.start(&["agent", "--node", &self.at, "--http", &forward]);
        agent.wait_for_line("registered as warehouse");
        agent
    }

    /// A Python script in the working directory, from which it also imports.
    fn script(&self, python: &Path, script: &Path) -> Command {
        let mut command = Command::new(python);
        command.arg(script).current_dir(self.work_dir.path(".")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("PYTHONPATH", self.work_dir.path("."));
        // Scripts are not byte-compiled into the source directory.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Generates the Python modules of a .proto file in the working directory.
    fn generate_stubs(&self, python: &Path, proto: &Path) {
        let mut protoc = Command::new(python);
        protoc.args(["-m", "grpc_tools.protoc", "--python_out=.", "--grpc_python_out=."]);
        protoc.arg("-I").arg(proto.parent().expect("a directory")).arg(proto);
        run(protoc.current_dir(self.work_dir.path(".")));
    }
}
