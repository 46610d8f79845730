//! Reads a TOML table key by key: each fault is recorded with its line, and reading continues.

use super::{
    places::KeyPlaces,
    value::{not_a_type, text},
};
use crate::{
    line_faults::{LineFault, LineFaults},
    policy::Origin,
    printable::printable,
};
use std::{
    cell::RefCell, collections::BTreeSet, fmt::Display, ops::Range, str::FromStr, sync::Arc,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue, Error as SyntaxError},
};

/// Longer keys are truncated when they are shown, and get no suggestion.
const SHOWN_KEY_CHARS_MAX: usize = 40;

/// Reads a text, and the places of its keys. `read` takes the known keys; the remaining ones are
/// reported as faults.
pub(super) fn read_document<T>(
    text: &str,
    file: &str,
    read: impl FnOnce(&mut Table<'_>) -> T,
) -> Result<(T, KeyPlaces), LineFaults> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let page = SourceFile::new(text, file, &errors);
    let mut table = Table::new(&page, "", 0..0, document.get_ref());
    let settings = read(&mut table);
    table.finish();
    let faults = page.all_faults(text, &errors);
    LineFaults::found(faults).map_or_else(|| Ok((settings, page.places.take())), Err)
}

/// One file while it is read: the offsets of its lines, and the faults and places so far.
struct SourceFile {
    file: Arc<str>,
    line_starts: Vec<usize>,
    faults: RefCell<Vec<LineFault>>,
    places: RefCell<KeyPlaces>,
    /// Invalid TOML is read as far as it parses: missing keys may be in the broken part.
    is_broken: bool,
}

impl SourceFile {
    fn new(text: &str, file: &str, errors: &[SyntaxError]) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        let is_broken = !errors.is_empty();
        let (faults, places) = (RefCell::default(), RefCell::default());
        Self { file: file.into(), line_starts, faults, places, is_broken }
    }

    fn line(&self, offset: usize) -> u32 {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn place(&self, offset: usize) -> Origin {
        Origin::at(self.file.clone(), self.line(offset))
    }

    fn note(&self, offset: usize, text: String) {
        let fault = LineFault { file: self.file.clone(), line: self.line(offset), text };
        self.faults.borrow_mut().push(fault);
    }

    /// Syntax errors, one a line, and the faults that do not follow from one: not on its line, and
    /// not after a broken header, whose keys landed in another table.
    fn all_faults(&self, text: &str, errors: &[SyntaxError]) -> Vec<LineFault> {
        let mut broken_lines = BTreeSet::new();
        let mut trusted_until = u32::MAX;
        let mut faults = Vec::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = self.line(span.start);
            let is_duplicate = error.message() == DUPLICATE;
            if !is_duplicate && self.line_text(text, line).starts_with('[') {
                trusted_until = trusted_until.min(line);
            }
            if broken_lines.insert(line) {
                let text = syntax_text(error, text.get(span));
                faults.push(LineFault { file: self.file.clone(), line, text });
            }
        }
        let others = self.faults.take().into_iter();
        faults.extend(
            others
                .filter(|fault| !broken_lines.contains(&fault.line) && fault.line < trusted_until),
        );
        faults
    }

    fn line_text<'t>(&self, text: &'t str, line: u32) -> &'t str {
        let start = self.line_starts.get(line.saturating_sub(1) as usize).copied();
        let rest = text.get(start.unwrap_or(0)..).unwrap_or("");
        rest.lines().next().unwrap_or("").trim_start()
    }
}

const DUPLICATE: &str = "duplicate key";

fn syntax_text(error: &SyntaxError, at: Option<&str>) -> String {
    match at {
        Some(key) if error.message() == DUPLICATE => format!("{DUPLICATE} `{}`", truncated(key)),
        _ => format!("this is not TOML: {}", error.message().replace('\n', " ")),
    }
}

fn truncated(key: &str) -> String {
    printable(&key.chars().take(SHOWN_KEY_CHARS_MAX).collect::<String>())
}

/// One table of the file, and the keys of it that were read.
pub(super) struct Table<'a> {
    page: &'a SourceFile,
    /// `[tls]`, `[[allow]]`, or nothing for the file itself.
    title: &'static str,
    /// Its number among the places.
    number: usize,
    header: Range<usize>,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(
        page: &'a SourceFile,
        title: &'static str,
        header: Range<usize>,
        entries: &'a DeTable<'a>,
    ) -> Self {
        let number = page.places.borrow_mut().begin(title);
        Self { page, title, number, header, entries, known: Vec::new(), refused: Vec::new() }
    }

    /// Reads the value of a key, if the key is there.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        self.read_value(key, value, read)
    }

    /// Reads a required text. `example` is shown if it is missing.
    pub(super) fn required<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<T> {
        if !self.entries.contains_key(key) && !self.page.is_broken {
            let title = self.title;
            let text = format!("{title} has no `{key}`; add a line as {key} = \"{example}\"");
            self.page.note(self.header.start, text);
        }
        self.optional(key, text(example))
    }

    /// Replaces a default by the value of a key, if the key is there.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        slot: &mut T,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) {
        if let Some(value) = self.optional(key, read) {
            *slot = value;
        }
    }

    /// Reads each value of an array; faults carry the line of the value.
    pub(super) fn each<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let Some(array) = value.get_ref().as_array() else {
            return self.misfit(value, format!("`{key}`: must be an array, as [\"...\"]"));
        };
        Some(array.iter().filter_map(|value| self.read_value(key, value, &read)).collect())
    }

    /// Reads each value of an array that must not be empty; a faulty only value counts.
    pub(super) fn each_of_some<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
        remedy: &str,
    ) -> Option<Vec<T>> {
        let array = self.entries.get(key).and_then(|value| value.get_ref().as_array());
        if array.is_some_and(|array| array.is_empty()) {
            self.fault(key, format!("`{key}`: is empty; {remedy}"));
        }
        self.each(key, read)
    }

    /// The table of a key, `[tls]`, if it is there.
    pub(super) fn table(&mut self, key: &'static str, title: &'static str) -> Option<Self> {
        let value = self.take(key)?;
        let Some(table) = value.get_ref().as_table() else {
            return self.misfit(value, format!("`{key}`: must be one table, {title}"));
        };
        Some(Table::new(self.page, title, value.span(), table))
    }

    /// True if a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// True if a key is there and is a table.
    #[cfg(feature = "gateway")]
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().as_table().is_some())
    }

    /// The tables of a key, `[[allow]]`, in the order of the file.
    pub(super) fn tables(&mut self, key: &'static str, title: &'static str) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let expected = format!("`{key}`: must be an array of tables, {title}");
            return self.misfit(value, expected).unwrap_or_default();
        };
        array.iter().filter_map(|value| self.one_of(title, value)).collect()
    }

    fn one_of(&self, title: &'static str, value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            return self.misfit(value, format!("{title}: must be a table"));
        };
        Some(Table::new(self.page, title, value.span(), table))
    }

    /// Records a value of the wrong type.
    fn misfit<T>(&self, value: &Spanned<DeValue<'_>>, expected: String) -> Option<T> {
        let text = format!("{expected}, {}", not_a_type(value.get_ref()));
        self.page.note(value.span().start, text);
        None
    }

    /// Records keys that belong elsewhere, with the reason.
    pub(super) fn refuse(&mut self, keys: &[&'static str], why: &str) {
        for key in keys {
            if let Some((name, value)) = self.entries.get_key_value(*key) {
                let text = format!("{} {why}", as_written(key, value.get_ref()));
                self.page.note(name.span().start, text);
            }
        }
        self.refused.extend(keys);
    }

    /// Records a fault in the combination of a key with others.
    pub(super) fn fault(&self, key: &str, text: String) {
        let at =
            self.entries.get_key_value(key).map_or(self.header.start, |(key, _)| key.span().start);
        self.page.note(at, text);
    }

    /// Records duplicates in an array.
    pub(super) fn fault_repeats<T: PartialEq + Display>(&self, key: &str, items: &[T]) {
        for (index, item) in items.iter().enumerate() {
            if items[..index].contains(item) {
                self.fault(key, format!("`{key}`: duplicate entry {item}"));
            }
        }
    }

    /// Notes unknown keys. Returns the place of the header, for rules.
    pub(super) fn finish(self) -> Origin {
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) && !self.refused.contains(&name) {
                self.page.note(key.span().start, self.unknown(name));
            }
        }
        self.page.place(self.header.start)
    }

    fn unknown(&self, key: &str) -> String {
        let header = if self.title.is_empty() { "" } else { " in " };
        let text = format!("unknown key `{}`{header}{}", truncated(key), self.title);
        match nearest(key, &self.known) {
            Some(near) => format!("{text}, did you mean `{near}`?"),
            None => text,
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        let found = self.entries.get_key_value(key);
        let place = found.map(|(name, _)| self.page.place(name.span().start));
        self.page.places.borrow_mut().add(self.number, key, place);
        found.map(|(_, value)| value)
    }

    fn read_value<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        read(value.get_ref())
            .map_err(|why| self.page.note(value.span().start, format!("`{key}`: {why}")))
            .ok()
    }
}

/// Spelling of a refused key in the file: `[gateway]`, `[[http]]`, `` `rate` ``.
fn as_written(key: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(_) => format!("[{key}]"),
        DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
            format!("[[{key}]]")
        }
        _ => format!("`{key}`"),
    }
}

/// The known key that was probably meant: at most two slips away, and less than half of the key.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > SHOWN_KEY_CHARS_MAX {
        return None;
    }
    let near = known.iter().map(|known| (strsim::levenshtein(key, known), *known)).min()?;
    (near.0 <= 2 && near.0 * 2 < key.len()).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file that knows `listen`, `[tls] cert` and `[[allow]] caller`, the last one
    /// required.
    fn read(text: &str) -> Result<(), LineFaults> {
        let string = |value: &DeValue<'_>| value.as_str().map(drop).ok_or_else(|| "text".into());
        read_document(text, "f", |file| {
            file.optional("listen", string);
            if let Some(mut tls) = file.table("tls", "[tls]") {
                tls.optional("cert", string);
                tls.finish();
            }
            for mut rule in file.tables("allow", "[[allow]]") {
                rule.required::<String>("caller", "x");
                rule.finish();
            }
            file.refuse(&["gateway", "http", "rate"], "is not supported");
        })
        .map(drop)
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let shown = read(text).err().map_or_else(String::new, |faults| faults.to_string());
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "of {text:?}");
    }

    #[test]
    fn known_keys_of_the_right_type_pass() {
        check("", &[]);
        check("listen = 'a'\n[tls]\ncert = 'c'\n[[allow]]\ncaller = 'x'\n", &[]);
        check("\u{feff}listen = 'a'\r\n[tls]\r\ncert = 'c'\r\n", &[]);
        check("allow = [{ caller = 'x' }]", &[]);
    }

    #[test]
    fn an_unknown_key_is_a_fault_with_the_nearest_known_one() {
        check("\nlisen = 'a'", &["f:2: unknown key `lisen`, did you mean `listen`?"]);
        check("[tls]\ncrt = 'a'", &["f:2: unknown key `crt` in [tls], did you mean `cert`?"]);
        check("wholly_other = 1", &["f:1: unknown key `wholly_other`"]);
        check("x = 1", &["f:1: unknown key `x`"]);
        check("\"a\\nb\" = 1", &["f:1: unknown key `a\\nb`"]);
    }

    #[test]
    fn a_missing_key_is_a_fault_at_the_header() {
        check("\n[[allow]]\n", &["f:2: [[allow]] has no `caller`; add a line as caller = \"x\""]);
    }

    #[test]
    fn a_wrong_type_or_bracket_is_a_fault() {
        check("listen = 1", &["f:1: `listen`: text"]);
        check("tls = 1", &["f:1: `tls`: must be one table, [tls], not an integer"]);
        check("[[tls]]", &["f:1: `tls`: must be one table, [tls], not an array"]);
        let several = "f:1: `allow`: must be an array of tables, [[allow]], not a table";
        check("[allow]", &[several]);
        check("allow = [1]", &["f:1: [[allow]]: must be a table, not an integer"]);
    }

    #[test]
    fn a_refused_key_is_named_as_it_is_written() {
        check(
            "rate = 1\n[gateway]",
            &["f:1: `rate` is not supported", "f:2: [gateway] is not supported"],
        );
        check("[[http]]\nname = 1", &["f:1: [[http]] is not supported"]);
    }

    #[test]
    fn syntax_errors_are_reported_with_the_other_faults_and_without_consequential_ones() {
        check(
            "listen = 30s\nx = 1\n[tls]\ncert = 5\n[[allow]]\n",
            &[
                "f:1: this is not TOML: string values must be quoted, expected literal string",
                "f:2: unknown key `x`",
                "f:4: `cert`: text",
            ],
        );
        check(
            "x = 1\n[tls\ncert = 5\nmore = 1\n",
            &["f:1: unknown key `x`", "f:2: this is not TOML: unclosed table, expected `]`"],
        );
        check("listen = 'a'\nlisten = 'b'", &["f:2: duplicate key `listen`"]);
    }

    #[test]
    fn only_near_keys_are_suggested() {
        for (key, near) in [("lisen", Some("listen")), ("listens", Some("listen")), ("lt", None)] {
            assert_eq!(nearest(key, &["cert", "listen"]), near, "{key}");
        }
        assert_eq!(nearest(&"listen".repeat(10), &["listen"]), None);
    }
}
