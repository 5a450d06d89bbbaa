//! The frame codec against bytes as peers send them, and as nobody should.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use agent_core::config::Limits;
use agent_core::encoding::Encoding;
use agent_core::frame::{BadFrame, Frame, FrameDecoder, FrameEncoder, FrameError, Heads, Item, Kind};
use agent_core::rpc::Tag;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

/// Decodes the pieces one after the other, as one stream.
fn decode_pieces<'a>(limits: &Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Item>, FrameDecoder) {
    let (mut decoder, mut buffer, mut items) = (FrameDecoder::new(limits), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(item) = decoder.decode(&mut buffer).unwrap() {
            items.push(item);
        }
    }
    (items, decoder)
}

/// Decodes the wire whole, and asserts that byte by byte it yields the same.
fn decode(wire: &[u8]) -> Vec<Item> {
    let limits = Limits::default();
    let (items, _) = decode_pieces(&limits, [wire]);
    let (by_byte, _) = decode_pieces(&limits, wire.chunks(1));
    assert_eq!(items, by_byte, "whole and byte by byte differ");
    items
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut wire = BytesMut::new();
    FrameEncoder.encode(frame.clone(), &mut wire).unwrap();
    wire.to_vec()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn frame(kind: Kind, encoding: Encoding, body: &[u8]) -> Frame {
    let body = Bytes::copy_from_slice(body);
    Frame { kind, tag: tag("testtag"), encoding, heads: Heads::default(), body }
}

fn xml(body: &str) -> Frame {
    frame(Kind::Call, Encoding::Xml, body.as_bytes())
}

fn good(item: &Item) -> &Frame {
    match item {
        Item::Frame(frame) => frame,
        Item::Bad(bad) => panic!("{bad:?}"),
    }
}

fn bad(item: &Item) -> &BadFrame {
    match item {
        Item::Bad(bad) => bad,
        Item::Frame(frame) => panic!("{frame:?}"),
    }
}

/// A call with these head lines, the empty line and the body.
fn call(heads: &[&str], body: &[u8]) -> Vec<u8> {
    let mut wire = b"\xffPOST /RPC2 HTTP/1.1\r\n".to_vec();
    for head in heads {
        wire.extend_from_slice(head.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(body);
    wire
}

const TYPE: &str = "Content-Type: text/xml";
const TAG: &str = "X-Virtagent-Client-Tag: testtag";

#[test]
fn a_frame_is_written_as_the_2011_reader_needs_it() {
    let wire = encode(&xml("<x/>"));
    let expected = "\u{0}POST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n\
                    X-Virtagent-Client-Tag: testtag\r\n\r\n<x/>";
    assert_eq!(wire[0], 0xff);
    assert_eq!(&wire[1..], &expected.as_bytes()[1..]);
}

#[test]
fn new_heads_come_after_the_three_old_ones_and_all_come_back() {
    let heads = Heads {
        username: Some("alice".into()),
        timeout_ms: Some(5000),
        version: Some("1.2.3".into()),
        boot_id: Some("b".into()),
        nonce: Some("n".into()),
    };
    let sent = Frame { heads, ..frame(Kind::Reply, Encoding::Cbor, &[0xff, 0, 0xff]) };
    let wire = encode(&sent);
    let text = String::from_utf8_lossy(&wire);
    let names: Vec<_> = text.lines().skip(1).map_while(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names[..3], ["Content-Type", "Content-Length", "X-Virtagent-Client-Tag"]);
    assert_eq!(names.len(), 8);
    assert_eq!(decode(&wire), [Item::Frame(sent)]);
}

#[test]
fn a_frame_split_at_any_byte_is_one_frame() {
    let sent = Frame { heads: Heads { username: Some("bob".into()), ..Heads::default() }, ..xml("<methodCall/>") };
    let wire = encode(&sent);
    for at in 0..=wire.len() {
        let (items, _) = decode_pieces(&Limits::default(), [&wire[..at], &wire[at..]]);
        assert_eq!(items, [Item::Frame(sent.clone())], "split at {at}");
    }
}

#[test]
fn two_frames_split_at_any_two_bytes_are_two_frames() {
    let (first, second) = (frame(Kind::Call, Encoding::Cbor, b"\xff\xff"), xml("<y/>"));
    let wire = [encode(&first), encode(&second)].concat();
    let expected = [Item::Frame(first), Item::Frame(second)];
    for one in 0..wire.len() {
        for two in one..wire.len() {
            let (items, _) = decode_pieces(&Limits::default(), [&wire[..one], &wire[one..two], &wire[two..]]);
            assert_eq!(items, expected, "split at {one} and {two}");
        }
    }
}

#[test]
fn runs_of_sentinels_are_accepted() {
    let sent = xml("<x/>");
    let wire = [&[0xff; 40][..], &encode(&sent), &[0xff; 3], &encode(&sent), &[0xff]].concat();
    assert_eq!(decode(&wire), [Item::Frame(sent.clone()), Item::Frame(sent)]);
}

#[test]
fn garbage_before_and_between_frames_is_passed_over() {
    let sent = xml("<x/>");
    let noise = b"\0\x80HTTP/1.1 200 OK\r\n\r\nnoise";
    let wire = [noise, &encode(&sent)[..], noise, &encode(&sent), noise].concat();
    assert_eq!(decode(&wire), [Item::Frame(sent.clone()), Item::Frame(sent)]);
}

#[test]
fn a_sentinel_inside_a_head_begins_the_head_anew() {
    let sent = xml("<x/>");
    let whole = encode(&sent);
    let head = whole.len() - sent.body.len();
    for cut in 2..head {
        let items = decode(&[&whole[..cut], &whole].concat());
        assert_eq!(items.len(), 2, "cut after {cut}: {items:?}");
        assert_eq!(bad(&items[0]).error, FrameError::CutShort, "cut after {cut}");
        assert_eq!(items[1], Item::Frame(sent.clone()), "cut after {cut}");
    }
}

#[test]
fn a_sentinel_inside_a_text_body_cuts_that_frame_and_names_its_tag() {
    for encoding in [Encoding::Xml, Encoding::Json] {
        let (cut, next) = (frame(Kind::Call, encoding, b"0123456789"), xml("<x/>"));
        let whole = encode(&cut);
        for missing in 1..=10 {
            let items = decode(&[&whole[..whole.len() - missing], &encode(&next)].concat());
            let [Item::Bad(bad), Item::Frame(came)] = &items[..] else { panic!("{missing} missing: {items:?}") };
            assert_eq!(
                (&bad.error, bad.kind, &bad.tag),
                (&FrameError::CutShort, Some(Kind::Call), &Some(tag("testtag")))
            );
            assert_eq!(came, &next);
        }
    }
}

#[test]
fn a_cbor_body_may_hold_sentinels_and_whole_frames() {
    let inner = encode(&xml("<x/>"));
    let sent = frame(Kind::Call, Encoding::Cbor, &[&[0xff; 5][..], &inner, &[0xff]].concat());
    let next = xml("<y/>");
    let wire = [encode(&sent), encode(&next)].concat();
    assert_eq!(decode(&wire), [Item::Frame(sent), Item::Frame(next)]);
}

#[test]
fn lines_that_end_in_a_line_feed_alone_are_no_head() {
    let wire = b"\xffPOST /RPC2 HTTP/1.1\nContent-Type: text/xml\nContent-Length: 4\nX-Virtagent-Client-Tag: t\n\n<x/>";
    assert_eq!(decode(wire), []);
    let items = decode(&[&wire[..], &encode(&xml("<y/>"))].concat());
    assert_eq!(bad(&items[0]).error, FrameError::CutShort);
    assert_eq!(good(&items[1]).body, "<y/>");
}

#[test]
fn a_body_over_the_limit_is_skipped_and_can_be_answered() {
    let limits = Limits { body: 100, ..Limits::default() };
    for encoding in Encoding::ALL {
        // In bytes the skipped body may look like anything; in text a sentinel ends it.
        let filler = if encoding.is_text() { vec![b' '; 5000] } else { encode(&xml("<evil/>")).repeat(50) };
        let (long, next) = (frame(Kind::Call, encoding, &filler), xml("<x/>"));
        let wire = [encode(&long), encode(&next)].concat();
        for size in [1, 7, wire.len()] {
            let (items, decoder) = decode_pieces(&limits, wire.chunks(size));
            let [Item::Bad(bad), Item::Frame(came)] = &items[..] else { panic!("{encoding}: {items:?}") };
            let length = filler.len() as u64;
            assert_eq!(bad.error, FrameError::BodyTooLong { length, limit: 100 });
            assert_eq!((bad.kind, &bad.tag, bad.encoding), (Some(Kind::Call), &Some(tag("testtag")), Some(encoding)));
            assert_eq!(came, &next);
            assert!(!decoder.mid_frame());
        }
    }
}

#[test]
fn a_text_body_over_the_limit_that_is_cut_short_costs_no_other_frame() {
    let limits = Limits { body: 100, ..Limits::default() };
    let next = xml("<x/>");
    let wire = [&call(&[TYPE, "Content-Length: 18446744073709551615", TAG], &[b'a'; 500])[..], &encode(&next)].concat();
    let (items, _) = decode_pieces(&limits, [&wire[..]]);
    assert_eq!(bad(&items[0]).error, FrameError::BodyTooLong { length: u64::MAX, limit: 100 });
    assert_eq!(items[1..], [Item::Frame(next)]);
}

#[test]
fn a_body_of_exactly_the_limit_is_taken() {
    let limits = Limits { body: 100, ..Limits::default() };
    let sent = frame(Kind::Reply, Encoding::Cbor, &[7; 100]);
    assert_eq!(decode_pieces(&limits, [&encode(&sent)[..]]).0, [Item::Frame(sent)]);
}

#[test]
fn a_head_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let limits = Limits::default();
    let sent = xml("<x/>");
    let padded = |length: usize| {
        let fixed = encode(&sent).len() - 1 - sent.body.len() + "X-Pad: \r\n".len();
        let pad = format!("X-Pad: {}", "p".repeat(length - fixed));
        call(&[TYPE, "Content-Length: 4", TAG, &pad], b"<x/>")
    };
    assert_eq!(decode(&padded(limits.head)), [Item::Frame(sent.clone())]);
    let items = decode(&[padded(limits.head + 1), encode(&xml("<y/>"))].concat());
    assert_eq!(bad(&items[0]).error, FrameError::HeadTooLong(limits.head));
    assert_eq!(good(&items[1]).body, "<y/>");
    assert_eq!(items.len(), 2);
}

#[test]
fn a_head_that_never_ends_is_given_up_at_the_limit_however_it_comes() {
    let limits = Limits { head: 1024, ..Limits::default() };
    let wire = [&b"\xffPOST "[..], &[b'a'; 5000], &encode(&xml("<x/>"))].concat();
    for size in [1, 1023, 1024, 1025, wire.len()] {
        let (items, _) = decode_pieces(&limits, wire.chunks(size));
        assert_eq!(bad(&items[0]).error, FrameError::HeadTooLong(1024), "in pieces of {size}");
        assert_eq!(good(&items[1]).body, "<x/>");
        assert_eq!(items.len(), 2);
    }
}

#[test]
fn a_head_that_comes_twice_is_refused_and_nothing_in_its_body_is_run() {
    let evil = encode(&xml("<evil/>"));
    let length = format!("Content-Length: {}", evil.len());
    let cbor = "Content-Type: application/cbor";
    for twice in [TAG, cbor, "X-Virtagent-Username: alice", "x-virtagent-timeout-ms: 1", "X-Virtagent-Version: 1"] {
        let heads = [cbor, &length, TAG, twice, twice];
        let items = decode(&[&call(&heads, &evil)[..], &encode(&xml("<x/>"))].concat());
        assert!(matches!(&bad(&items[0]).error, FrameError::BadHead(line) if line == twice), "{items:?}");
        assert_eq!(bad(&items[0]).kind, Some(Kind::Call));
        assert_eq!(good(&items[1]).body, "<x/>");
        assert_eq!(items.len(), 2);
    }
}

#[test]
fn of_two_lengths_neither_counts() {
    let heads = [TYPE, "Content-Length: 4", "content-length: 400", TAG];
    let items = decode(&[&call(&heads, b"<x/>")[..], &encode(&xml("<y/>"))].concat());
    assert!(matches!(&bad(&items[0]).error, FrameError::BadHead(_)));
    assert_eq!(items[1..], [Item::Frame(xml("<y/>"))]);
}

#[test]
fn a_head_line_without_a_colon_is_refused() {
    let items = decode(&call(&[TYPE, "Content-Length: 4", TAG, "nonsense"], b"<x/>"));
    assert_eq!(bad(&items[0]).error, FrameError::BadHead("nonsense".into()));
    assert_eq!(bad(&items[0]).tag, Some(tag("testtag")));
    assert_eq!(items.len(), 1);
}

#[test]
fn a_head_that_is_not_utf8_is_refused() {
    let items = decode(b"\xffPOST /\x80\r\n\r\n");
    assert!(matches!(&bad(&items[0]).error, FrameError::BadHead(_)));
}

#[test]
fn heads_that_nobody_knows_are_passed_over_even_twice() {
    let heads = [TYPE, "Content-Length: 4", TAG, "Host: x", "Host: y", "User-Agent:", "X-Virtagent-Usernames: no"];
    assert_eq!(decode(&call(&heads, b"<x/>")), [Item::Frame(xml("<x/>"))]);
}

#[test]
fn heads_are_read_in_any_case_and_order() {
    let heads = ["x-virtagent-client-TAG:testtag", "CONTENT-LENGTH:4", "content-type:  Text/XML; charset=utf-8 "];
    assert_eq!(decode(&call(&heads, b"<x/>")), [Item::Frame(xml("<x/>"))]);
}

#[test]
fn a_missing_content_type_means_xml() {
    assert_eq!(decode(&call(&["Content-Length: 4", TAG], b"<x/>")), [Item::Frame(xml("<x/>"))]);
}

#[test]
fn an_unknown_content_type_is_refused_by_name_and_its_body_skipped() {
    let evil = encode(&xml("<evil/>"));
    let heads = ["Content-Type: text/html", &format!("Content-Length: {}", evil.len()), TAG];
    let items = decode(&[&call(&heads, &evil)[..], &encode(&xml("<x/>"))].concat());
    assert_eq!(bad(&items[0]).error, FrameError::ContentType("text/html".into()));
    assert_eq!((bad(&items[0]).kind, &bad(&items[0]).tag), (Some(Kind::Call), &Some(tag("testtag"))));
    assert_eq!(items[1..], [Item::Frame(xml("<x/>"))]);
}

#[test]
fn a_length_that_is_no_positive_number_is_refused() {
    for length in ["0", "-1", "+4", "4 4", "0x4", "", "four", "99999999999999999999", "4,4"] {
        let items = decode(&call(&[TYPE, &format!("Content-Length: {length}"), TAG], b"<x/>"));
        assert_eq!(bad(&items[0]).error, FrameError::Length, "{length:?}");
        assert_eq!(items.len(), 1);
    }
    assert_eq!(bad(&decode(&call(&[TYPE, TAG], b"<x/>"))[0]).error, FrameError::Length);
}

#[test]
fn a_tag_that_is_missing_too_long_or_not_printable_is_refused() {
    let tags = [
        "",
        "X-Virtagent-Client-Tag:",
        &format!("X-Virtagent-Client-Tag: {}", "t".repeat(64)),
        "X-Virtagent-Client-Tag: a\tb",
        "X-Virtagent-Client-Tag: é",
    ];
    for line in tags {
        let heads: Vec<_> = [TYPE, "Content-Length: 4", line].into_iter().filter(|line| !line.is_empty()).collect();
        let items = decode(&[&call(&heads, b"<x/>")[..], &encode(&xml("<y/>"))].concat());
        assert_eq!(bad(&items[0]).error, FrameError::Tag, "{line:?}");
        assert_eq!(items[1..], [Item::Frame(xml("<y/>"))]);
    }
    let longest = format!("X-Virtagent-Client-Tag: {}", "t".repeat(63));
    assert_eq!(good(&decode(&call(&[TYPE, "Content-Length: 4", &longest], b"<x/>"))[0]).tag, tag(&"t".repeat(63)));
}

#[test]
fn a_first_line_is_known_by_its_first_four_letters() {
    let rest = "\r\nContent-Length: 4\r\nX-Virtagent-Client-Tag: testtag\r\n\r\n<x/>";
    let items = |first: &str| decode(&[b"\xff", first.as_bytes(), rest.as_bytes()].concat());
    assert_eq!(good(&items("POST")[0]).kind, Kind::Call);
    assert_eq!(good(&items("HTTP/1.0 404 Not Found")[0]).kind, Kind::Reply);
    for first in ["GET / HTTP/1.1", "post /RPC2 HTTP/1.1", "POS", "", "éé"] {
        assert_eq!(bad(&items(first)[0]).error, FrameError::FirstLine, "{first:?}");
    }
}

#[test]
fn bytes_after_a_body_are_garbage_until_the_next_sentinel() {
    let wire = [&encode(&xml("<x/>"))[..], b"\r\n\0trailing", &encode(&xml("<y/>"))].concat();
    assert_eq!(decode(&wire), [Item::Frame(xml("<x/>")), Item::Frame(xml("<y/>"))]);
}

#[test]
fn the_sentinel_that_march_2011_puts_after_a_body_leaves_nothing_half_read() {
    let wire = [&encode(&xml("<x/>"))[..], b"\xff"].concat();
    let (items, decoder) = decode_pieces(&Limits::default(), [&wire[..]]);
    assert_eq!(items, [Item::Frame(xml("<x/>"))]);
    assert!(!decoder.mid_frame(), "nothing may wait for the rest of a frame that has not begun");
}

#[test]
fn a_frame_that_has_begun_is_half_read_until_it_is_whole() {
    let wire = encode(&xml("<x/>"));
    for at in 2..wire.len() {
        assert!(decode_pieces(&Limits::default(), [&wire[..at]]).1.mid_frame(), "after {at} bytes");
    }
    assert!(!decode_pieces(&Limits::default(), [&wire[..]]).1.mid_frame());
}

#[test]
fn after_giving_up_the_rest_is_garbage_and_the_next_frame_is_whole() {
    let (limits, wire) = (Limits::default(), encode(&xml("<methodCall/>")));
    for at in 2..wire.len() {
        let (mut decoder, mut buffer) = (FrameDecoder::new(&limits), BytesMut::from(&wire[..at]));
        assert_eq!(decoder.decode(&mut buffer).unwrap(), None);
        decoder.give_up();
        buffer.clear();
        buffer.extend_from_slice(&wire[at..]);
        buffer.extend_from_slice(&encode(&xml("<y/>")));
        assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Item::Frame(xml("<y/>"))), "given up after {at}");
    }
}

#[test]
fn the_rest_of_a_binary_body_that_stalled_is_never_taken_for_frames() {
    let limits = Limits::default();
    let inner = encode(&xml("<inner/>"));
    let mut body = vec![b'.'; 64];
    body.extend_from_slice(&inner);
    body.extend([b'.'; 64]);
    let wire = encode(&Frame { encoding: Encoding::Cbor, body: body.into(), ..xml("") });
    let at = wire.len() - 64 - inner.len() - 10;
    let stalled = || {
        let (mut decoder, mut buffer) = (FrameDecoder::new(&limits), BytesMut::from(&wire[..at]));
        assert_eq!(decoder.decode(&mut buffer).unwrap(), None);
        decoder.give_up();
        assert!(!decoder.mid_frame(), "nothing more is waited for");
        buffer.clear();
        (decoder, buffer)
    };
    let next = encode(&xml("<next/>"));
    // The sender goes on after all: what it sends is the body's rest, and a frame after that is one.
    let (mut decoder, mut buffer) = stalled();
    buffer.extend_from_slice(&wire[at..]);
    buffer.extend_from_slice(&next);
    assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Item::Frame(xml("<next/>"))));
    // Another sender begins with its sentinel.
    let (mut decoder, mut buffer) = stalled();
    buffer.extend_from_slice(&next);
    assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Item::Frame(xml("<next/>"))));
}

#[test]
fn nobody_smuggles_a_head_inside_a_username() {
    for name in
        ["alice\r\nX-Virtagent-Timeout-Ms: 0", "alice\n", "alice\r", "alice\0bob", "alice\u{85}x", "alice\u{7f}"]
    {
        let heads = Heads { username: Some(name.into()), ..Heads::default() };
        let items = decode(&encode(&Frame { heads, ..xml("<x/>") }));
        let [Item::Frame(came)] = &items[..] else { panic!("{items:?}") };
        assert_eq!(came.heads, Heads { username: Some("alice".into()), ..Heads::default() }, "{name:?}");
    }
}

#[test]
fn a_username_that_is_longer_than_any_name_is_refused_and_can_be_answered() {
    let call = |length: usize| {
        let username = format!("X-Virtagent-Username: {}", "u".repeat(length));
        decode(&call(&[TYPE, "Content-Length: 4", TAG, &username], b"<x/>"))
    };
    assert!(matches!(&call(256)[..], [Item::Frame(_)]));
    let items = call(257);
    assert!(matches!(&bad(&items[0]).error, FrameError::BadHead(_)), "{items:?}");
    assert_eq!(bad(&items[0]).tag, Some(tag("testtag")));
}

#[test]
fn a_body_that_claims_much_allocates_what_the_limit_allows_at_most() {
    let limits = Limits { body: 1 << 20, ..Limits::default() };
    let (mut decoder, mut buffer) = (FrameDecoder::new(&limits), BytesMut::new());
    buffer.extend_from_slice(&call(&[TYPE, "Content-Length: 18446744073709551615", TAG], b"x"));
    assert!(matches!(decoder.decode(&mut buffer).unwrap(), Some(Item::Bad(_))));
    assert_eq!(decoder.decode(&mut buffer).unwrap(), None);
    assert!(buffer.capacity() < 1 << 20);
}

fn arbitrary_frame() -> impl Strategy<Value = Frame> {
    let heads = (
        proptest::option::of("[a-z@.][a-z0-9._@-]{0,30}"),
        proptest::option::of(any::<u64>()),
        proptest::option::of("[0-9.]{1,10}"),
        proptest::option::of("[0-9a-f-]{36}"),
        proptest::option::of("[0-9a-f]{16}"),
    );
    let heads = heads.prop_map(|(username, timeout_ms, version, boot_id, nonce)| Heads {
        username,
        timeout_ms,
        version,
        boot_id,
        nonce,
    });
    let kind = prop_oneof![Just(Kind::Call), Just(Kind::Reply)];
    let content = prop_oneof![
        (prop_oneof![Just(Encoding::Xml), Just(Encoding::Json)], ".{1,200}".prop_map(String::into_bytes)),
        (Just(Encoding::Cbor), proptest::collection::vec(any::<u8>(), 1..400)),
    ];
    (kind, "[!-~]{1,63}", heads, content).prop_map(|(kind, tag, heads, (encoding, body))| Frame {
        kind,
        tag: tag.parse().unwrap(),
        encoding,
        heads,
        body: body.into(),
    })
}

proptest! {
    #[test]
    fn whatever_is_encoded_decodes_to_the_same_however_it_is_cut(
        frames in proptest::collection::vec(arbitrary_frame(), 1..5),
        size in 1usize..300,
    ) {
        let wire = frames.iter().flat_map(encode).collect::<Vec<_>>();
        let (items, decoder) = decode_pieces(&Limits::default(), wire.chunks(size));
        prop_assert_eq!(items, frames.into_iter().map(Item::Frame).collect::<Vec<_>>());
        prop_assert!(!decoder.mid_frame());
    }

    #[test]
    fn any_bytes_yield_the_same_items_however_they_are_cut(
        pieces in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..50),
            Just(b"\xff".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            arbitrary_frame().prop_map(|frame| encode(&frame)),
            (arbitrary_frame(), any::<prop::sample::Index>()).prop_map(|(frame, cut)| {
                let wire = encode(&frame);
                wire[..cut.index(wire.len())].to_vec()
            }),
        ], 0..8),
        size in 1usize..300,
    ) {
        let limits = Limits { head: 1024, body: 256, ..Limits::default() };
        let wire = pieces.concat();
        let (whole, _) = decode_pieces(&limits, [&wire[..]]);
        let (cut, _) = decode_pieces(&limits, wire.chunks(size));
        prop_assert_eq!(whole, cut);
    }
}
