//! The reference of all commands and flags, docs/commands.md: written from the definition of the
//! command line, and held to it by a test.

use crate::args::definition;
use clap::{Arg, Command};
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");

fn reference() -> String {
    let mut out = "\
# Commands and flags

Written from the program by `make map`; `dialback COMMAND --help` and the man pages say the same. Every flag except `--force` can also be set in the environment, `--log-level` as `DIALBACK_LOG_LEVEL`; a flag overrides the environment, and the environment overrides a config file, whose keys are in [operations.md](operations.md#config-keys).
"
    .to_owned();
    let mut command = definition();
    command.build();
    section(&mut out, &command, "dialback");
    out
}

fn section(out: &mut String, command: &Command, path: &str) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let is_root = path == "dialback";
    let args = || command.get_arguments().filter(|arg| is_shown(arg, is_root));
    let has_own = args().next().is_some() || !command.has_subcommands();
    if has_own {
        write!(out, "\n## {path}\n\n{about}.\n").expect("memory");
    }
    if args().next().is_some() {
        out.push_str("\n| argument | meaning |\n|---|---|\n");
        for arg in args() {
            writeln!(out, "| `{}` | {} |", escaped(&spelling(arg)), escaped(&meaning(arg)))
                .expect("memory");
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        section(out, inner, &format!("{path} {}", inner.get_name()));
    }
}

/// Flags of all commands are shown once, with the program.
fn is_shown(arg: &Arg, is_root: bool) -> bool {
    let is_of_all = arg.is_global_set();
    let is_known = ["help", "version"].contains(&arg.get_id().as_str());
    !is_known && !arg.is_hide_set() && is_of_all == is_root
}

fn spelling(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let values: Vec<_> = values.iter().map(|name| name.to_string()).collect();
    let values = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    match arg.get_long() {
        Some(long) => {
            let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
            format!("{short}--{long} {values}").trim_end().to_owned()
        }
        None if arg.is_required_set() => values,
        None => format!("[{values}]"),
    }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match arg.get_action().takes_values() && !defaults.is_empty() {
        true => format!("{help} [default: {}]", defaults.join(" ")),
        false => help,
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn the_reference_has_every_command_and_flag() {
    let reference = reference();
    if std::env::var_os("DIALBACK_WRITE_MAP").is_some() {
        std::fs::write(FILE, &reference).expect("written");
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(written == reference, "docs/commands.md is out of date: run `make map`");
    for part in ["## dialback node\n", "| `--admin ADDR` |", "## dialback certs issue\n"] {
        assert!(reference.contains(part), "{part}");
    }
}
