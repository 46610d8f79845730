//! All faults of a file, each with its line.

use std::{fmt, sync::Arc};

/// One thing that is wrong in a file. Shown as `node.toml:7: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFault {
    /// The file as it was named to us.
    pub file: Arc<str>,
    /// The line, from 1; 0 where the file as a whole is at fault.
    pub line: u32,
    /// The fault, and the remedy if there is one.
    pub text: String,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// Everything that is wrong with a file, never empty, in the order of its lines. Shown one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(LineFault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct LineFaults(Vec<LineFault>);

impl LineFaults {
    /// All that was found, or `None` where nothing was.
    pub(crate) fn found(mut faults: Vec<LineFault>) -> Option<Self> {
        faults.sort_by_key(|fault| fault.line);
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// One fault of the file as a whole, or of one line of it.
    #[cfg(feature = "config")]
    pub(crate) fn one(file: &str, line: u32, text: impl Into<String>) -> Self {
        Self(vec![LineFault { file: file.into(), line, text: text.into() }])
    }

    /// The faults, in the order of their lines.
    pub fn iter(&self) -> std::slice::Iter<'_, LineFault> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a LineFaults {
    type Item = &'a LineFault;
    type IntoIter = std::slice::Iter<'a, LineFault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_shown_one_a_line_in_the_order_of_lines() {
        let fault = |line, text: &str| LineFault { file: "a.toml".into(), line, text: text.into() };
        let faults = LineFaults::found(vec![fault(9, "late"), fault(2, "early"), fault(0, "all")]);
        let shown = faults.expect("faults").to_string();
        assert_eq!(shown, "a.toml: all\na.toml:2: early\na.toml:9: late");
        assert_eq!(LineFaults::found(Vec::new()), None);
    }
}
