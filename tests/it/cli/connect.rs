//! The official Connect client from npm calls the HTTP gateway: the TypeScript of
//! `examples/connect`, type-checked and run.

use super::{
    http::CurlSetup,
    programs::{program, run},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// All files of the example.
const FILES: [&str; 5] =
    ["package.json", "package-lock.json", "tsconfig.json", "dialback.ts", "main.ts"];

/// The example with its npm packages, below the target directory: installed once, and again when
/// the lock file changes.
fn installed() -> PathBuf {
    let npm = program("npm", "npm");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/connect");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connect");
    fs::create_dir_all(&dir).expect("a directory");
    for file in FILES {
        fs::copy(example.join(file), dir.join(file)).expect("copied");
    }
    let lock = fs::read(example.join("package-lock.json")).expect("the lock file");
    let mark = dir.join("installed");
    if fs::read(&mark).is_ok_and(|before| before == lock) {
        return dir;
    }
    let mut install = Command::new(npm);
    install.args(["ci", "--no-audit", "--no-fund", "--prefer-offline"]);
    install.args(["--fetch-retries=3", "--fetch-retry-mintimeout=1000"]).current_dir(&dir);
    let ended = install.output().expect("npm started");
    assert!(
        ended.status.success(),
        "`npm ci` could not install Connect's client, which this test runs: npm's registry has to be reached once, from then on {} is used.\n{}",
        dir.display(),
        String::from_utf8_lossy(&ended.stderr)
    );
    fs::write(mark, lock).expect("written");
    dir
}

#[test]
fn the_official_connect_client_calls_streams_and_understands_each_failure() {
    program("node", "nodejs");
    let dir = installed();
    let npm = program("npm", "npm");
    run(Command::new(&npm).args(["run", "--silent", "build"]).current_dir(&dir));
    let setup = CurlSetup::new("");
    for version in ["1.1", "2"] {
        let mut main = Command::new(program("node", "nodejs"));
        main.arg("out/main.js").current_dir(&dir).env("HTTP", version);
        main.env("GATEWAY", &setup.gateway).env("TOKEN", setup.work_dir.read("token"));
        let output = run(&mut main);
        let (late, others): (Vec<_>, Vec<_>) =
            output.lines().partition(|line| line.starts_with("Sleep"));
        assert_eq!(
            others,
            [
                "Hello: \"hello:connect\" (ok)",
                "Count: {\"i\":1}",
                "Count: {\"i\":2}",
                "Count: {\"i\":3}",
                "Count ended (ok)",
                "Fail: NotFound, \"no such shelf\" (app_error)",
                "a stream that fails: InvalidArgument, \"the message does not decode into what the method takes: invalid type: string \"three\", expected struct Count\" (not_executed)",
                "an agent that is not there: Unavailable, \"agent absent is not attached\" (not_executed)",
                "a wrong token: Unauthenticated, \"the token or certificate is not valid; the node's log says why\" (not_executed)",
            ]
        );
        // Either clock may report the first of them: the client's own or the node's. A node that
        // gets no processor for half a second says that it was suspended, and does not start the
        // second.
        let [late, by_node] = late[..] else { panic!("{late:?}") };
        assert!(
            late.starts_with("Sleep: DeadlineExceeded, ") && late.contains("(unknown"),
            "{late}"
        );
        let expected = "Sleep by the node's clock: DeadlineExceeded, \"the deadline passed";
        assert!(by_node.starts_with(expected), "{by_node}");
    }
}
