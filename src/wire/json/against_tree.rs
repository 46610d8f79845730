//! Tests that the streaming conversion agrees with one over a value tree, and bounds its memory.

use super::{
    JsonText, cbor_to_text, from_cbor, from_text, lenient_text_to_cbor, text_to_cbor, to_cbor,
};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c\"\\\\\n\u{1}é]{0,3}", "[a-z]{20,30}"]
}

/// JSON as people and programs write it, keys twice and unsorted.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| serde_json::to_string(&value).expect("JSON")),
        Just("123456789012345678901234567890".to_owned()),
        text().prop_map(|value| serde_json::to_string(&value).expect("JSON")),
    ];
    leaf.prop_recursive(5, 200, 30, |inner| {
        let entry = (text(), inner.clone())
            .prop_map(|(key, value)| format!("{}: {value}", Value::from(key)));
        prop_oneof![
            prop::collection::vec(inner, 0..30).prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec(entry, 0..30).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

/// Well-formed CBOR of every kind, indefinite lengths, tags and odd keys among it.
fn cbor() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (0_u8..0x18).prop_map(|byte| vec![byte]),
        (0x20_u8..0x38).prop_map(|byte| vec![byte]),
        (0xf4_u8..0xf8).prop_map(|byte| vec![byte]),
        any::<[u8; 8]>().prop_map(|bytes| [&[0x1b][..], &bytes].concat()),
        any::<[u8; 8]>().prop_map(|bytes| [&[0x3b][..], &bytes].concat()),
        any::<[u8; 2]>().prop_map(|bytes| [&[0xf9][..], &bytes].concat()),
        any::<[u8; 4]>().prop_map(|bytes| [&[0xfa][..], &bytes].concat()),
        any::<[u8; 8]>().prop_map(|bytes| [&[0xfb][..], &bytes].concat()),
        text().prop_map(|text| [&[0x78, text.len() as u8][..], text.as_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| [
            &[0x58, bytes.len() as u8][..],
            &bytes
        ]
        .concat()),
        Just(vec![0x7f, 0x61, b'a', 0x60, 0x61, b'b', 0xff]),
        Just(vec![0x5f, 0x41, 1, 0x41, 2, 0xff]),
    ];
    let key = prop_oneof![
        leaf.clone(),
        Just(vec![0x61, b'1']),
        Just(vec![0x82, 1, 0x61, b'"']),
        Just(vec![0xa1, 1, 2]),
        Just(vec![0xa2, 1, 3, 1, 2]),
        Just(vec![0x67, b'{', b'"', b'1', b'"', b':', b'2', b'}']),
        Just(vec![0xc1, 0x82, 1, 0x62, 0xc3, 0xa9]),
    ];
    leaf.prop_recursive(5, 200, 20, move |inner| {
        let entry = (key.clone(), inner.clone()).prop_map(|(key, value)| [key, value].concat());
        let entries = prop::collection::vec(entry, 0..20);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(|all| [
                &[0x98, all.len() as u8][..],
                &all.concat()
            ]
            .concat()),
            prop::collection::vec(inner.clone(), 0..20).prop_map(|all| [
                &[0x9f][..],
                &all.concat(),
                &[0xff]
            ]
            .concat()),
            entries.clone().prop_map(|all| [&[0xb8, all.len() as u8][..], &all.concat()].concat()),
            entries.prop_map(|all| [&[0xbf][..], &all.concat(), &[0xff]].concat()),
            inner.prop_map(|item| [&[0xc1][..], &item].concat()),
        ]
    })
}

/// The JSON as it is written piece by piece.
fn pieces(cbor: &[u8]) -> (usize, Vec<u8>) {
    let mut text = JsonText::new(Bytes::copy_from_slice(cbor)).expect("well-formed");
    let (left, mut out) = (text.left(), Vec::new());
    while let Some(piece) = text.next_piece() {
        assert!(piece.len() < 64 * 1024, "a piece of {} bytes", piece.len());
        out.extend_from_slice(&piece);
    }
    (left, out)
}

/// A text with its keys sorted and each only once is written as the tree writes it, byte for byte.
fn check_same(text: &str) {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let sorted = value.to_string();
    let tree = to_cbor(&value).expect("CBOR");
    assert_eq!(text_to_cbor(sorted.as_bytes()).as_ref(), Ok(&tree));
    assert_eq!(cbor_to_text(&tree).as_deref(), Ok(sorted.as_bytes()));
}

proptest! {
    #[test]
    fn json_is_converted_as_the_tree_does(text in json()) {
        check_same(&text);
        // As it was written: the same value, and refused where the tree refuses it.
        let strict = text_to_cbor(text.as_bytes());
        prop_assert_eq!(strict.is_ok(), from_text(text.as_bytes()).is_ok());
        let lenient = lenient_text_to_cbor(text.as_bytes()).expect("JSON");
        prop_assert_eq!(from_cbor(&lenient), Ok(serde_json::from_str(&text).expect("JSON")));
        if let Ok(strict) = strict {
            prop_assert_eq!(strict, lenient);
        }
    }

    #[test]
    fn cbor_is_converted_as_the_tree_does(cbor in cbor()) {
        let text = cbor_to_text(&cbor).expect("well-formed");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        prop_assert_eq!(Ok(value), from_cbor(&cbor));
        // No key is a duplicate.
        prop_assert!(text_to_cbor(&text).is_ok());
        prop_assert_eq!(pieces(&cbor), (text.len(), text.to_vec()));
    }

    #[test]
    fn both_conversions_accept_or_refuse_any_bytes(bytes: Vec<u8>) {
        let by_tree = from_cbor(&bytes);
        let text = cbor_to_text(&bytes);
        prop_assert_eq!(text.is_ok(), by_tree.is_ok());
        prop_assert_eq!(text_to_cbor(&bytes).is_ok(), from_text(&bytes).is_ok());
    }
}

#[test]
fn keys_keep_the_order_of_the_message() {
    let text = br#"{"b":1,"a":{"d":[],"c":2}}"#;
    let cbor = text_to_cbor(text).expect("JSON");
    assert_eq!(cbor[..], *b"\xa2\x61b\x01\x61a\xa2\x61d\x80\x61c\x02");
    assert_eq!(cbor_to_text(&cbor).as_deref(), Ok(&text[..]));
    assert_eq!(to_cbor(&Value::Null).as_deref(), Ok(&[0xf6][..]));
}

#[test]
fn lengths_are_in_their_shortest_form_at_each_limit() {
    for count in [0, 23, 24, 255, 256, 65_535, 65_536] {
        check_same(&format!("[{}]", vec!["0"; count].join(",")));
        let entries: Vec<String> = (0..count).map(|key| format!("\"{key}\":[{key}]")).collect();
        check_same(&format!("{{{}}}", entries.join(",")));
    }
}

#[test]
fn the_last_of_many_equal_keys_wins_or_duplicates_are_refused() {
    let entries: Vec<String> = (0..20_000).map(|n| format!("\"{}\":{n}", n % 10)).collect();
    let text = format!("[{{{}}}]", entries.join(","));
    let last: Vec<String> = (0..10).map(|n| format!("\"{n}\":{}", 19_990 + n)).collect();
    let last = format!("[{{{}}}]", last.join(","));
    let cbor = lenient_text_to_cbor(text.as_bytes()).expect("JSON");
    assert_eq!(cbor_to_text(&cbor).as_deref(), Ok(last.as_bytes()));
    assert!(text_to_cbor(text.as_bytes()).is_err_and(|why| why.contains("duplicate key")));
    // Many times the same key, written so that the length is not known beforehand.
    let same = [&[0xbf][..], &[0x60, 0x00].repeat(100_000), &[0xff]].concat();
    assert_eq!(cbor_to_text(&same).as_deref(), Ok(&b"{\"\":0}"[..]));
}

#[test]
fn many_small_maps_take_the_room_of_their_json() {
    let maps = 350_000;
    let cbor = [&[0x9f][..], &[0xa1, 0x60, 0x00].repeat(maps), &[0xff]].concat();
    let text = cbor_to_text(&cbor).expect("well-formed");
    assert_eq!(text.len(), 1 + 7 * maps);
    let back = text_to_cbor(&text).expect("JSON");
    assert_eq!(back.len(), 5 + 3 * maps);
    assert_eq!(back[..8], [0x9a, 0x00, 0x05, 0x57, 0x30, 0xa1, 0x60, 0x00]);
}

#[test]
fn keys_within_keys_are_refused_before_their_escapes_grow() {
    // {{"": 0}: 0} has one, and each further level would double the escapes.
    assert_eq!(cbor_to_text(&[0xa1, 0xa1, 0x60, 0, 0]).as_deref(), Ok(&br#"{"{\"\":0}":0}"#[..]));
    for levels in [3, 20, 120] {
        let cbor = [vec![0xa1; levels], vec![0x60], vec![0x00; levels]].concat();
        for refused in [cbor_to_text(&cbor).map(drop), from_cbor(&cbor).map(drop)] {
            assert!(refused.is_err_and(|why| why.contains("within a key")), "{levels}");
        }
    }
}

#[test]
fn a_text_is_in_pieces_whatever_its_message_is_made_of() {
    let string = |first: u8, bytes: &[u8]| {
        [&[first][..], &u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
    };
    let of_all = |items: &[u8]| [&[0x9f][..], items, &[0xff]].concat();
    let bytes: Vec<u8> = (0..=255).cycle().take(250_001).collect();
    for cbor in [
        string(0x5a, &bytes),
        string(0x7a, &[1; 250_000]),
        string(0x7a, "é\"".repeat(75_000).as_bytes()),
        [&[0x5f][..], &string(0x5a, &bytes), &string(0x5a, &bytes), &[0x41, 7, 0xff]].concat(),
        // As a key within an array that is a key.
        [&[0xa1, 0x81][..], &string(0x7a, &[1; 100_000]), &[0]].concat(),
        of_all(&[0xf4].repeat(250_000)),
        of_all(&[0xf9, 0, 1].repeat(75_000)),
        // Left out but for the last.
        [&[0xbf][..], &[0x60, 0x83, 1, 2, 3].repeat(75_000), &[0xff]].concat(),
    ] {
        let text = cbor_to_text(&cbor).expect("well-formed");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert!(from_cbor(&cbor) == Ok(value), "{:02x?}...", &cbor[..8]);
        assert!(pieces(&cbor) == (text.len(), text.to_vec()), "{:02x?}...", &cbor[..8]);
    }
}

#[test]
fn a_large_key_among_many_small_ones_is_not_compared_with_each() {
    // Each an array, so that it has to be written before it can be compared.
    let large = [&[0x9a, 0, 0x04, 0, 0][..], &[0xf4].repeat(1 << 18), &[0]].concat();
    let small: Vec<u8> = (0..60_000_u32)
        .flat_map(|n| [&[0x81, 0x1a][..], &n.to_be_bytes(), &[0]].concat())
        .collect();
    let cbor = [&[0xbf][..], &small, &large, &small, &large, &[0xff]].concat();
    let began = std::time::Instant::now();
    let text = cbor_to_text(&cbor).expect("well-formed");
    assert_eq!(text_to_cbor(&text).expect("no key twice")[..3], [0xb9, 0xea, 0x61]);
    // A comparison with each would take minutes.
    assert!(began.elapsed().as_secs() < 60);
}

#[test]
fn a_float_of_sixteen_bits_is_read_as_serde_cbor_reads_it() {
    for bits in 0..=u16::MAX {
        let cbor = [&[0xf9][..], &bits.to_be_bytes()].concat();
        let tree = from_cbor(&cbor).expect("a float").to_string();
        assert_eq!(cbor_to_text(&cbor).as_deref(), Ok(tree.as_bytes()), "{bits:#06x}");
    }
}
