//! Compiler errors for incorrectly written contracts.

use std::{path::Path, process::Command};

/// Returns the output of rustc for a crate with only the macro and this contract. No type of
/// dialback is needed: the macro fails first.
fn compiled(contract: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let macros = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/call/contract.rs");
    let source =
        format!("#[path = {macros:?}]\nmod contract;\ncrate::contract! {{ {contract} }}\n");
    let file = dir.path().join("lib.rs");
    std::fs::write(&file, source).expect("written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "-o"]);
    let ended = command.arg(dir.path().join("out")).arg(&file).output().expect("rustc started");
    assert!(!ended.status.success(), "it compiled: {contract}");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[track_caller]
fn check(contract: &str, sentence: &str) {
    let output = compiled(contract);
    assert!(output.contains(&format!("contract!: {sentence}")), "{contract}\n{output}");
}

#[test]
fn a_wrong_contract_does_not_compile_and_the_error_has_the_correction() {
    let expected = "expected `pub service Name";
    check("pub trait Hello { fn hello() -> (); }", expected);
    check("service Hello fn hello() -> ();", expected);
    for (method, sentence) in [
        ("async fn hello(name: String) -> String;", "write `fn` without `async`"),
        ("/// Documented.\nasync fn hello(name: String) -> String;", "write `fn` without `async`"),
        ("fn first() -> (); async fn hello() -> ();", "write `fn` without `async`"),
        ("pub fn hello() -> ();", "write `fn` without `pub`"),
        ("fn hello(&self, name: String) -> String;", "write `hello` without `&self`"),
        ("fn hello(&mut self) -> String;", "write `hello` without `&self`"),
        ("fn hello(self) -> String;", "write `hello` without `&self`"),
        ("fn hello(name: String);", "`hello` has no result type"),
        ("fn hello(values: stream u64);", "`hello` has no result type"),
        ("fn hello() {}", "`hello` has no result type"),
        ("fn hello(name) -> String;", "the arguments of `hello` are not `name: Type"),
        ("fn hello(a: u32, b) -> String;", "the arguments of `hello` are not `name: Type"),
        ("fn hello(a: u32, b: stream u32) -> u32;", "the arguments of `hello` are not `name: Type"),
        ("fn hello(name: String) -> String", "the arguments of `hello` are not `name: Type"),
        ("fn hello() -> String { todo!() }", "`hello` has a body"),
        ("fn hello<T>(value: T) -> T;", "`hello` has generic parameters"),
        ("const X: u32 = 1;", "expected `fn method(argument: Type"),
    ] {
        check(&format!("pub service Hello {{ {method} }}"), sentence);
    }
}
