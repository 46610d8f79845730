//! Which log lines are written: a level, and other levels for modules.

use std::str::FromStr;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Minimum log level, with others for modules: `info,dialback::link=debug,quinn=trace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter {
    /// That of everything else; `None` is the command's.
    level: Option<LevelFilter>,
    modules: Vec<(String, LevelFilter)>,
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self { level: None, modules: Vec::new() };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((module, level)) => filter.modules.push((module_name(module)?, parse(level)?)),
                None if filter.level.is_some() => return Err("it has two levels".to_owned()),
                None => filter.level = Some(parse(part)?),
            }
        }
        Ok(filter)
    }
}

fn parse(level: &str) -> Result<LevelFilter, String> {
    // The parser of the levels takes numbers too.
    let known = LEVELS.contains(&level).then(|| level.parse().ok()).flatten();
    known.ok_or_else(|| {
        format!(
            "{level:?} is not one of {}, or MODULE=LEVEL, as dialback::link=debug",
            LEVELS.join(", ")
        )
    })
}

fn module_name(name: &str) -> Result<String, String> {
    let is_name = |part: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !part.is_empty() && part.chars().all(is_word)
    };
    if name.split("::").all(is_name) {
        return Ok(name.to_owned());
    }
    Err(format!("{name:?} is not a module, as dialback::link or quinn"))
}

impl LogFilter {
    /// The levels of all modules, where the command's own is `default`. Events of dependencies are
    /// shown at `warn` and above, or all with `trace`, and as they are named.
    pub(crate) fn targets(filter: Option<&Self>, default: LevelFilter) -> Targets {
        let level = filter.and_then(|filter| filter.level).unwrap_or(default);
        let modules = filter.map(|filter| filter.modules.clone()).unwrap_or_default();
        Targets::new()
            .with_target("dialback", level)
            .with_target("quinn", quinn_at(level))
            .with_default(others_at(level))
            .with_targets(modules)
    }
}

fn others_at(level: LevelFilter) -> LevelFilter {
    if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) }
}

/// quinn's warnings repeat our lines without cause and remedy: shown at `debug` and below only.
fn quinn_at(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { others_at(level) } else { LevelFilter::OFF }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    fn shows(filter: &str, target: &str, level: Level) -> bool {
        let filter: LogFilter = filter.parse().expect("a filter");
        LogFilter::targets(Some(&filter), LevelFilter::WARN).would_enable(target, &level)
    }

    #[test]
    fn lines_of_quinn_are_shown_from_debug_on() {
        for quiet in [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO] {
            assert_eq!(quinn_at(quiet), LevelFilter::OFF, "{quiet}");
        }
        assert_eq!(quinn_at(LevelFilter::DEBUG), LevelFilter::WARN);
        assert_eq!(quinn_at(LevelFilter::TRACE), LevelFilter::TRACE);
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let filter = "info,dialback::link=debug,quinn=trace";
        assert!(shows(filter, "dialback::link::control", Level::DEBUG));
        assert!(!shows(filter, "dialback::node", Level::DEBUG));
        assert!(shows(filter, "dialback::node", Level::INFO));
        assert!(shows(filter, "quinn::connection", Level::TRACE));
        // Without a level it is the command's.
        assert!(!shows("dialback::link=debug", "dialback::node", Level::INFO));
        assert!(shows("dialback::link=debug", "dialback::link", Level::DEBUG));
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_what_it_may_be() {
        for bad in
            ["", "loud", "3", "INFO", "info,debug", "link=", "=debug", "a b=debug", "a:b=info"]
        {
            let fault = bad.parse::<LogFilter>().expect_err(bad);
            assert!(fault.contains(" is not ") || fault.contains("two levels"), "{bad}: {fault}");
        }
    }
}
