//! Messages of a call: JSON on the command line, in a file or on standard input, read on demand.

use crate::exit::{Failure, rejected_locally};
use bytes::Bytes;
use dialback::{MethodPath, json};
use serde::{Deserialize, Deserializer};
use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
};
use tokio::sync::mpsc;

/// Messages read ahead of the call.
const AHEAD: usize = 64;

/// A sequence of JSON values, one per message, encoded when read. Without input: one `null`.
pub(crate) struct Input(mpsc::Receiver<Result<Bytes, Failure>>);

/// A JSON value as the CBOR of a message.
struct Encoded(Bytes);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::encode_from(deserializer).map(Self)
    }
}

impl Input {
    /// Starts to read what `-d` gives, in its own thread: standard input may stay silent for long.
    pub(crate) fn open(data: Option<&str>) -> Result<Self, Failure> {
        match data {
            None => Ok(Self::read(Cursor::new("null"), "-d".into())),
            Some("@-") => Ok(Self::read(io::stdin(), "standard input".into())),
            Some(data) => match data.strip_prefix('@') {
                Some(path) => {
                    let open = || File::open(path).map_err(|error| unreadable(path, &error));
                    let file = open()?;
                    if file.metadata().is_ok_and(|about| about.is_file()) {
                        parse_all(BufReader::new(file), path)?;
                    }
                    Ok(Self::read(open()?, path.to_owned()))
                }
                // Checked as a whole before anything is sent.
                None => {
                    parse_all(Cursor::new(data), "-d")?;
                    Ok(Self::read(Cursor::new(data.to_owned()), "-d".into()))
                }
            },
        }
    }

    fn read(from: impl Read + Send + 'static, source: String) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        // Not joined: a thread that reads standard input ends with the process.
        drop(std::thread::spawn(move || {
            let values = serde_json::Deserializer::from_reader(BufReader::new(from));
            for value in values.into_iter::<Encoded>() {
                let is_bad = value.is_err();
                let value = value.map(|encoded| encoded.0).map_err(|why| not_json(&source, &why));
                if sender.blocking_send(value).is_err() || is_bad {
                    return;
                }
            }
        }));
        Self(receiver)
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        self.0.recv().await
    }

    /// The message of a method that takes one, no more and no fewer.
    pub(crate) async fn only(mut self, method: &MethodPath) -> Result<Bytes, Failure> {
        let mut first = None;
        let mut count = 0;
        while let Some(value) = self.next().await {
            let value = value?;
            count += 1;
            first.get_or_insert(value);
        }
        match (first, count) {
            (Some(message), 1) => Ok(message),
            _ => Err(rejected_locally(format!(
                "{method} takes exactly one message, but {count} were given"
            ))),
        }
    }
}

fn unreadable(source: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read {source}: {error}"))
}

fn parse_all(from: impl Read, source: &str) -> Result<(), Failure> {
    let mut values = serde_json::Deserializer::from_reader(from).into_iter::<Encoded>();
    values.try_for_each(|value| value.map(drop)).map_err(|why| not_json(source, &why))
}

fn not_json(source: &str, why: &serde_json::Error) -> Failure {
    if why.is_io() && why.io_error_kind() != Some(io::ErrorKind::InvalidData) {
        return Failure::usage(format!("cannot read {source}: {why}"));
    }
    let hint = match source {
        _ if why.to_string().starts_with("invalid unicode") => "; the input is not UTF-8",
        "-d" => "; quote a string: -d '\"hello\"'",
        _ => "",
    };
    Failure::usage(format!("{source} is not JSON: {why}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(encoded: &Bytes) -> Value {
        json::from_cbor(encoded).expect("CBOR")
    }

    async fn all(data: Option<&str>) -> Result<Vec<Value>, Failure> {
        let mut input = Input::open(data)?;
        let mut values = Vec::new();
        while let Some(next) = input.next().await {
            values.push(value(&next?));
        }
        Ok(values)
    }

    #[tokio::test]
    async fn the_input_is_a_sequence_of_json_values() {
        assert_eq!(all(None).await.expect("none given"), [json!(null)]);
        let read = async |text| all(Some(text)).await.expect("JSON");
        assert_eq!(read("\"a\"").await, [json!("a")]);
        assert_eq!(read("1 [2]\n{\"a\":3}").await, [json!(1), json!([2]), json!({"a": 3})]);
        assert_eq!(read(" ").await, Vec::<Value>::new());
        assert_eq!(read("18446744073709551615").await, [json!(u64::MAX)]);
    }

    #[tokio::test]
    async fn invalid_json_is_a_local_fault() {
        for bad in ["hello", "{", "\"a\" }", "@/no/such/file", "nul"] {
            let refused = all(Some(bad)).await;
            assert!(matches!(refused, Err(Failure::Local(_))), "{bad}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_and_must_be_utf_8() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m.json");
        let arg = format!("@{}", path.display());
        std::fs::write(&path, "{\"a\": 1}\n").expect("written");
        assert_eq!(all(Some(&arg)).await.expect("JSON"), [json!({"a": 1})]);
        std::fs::write(&path, b"\"\xff\"").expect("written");
        assert!(matches!(all(Some(&arg)).await, Err(Failure::Local(_))));
    }

    #[tokio::test]
    async fn a_method_that_takes_one_message_gets_exactly_one() {
        let method = "A/b".parse().expect("a method");
        let only = async |data| Input::open(Some(data)).expect("JSON").only(&method).await;
        assert_eq!(value(&only("7").await.expect("one")), json!(7));
        for bad in ["", "1 2"] {
            assert!(matches!(only(bad).await, Err(Failure::Call(..))), "{bad:?} was taken");
        }
    }
}
