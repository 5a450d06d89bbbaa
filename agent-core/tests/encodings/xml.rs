//! XML-RPC as others write it, and what is no XML-RPC.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{DateTime, Fault, FaultCode, Value, from_value};
use bytes::Bytes;

use crate::support::{call, param, refused, tag};

fn with_value(value: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>a.b</methodName><params><param>{value}</param></params></methodCall>"
    )
}

fn read(value: &str) -> Value {
    param(Encoding::Xml, with_value(value))
}

#[track_caller]
fn wrong(value: &str) -> FaultCode {
    refused(Encoding::Xml, with_value(value)).0
}

#[test]
fn every_type_is_read() {
    for name in ["int", "i4", "i8", "ex:i8"] {
        assert_eq!(read(&format!("<value><{name}>-12</{name}></value>")), Value::Int(-12));
        assert_eq!(read(&format!("<value> <{name}> +7 </{name}>\n</value>")), Value::Int(7));
    }
    assert_eq!(read("<value><i8>9223372036854775807</i8></value>"), Value::Int(i64::MAX));
    assert_eq!(read("<value><boolean>1</boolean></value>"), Value::Bool(true));
    assert_eq!(read("<value><boolean>0</boolean></value>"), Value::Bool(false));
    assert_eq!(read("<value><double>-12.53</double></value>"), Value::Double(-12.53));
    assert_eq!(read("<value><double>1e3</double></value>"), Value::Double(1000.0));
    assert_eq!(read("<value><string>a</string></value>"), "a".into());
    assert_eq!(read("<value><string/></value>"), "".into());
    assert_eq!(read("<value>bare</value>"), "bare".into());
    assert_eq!(read("<value/>"), "".into());
    assert_eq!(read("<value> \n </value>"), " \n ".into());
    assert_eq!(read("<value><nil/></value>"), Value::Nil);
    assert_eq!(read("<value><nil></nil></value>"), Value::Nil);
    assert_eq!(
        read("<value><ex:nil xmlns:ex=\"http://ws.apache.org/xmlrpc/namespaces/extensions\"/></value>"),
        Value::Nil
    );
    let moment = Value::DateTime(DateTime::new(1998, 7, 17, 14, 8, 55).unwrap());
    assert_eq!(read("<value><dateTime.iso8601>19980717T14:08:55</dateTime.iso8601></value>"), moment);
    assert_eq!(read("<value><dateTime.iso8601>1998-07-17T14:08:55Z</dateTime.iso8601></value>"), moment);
    assert_eq!(
        read("<value><base64>\n  eW91IGNhbid0\n\tIHJlYWQgdGhpcyE=\r\n</base64></value>"),
        Value::Bytes(Bytes::from_static(b"you can't read this!"))
    );
    assert_eq!(read("<value><base64>eW8</base64></value>"), Value::Bytes(Bytes::from_static(b"yo")));
    assert_eq!(read("<value><base64/></value>"), Value::Bytes(Bytes::new()));
    assert_eq!(
        read("<value> <array> <data> <value><i4>1</i4></value> <value>x</value> </data> </array> </value>"),
        Value::Array(vec![Value::Int(1), "x".into()])
    );
    assert_eq!(
        read("<value><struct> <member> <name>a b</name> <value><i4>1</i4></value> </member> </struct></value>"),
        Value::object([("a b", Value::Int(1))])
    );
    assert_eq!(read("<value><struct/></value>"), Value::object([]));
}

#[test]
fn a_2011_peers_bodies_are_read() {
    // As xmlrpc-c 1.16 writes them.
    let hello = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodCall>\r\n<methodName>va.hello</methodName>\r\n<params>\r\n</params>\r\n</methodCall>\r\n";
    assert_eq!(decode_call(Encoding::Xml, &Bytes::from_static(hello)).unwrap(), call("va.hello", vec![]));
    let getfile = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodCall>\r\n<methodName>va.getfile</methodName>\r\n<params>\r\n<param><value><string>/etc/hostname</string></value></param>\r\n</params>\r\n</methodCall>\r\n";
    assert_eq!(
        decode_call(Encoding::Xml, &Bytes::from_static(getfile)).unwrap(),
        call("va.getfile", vec!["/etc/hostname".into()])
    );
    let fault = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n<fault>\r\n<value><struct>\r\n<member><name>faultCode</name>\r\n<value><int>-506</int></value></member>\r\n<member><name>faultString</name>\r\n<value><string>Method 'va.nope' not defined</string></value></member>\r\n</struct></value>\r\n</fault>\r\n</methodResponse>\r\n";
    let fault = decode_outcome(Encoding::Xml, &Bytes::from_static(fault)).unwrap().unwrap_err();
    assert_eq!(fault, Fault { code: -506, message: "Method 'va.nope' not defined".into(), data: None });
    assert_eq!(fault.kind(), None);
    // It writes control characters as they are: an escape sequence in dmesg.
    let dmesg = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n<params>\r\n<param><value><string>\x1b[1mok\x1b[0m</string></value></param>\r\n</params>\r\n</methodResponse>\r\n";
    assert_eq!(decode_outcome(Encoding::Xml, &Bytes::from_static(dmesg)).unwrap(), Ok("\u{1b}[1mok\u{1b}[0m".into()));
}

#[test]
fn a_call_without_params_is_read() {
    for body in [
        "<methodCall><methodName>va.ping</methodName></methodCall>",
        "<methodCall><methodName>va.ping</methodName><params/></methodCall>",
        "\u{feff}<?xml version='1.0'?>\n<methodCall>\n<methodName> va.ping\n</methodName>\n<params>\n</params>\n</methodCall>\n",
        "<?xml version='1.0' encoding='utf-8'?><!-- one --><?pi two?><methodCall><!-- & --><methodName>va.<!-- -->ping</methodName></methodCall><!-- end -->",
    ] {
        assert_eq!(decode_call(Encoding::Xml, &Bytes::from(body)).unwrap(), call("va.ping", vec![]), "{body}");
    }
}

#[test]
fn text_is_put_together_from_all_of_xmls_ways_to_write_it() {
    assert_eq!(read("<value>a<![CDATA[<&]]>b</value>"), "a<&b".into());
    assert_eq!(read("<value><string>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;</string></value>"), "<>&\"'AB".into());
    assert_eq!(read("<value><string>a<!-- not -->b<?nor this?>c</string></value>"), "abc".into());
    // Line ends are one newline each (XML 1.0, 2.11), but a reference to a carriage return is one.
    assert_eq!(read("<value><string>a\r\nb\rc&#13;\nd&#xD;</string></value>"), "a\nb\nc\r\nd\r".into());
}

#[test]
fn integers_are_written_short_when_they_fit() {
    let written = |number| {
        let body = encode_outcome(Encoding::Xml, &Ok(Value::Int(number)), &tag()).unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert!(written(-2_147_483_648).contains("<value><int>-2147483648</int></value>"));
    assert!(written(2_147_483_648).contains("<value><i8>2147483648</i8></value>"));
}

#[test]
fn a_double_is_written_without_an_exponent() {
    for number in [1e300, 5e-324, -0.1, 3.0] {
        let body = encode_call(Encoding::Xml, &call("a", vec![Value::Double(number)]), &tag()).unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        let digits = text.split("<double>").nth(1).unwrap().split('<').next().unwrap();
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'), "{digits}");
        assert_eq!(decode_call(Encoding::Xml, &body).unwrap().params, [Value::Double(number)]);
    }
}

#[test]
fn a_string_that_xml_cannot_carry_arrives_as_the_string_that_it_is() {
    let text = "escape \u{1b} and nothing \0";
    let body = encode_call(Encoding::Xml, &call("a", vec![text.into()]), &tag()).unwrap();
    assert!(std::str::from_utf8(&body).unwrap().contains("<base64>"));
    let came = decode_call(Encoding::Xml, &body).unwrap().params.remove(0);
    assert_eq!(from_value::<String>(came).unwrap(), text);
}

#[test]
fn a_member_name_that_xml_cannot_carry_is_refused_with_advice() {
    let fault =
        encode_call(Encoding::Xml, &call("a", vec![Value::object([("\u{1}", Value::Nil)])]), &tag()).unwrap_err();
    assert!(fault.is(FaultCode::Internal));
    assert!(fault.message.contains("use JSON or CBOR"), "{fault}");
    assert_eq!(
        wrong("<value><struct><member><name>\u{1}</name><value/></member></struct></value>"),
        FaultCode::InvalidRequest
    );
}

#[test]
fn document_types_and_entities_are_refused() {
    let laughs = "<?xml version=\"1.0\"?>\n<!DOCTYPE lolz [\n<!ENTITY lol \"lol\">\n\
        <!ENTITY lol2 \"&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;\">\n\
        <!ENTITY lol3 \"&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;\">\n]>\n\
        <methodCall><methodName>&lol3;</methodName></methodCall>";
    assert_eq!(refused(Encoding::Xml, laughs).0, FaultCode::InvalidRequest);
    let outside =
        "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/shadow\">]><methodCall><methodName>&x;</methodName></methodCall>";
    assert_eq!(refused(Encoding::Xml, outside).0, FaultCode::InvalidRequest);
    assert_eq!(wrong("<value>&lol;</value>"), FaultCode::Parse);
    assert_eq!(wrong("<value>&nbsp;</value>"), FaultCode::Parse);
    assert_eq!(wrong("<value>&#0;</value>"), FaultCode::Parse);
    assert_eq!(wrong("<value>&#xD800;</value>"), FaultCode::Parse);
    assert_eq!(wrong("<value>&#99999999999;</value>"), FaultCode::Parse);
    assert_eq!(wrong("<value>a & b</value>"), FaultCode::Parse);
}

#[test]
fn what_is_not_well_formed_is_a_parse_error() {
    for body in [
        "",
        "   ",
        "<",
        "<methodCall>",
        "<methodCall><methodName>a</methodName>",
        "<methodCall><methodName>a</methodCall></methodName>",
        "<methodCall><methodName>a</methodName></methodCall",
        "</methodCall>",
        "<methodCall><methodName>a</methodName><!-- ",
    ] {
        assert_eq!(refused(Encoding::Xml, body).0, FaultCode::Parse, "{body}");
    }
    assert_eq!(
        refused(Encoding::Xml, b"<methodCall><methodName>\xc3\x28</methodName></methodCall>").0,
        FaultCode::Parse
    );
}

#[test]
fn an_error_never_repeats_control_characters_or_much_of_the_input() {
    let body = format!("<methodCall><methodName>a</methodName></me\u{1b}[2J\n{}>", "x".repeat(10_000));
    let (code, message) = refused(Encoding::Xml, body);
    assert_eq!(code, FaultCode::Parse);
    assert!(!message.contains(char::is_control) && message.len() < 1024, "{message}");
}

#[test]
fn what_is_no_xmlrpc_is_no_request() {
    for body in [
        "<html><body>hello</body></html>",
        "just text",
        "<methodCall/>",
        "<methodCall></methodCall>",
        "<methodCall><params/><methodName>a</methodName></methodCall>",
        "<methodCall><methodName>a</methodName><params/><params/></methodCall>",
        "<methodCall><methodName>a</methodName></methodCall><methodCall><methodName>a</methodName></methodCall>",
        "<methodCall><methodName>a<b/></methodName></methodCall>",
        "<methodCall><methodName>a</methodName>text</methodCall>",
        "<methodCall><methodName>a</methodName></methodCall>text",
        "<methodCall><methodName>a</methodName><params><value/></params></methodCall>",
        "<methodCall><methodName>a</methodName><params><param/></params></methodCall>",
        "<methodResponse/>",
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><methodCall><methodName>a</methodName></methodCall>",
    ] {
        assert_eq!(refused(Encoding::Xml, body).0, FaultCode::InvalidRequest, "{body}");
    }
    for value in [
        "<value><int>x</int></value>",
        "<value><int></int></value>",
        "<value><int>1.5</int></value>",
        "<value><i8>9223372036854775808</i8></value>",
        "<value><boolean>2</boolean></value>",
        "<value><boolean>true</boolean></value>",
        "<value><double>NaN</double></value>",
        "<value><double>infinity</double></value>",
        "<value><double>1e999</double></value>",
        "<value><double></double></value>",
        "<value><base64>?</base64></value>",
        "<value><dateTime.iso8601>19990231T00:00:00</dateTime.iso8601></value>",
        "<value><nil>x</nil></value>",
        "<value>text<int>1</int></value>",
        "<value><int>1</int>text</value>",
        "<value><int>1</int><int>2</int></value>",
        "<value><value>1</value></value>",
        "<value><biginteger>1</biginteger></value>",
        "<value><array/></value>",
        "<value><array><value/></array></value>",
        "<value><array><data/><data/></array></value>",
        "<value><struct><name>a</name></struct></value>",
        "<value><struct><member><name>a</name></member></struct></value>",
        "<value><struct><member><value/></member></struct></value>",
        "<value><struct><member><value/><name>a</name></member></struct></value>",
        "<value><string><b>x</b></string></value>",
    ] {
        assert_eq!(wrong(value), FaultCode::InvalidRequest, "{value}");
    }
}

#[test]
fn a_reply_must_hold_one_result_or_a_fault() {
    let outcome =
        |inner: &str| decode_outcome(Encoding::Xml, &Bytes::from(format!("<methodResponse>{inner}</methodResponse>")));
    assert_eq!(outcome("<params><param><value>x</value></param></params>"), Ok(Ok("x".into())));
    for inner in [
        "",
        "<params/>",
        "<params><param><value/></param><param><value/></param></params>",
        "<fault/>",
        "<fault><value>x</value></fault>",
        "<fault><value><struct/></value></fault>",
        "<fault><value><struct><member><name>faultCode</name><value>1</value></member><member><name>faultString</name><value>x</value></member></struct></value></fault>",
        "<fault><value><struct><member><name>faultCode</name><value><int>1</int></value></member></struct></value></fault>",
        "<params><param><value/></param></params><fault/>",
    ] {
        assert!(outcome(inner).unwrap_err().is(FaultCode::InvalidRequest), "{inner}");
    }
}
