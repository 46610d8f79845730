//! PEM files as other tools, editors and mail programs write them: readable files are read, and
//! others are described.

use super::process::{CommandOutput, WorkDir};
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

const CERT: &str = "certs/caller-ops.pem";
const KEY: &str = "certs/caller-ops.key";
const CA: &str = "certs/ca.pem";
const CRL: &str = "certs/crl.pem";
const FILES: [&str; 4] = [CERT, KEY, CA, CRL];

/// A call to a port without a listener: it gets that far if the files could be read.
fn call(dir: &WorkDir) -> CommandOutput {
    dir.run(&["call", "a", "A/b", "--node", "127.0.0.1:1", "--timeout", "100ms"])
}

/// Writes a file unchanged and private.
fn put(dir: &WorkDir, name: &str, bytes: &[u8]) {
    dir.write(name, bytes);
    fs::set_permissions(dir.path(name), fs::Permissions::from_mode(0o600)).expect("changed");
}

/// Changes each of the four files, one after the other, checks the result, and restores the file.
fn for_each_file(change: impl Fn(&str) -> Vec<u8>, check: impl Fn(&str, CommandOutput)) {
    let dir = WorkDir::new();
    for file in FILES {
        let whole = dir.read(file);
        put(&dir, file, &change(&whole));
        check(file, call(&dir));
        put(&dir, file, whole.as_bytes());
    }
    call(&dir).expect(78, &[]);
}

fn taken(change: impl Fn(&str) -> Vec<u8>) {
    for_each_file(change, |_, ended| drop(ended.expect(78, &[])));
}

fn refused(change: impl Fn(&str) -> Vec<u8>, texts: &[&str]) {
    for_each_file(change, |file, ended| {
        let ended = ended.expect(2, &[&["error: ", file], texts].concat());
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
        assert!(!ended.stderr.contains("MI"), "quotes from the file: {ended:#?}");
    });
}

fn openssl(dir: &WorkDir, line: &str) {
    let mut openssl = Command::new("openssl");
    let ended = openssl.args(line.split(' ')).current_dir(dir.path("")).output().expect("openssl");
    assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_byte_order_mark_is_skipped_in_every_file() {
    taken(|whole| format!("\u{feff}{whole}").into());
    let dir = WorkDir::new();
    let two = format!("\u{feff}{0}\u{feff}{0}", dir.read(CA));
    dir.write("two.pem", two);
    let shown = dir.run(&["certs", "inspect", "two.pem"]).expect(0, &[]).stdout;
    assert_eq!(shown.matches("CA certificate").count(), 2, "{shown}");
    let ca_key = dir.read("certs/ca.key");
    put(&dir, "certs/ca.key", format!("\u{feff}{ca_key}").as_bytes());
    put(&dir, CA, format!("\u{feff}{}", dir.read(CA)).as_bytes());
    dir.run(&["certs", "issue", "agent", "new"]).expect(0, &[]);
}

#[test]
fn the_first_ca_of_a_bundle_with_a_byte_order_mark_is_trusted() {
    let dir = WorkDir::new();
    dir.make_ca("other");
    dir.write("two.pem", format!("\u{feff}{}{}", dir.read(CA), dir.read("other/ca.pem")));
    let node = ["node", "--listen", "127.0.0.1:0", "--cert", "certs/node-edge-1.pem"];
    let trust = ["--ca", "two.pem", "--crl", CRL];
    let (_node, at) = dir.listening(&[&node[..], &trust].concat());
    let _agent = dir.agent(&at);
}

#[test]
fn line_ends_trailing_spaces_remarks_and_headers_are_accepted() {
    taken(|whole| whole.replace('\n', "\r\n").into());
    taken(|whole| whole.replace('\n', "\r").into());
    taken(|whole| whole.replace('\n', " \t\n").into());
    taken(|whole| whole.trim_end().into());
    taken(|whole| {
        [b"subject=/CN=M\xfcller - the first\n\n", whole.as_bytes(), b"the end\n"].concat()
    });
    taken(|whole| whole.replacen("-----\n", "-----\nComment: a remark\n\n", 1).into());
}

#[test]
fn a_certificate_and_its_key_may_share_a_file_and_older_labels_are_accepted() {
    let dir = WorkDir::new();
    let cert = dir.read(CERT).replace(" CERTIFICATE-", " X509 CERTIFICATE-");
    put(&dir, "both.pem", (cert + &dir.read(KEY)).as_bytes());
    let both = ["--cert", "both.pem", "--key", "both.pem", "--ca", CA, "--crl", CRL];
    let call = ["call", "a", "A/b", "--node", "127.0.0.1:1", "--timeout", "100ms"];
    dir.run(&[&call[..], &both].concat()).expect(78, &[]);
}

#[test]
fn a_begin_that_does_not_start_its_line_is_reported_with_its_line() {
    let changed = |from: &'static str, to: &'static str| {
        // A complete block follows, so that something is found.
        move |whole: &str| (whole.replacen(from, to, 1) + whole).into()
    };
    refused(changed("-----BEGIN", " -----BEGIN"), &["line 1", "indented"]);
    refused(changed("-----BEGIN", "\t-----BEGIN"), &["line 1", "indented"]);
    refused(changed("-----BEGIN", "> -----BEGIN"), &["line 1", "quotation"]);
    refused(changed("-----BEGIN", "cert: \"-----BEGIN"), &["line 1", "quotation"]);
    refused(changed("-----BEGIN", "----BEGIN"), &["line 1", "five hyphens"]);
    refused(changed("-----BEGIN", "\u{2014}-BEGIN"), &["line 1", "five hyphens"]);
    refused(changed("-----BEGIN", "-----begin"), &["line 1", "capitals"]);
    refused(changed("-----END", " -----END"), &["line ", "indented"]);
    refused(|whole| (whole.replace('\n', "\\n") + "\n" + whole).into(), &["line 1", "\\n"]);
    refused(
        |whole| (whole.replace('\n', "") + "\n" + whole).into(),
        &["line 1", "alone in its line"],
    );
}

#[test]
fn a_block_without_begin_or_end_is_reported_with_label_and_line() {
    let without = |word: &'static str| {
        move |whole: &str| {
            let is_kept = |line: &&str| !line.contains(word);
            let damaged = whole.lines().filter(is_kept).collect::<Vec<_>>().join("\n");
            format!("{damaged}\n{whole}").into()
        }
    };
    refused(without("-----END"), &["in line 1 has no END before the next BEGIN in line"]);
    refused(without("-----BEGIN"), &["the END of a block", "has no BEGIN"]);
    refused(|whole| whole[..whole.len() / 2].into(), &["in line 1 has no END", "cut off"]);
    refused(|whole| whole.replace("-----END ", "-----END X").into(), &["ends in line", " as X"]);
    refused(|whole| whole.replacen("\nM", "\n*", 1).into(), &["in line 1 is not base64"]);
}

#[test]
fn files_that_are_not_pem_are_reported_with_the_command_that_converts_them() {
    let wide = |whole: &str| whole.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    refused(|whole| [&b"\xff\xfe"[..], &wide(whole)].concat(), &["UTF-16", "iconv"]);
    refused(wide, &["UTF-16", "iconv"]);
    refused(|_| vec![], &["it is empty"]);
    refused(|_| b"nothing".to_vec(), &["no PEM section"]);
    let dir = WorkDir::new();
    openssl(&dir, &format!("x509 -in {CERT} -outform der -out der"));
    openssl(&dir, &format!("pkey -in {KEY} -outform der -out key.der"));
    openssl(&dir, &format!("crl -in {CRL} -outform der -out crl.der"));
    openssl(&dir, &format!("pkcs12 -export -in {CERT} -inkey {KEY} -passout pass: -out p12"));
    openssl(&dir, &format!("crl2pkcs7 -nocrl -certfile {CERT} -out p7.pem"));
    openssl(&dir, &format!("x509 -in {CERT} -trustout -out trusted.pem"));
    for (file, from, texts) in [
        (CERT, "der", ["a certificate in DER", "openssl x509 -inform der"]),
        (CA, "der", ["a certificate in DER", "openssl x509 -inform der"]),
        (KEY, "key.der", ["a private key in DER", "openssl pkey -inform der"]),
        (CRL, "crl.der", ["a revocation list in DER", "openssl crl -inform der"]),
        (CERT, "p12", ["PKCS #12", "openssl pkcs12"]),
        (KEY, "p12", ["PKCS #12", "openssl pkcs12"]),
        (CERT, "p7.pem", ["PKCS7", "openssl pkcs7 -print_certs"]),
        (CERT, "trusted.pem", ["TRUSTED CERTIFICATE", "openssl x509 -in"]),
    ] {
        let whole = dir.read(file);
        put(&dir, file, &fs::read(dir.path(from)).expect("read"));
        call(&dir).expect(2, &[&["error: ", file], &texts[..]].concat());
        put(&dir, file, whole.as_bytes());
    }
    fs::create_dir(dir.path("dir")).expect("made");
    for flag in ["--cert", "--key", "--ca", "--crl"] {
        let rest = ["--cert", CERT, "--ca", CA, "--crl", CRL];
        let others = rest.chunks(2).filter(|pair| pair[0] != flag).flatten().copied();
        let args: Vec<_> = ["call", "a", "A/b", flag, "dir"].into_iter().chain(others).collect();
        let key = if flag == "--cert" { &["--key", KEY][..] } else { &[] };
        dir.run(&[&args[..], key].concat()).expect(2, &["dir", "it is a directory"]);
    }
}

#[test]
fn an_unsupported_key_is_not_reported_as_damaged() {
    let dir = WorkDir::new();
    let check = |texts: &[&str]| {
        put(&dir, KEY, dir.read("k").as_bytes());
        let ended = call(&dir).expect(2, &[&["error: ", KEY, " cannot be used"], texts].concat());
        assert!(!ended.stderr.contains("damaged"), "{ended:#?}");
        // A command that keeps valid files does not overwrite it either.
        let issue = ["certs", "issue", "caller", "ops"];
        dir.run(&issue).expect(2, &[&[KEY, "cannot be used"], texts].concat());
        assert_eq!(dir.read(KEY), dir.read("k"));
    };
    openssl(&dir, &format!("pkcs8 -topk8 -in {KEY} -passout pass:x -out k"));
    check(&["encrypted", "passphrase", "openssl pkey"]);
    openssl(&dir, "genrsa -out plain.key 2048");
    openssl(&dir, "rsa -in plain.key -traditional -aes128 -passout pass:x -out k");
    assert!(dir.read("k").contains("Proc-Type: 4,ENCRYPTED"));
    check(&["encrypted", "passphrase", "openssl pkey"]);
    openssl(&dir, "genrsa -out k 1024");
    check(&["RSA of 1024 bits", "2048"]);
    openssl(&dir, "genrsa -traditional -out k 1024");
    check(&["RSA of 1024 bits", "2048"]);
    openssl(&dir, "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out k");
    check(&["RSA-PSS", "P-256"]);
    openssl(&dir, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out k");
    check(&["secp256k1", "P-256"]);
    openssl(&dir, "ecparam -name secp256k1 -genkey -out k");
    check(&["secp256k1", "P-256"]);
    openssl(&dir, "genpkey -algorithm ED448 -out k");
    check(&["Ed448", "P-256"]);
    openssl(&dir, "genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -out dsa");
    openssl(&dir, "genpkey -paramfile dsa -out k");
    check(&["DSA", "P-256"]);
    dir.write("k", dir.read("k").replace("PRIVATE", "DSA PRIVATE"));
    check(&["DSA", "P-256"]);
    dir.write("k", dir.read("k").replace("DSA", "OPENSSH"));
    check(&["OPENSSH", "ssh-keygen"]);
    dir.write("k", dir.read("plain.key") + &dir.read("plain.key"));
    check(&["several private keys", "lines 1 and "]);
}

#[test]
fn an_encrypted_ca_key_is_reported_as_such() {
    let dir = WorkDir::new();
    openssl(&dir, "pkcs8 -topk8 -in certs/ca.key -passout pass:x -out k");
    put(&dir, "certs/ca.key", dir.read("k").as_bytes());
    for args in [&["init"][..], &["issue", "agent", "b"], &["crl"], &["renew"]] {
        let ended = dir.run(&[&["certs"], args].concat());
        let ended = ended.expect(2, &["certs/ca.key cannot be used", "encrypted", "openssl pkey"]);
        assert!(!ended.stderr.contains("--force"), "{ended:#?}");
    }
}

#[test]
fn requests_of_other_tools_are_signed_and_unsupported_kinds_are_reported() {
    let dir = WorkDir::new();
    let ec = |curve: &str| format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    let request = |key: &str, more: &str| {
        openssl(&dir, &format!("genpkey {key} -out k"));
        openssl(&dir, &format!("req -new -key k -subj /CN=x -out r.csr{more}"));
    };
    let sign = || dir.run(&["certs", "sign", "r.csr", "agent", "other", "--force"]);
    request(&ec("P-256"), "");
    dir.write("r.csr", dir.read("r.csr").replace("CERTIFICATE REQ", "NEW CERTIFICATE REQ"));
    sign().expect(0, &[]);
    dir.run(&["certs", "inspect", "r.csr"]).expect(0, &[]);
    dir.write("r.csr", format!("\u{feff}{}", dir.read("r.csr")));
    sign().expect(0, &[]);
    for kind in [ec("P-384"), ec("P-521"), "-algorithm ED25519".into()] {
        request(&kind, "");
        sign().expect(0, &[]);
    }
    let rsa = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    let pss = " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:";
    request(rsa, &format!("{pss}-1"));
    sign().expect(0, &[]);
    request(rsa, &format!("{pss}20"));
    sign().expect(2, &["r.csr cannot be used", "signature is of a kind that is not supported"]);
    request(rsa, " -sha1");
    sign().expect(0, &[]);
    request(&ec("P-256"), " -sha1");
    sign().expect(2, &["r.csr cannot be used", "signature is of a kind that is not supported"]);
    for (kind, name) in [
        (ec("secp256k1"), "secp256k1"),
        ("-algorithm ED448".into(), "Ed448"),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048".into(), "RSA-PSS"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024".into(), "RSA of 1024 bits"),
    ] {
        request(&kind, "");
        let ended = sign().expect(2, &["r.csr cannot be used", name, "supported are"]);
        assert!(!ended.stderr.contains("damaged"), "{ended:#?}");
    }
    openssl(&dir, "req -in r.csr -outform der -out r.csr");
    sign().expect(2, &["a certificate request in DER", "openssl req -inform der"]);
}
