//! The demo services of `dialback agent --demo`, for tests and for trying dialback out.
//!
//! `Demo/Append` writes a ledger, which shows the runs of a call and those that were stopped.

use crate::{
    call::{Context, Handler, Inbound, Outbound, Reply, Request},
    serve::{Description, Service},
    status::{Code, Status},
    wire::{CallKind, encode_value},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// The services, with a ledger for `Demo/Append` if one is given.
pub fn services(ledger: Option<Ledger>) -> Vec<Service> {
    let hello = Service::new("HelloService")
        .method("Hello", |name: String, _: Context| async move { Ok(format!("hello:{name}")) });
    let hello = describe(hello, "The first call there ever was.", HELLO);
    let ledger = ledger.map(Arc::new);
    let demo = Service::new("Demo")
        .raw_method("Echo", Echo)
        .method("Sleep", |sleep: Sleep, _: Context| async move {
            tokio::time::sleep(Duration::from_millis(sleep.ms)).await;
            Ok(())
        })
        .method("Fail", |fail: Fail, _: Context| async move { Err::<(), _>(fail.into_status()?) })
        .method("Panic", |_: de::IgnoredAny, _: Context| async move { panic_on_purpose() })
        .method("Append", move |append: Append, _: Context| append.run(ledger.clone()))
        .server_stream("Bytes", |bytes: Bytes, replies, _: Context| bytes.run(replies))
        .server_stream("Count", |count: Count, replies, _: Context| count.run(replies))
        .client_stream("Sum", |values: Inbound<Value>, _: Context| sum(values))
        .raw_method_of(CallKind::Bidirectional, "Chat", Echo);
    vec![hello, describe(demo, "For tests and for trying dialback out.", DEMO)]
}

/// Name and description of a method, and JSON Schemas of its messages; an empty one is not listed.
type MethodText = [&'static str; 4];

const HELLO: &[MethodText] =
    &[["Hello", "Gives \"hello:\" and what it was given.", r#"{"type":"string"}"#, STRING_OUT]];

const STRING_OUT: &str = r#"{"type":"string","examples":["hello:hello"]}"#;

const NOTHING: &str = r#"{"type":"null"}"#;

const DEMO: &[MethodText] = &[
    ["Echo", "Gives back what it was given.", "", ""],
    [
        "Sleep",
        "Answers after so many milliseconds.",
        r#"{"type":"object","required":["ms"],"properties":{"ms":{"type":"integer","minimum":0,"maximum":18446744073709551615}},"additionalProperties":false}"#,
        NOTHING,
    ],
    [
        "Fail",
        "Fails with the code of that name, as NOT_FOUND.",
        r#"{"type":"object","required":["code"],"properties":{"code":{"type":"string","enum":["CANCELLED","UNKNOWN","INVALID_ARGUMENT","DEADLINE_EXCEEDED","NOT_FOUND","ALREADY_EXISTS","PERMISSION_DENIED","RESOURCE_EXHAUSTED","FAILED_PRECONDITION","ABORTED","OUT_OF_RANGE","UNIMPLEMENTED","INTERNAL","UNAVAILABLE","DATA_LOSS","UNAUTHENTICATED"]},"message":{"type":"string"}},"additionalProperties":false}"#,
        NOTHING,
    ],
    ["Panic", "Panics: the call ends INTERNAL, unknown.", "", NOTHING],
    [
        "Append",
        "Writes `started ID` into the agent's ledger, and `done ID` after so many milliseconds.",
        r#"{"type":"object","required":["id"],"properties":{"id":{"type":"string","pattern":"^[A-Za-z0-9_-]{1,64}$"},"ms":{"type":"integer","minimum":0,"maximum":18446744073709551615}},"additionalProperties":false}"#,
        NOTHING,
    ],
    [
        "Bytes",
        "Streams so many bytes, in messages of `chunk` (64 KiB).",
        r#"{"type":"object","required":["bytes"],"properties":{"bytes":{"type":"integer","minimum":0,"maximum":18446744073709551615},"chunk":{"type":"integer","minimum":1,"maximum":4194288}},"additionalProperties":false}"#,
        r#"{"type":"string","contentEncoding":"base64url"}"#,
    ],
    [
        "Count",
        "Streams {\"i\":1}, {\"i\":2} and so on up to n, one each interval.",
        r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":0,"maximum":18446744073709551615},"interval_ms":{"type":"integer","minimum":0,"maximum":18446744073709551615}},"additionalProperties":false}"#,
        r#"{"type":"object","required":["i"],"properties":{"i":{"type":"integer"}}}"#,
    ],
    [
        "Sum",
        "Adds up the values of a stream.",
        r#"{"type":"object","required":["value"],"properties":{"value":{"type":"integer"}},"additionalProperties":false}"#,
        r#"{"type":"object","required":["sum","count"],"properties":{"sum":{"type":"integer"},"count":{"type":"integer"}}}"#,
    ],
    ["Chat", "Gives back every message of a stream as it comes.", "", ""],
];

fn describe(service: Service, text: &str, methods: &[MethodText]) -> Service {
    let described = |service: Service, [name, text, request, reply]: &MethodText| {
        service.describe_method(*name, Description::new(*text).request(*request).reply(*reply))
    };
    methods.iter().fold(service.describe(text), described)
}

/// A whole number, also as `5.0`: to JSON Schema that is an integer, and some write all numbers so.
fn integer<'de, D: Deserializer<'de>>(number: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "not a whole number from 0 to 2^64-1")]
    enum Number {
        Whole(u64),
        Float(f64),
    }
    match Number::deserialize(number)? {
        Number::Whole(number) => Ok(number),
        // 2^64 is a double, the number below it is not.
        Number::Float(number)
            if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number) =>
        {
            Ok(number as u64)
        }
        Number::Float(number) => Err(de::Error::invalid_value(
            Unexpected::Float(number),
            &"a whole number from 0 to 2^64-1",
        )),
    }
}

/// Gives every message back as it comes.
struct Echo;

impl Handler for Echo {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        Ok(Reply { body: request.body, ..Reply::default() })
    }
}

/// A stream of this number of bytes, in messages of `chunk`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    #[serde(deserialize_with = "integer")]
    bytes: u64,
    #[serde(default = "chunk_default", deserialize_with = "integer")]
    chunk: u64,
}

const fn chunk_default() -> u64 {
    64 * 1024
}

/// With its CBOR header such a chunk fits the default limit on messages.
const CHUNK_MAX: u64 = 4 * 1024 * 1024 - 16;

impl Bytes {
    async fn run(self, mut replies: Outbound<serde_bytes::ByteBuf>) -> Result<(), Status> {
        if !(1..=CHUNK_MAX).contains(&self.chunk) {
            let text = format!("chunk is not from 1 to {CHUNK_MAX} bytes");
            return Err(Status::new(Code::InvalidArgument, text));
        }
        let chunk = usize::try_from(self.chunk).unwrap_or(usize::MAX);
        let encode = |bytes: usize| {
            encode_value(&serde_bytes::ByteBuf::from(vec![0x5a; bytes]))
                .map_err(|fault| Status::new(Code::Internal, fault))
        };
        let full_chunk = encode(chunk)?;
        for _ in 0..self.bytes / self.chunk {
            replies.send_encoded(full_chunk.clone()).await?;
        }
        match usize::try_from(self.bytes % self.chunk).unwrap_or(0) {
            0 => Ok(()),
            rest => replies.send_encoded(encode(rest)?).await,
        }
    }
}

/// `{"i":1}`, `{"i":2}` and so on, one each interval.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    #[serde(deserialize_with = "integer")]
    n: u64,
    #[serde(default, deserialize_with = "integer")]
    interval_ms: u64,
}

#[derive(Serialize)]
struct CountItem {
    i: u64,
}

impl Count {
    async fn run(self, mut replies: Outbound<CountItem>) -> Result<(), Status> {
        for i in 1..=self.n {
            if i > 1 && self.interval_ms > 0 {
                tokio::time::sleep(Duration::from_millis(self.interval_ms)).await;
            }
            replies.send(&CountItem { i }).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    value: i64,
}

#[derive(Serialize)]
struct Sum {
    sum: i64,
    count: u64,
}

async fn sum(mut values: Inbound<Value>) -> Result<Sum, Status> {
    let mut all = Sum { sum: 0, count: 0 };
    while let Some(value) = values.next().await {
        all.sum = all.sum.checked_add(value?.value).ok_or_else(|| {
            Status::new(Code::OutOfRange, "the sum is larger than a signed 64-bit number")
        })?;
        all.count += 1;
    }
    Ok(all)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    #[serde(deserialize_with = "integer")]
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    code: String,
    #[serde(default)]
    message: String,
}

impl Fail {
    fn into_status(self) -> Result<Status, Status> {
        match self.code.parse() {
            Ok(Code::Ok) | Err(_) => {
                let text =
                    format!("{:?} is no failure's code; they are written as NOT_FOUND", self.code);
                Err(Status::new(Code::InvalidArgument, text))
            }
            Ok(code) => Ok(Status::new(code, self.message)),
        }
    }
}

#[expect(clippy::panic, reason = "that is what the method is for")]
fn panic_on_purpose() -> Result<(), Status> {
    panic!("Demo/Panic was called")
}

/// A file of lines `started <id>` and `done <id>`, each written at once and synced.
#[derive(Debug)]
pub struct Ledger(File);

impl Ledger {
    /// Opens or creates the file for appending.
    ///
    /// # Errors
    /// The error of the system for the file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    fn write(&self, what: &str, id: &str) -> Result<(), Status> {
        let write = || -> io::Result<()> {
            (&self.0).write_all(format!("{what} {id}\n").as_bytes())?;
            self.0.sync_data()
        };
        write().map_err(|error| Status::new(Code::Internal, format!("the ledger: {error}")))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    id: String,
    #[serde(default, deserialize_with = "integer")]
    ms: u64,
}

impl Append {
    async fn run(self, ledger: Option<Arc<Ledger>>) -> Result<(), Status> {
        let Self { id, ms } = self;
        if !is_ledger_id(&id) {
            return Err(Status::new(
                Code::InvalidArgument,
                "the id is not 1 to 64 of A-Z, a-z, 0-9, _ and -",
            ));
        }
        let ledger = ledger.ok_or_else(|| {
            Status::new(
                Code::FailedPrecondition,
                "this agent keeps no ledger; start it with --ledger FILE",
            )
        })?;
        ledger.write("started", &id)?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        ledger.write("done", &id)
    }
}

fn is_ledger_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Services;

    #[test]
    fn every_demo_method_says_what_it_does_and_its_schemas_are_json() {
        let services = Services::new(services(None)).expect("services");
        for service in services.infos().iter() {
            assert!(!service.description.is_empty(), "{}", service.name);
            for method in &service.methods {
                assert!(!method.description.is_empty(), "{}/{}", service.name, method.name);
                for schema in [&method.request_schema, &method.reply_schema] {
                    let read = serde_json::from_str::<serde_json::Value>(schema);
                    assert!(schema.is_empty() || read.is_ok(), "{}: {schema}", method.name);
                }
            }
        }
    }

    /// The schema of a method's request.
    fn schema(method: &str) -> serde_json::Value {
        let entry = DEMO.iter().find(|entry| entry[0] == method).expect("a method");
        serde_json::from_str(entry[2]).expect("JSON")
    }

    #[test]
    fn the_schemas_have_the_limits_of_the_methods() {
        let codes: Vec<_> = (1..=16).filter_map(Code::from_number).map(Code::as_str).collect();
        assert_eq!(schema("Fail")["properties"]["code"]["enum"], serde_json::json!(codes));
        let bytes = &schema("Bytes")["properties"];
        assert_eq!(bytes["chunk"]["maximum"], serde_json::json!(CHUNK_MAX));
        assert_eq!(bytes["bytes"]["maximum"], serde_json::json!(u64::MAX));
    }

    #[test]
    fn integers_are_read_in_every_notation_and_fractions_are_refused() {
        let ms = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let cbor = encode_value(&value).expect("CBOR");
            crate::wire::decode_value::<Sleep>(&cbor).map(|sleep| sleep.ms)
        };
        for (good, number) in [
            ("5", 5),
            ("5.0", 5),
            ("-0.0", 0),
            ("1e3", 1_000),
            ("18446744073709551615", u64::MAX),
            ("18446744073709549568.0", u64::MAX - 2_047),
        ] {
            assert_eq!(ms(&format!("{{\"ms\":{good}}}")), Ok(number), "{good}");
        }
        for bad in ["-1", "-1.0", "0.5", "18446744073709551616", "1e300", "\"5\"", "null", "[5]"] {
            assert!(ms(&format!("{{\"ms\":{bad}}}")).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_ledger_id_with_a_line_break_is_refused() {
        for good in ["a", "A-b_9", &"x".repeat(64)] {
            assert!(is_ledger_id(good), "{good:?} was refused");
        }
        for bad in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(!is_ledger_id(bad), "{bad:?} was taken");
        }
    }
}
