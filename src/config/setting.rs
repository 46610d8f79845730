//! Settings as the keys and values of a file that would have the same effect.

use serde::Serialize;
use std::{fmt::Display, path::Path};

/// Text in place of a secret. A file that has it in a value is refused.
pub const MASK: &str = "<masked>";

/// Value of a setting. It serializes as the value itself, which TOML writes as JSON does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum SettingValue {
    /// `true` or `false`.
    Flag(bool),
    /// A number without a unit.
    Count(usize),
    /// A part of something, from 0 to 1.
    Part(f64),
    /// A text, also one that is a duration or a size.
    Text(String),
    /// An array of texts.
    Texts(Vec<String>),
}

impl SettingValue {
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// `None` for an array without values, which means the same as none.
    pub(super) fn texts<T: Display>(values: &[T]) -> Option<Self> {
        (!values.is_empty()).then(|| Self::all(values))
    }

    /// An array that may be empty.
    pub(super) fn all<T: Display>(values: &[T]) -> Self {
        Self::Texts(values.iter().map(ToString::to_string).collect())
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// The key in its table.
    pub key: &'static str,
    /// The value; `None` if nothing is set and nothing is the default.
    pub value: Option<SettingValue>,
    /// What may be shown, if the value has a secret.
    pub masked: Option<SettingValue>,
    /// True for a value that is in effect and that a file should not say, because it comes from
    /// this machine, or cannot say.
    pub is_implied: bool,
}

/// One table of settings: `[tls]`, `[[allow]]`, or the top of the file.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SettingTable {
    /// The name without brackets; empty at the top of the file.
    pub name: &'static str,
    /// True if a file may have several.
    pub is_array: bool,
    /// All keys that the table may have.
    pub settings: Vec<Setting>,
}

impl SettingTable {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, is_array: false, settings: Vec::new() }
    }

    /// One of several, as `[[allow]]`.
    pub(super) const fn one_of(name: &'static str) -> Self {
        Self { name, is_array: true, settings: Vec::new() }
    }

    /// Adds a key.
    pub(super) fn set(self, key: &'static str, value: impl Into<Option<SettingValue>>) -> Self {
        self.set_masked(key, value, None)
    }

    /// Adds a key whose value has a secret if `masked` shows another one.
    pub(super) fn set_masked(
        mut self,
        key: &'static str,
        value: impl Into<Option<SettingValue>>,
        masked: Option<SettingValue>,
    ) -> Self {
        let value = value.into();
        let masked = masked.filter(|masked| value.as_ref() != Some(masked));
        self.settings.push(Setting { key, value, masked, is_implied: false });
        self
    }

    pub(super) fn set_text(self, key: &'static str, value: Option<impl Display>) -> Self {
        self.set(key, value.map(SettingValue::text))
    }

    pub(super) fn set_flag(self, key: &'static str, value: bool) -> Self {
        self.set(key, SettingValue::Flag(value))
    }

    /// Adds a URL or a path of one. Its query is a secret: servers take keys there.
    #[cfg(any(feature = "forward", feature = "tunnel"))]
    pub(super) fn set_url(self, key: &'static str, url: Option<impl Display>) -> Self {
        let url = url.map(|url| url.to_string());
        let without_query = url.as_deref().and_then(|url| url.split_once('?'));
        let masked = without_query.map(|(url, _)| SettingValue::Text(format!("{url}?{MASK}")));
        self.set_masked(key, url.map(SettingValue::Text), masked)
    }

    /// Adds a path. TOML is UTF-8 and cannot say other paths.
    pub(super) fn set_path(mut self, key: &'static str, path: Option<&Path>) -> Self {
        let is_implied = path.is_some_and(|path| path.to_str().is_none());
        let value = path.map(|path| SettingValue::text(path.to_string_lossy()));
        self.settings.push(Setting { key, value, masked: None, is_implied });
        self
    }

    /// Adds a value that this machine implies.
    pub(super) fn set_implied(mut self, key: &'static str, value: Option<SettingValue>) -> Self {
        let is_implied = value.is_some();
        self.settings.push(Setting { key, value, masked: None, is_implied });
        self
    }

    /// The setting of a key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}
