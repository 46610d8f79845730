//! `dialback man`: man pages, made from the definition of the command line.

use crate::{args, exit::Failure, output::print};
use clap::{Args, Command};
use clap_mangen::Man;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// `dialback man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback man | man -l -
  dialback man ~/.local/share/man/man1     # then: man dialback-node
The Debian package installs all pages.")]
pub(crate) struct ManArgs {
    /// Directory to write the pages of all commands to, created if missing; without it, the page of
    /// dialback is printed
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: ManArgs) -> Result<(), Failure> {
    let mut definition = args::definition().disable_help_subcommand(true);
    definition.build();
    let Some(dir) = args.dir else {
        let mut text = Vec::new();
        page(definition).render(&mut text).map_err(|error| Failure::runtime(&error))?;
        return print(String::from_utf8_lossy(&text).trim_end());
    };
    let written = fs::create_dir_all(&dir).and_then(|()| write(&definition, &dir));
    written.map_err(|error| {
        Failure::Runtime(vec![format!("cannot write man pages to {}: {error}", dir.display())])
    })
}

/// Writes the pages of a command and of those below it.
fn write(command: &Command, dir: &Path) -> io::Result<()> {
    command.get_subcommands().try_for_each(|inner| write(inner, dir))?;
    page(command.clone()).generate_to(dir).map(drop)
}

/// Pages have no date, so that those of one version are equal. An empty one would be left out, and
/// the arguments behind it misread.
fn page(command: Command) -> Man {
    Man::new(command).date(" ").source(concat!("dialback ", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &Command, name: &str) -> Vec<String> {
        let inner = |command: &Command| names(command, &format!("{name}-{}", command.get_name()));
        let inner = command.get_subcommands().flat_map(inner);
        inner.chain([format!("{name}.1")]).collect()
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let dir = tempfile::tempdir().expect("a directory");
        let pages = dir.path().join("man1");
        run(ManArgs { dir: Some(pages.clone()) }).expect("written");
        let mut expected = names(&args::definition(), "dialback");
        expected.sort();
        let written = fs::read_dir(&pages).expect("listed");
        let mut written: Vec<_> = written
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        written.sort();
        assert_eq!(written, expected);
        let page = fs::read_to_string(pages.join("dialback-enroll-token.1")).expect("a page");
        assert!(
            page.contains(r"\-\-ttl") && page.contains("dialback enroll token agent"),
            "{page}"
        );
        let heading = concat!(r#"" " "dialback "#, env!("CARGO_PKG_VERSION"));
        assert!(page.contains(heading), "{page}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let dir = file.path().join("man1");
        let failure = run(ManArgs { dir: Some(dir.clone()) }).expect_err("a file is in the way");
        assert!(failure.lines()[0].contains(&*dir.to_string_lossy()), "{failure:?}");
    }
}
