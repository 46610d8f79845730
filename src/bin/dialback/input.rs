//! The messages of a call as they are given: JSON on the command line, in a file or on standard input.

use crate::exit::Failure;
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read},
};

/// JSON is larger than what is sent; no message that fits a link is longer than this.
const INPUT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Reads what `-d` gives: a sequence of JSON values, each one a message. Nothing given: one `null`.
pub(crate) fn messages(data: Option<&str>) -> Result<Vec<Value>, Failure> {
    let Some(data) = data else { return Ok(vec![Value::Null]) };
    match data.strip_prefix('@') {
        None => parse(data, "-d"),
        Some("-") => parse(&read(io::stdin(), "standard input")?, "standard input"),
        Some(path) => {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            parse(&read(file, path)?, path)
        }
    }
}

fn read(from: impl Read, place: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(place, &error))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(format!("{place} is larger than 256 MiB, which no message is")));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{place} is not UTF-8 text, which JSON is")))
}

fn unreadable(place: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read {place}: {error}"))
}

fn parse(text: &str, place: &str) -> Result<Vec<Value>, Failure> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().map_err(|why| {
        let hint = if place == "-d" { "; a text needs its quotes: -d '\"hello\"'" } else { "" };
        Failure::usage(format!("{place} is not JSON: {why}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_input_is_a_sequence_of_json_values() {
        let read = |text| messages(Some(text)).expect("JSON");
        assert_eq!(messages(None).expect("none given"), [json!(null)]);
        assert_eq!(read("\"a\""), [json!("a")]);
        assert_eq!(read("1 [2]\n{\"a\":3}"), [json!(1), json!([2]), json!({"a": 3})]);
        assert_eq!(read(" "), Vec::<Value>::new());
        assert_eq!(read("18446744073709551615"), [json!(u64::MAX)]);
    }

    #[test]
    fn what_is_no_json_is_a_local_fault() {
        for bad in ["hello", "{", "\"a\" }", "@/no/such/file", "nul"] {
            let refused = messages(Some(bad));
            assert!(matches!(refused, Err(Failure::Local(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn a_file_is_read_and_must_be_utf_8() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m.json");
        let arg = format!("@{}", path.display());
        std::fs::write(&path, "{\"a\": 1}\n").expect("written");
        assert_eq!(messages(Some(&arg)).expect("JSON"), [json!({"a": 1})]);
        std::fs::write(&path, b"\"\xff\"").expect("written");
        assert!(matches!(messages(Some(&arg)), Err(Failure::Local(_))));
    }
}
