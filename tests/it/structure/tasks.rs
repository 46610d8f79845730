//! Which files start tasks and threads.

use super::sources;
use crate::tidy::Tree;

/// Every file that starts a task or a thread. A new one needs a line in the table of tasks in
/// ARCHITECTURE.md: who starts it, what ends it, who waits for it.
const STARTERS: &[&str] = &[
    "src/admin/mod.rs",
    "src/agent/builder.rs",
    "src/agent/forward/connect/stream.rs",
    "src/agent/forward/http/connection.rs",
    "src/agent/forward/http/http2.rs",
    "src/agent/forward/http/pool.rs",
    "src/agent/forward/mcp/http_server.rs",
    "src/agent/forward/mcp/stdio/process.rs",
    "src/agent/forward/mcp/stdio/session.rs",
    "src/agent/forward/proxy/reply.rs",
    "src/agent/readiness.rs",
    "src/agent/registration.rs",
    "src/agent/service_changes.rs",
    "src/audit/writer.rs",
    "src/bin/dialback/bench/links.rs",
    "src/bin/dialback/bench/load.rs",
    "src/bin/dialback/doctor/dialling.rs",
    "src/bin/dialback/input.rs",
    "src/bin/dialback/log_writer.rs",
    "src/bin/dialback/tcp.rs",
    "src/call/streaming.rs",
    "src/call/tcp/stream.rs",
    "src/caller/mod.rs",
    "src/drain.rs",
    "src/enroll/listener.rs",
    "src/enroll/renew.rs",
    "src/gateway/builder.rs",
    "src/httpd/connection.rs",
    "src/httpd/server.rs",
    "src/httpd/unanswered_request.rs",
    "src/link/keeper/mod.rs",
    "src/link/path_watch.rs",
    "src/net/runtime.rs",
    "src/node/accept.rs",
    "src/node/admit.rs",
    "src/node/builder.rs",
    "src/path/dialling.rs",
    "src/race.rs",
    "src/serve/mod.rs",
    "src/trace/settings.rs",
    "src/tunnel/listener.rs",
];

fn starters(sources: &Tree) -> Vec<&str> {
    let starts = ["spawn(", "spawn_until_stopped(", "spawn_blocking("];
    let does_start = |code: &str| {
        starts.iter().any(|start| {
            code.match_indices(start).any(|(at, _)| {
                !code[..at].ends_with(super::is_word) && !code[..at].ends_with("fn ")
            })
        })
    };
    sources.iter().filter(|(_, code)| does_start(code)).map(|(path, _)| path.as_str()).collect()
}

#[test]
fn only_listed_files_start_tasks() {
    assert_eq!(starters(&sources()), STARTERS, "keep ARCHITECTURE.md's table of tasks true too");
}

#[test]
fn a_start_is_found_and_a_definition_is_not() {
    let tree = |code: &str| Tree::from([("src/a.rs".to_owned(), code.to_owned())]);
    for code in ["tasks.spawn(f())", "tokio::spawn(f())", "tasks.spawn_until_stopped(f())"] {
        assert_eq!(starters(&tree(code)).len(), 1, "{code}");
    }
    for code in ["fn spawn(f: F) {}", "respawn(f())", "spawned()"] {
        assert!(starters(&tree(code)).is_empty(), "{code}");
    }
}
