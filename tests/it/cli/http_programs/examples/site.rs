//! A site with a login, a large download and uploads, as curl uses it.

use super::{
    super::super::programs::{program, run},
    ExampleSetup,
};
use std::{fs::File, process::Command};

/// Prints the status of a response and one of its headers.
const STATUS: [&str; 4] = ["-o", "body", "-w", "%{http_code} %header{location}"];

fn setup() -> ExampleSetup {
    ExampleSetup::start("site", &program("python3", "python3"))
}

fn command(setup: &ExampleSetup, args: &[&str], path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "30", "-b", "jar", "-c", "jar"]).args(args);
    curl.arg(format!("http://shop.localhost:{}{path}", setup.port));
    curl.current_dir(setup.work_dir.path("."));
    curl
}

/// What curl prints, with the cookies of the setup.
#[track_caller]
fn curl(setup: &ExampleSetup, args: &[&str], path: &str) -> String {
    run(&mut command(setup, args, path))
}

#[track_caller]
fn log_in(setup: &ExampleSetup, password: &str) -> String {
    let form = format!("name=anna&password={password}");
    curl(setup, &[&STATUS[..], &["-d", &form]].concat(), "/login")
}

#[test]
fn a_login_form_sets_a_cookie_that_opens_the_site() {
    let setup = setup();
    assert_eq!(curl(&setup, &STATUS, "/"), "303 /login");
    assert_eq!(log_in(&setup, "wrong"), "403 ");
    assert_eq!(log_in(&setup, "secret"), "303 /");
    assert!(curl(&setup, &[], "/").contains("Hello, anna!"));
    assert_eq!(curl(&setup, &[&STATUS[..], &["-d", ""]].concat(), "/logout"), "303 /login");
    assert_eq!(curl(&setup, &STATUS, "/"), "303 /login");
}

#[test]
fn a_download_arrives_whole_and_in_ranges() {
    let setup = setup();
    log_in(&setup, "secret");
    let whole: String = (0..1 << 20).map(|number| format!("{number:015}\n")).collect();
    let download = |args: &[&str]| {
        curl(&setup, &[args, &["-o", "numbers"]].concat(), "/download");
        setup.work_dir.read("numbers")
    };
    for version in ["--http1.1", "--http2-prior-knowledge", "--http1.0"] {
        assert!(download(&[version]) == whole, "{version}");
    }
    assert_eq!(download(&["-r", "32-63"]), whole[32..64]);
    assert_eq!(download(&["-r", "-16"]), whole[whole.len() - 16..]);
    setup.work_dir.write("numbers", &whole[..1_000_001]);
    assert!(download(&["-C", "-"]) == whole, "continued");
    let status = |args: &[&str]| {
        let print = ["-o", "body", "-w", "%{http_code} %header{content-range}"];
        curl(&setup, &[&print[..], args].concat(), "/download")
    };
    assert_eq!(status(&["-r", "16777216-"]), "416 bytes */16777216");
    assert_eq!(status(&["-H", "if-none-match: \"numbers-1\""]), "304 ");
    let head = curl(&setup, &["-I"], "/download");
    assert!(head.contains("content-length: 16777216\r\n"), "{head}");
}

#[test]
fn uploads_of_known_and_of_unknown_length_arrive_whole() {
    let mut setup = setup();
    log_in(&setup, "secret");
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_000).collect();
    setup.work_dir.write("sent", &sent);
    let digest = run(Command::new("sha256sum").arg(setup.work_dir.path("sent")));
    let digest = digest.split(' ').next().expect("a digest");
    let expected = format!("{{\"bytes\": 3000000, \"sha256\": \"{digest}\"}}\n");
    for args in [&["-T", "sent"][..], &["-T", "-"], &["--http2-prior-knowledge", "-T", "sent"]] {
        let mut upload = command(&setup, args, "/upload/sent");
        upload.stdin(File::open(setup.work_dir.path("sent")).expect("opened"));
        assert_eq!(run(&mut upload), expected, "{args:?}");
        setup.server.wait_for_line("stored /upload/sent: 3000000 bytes");
    }
}

/// The server answers before it has read the upload, and closes its connection.
#[test]
fn an_upload_that_is_refused_early_gets_the_answer_of_the_site() {
    let setup = setup();
    setup.work_dir.write("sent", vec![7_u8; 3_000_000]);
    for number in 0..10 {
        let args = [&STATUS[..], &["-H", "expect:", "-T", "sent"]].concat();
        assert_eq!(curl(&setup, &args, "/upload/sent"), "403 ", "{number}");
        assert_eq!(setup.work_dir.read("body"), "log in first\n");
    }
}
