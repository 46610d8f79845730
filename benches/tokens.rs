//! The cost of checking a bearer token, valid or invalid, in a small and in a large file. It prints
//! and asserts nothing.

use dialback::tokens::{TokenFile, Tokens};
use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

const ROUNDS: u32 = 200_000;

fn main() {
    for count in [1, 10_000] {
        measure(count);
    }
}

/// A file of this many tokens, the last of them valid.
fn file_of(count: usize, dir: &std::path::Path) -> (Tokens, String) {
    let path = dir.join("tokens");
    let file = TokenFile::new(&path);
    let name = "billing".parse().expect("a name");
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let token = file.create(&name, day, now).expect("made").as_str().to_owned();
    let mut text = std::fs::read_to_string(&path).expect("read");
    for n in 1..count {
        text += &format!("caller-{n} sha256:{n:064x} 2026-01-01T00:00:00Z 2026-02-01T00:00:00Z\n");
    }
    std::fs::write(&path, text).expect("written");
    (Tokens::read(&path).expect("read"), token)
}

fn measure(count: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let (tokens, good) = file_of(count, dir.path());
    let (_, unknown) = file_of(1, tempfile::tempdir().expect("a directory").path());
    let damaged = format!("{}{}", &good[..76], if good.ends_with('0') { '1' } else { '0' });
    let short = "hunter2".to_owned();
    let long = "dbt1_".to_owned() + &"0".repeat(8_000);
    println!("{count} tokens:");
    for (what, token) in [
        ("good", good),
        ("unknown", unknown),
        ("damaged", damaged),
        ("short", short),
        ("8 kB", long),
    ] {
        let (now, began) = (SystemTime::now(), Instant::now());
        for _ in 0..ROUNDS {
            black_box(tokens.caller(black_box(&token), now).is_ok());
        }
        let each = began.elapsed() / ROUNDS;
        println!("  {what:8} {each:?} each");
    }
}
