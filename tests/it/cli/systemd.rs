//! Notifications to systemd, received on a socket as that of systemd.

use super::{
    clock::{HOUR, valid_in},
    process::{DialbackProcess, RULES, WorkDir},
};
use rustix::process::Signal;
use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    time::Duration,
};

/// Nothing here takes longer on a working machine.
const WAIT_MAX: Duration = Duration::from_secs(15);

const ALIVE: &str = "WATCHDOG=1\n";

struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// Starts a command with the environment that systemd gives it.
    fn start(work_dir: &WorkDir, args: &[&str]) -> (DialbackProcess, Self) {
        let path = work_dir.path("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(WAIT_MAX)).expect("set");
        let mut command = work_dir.command(args);
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "100000");
        command.env_remove("WATCHDOG_PID");
        (DialbackProcess::start(command), Self(socket))
    }

    #[track_caller]
    fn receive(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next notification that is not a sign of life.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let text = self.receive();
            if text != ALIVE {
                return text;
            }
        }
    }

    /// Waits for signs of life that are sent from now on.
    #[track_caller]
    fn expect_alive(&self) {
        self.0.set_nonblocking(true).expect("set");
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).expect("set");
        assert_eq!([(); 3].map(|()| self.receive()), [ALIVE; 3]);
    }

    #[track_caller]
    fn expect_reload(&self, process: &DialbackProcess, ready: &str) {
        process.signal(Signal::HUP);
        let text = self.next();
        let since = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
        assert!(since.is_some_and(|since| since.parse::<u64>().is_ok()), "{text:?}");
        let text = self.next();
        assert!(text.starts_with(ready), "{text:?}");
    }

    #[track_caller]
    fn expect_stop(&self, process: DialbackProcess) {
        process.signal(Signal::TERM);
        assert_eq!(self.next(), "STOPPING=1\nSTATUS=shutting down\n");
        process.end().expect(0, &[]);
    }
}

#[test]
fn a_node_is_ready_when_it_listens_and_notifies_of_reloads_and_its_end() {
    let work_dir = WorkDir::new();
    work_dir.write("rules.toml", RULES);
    let args = ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"];
    let (node, socket) = NotifySocket::start(&work_dir, &args);
    let ready = socket.next();
    let address = ready.strip_prefix("READY=1\nSTATUS=listens on ").expect("ready").trim_end();
    let address: SocketAddr = address.parse().expect("an address");
    UdpSocket::bind(address).expect_err("the port is in use");
    socket.expect_alive();
    socket.expect_reload(&node, &ready);
    socket.expect_alive();
    socket.expect_stop(node);
}

#[test]
fn an_agent_is_ready_before_it_is_linked() {
    let work_dir = WorkDir::new();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let node = silent.local_addr().expect("an address").to_string();
    let (agent, socket) = NotifySocket::start(&work_dir, &["agent", "--demo", "--node", &node]);
    let ready = format!("READY=1\nSTATUS=dialling {node}\n");
    assert_eq!(socket.next(), ready);
    socket.expect_alive();
    socket.expect_reload(&agent, &ready);
    socket.expect_alive();
    socket.expect_stop(agent);
}

#[test]
fn a_reload_that_fails_ends_and_its_reason_is_the_status() {
    let work_dir = WorkDir::new();
    work_dir.write("node.toml", RULES);
    let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
    let (node, socket) = NotifySocket::start(&work_dir, &args);
    let ready = socket.next();
    work_dir.write("node.toml", "[[allow");
    node.signal(Signal::HUP);
    let failed = format!("{}; reload failed: node.toml:1: ", ready.trim_end());
    // The change of the file is a reload too, without a notification of its beginning.
    let mut is_reloading = false;
    loop {
        let text = socket.next();
        is_reloading |= text.starts_with("RELOADING=1\n");
        if is_reloading && text.starts_with("READY=1\n") {
            assert!(text.starts_with(&failed), "{text:?}");
            break;
        }
    }
    socket.expect_stop(node);
}

#[test]
fn a_command_that_waits_for_its_certificate_asks_for_more_time() {
    let work_dir = WorkDir::new();
    valid_in(&work_dir, "agent/warehouse", HOUR);
    let (agent, socket) = NotifySocket::start(&work_dir, &["agent", "--node", "127.0.0.1:1"]);
    let text = socket.next();
    assert!(text.starts_with("EXTEND_TIMEOUT_USEC=15000000\nSTATUS="), "{text:?}");
    assert!(text.contains("not valid yet"), "{text:?}");
    socket.expect_stop(agent);
}
