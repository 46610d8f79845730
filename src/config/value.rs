//! Values as people write them in files or flags: durations, sizes, counts, addresses.

use super::setting::MASK;
use crate::name::NodeAddress;
use std::{
    fmt::Display, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};
use toml::de::DeValue;

/// A text that is not a valid value: the expected kind, the text, and the fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {why}")]
pub struct ValueError {
    what: &'static str,
    text: String,
    why: &'static str,
}

impl ValueError {
    fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), why }
    }
}

/// Reads `500ms`, `5s`, `2m`, `1h`, `30d`, or several together, as `1h30m`. A number without a unit
/// is refused, and so are other units of `humantime`: its `M` is a month.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if text.is_empty() {
        "is empty; write a number and a unit, as 500ms, 5s, 2m, 1h or 30d"
    } else if is_digits(text) {
        "has no unit; write 500ms, 5s, 2m, 1h or 30d"
    } else if !has_known_units(text) {
        "is not a number and one of the units ms, s, m, h, d, as 500ms or 30d"
    } else {
        match humantime::parse_duration(text) {
            Ok(duration) => return Ok(duration),
            Err(humantime::DurationError::NumberOverflow) => "is too long",
            Err(_) => "is not a number and a unit, as 500ms, 5s, 2m, 1h or 30d",
        }
    };
    Err(ValueError::new("duration", text, why))
}

fn has_known_units(text: &str) -> bool {
    text.split(|byte: char| byte.is_ascii_digit() || byte == ' ')
        .filter(|unit| !unit.is_empty())
        .all(|unit| ["ms", "s", "m", "h", "d"].contains(&unit))
}

/// Reads `8MiB`, `64KiB`, `1GiB`, `100B`, or a plain number of bytes.
pub fn parse_bytes(text: &str) -> Result<usize, ValueError> {
    let fault = |why| ValueError::new("size", text, why);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(fault("is not a number with a unit, as 8MiB or 64KiB"));
    }
    let factor: usize = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(fault("has an unknown unit; write B, KiB, MiB or GiB")),
    };
    let bytes = number.parse().ok().and_then(|number: usize| number.checked_mul(factor));
    bytes.ok_or_else(|| fault("is too large"))
}

/// Reads a listening address: an IP address and a port, as `[::]:4433`.
pub fn parse_listen(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| {
        let why = if text.starts_with(':') || text.starts_with("*:") {
            "has no IP address; write [::] for all IPv6 and IPv4 addresses, as [::]:4433"
        } else {
            "is not an IP address and a port, as [::]:4433 or 127.0.0.1:4433"
        };
        ValueError::new("address", text, why)
    })
}

/// The end of a sentence about a value of the wrong type: `not an integer`.
pub(super) fn not_a_type(value: &DeValue<'_>) -> String {
    let article = if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
    format!("not {article} {}", value.type_str())
}

/// A text that the value is, or the fault.
fn as_text<'v>(value: &'v DeValue<'_>, example: &str) -> Result<&'v str, String> {
    let text = value.as_str().ok_or_else(|| {
        format!("must be a text in quotes, as \"{example}\", {}", not_a_type(value))
    })?;
    match text.contains(MASK) {
        true => Err(format!(
            "has {MASK} in place of a secret, as `dialback config print` writes it; write the value itself"
        )),
        false => Ok(text),
    }
}

/// Reads a text by a function that knows its grammar. `example` is one such text.
fn parsed<T, E: Display>(
    example: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| parse(as_text(value, example)?).map_err(|why| why.to_string())
}

/// Reads a text of a type that knows its own grammar. `example` is one such text.
pub(super) fn text<T: FromStr<Err: Display>>(
    example: &str,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    parsed(example, str::parse)
}

pub(super) fn listen(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    parsed("[::]:4433", parse_listen)(value)
}

/// Reads the address of an enroller: `HOST` or `HOST:PORT`.
pub(super) fn enroller(value: &DeValue<'_>) -> Result<NodeAddress, String> {
    let port = NodeAddress::ENROLLER_PORT_DEFAULT;
    parsed("ca.example.com:4434", |text| NodeAddress::parse_with_port(text, port))(value)
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match as_text(value, "certs/ca.pem")? {
        "" => Err("is empty; write a path, or remove the key".into()),
        text if text.contains('\0') => Err("has a NUL byte".into()),
        text => Ok(text.into()),
    }
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("must be true or false, without quotes, {}", not_a_type(value)))
}

pub(super) fn count(
    range: RangeInclusive<usize>,
) -> impl Fn(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        let number = as_number(value)
            .ok_or_else(|| format!("must be a number without quotes, {}", not_a_type(value)))?;
        within(&range, number?, |bound| bound.to_string())
    }
}

/// Reads a size within a range: `"8MiB"`, or a number of bytes.
/// Reads a part of a whole, from 0 to 1.
#[cfg(feature = "otel")]
pub(super) fn part(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        _ => None,
    };
    let number: f64 = number.ok_or_else(|| {
        format!("must be a number without quotes, as 0.01, {}", not_a_type(value))
    })?;
    within(&(0.0..=1.0), number, ToString::to_string)
}

pub(super) fn bytes(
    range: RangeInclusive<usize>,
) -> impl Fn(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        let size = match as_number(value) {
            Some(number) => number?,
            None => parse_bytes(as_text(value, "8MiB")?).map_err(|why| why.to_string())?,
        };
        within(&range, size, |bound| show_bytes(*bound))
    }
}

pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let text = match value {
            DeValue::Integer(number) => {
                let number = number.as_str();
                return Err(format!(
                    "has no unit; write it in quotes, as \"{number}s\" or \"{number}ms\""
                ));
            }
            other => as_text(other, "30s")?,
        };
        let duration = parse_duration(text).map_err(|why| why.to_string())?;
        within(&range, duration, |bound| show_duration(*bound))
    }
}

/// The integer that the value is, if it is one, and whether it can be counted here.
fn as_number(value: &DeValue<'_>) -> Option<Result<usize, String>> {
    let number = value.as_integer()?;
    let parsed = i128::from_str_radix(number.as_str(), number.radix()).ok();
    let counted = parsed.and_then(|number| usize::try_from(number).ok());
    Some(counted.ok_or_else(|| "is negative or too large".into()))
}

pub(super) fn within<T: PartialOrd>(
    range: &RangeInclusive<T>,
    value: T,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (show(range.start()), show(range.end()));
    Err(format!("{} is out of range: {least} to {most}", show(&value)))
}

/// The largest unit that shows the duration without a fraction, as it would be written in a file.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = units.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

pub(super) fn show_bytes(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, millis: u64) {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        check_duration("500ms", 500);
        check_duration("5s", 5_000);
        check_duration("2m", 120_000);
        check_duration("1h", 3_600_000);
        check_duration("30d", 30 * 86_400_000);
        check_duration("1h30m", 5_400_000);
        check_duration("1h 30m", 5_400_000);
        check_duration("0s", 0);
    }

    #[test]
    fn texts_that_are_not_durations_are_refused() {
        for bad in [
            "",
            "s",
            "5",
            "0",
            "-5s",
            "5M",
            "5min",
            "1week",
            "1.5h",
            "5 s s",
            "five",
            "5s!",
            "5é",
            "99999999999999999999s",
            "18446744073709551615d",
            " ",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken for a duration");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_remedy() {
        let error = parse_duration("30").expect_err("no unit").to_string();
        assert_eq!(error, "duration \"30\" has no unit; write 500ms, 5s, 2m, 1h or 30d");
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (text, bytes) in
            [("8MiB", 8 << 20), ("64KiB", 65_536), ("1GiB", 1 << 30), ("100B", 100), ("7", 7)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "MiB", "8MB", "8mib", "-1", "1.5MiB", "99999999999999999999B", "9999999999999GiB"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad:?} was taken for a size");
        }
    }

    #[test]
    fn listening_needs_an_address_and_a_port() {
        for good in ["[::]:4433", "0.0.0.0:4433", "127.0.0.1:0"] {
            assert_eq!(parse_listen(good).map(|address| address.to_string()), Ok(good.into()));
        }
        for bad in
            ["", ":4433", "*:4433", "0.0.0.0", "localhost:4433", "[::]", "::1", "1.2.3.4:99999"]
        {
            assert!(parse_listen(bad).is_err(), "{bad:?} was taken for an address");
        }
        let error = parse_listen(":4433").expect_err("no address").to_string();
        assert!(error.contains("[::]:4433"), "{error}");
    }

    #[test]
    fn values_are_shown_as_they_are_written() {
        let shown = [1, 1_000, 1_500, 90_000, 3_600_000, 31_536_000_000]
            .map(|millis| show_duration(Duration::from_millis(millis)));
        assert_eq!(shown, ["1ms", "1s", "1500ms", "90s", "1h", "365d"]);
        assert_eq!([0, 100, 1_024, 64 << 20].map(show_bytes), ["0B", "100B", "1KiB", "64MiB"]);
    }
}
