//! Tests of each rule of RFC 8949 section 6, and of the deviations that `docs/json.md` lists.

use super::{cbor_to_text, encode_from, from_cbor, lenient_text_to_cbor, to_cbor};
use serde_json::Value;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| u8::try_from(digit).expect("four bits"))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// CBOR in hexadecimal becomes this text of JSON, byte for byte: a test of values would take 1 for
/// 1.0.
#[track_caller]
fn check_out(cbor: &str, json: &str) {
    let bytes = bytes(cbor);
    assert_eq!(cbor_to_text(&bytes).as_deref(), Ok(json.as_bytes()), "{cbor}");
    assert_eq!(from_cbor(&bytes).map(|value| value.to_string()), Ok(json.into()), "{cbor}");
}

#[track_caller]
fn check_refused(cbor: &str) {
    assert!(cbor_to_text(&bytes(cbor)).is_err(), "{cbor} was converted");
    assert!(from_cbor(&bytes(cbor)).is_err(), "{cbor} was read");
}

/// JSON becomes these bytes.
#[track_caller]
fn check_in(json: &str, cbor: &str) {
    let value: Value = serde_json::from_str(json).expect("JSON");
    let bytes = bytes(cbor);
    assert_eq!(to_cbor(&value).as_deref(), Ok(&bytes[..]), "{json}");
    assert_eq!(lenient_text_to_cbor(json.as_bytes()).as_deref(), Ok(&bytes[..]), "{json}");
}

#[test]
fn out_integers_are_numbers_and_exact_from_the_least_i64_to_the_largest_u64() {
    check_out("00", "0");
    check_out("17", "23");
    check_out("1818", "24");
    // More than the 2^53 of those who read numbers as doubles: the sender's to mind.
    check_out("1b0020000000000001", "9007199254740993");
    check_out("1bffffffffffffffff", "18446744073709551615");
    check_out("20", "-1");
    check_out("3b7fffffffffffffff", "-9223372036854775808");
    // Not carried: the digits of what is below. It becomes the nearest double.
    check_out("3b8000000000000000", "-9.223372036854776e+18");
    check_out("3bffffffffffffffff", "-1.8446744073709552e+19");
}

#[test]
fn out_byte_strings_are_base64url_without_padding() {
    check_out("40", "\"\"");
    check_out("4101", "\"AQ\"");
    check_out("43fbfffe", "\"-__-\"");
    check_out("5f41014102ff", "\"AQI\"");
    // Inside of others too.
    check_out("82410141ff", "[\"AQ\",\"_w\"]");
}

#[test]
fn out_texts_arrays_and_maps_are_kept_for_any_form_of_length() {
    check_out("60", "\"\"");
    check_out("63e282ac", "\"€\"");
    check_out("650a00221f7f", "\"\\n\\u0000\\\"\\u001f\u{7f}\"");
    check_out("7f61616162ff", "\"ab\"");
    check_out("80", "[]");
    check_out("8301820203820405", "[1,[2,3],[4,5]]");
    check_out("9f019f02ffff", "[1,[2]]");
    check_out("a0", "{}");
    check_out("a2616101616202", "{\"a\":1,\"b\":2}");
    check_out("bf616101ff", "{\"a\":1}");
}

#[test]
fn out_keys_become_text_and_the_last_of_equal_keys_wins() {
    check_out("a10102", "{\"1\":2}");
    check_out("a12002", "{\"-1\":2}");
    check_out("a1f5f6", "{\"true\":null}");
    check_out("a1f60a", "{\"null\":10}");
    check_out("a1f93e0001", "{\"1.5\":1}");
    check_out("a1410203", "{\"Ag\":3}");
    check_out("a1a0f6", "{\"{}\":null}");
    check_out("a1820102f6", "{\"[1,2]\":null}");
    // Not carried: that 1 and "1" were two keys, or that one stood there twice.
    check_out("a20102613103", "{\"1\":3}");
    check_out("a2616101616102", "{\"a\":2}");
    check_out("a361610178016102616203", "{\"a\":2,\"b\":3}");
    check_out("a361610179000161027f616160ff03", "{\"a\":3}");
}

#[test]
fn out_tags_are_dropped_and_their_contents_kept() {
    check_out("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\"");
    check_out("c11a514b67b0", "1363896240");
    check_out("d9d9f701", "1");
    check_out("d818456449455446", "\"ZElFVEY\"");
    check_out("c482211903e7", "[-2,999]");
    // Tags in tags.
    check_out("d9d9f7c101", "1");
}

#[test]
fn out_bignums_are_base64url_and_the_sign_of_a_negative_one_is_not_carried() {
    check_out("c249010000000000000000", "\"AQAAAAAAAAAA\"");
    // The RFC advises a ~ before it.
    check_out("c349010000000000000000", "\"AQAAAAAAAAAA\"");
}

#[test]
fn out_advice_about_the_encoding_of_bytes_is_not_carried() {
    // Tags 21, 22 and 23 ask for base64url, base64 and hexadecimal. All get the first.
    for tag in ["d5", "d6", "d7"] {
        check_out(&format!("{tag}43fbfffe"), "\"-__-\"");
    }
}

#[test]
fn out_simple_values_are_themselves_undefined_is_null_and_others_are_refused() {
    check_out("f4", "false");
    check_out("f5", "true");
    check_out("f6", "null");
    check_out("f7", "null");
    // The RFC advises null for those too; they have no registered meaning.
    for simple in ["e0", "f0", "f3", "f820", "f8ff"] {
        check_refused(simple);
    }
    // These are not well-formed: section 3.3.
    for not in ["f800", "f818", "f8", "1c", "fc", "ff"] {
        check_refused(not);
    }
}

#[test]
fn out_finite_floats_are_numbers_and_others_are_null() {
    check_out("f90000", "0.0");
    check_out("f98000", "-0.0");
    check_out("f93c00", "1.0");
    check_out("f90001", "5.960464477539063e-8");
    check_out("fa47c35000", "100000.0");
    check_out("fb3ff199999999999a", "1.1");
    check_out("fb7fefffffffffffff", "1.7976931348623157e+308");
    for not_finite in
        ["f97e00", "f97c00", "f9fc00", "fa7f800000", "fb7ff8000000000000", "fbfff0000000000000"]
    {
        check_out(not_finite, "null");
    }
}

#[test]
fn out_malformed_cbor_is_refused() {
    for bad in ["", "61c3", "a1", "a101", "c2", "62c328", "0001", "5f6161ff", "bf61 61ff"] {
        check_refused(bad);
    }
    let nested = |depth: usize| format!("{}00", "81".repeat(depth));
    assert!(from_cbor(&bytes(&nested(126))).is_ok());
    check_refused(&nested(128));
}

#[test]
fn in_integers_are_integers_in_their_shortest_form_as_far_as_64_bits_go() {
    check_in("0", "00");
    check_in("23", "17");
    check_in("24", "1818");
    check_in("65536", "1a00010000");
    check_in("9007199254740993", "1b0020000000000001");
    check_in("18446744073709551615", "1bffffffffffffffff");
    check_in("-1", "20");
    check_in("-9223372036854775808", "3b7fffffffffffffff");
    // Beyond them: the nearest double, and no bignum.
    check_in("18446744073709551616", "fa5f800000");
    check_in("-9223372036854775809", "fadf000000");
}

#[test]
fn in_numbers_with_a_fraction_or_an_exponent_are_floats_in_the_shortest_form_that_keeps_them() {
    check_in("1.5", "f93e00");
    check_in("1.0", "f93c00");
    check_in("1e2", "f95640");
    check_in("-0.0", "f98000");
    check_in("-0", "f98000");
    check_in("100000.5", "fa47c35040");
    check_in("0.1", "fb3fb999999999999a");
    assert!(serde_json::from_str::<Value>("1e400").is_err(), "no double is as large");
}

#[test]
fn in_texts_arrays_and_objects_have_definite_lengths_and_the_last_of_equal_keys_wins() {
    check_in("null", "f6");
    check_in("true", "f5");
    check_in("false", "f4");
    check_in(r#""""#, "60");
    check_in(r#""\u0000""#, "6100");
    check_in(r#""\ud83d\ude00""#, "64f09f9880");
    // A text that looks like base64url stays a text: JSON has no byte strings.
    check_in(r#""AQ""#, "624151");
    check_in("[1,[2]]", "82018102");
    check_in(r#"{"a":1}"#, "a1616101");
    check_in(r#"{"a":1,"a":2}"#, "a1616102");
    assert!(serde_json::from_str::<Value>(r#""\ud800""#).is_err(), "half a character");
}

#[test]
fn a_key_of_another_format_that_is_not_a_text_is_refused() {
    let encode = |cbor: &[u8]| {
        let mut reader = serde_cbor::Deserializer::from_slice(cbor);
        encode_from(&mut reader).map_err(|fault| fault.to_string())
    };
    assert_eq!(encode(&[0xa1, 0x61, 0x61, 1]).as_deref(), Ok(&[0xa1, 0x61, 0x61, 1][..]));
    for key in [&[1][..], &[0xf6], &[0x80], &[0xa0], &[0x42, 1, 2]] {
        let fault = encode(&[&[0xa1], key, &[1]].concat()).expect_err("a key");
        assert!(fault.contains("not a text") || fault.contains("invalid type"), "{fault}");
    }
}
