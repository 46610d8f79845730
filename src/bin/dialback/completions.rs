//! `dialback completions`: prints the completions of a shell.

use crate::{args, exit::Failure, output::print};
use clap::Args;
use clap_complete::Shell;

/// `dialback completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback completions bash > ~/.local/share/bash-completion/completions/dialback
  dialback completions fish > ~/.config/fish/completions/dialback.fish
  dialback completions zsh > ~/.zfunc/_dialback     # a directory in $fpath
The Debian package installs those of bash, zsh and fish.")]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

pub(crate) fn run(args: CompletionsArgs) -> Result<(), Failure> {
    print(script(args.shell).trim_end())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definition(), "dialback", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_completes_every_command_and_flags() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in args::definition().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("tunnel-url"), "{shell}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn bash_parses_its_completions() {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        let mut bash = Command::new("bash");
        bash.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut bash = bash.spawn().expect("bash");
        let mut stdin = bash.stdin.take().expect("piped");
        stdin.write_all(script(Shell::Bash).as_bytes()).expect("read by bash");
        drop(stdin);
        let ended = bash.wait_with_output().expect("ended");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && errors.is_empty(), "{errors}");
    }
}
