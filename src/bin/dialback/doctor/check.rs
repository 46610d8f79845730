//! Results of the checks of `dialback doctor`, as text and as JSON.

use crate::{
    exit::Failure,
    output::{escape, print, print_json},
};
use dialback::LinkFault;
use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    check: &'static str,
    pub(super) state: CheckState,
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckState {
    Ok,
    Warning,
    Failure,
    /// It would say nothing after the failure of another check, or with these settings.
    Skipped,
}

impl Check {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, state: CheckState::Ok, text: text.into(), remedy: None }
    }

    pub(super) fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self { check, state: CheckState::Skipped, text: why.into(), remedy: None }
    }

    pub(super) fn warning(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (text, remedy) = (text.into(), Some(remedy.into()));
        Self { check, state: CheckState::Warning, text, remedy }
    }

    pub(super) fn failure(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: CheckState::Failure, ..Self::warning(check, text, remedy) }
    }

    /// From the text of an error, which continues with its remedy.
    pub(super) fn of_text(check: &'static str, state: CheckState, text: &str) -> Self {
        let split = text.split_once("; ").or_else(|| text.split_once("): "));
        let (fact, remedy) = split.map_or((text, None), |(fact, remedy)| (fact, Some(remedy)));
        // The mark of a text that has no semicolon closes a parenthesis.
        let is_open = fact.matches('(').count() > fact.matches(')').count();
        let fact = if is_open && remedy.is_some() { format!("{fact})") } else { fact.to_owned() };
        Self { check, state, text: fact, remedy: remedy.map(str::to_owned) }
    }

    /// From the fault of a link, found at `subject`.
    pub(super) fn of_fault(
        check: &'static str,
        state: CheckState,
        subject: &str,
        fault: &LinkFault,
    ) -> Self {
        let check = match fault {
            LinkFault::Handshake { reason, remedy, .. } => {
                Self { check, state, text: reason.clone(), remedy: Some(remedy.clone()) }
            }
            fault => Self::of_text(check, state, &fault.to_string()),
        };
        Self { text: format!("{subject}: {}", check.text), ..check }
    }

    /// From a failure that the examined command would end with.
    pub(super) fn of_failure(check: &'static str, failure: &Failure) -> Self {
        Self::of_text(check, CheckState::Failure, &failure.lines().join(", "))
    }

    fn lines(&self) -> String {
        let mark = match self.state {
            CheckState::Ok => "ok      ",
            CheckState::Warning => "WARNING ",
            CheckState::Failure => "FAILURE ",
            CheckState::Skipped => "skipped ",
        };
        let remedy = self.remedy.as_ref().map(|remedy| format!("\n        {}", escape(remedy)));
        format!("{mark}{}: {}{}", self.check, escape(&self.text), remedy.unwrap_or_default())
    }
}

/// Results so far. As text, each is printed as soon as it is there.
pub(super) struct Report {
    wants_json: bool,
    checks: Vec<Check>,
}

impl Report {
    pub(super) const fn new(wants_json: bool) -> Self {
        Self { wants_json, checks: Vec::new() }
    }

    pub(super) fn add(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<(), Failure> {
        for check in checks {
            if !self.wants_json {
                print(&check.lines())?;
            }
            self.checks.push(check);
        }
        Ok(())
    }

    /// Prints the results as JSON, if wanted. A failed check is the failure of the command.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.wants_json {
            print_json(&self.checks)?;
        }
        match self.checks.iter().any(|check| check.state == CheckState::Failure) {
            true => Err(Failure::Reported(1)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_is_split_into_fact_and_remedy() {
        let of = |text| {
            let check = Check::of_text("udp", CheckState::Failure, text);
            (check.text, check.remedy.unwrap_or_default())
        };
        let split = |fact: &str, remedy: &str| (fact.to_owned(), remedy.to_owned());
        assert_eq!(of("it is gone; look; then wait"), split("it is gone", "look; then wait"));
        assert_eq!(of("it asks (407): set proxy"), split("it asks (407)", "set proxy"));
        assert_eq!(of("it is gone"), split("it is gone", ""));
    }

    #[test]
    fn a_line_has_its_state_and_the_remedy_below() {
        let failure = Check::failure("udp", "no answer\u{1b}[2J", "open UDP 4433");
        assert_eq!(failure.lines(), "FAILURE udp: no answer\\u{1b}[2J\n        open UDP 4433");
        assert_eq!(Check::ok("udp", "it answers").lines(), "ok      udp: it answers");
        assert_eq!(Check::skipped("udp", "no route").lines(), "skipped udp: no route");
        let json = serde_json::to_value(Check::skipped("udp", "no route")).expect("JSON");
        let expected = serde_json::json!(
            {"check": "udp", "state": "skipped", "text": "no route", "remedy": null}
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn warnings_leave_the_exit_code_alone_and_a_failure_does_not() {
        let end = |check| {
            let mut report = Report { wants_json: false, checks: Vec::new() };
            report.add([Check::ok("name", "x"), check]).expect("printed");
            report.end()
        };
        assert!(end(Check::warning("udp", "x", "y")).is_ok());
        assert!(end(Check::skipped("udp", "x")).is_ok());
        assert!(matches!(end(Check::failure("udp", "x", "y")), Err(Failure::Reported(1))));
    }
}
