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
        let text = text(&page(definition)).map_err(|error| Failure::runtime(&error))?;
        return print(text.trim_end());
    };
    let written = fs::create_dir_all(&dir).and_then(|()| write(&definition, &dir));
    written.map_err(|error| {
        Failure::Runtime(vec![format!("cannot write man pages to {}: {error}", dir.display())])
    })
}

/// Writes the pages of a command and of those below it.
fn write(command: &Command, dir: &Path) -> io::Result<()> {
    command.get_subcommands().try_for_each(|inner| write(inner, dir))?;
    let page = page(command.clone());
    fs::write(dir.join(page.get_filename()), text(&page)?)
}

/// Pages have no date, so that those of one version are equal. An empty one would be left out, and
/// the arguments behind it misread.
fn page(command: Command) -> Man {
    Man::new(command).date(" ").source(concat!("dialback ", env!("CARGO_PKG_VERSION")))
}

/// A page in roff. Examples keep their lines and columns, where roff would fill paragraphs.
fn text(page: &Man) -> io::Result<String> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let Some((before, extra)) = text.split_once(EXTRA) else {
        return Ok(format!("{text}{FILES}"));
    };
    let (extra, after) = extra.split_at(extra.find("\n.SH ").map_or(extra.len(), |at| at + 1));
    Ok(format!("{before}{EXTRA}.nf\n{extra}.fi\n{after}{FILES}"))
}

/// The section of what a command says below its flags.
const EXTRA: &str = ".SH EXTRA\n";

/// Where the rest is written, which the definition of the command line does not say.
const FILES: &str = "\
.SH FILES
.TP
/usr/share/doc/dialback/docs/operations.md
Keys of config files, logs, refusals and what to do, as the Debian package installs it.
.TP
/usr/share/doc/dialback/docs/from\\-package.md
The first steps after the installation of the package.
.TP
/usr/share/doc/dialback/examples
Config files and programs of the examples.
";

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
    fn examples_keep_their_lines_and_the_sections_around_them_are_filled() {
        let command = Command::new("dialback").version("1").after_help("Examples:\n  one\n.two");
        let page = text(&page(command)).expect("a page");
        assert!(
            page.contains(".SH EXTRA\n.nf\nExamples:\n  one\n\\&.two\n.fi\n.SH VERSION"),
            "{page}"
        );
        let without = text(&self::page(Command::new("dialback"))).expect("a page");
        assert!(!without.contains(".nf") && without.ends_with(FILES), "{without}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let dir = file.path().join("man1");
        let failure = run(ManArgs { dir: Some(dir.clone()) }).expect_err("a file is in the way");
        assert!(failure.lines()[0].contains(&*dir.to_string_lossy()), "{failure:?}");
    }
}
