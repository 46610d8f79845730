//! Which flags of a command were given, and whether on the command line or in the environment.

use crate::args::variable_of;
use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::collections::BTreeMap;

/// The flags that were given. Flattened into the arguments of a command, before those that it
/// reports: clap takes arguments out as it reads them.
#[derive(Debug, Default)]
pub(crate) struct FlagSources(BTreeMap<String, ValueSource>);

/// A flag, or the variable that stands for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FlagSource {
    Flag(String),
    Variable(String),
}

impl FlagSources {
    /// How the flag of this name (`memory-max`) was given, if it was.
    pub(crate) fn of(&self, flag: &str) -> Option<FlagSource> {
        match self.0.get(flag)? {
            ValueSource::CommandLine => Some(FlagSource::Flag(format!("--{flag}"))),
            ValueSource::EnvVariable => Some(FlagSource::Variable(variable_of(flag))),
            _ => None,
        }
    }
}

impl FromArgMatches for FlagSources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = matches.ids().filter_map(|id| {
            // The ids of arguments are the names of their fields.
            Some((id.as_str().replace('_', "-"), matches.value_source(id.as_str())?))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FlagSources {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}
