//! The admin page in headless Chromium. `make test` installs both programs.

use super::{
    http_programs::python,
    process::{RULES, WorkDir},
    programs::run,
};
use std::{env, path::PathBuf, process::Command};

/// Where Debian has Chromium, or the file that `CHROMIUM` names.
fn chromium() -> PathBuf {
    env::var_os("CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from)
}

#[test]
fn agents_and_calls_appear_on_the_admin_page_and_its_button_drains_the_node() {
    let dir = WorkDir::new();
    dir.write("rules.toml", RULES);
    let chromium = chromium();
    assert!(chromium.is_file(), "{} is missing: `make test` installs it", chromium.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/admin_page.py");
    let mut browser = Command::new(python());
    browser.current_dir(dir.path("."));
    let out = run(browser.arg(script).arg(env!("CARGO_BIN_EXE_dialback")).arg(chromium));
    assert!(out.ends_with("the page works\n"), "{out}");
}
