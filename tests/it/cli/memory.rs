//! Memory use of the processes that convert large messages between JSON and CBOR.

use super::process::{DialbackProcess, RULES, WorkDir};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

/// 4 MiB of the smallest maps, which were 900 MiB as a tree of values.
const MAPS: usize = 1_398_000;

/// The memory of an idle process plus three times the bytes of a message.
const PEAK_MIB_MAX: u64 = 64;

/// A local HTTP server that answers each request with `null` and counts the bytes of its body.
fn upstream() -> (String, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, taken) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if sender.send(take(stream)).is_err() {
                return;
            }
        }
    });
    (url, taken)
}

/// Reads one request and returns the bytes of its body.
fn take(mut stream: TcpStream) -> usize {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    let (head, length) = loop {
        let read = stream.read(&mut piece).expect("a request");
        assert!(read > 0, "it ends before its head does");
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.split("\r\n").next().expect("a line").parse::<usize>();
            break (end + 4, length.expect("a number"));
        }
    };
    let mut read = bytes.len();
    while read < head + length {
        read += stream.read(&mut piece).expect("a body");
    }
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnull";
    stream.write_all(answer.as_bytes()).expect("answered");
    length
}

/// One POST and the status of its answer.
fn post(gateway: &str, path: &str, content_type: &str, body: &[u8]) -> u16 {
    let at = gateway.trim_start_matches("http://");
    let mut stream = TcpStream::connect(at).expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).expect("a status");
    status.parse().unwrap_or_else(|_| panic!("{answer}"))
}

/// The peak memory of a process.
fn peak_mib(process: &DialbackProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("the status of a process");
    let peak = status.split("VmHWM:").nth(1).expect("a peak").trim_start();
    let kib = peak.split(' ').next().expect("a number");
    kib.parse::<u64>().expect("a number") / 1024
}

#[test]
#[cfg(target_os = "linux")]
fn four_mebibytes_of_small_maps_cost_node_and_agent_little_more_than_their_bytes() {
    let dir = WorkDir::new();
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\nanonymous = \"ops\"\n";
    dir.write("node.toml", format!("{RULES}\n{config}"));
    let (mut node, at) =
        dir.listening(&["node", "--listen", "127.0.0.1:0", "--config", "node.toml"]);
    let line = node.wait_for_line("the gateway listens on ");
    let gateway = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
    let (url, taken) = upstream();
    let forward = format!("Copy={url}");
    let mut agent = dir.start(&["agent", "--node", &at, "--forward", &forward]);
    agent.wait_for_line("registered as warehouse");
    let path = "/v1/agents/warehouse/Copy/It";

    // [{"": 0}, ...] of an indefinite length, which becomes JSON on its way to the upstream.
    let cbor = [&[0x9f][..], &[0xa1, 0x60, 0x00].repeat(MAPS), &[0xff]].concat();
    assert_eq!(post(&gateway, path, "application/cbor", &cbor), 200);
    assert_eq!(taken.recv().expect("a request"), 1 + 7 * MAPS);
    // And as JSON, which becomes CBOR at the gateway.
    let maps = MAPS * 3 / 7;
    let json = format!("[{}]", vec!["{\"\":0}"; maps].join(","));
    assert_eq!(post(&gateway, path, "application/json", json.as_bytes()), 200);
    assert_eq!(taken.recv().expect("a request"), json.len());

    for (name, process) in [("node", &node), ("agent", &agent)] {
        let peak = peak_mib(process);
        assert!(peak < PEAK_MIB_MAX, "the {name} took {peak} MiB");
    }
}
