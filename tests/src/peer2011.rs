//! The agent of January 2011, both ends of it, as a script: what it puts on the channel, what it waits for, and what it
//! can't bear. Where the original would end its process or go deaf, the script notes a breach and the test fails.
//!
//! Owns a reader and a writer of frames of its own, which share nothing with the product's: they do what the original's
//! do, its fixed buffers included. Must never be kinder than the original.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How long the original waits for a reply before it cancels everything.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Its buffer for a tag, with the end.
const TAG: usize = 64;
/// Its buffer for a head, and for a line of one.
const HEAD: usize = 4096;
const LINE: usize = 1024;
/// What its XML parser takes.
const XML: usize = 512 * 1024;

/// What the other end did that the original does not survive.
#[derive(Clone, Default)]
struct Breaches(Arc<Mutex<Vec<String>>>);

impl Breaches {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn check(&self) -> Result<()> {
        let breaches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(breaches.is_empty(), "a 2011 agent would not have survived this: {}", breaches.join("; "));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    Reply,
}

/// A frame as the original sees it.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    tag: String,
    xml: String,
}

/// The original's reader.
struct Reader {
    stream: UnixStream,
    breaches: Breaches,
    /// Laid over, never cleared: the remains of a longer tag stay behind a shorter one.
    tag: [u8; TAG],
}

impl Reader {
    fn new(stream: UnixStream, breaches: &Breaches) -> Self {
        Self { stream, breaches: breaches.clone(), tag: [0; TAG] }
    }

    /// The next frame; nothing when the other end closed, or when none began within the limit.
    fn next(&mut self, limit: Duration) -> Result<Option<Frame>> {
        let begin = Instant::now();
        let mut chunk = [0; HEAD];
        let mut bytes = Vec::new();
        loop {
            let Some(left) = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else { return Ok(None) };
            self.stream.set_read_timeout(Some(left))?;
            let length = match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            bytes.extend_from_slice(&chunk[..length]);
            // A sentinel anywhere before the empty line begins the head anew.
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(at) = bytes[..end.unwrap_or(bytes.len())].iter().rposition(|byte| *byte == 0xff) {
                bytes.drain(..=at);
            } else if end.is_none() && bytes.len() > HEAD {
                bail!("no sentinel in {} bytes", bytes.len());
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                return self.frame(bytes, end).map(Some);
            }
            if bytes.len() >= HEAD {
                self.breaches.note(format!("a head of more than {HEAD} bytes"));
                bail!("the head's buffer is full");
            }
        }
    }

    fn frame(&mut self, mut bytes: Vec<u8>, end: usize) -> Result<Frame> {
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).context("a head that is no text")?;
        let lines: Vec<_> = head.trim_end().split("\r\n").collect();
        if lines.iter().any(|line| line.len() >= LINE) {
            self.breaches.note(format!("a head's line of more than {LINE} bytes"));
        }
        let kind = match lines[0].get(..4) {
            Some("POST") => Kind::Call,
            Some("HTTP") => Kind::Reply,
            _ => bail!("a first line that is neither: {:?}", lines[0]),
        };
        // In this order, in this case, with one space.
        let value = |at: usize, name: &str| {
            let line: &str = lines.get(at).copied().unwrap_or_default();
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(": "))
                .with_context(|| format!("{line:?} is no {name}"))
        };
        ensure!(value(1, "Content-Type")? == "text/xml", "a 2011 agent reads XML only: {}", lines[1]);
        let length: usize = value(2, "Content-Length")?.parse()?;
        let tag = value(3, "X-Virtagent-Client-Tag")?.to_owned();
        if length == 0 || length > XML {
            self.breaches.note(format!("a body of {length} bytes"));
        }
        if !(7..TAG).contains(&tag.len()) {
            self.breaches.note(format!("a tag of {} characters", tag.len()));
        }
        let mut body = body;
        if body.len() > length {
            self.breaches.note(format!("{} bytes came behind a body in one read", body.len() - length));
            body.truncate(length);
        }
        // A blocking read of the rest, without any limit but the test's.
        let have = body.len();
        body.resize(length, 0);
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.read_exact(&mut body[have..]).context("the rest of a body")?;
        if body.contains(&0xff) {
            self.breaches.note("a sentinel inside a body");
        }
        let end = tag.len().min(TAG - 1);
        self.tag[..end].copy_from_slice(&tag.as_bytes()[..end]);
        Ok(Frame { kind, tag, xml: String::from_utf8(body).context("XML that is no UTF-8")? })
    }

    /// The tag as the original echoes it.
    fn echo(&self) -> String {
        let end = self.tag.iter().position(|byte| *byte == 0).unwrap_or(TAG);
        String::from_utf8_lossy(&self.tag[..end]).into_owned()
    }

    /// Whether something waits to be read already.
    fn has_more(&self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let mut byte = [0];
        let peeked = nix::sys::socket::recv(
            std::os::fd::AsRawFd::as_raw_fd(&self.stream),
            &mut byte,
            nix::sys::socket::MsgFlags::MSG_PEEK,
        );
        self.stream.set_nonblocking(false)?;
        Ok(matches!(peeked, Ok(length) if length > 0))
    }
}

fn write(mut stream: &UnixStream, kind: Kind, tag: &str, xml: &str, behind: &[u8]) -> Result<()> {
    let first = if kind == Kind::Call { "POST /RPC2 HTTP/1.1" } else { "HTTP/1.1 200 OK" };
    let head = format!(
        "{first}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nX-Virtagent-Client-Tag: {tag}\r\n\r\n",
        xml.len()
    );
    Ok(stream.write_all(&[&[0xff], head.as_bytes(), xml.as_bytes(), behind].concat())?)
}

/// A fault, as it came in XML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number.
    pub code: i64,
    /// Its sentence.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

fn between<'x>(xml: &'x str, open: &str, close: &str) -> Option<&'x str> {
    let from = xml.find(open)? + open.len();
    Some(&xml[from..from + xml[from..].find(close)?])
}

/// Every text between two marks.
fn each<'x>(xml: &'x str, open: &'x str, close: &str) -> Vec<&'x str> {
    xml.split(open).skip(1).filter_map(|rest| Some(&rest[..rest.find(close)?])).collect()
}

fn value_reply(value: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n<params>\r\n<param><value>{value}</value></param>\r\n</params>\r\n</methodResponse>\r\n"
    )
}

fn fault_reply(code: i64, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n<fault>\r\n<value><struct>\r\n\
         <member><name>faultCode</name>\r\n<value><int>{code}</int></value></member>\r\n\
         <member><name>faultString</name>\r\n<value><string>{message}</string></value></member>\r\n\
         </struct></value>\r\n</fault>\r\n</methodResponse>\r\n"
    )
}

fn call_xml(method: &str, params: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodCall>\r\n<methodName>{method}</methodName>\r\n<params>\r\n{params}</params>\r\n</methodCall>\r\n"
    )
}

/// A string as a parameter.
pub fn string(text: &str) -> String {
    format!("<param><value><string>{text}</string></value></param>\r\n")
}

/// The guest's end: `qemu-va`, on a socket in place of the port.
pub struct Guest2011 {
    breaches: Breaches,
    heard: Arc<Mutex<Vec<String>>>,
}

/// The methods that the original guest serves.
const GUEST_METHODS: [&str; 9] = [
    "system.listMethods",
    "system.methodHelp",
    "system.methodSignature",
    "system.multicall",
    "va.capabilities",
    "va.getdmesg",
    "va.getfile",
    "va.ping",
    "va.shutdown",
];
/// The file that the scripted guest has, at [`GUEST_FILE_PATH`].
pub const GUEST_FILE: &[u8] =
    b"\0\xff one file of 2011, longer than a line of its base64 holds; and that was 76 characters\r\n";
/// Where.
pub const GUEST_FILE_PATH: &str = "/etc/two thousand & eleven";

impl Guest2011 {
    /// Listens in place of QEMU's chardev, which serves one client at a time.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let guest = Self { breaches: Breaches::default(), heard: Arc::default() };
        let (breaches, heard) = (guest.breaches.clone(), Arc::clone(&guest.heard));
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut hello = true;
            for stream in listener.incoming().map_while(Result::ok) {
                if let Err(error) = serve(stream, &breaches, &heard, std::mem::take(&mut hello)) {
                    breaches.note(format!("{error:#}"));
                }
            }
        });
        Ok(guest)
    }

    /// The methods that were called, in order; a reply to its hello as `(hello)`.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the original would still live.
    ///
    /// # Errors
    /// When not, with what ended it.
    pub fn check(&self) -> Result<()> {
        self.breaches.check()
    }
}

/// One host's presence.
fn serve(stream: UnixStream, breaches: &Breaches, heard: &Mutex<Vec<String>>, hello: bool) -> Result<()> {
    let note = |what: &str| heard.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
    let mut said = hello.then(Instant::now);
    if hello {
        write(&stream, Kind::Call, "testtag", &call_xml("va.hello", ""), b"")?;
    }
    let mut reader = Reader::new(stream.try_clone()?, breaches);
    while let Some(frame) = reader.next(Duration::from_secs(60))? {
        if frame.kind == Kind::Reply {
            match said.take() {
                Some(said) if frame.tag == "testtag" && said.elapsed() < PATIENCE => note("(hello)"),
                _ => breaches.note(format!("a reply that nothing waits for, with the tag {}", frame.tag)),
            }
            continue;
        }
        let method = between(&frame.xml, "<methodName>", "</methodName>").context("a call without a method")?;
        note(method);
        let reply = answer(method, &frame.xml);
        // Its one job for the host is at work: another call now would never be answered.
        if reader.has_more()? && said.is_none() {
            breaches.note(format!("something came while {method} was being answered"));
        }
        write(&stream, Kind::Reply, &reader.echo(), &reply, b"")?;
    }
    Ok(())
}

fn answer(method: &str, xml: &str) -> String {
    let first = between(xml, "<string>", "</string>").unwrap_or_default().replace("&amp;", "&");
    let text = |text: &str| value_reply(&format!("<string>{text}</string>"));
    let names = || {
        let names = GUEST_METHODS.map(|name| format!("<value><string>{name}</string></value>\r\n"));
        format!("<array><data>\r\n{}</data></array>", names.concat())
    };
    match method {
        "va.ping" => text("pong"),
        "va.capabilities" => value_reply(&format!(
            "<struct>\r\n<member><name>version</name>\r\n<value><string>1.0</string></value></member>\r\n\
             <member><name>methods</name>\r\n<value>{}</value></member>\r\n</struct>",
            names()
        )),
        "va.getfile" if first == GUEST_FILE_PATH => {
            let base64 = STANDARD.encode(GUEST_FILE);
            let lines: Vec<_> = base64.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
            value_reply(&format!("<base64>\r\n{}\r\n</base64>", lines.join("\r\n")))
        }
        "va.getfile" => fault_reply(-500, "open failed: No such file or directory"),
        "va.getdmesg" => text("&lt;6&gt;[    0.000000] Linux version 2.6.38"),
        "va.shutdown" => fault_reply(-500, &format!("the script does not do {first}")),
        "system.listMethods" => value_reply(&names()),
        "system.methodHelp" => text(&format!("what {first} does")),
        "system.methodSignature" => value_reply("<string>undef</string>"),
        "system.multicall" => {
            let calls = xml.matches("<name>methodName</name>").count();
            let one = "<value><array><data><value><string>help</string></value></data></array></value>\r\n";
            value_reply(&format!("<array><data>\r\n{}</data></array>", one.repeat(calls)))
        }
        _ => fault_reply(-506, &format!("Method '{method}' not defined")),
    }
}

/// The host's end: QEMU with virtagent in it.
pub struct Host2011 {
    stream: UnixStream,
    reader: Reader,
    breaches: Breaches,
    methods: Vec<String>,
    /// What it puts behind each body: nothing, or the sentinel of March.
    behind: &'static [u8],
}

impl Host2011 {
    /// Connects, hears the guest's hello, asks for its methods while the hello is open, and answers it.
    ///
    /// # Errors
    /// When the guest does anything else.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_as(path, b"")
    }

    /// The same; every frame ends with one more sentinel, as in March 2011.
    ///
    /// # Errors
    /// When the guest does anything else.
    pub fn of_march(path: &Path) -> Result<Self> {
        Self::connect_as(path, b"\xff")
    }

    fn connect_as(path: &Path, behind: &'static [u8]) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        let breaches = Breaches::default();
        let reader = Reader::new(stream.try_clone()?, &breaches);
        let mut host = Self { stream, reader, breaches, methods: Vec::new(), behind };
        let hello = host.reader.next(PATIENCE)?.context("the guest says no hello")?;
        let method = between(&hello.xml, "<methodName>", "</methodName>");
        ensure!(hello.kind == Kind::Call && method == Some("va.hello"), "the first frame is no hello: {hello:?}");
        ensure!(!hello.xml.contains("<param>"), "a hello with parameters: {}", hello.xml);
        // The echo is made before the next frame is read, as the original's job holds its own tag.
        let tag = host.reader.echo();
        let listed = host.exchange("system.listMethods", "")?;
        host.methods = each(&listed, "<string>", "</string>").into_iter().map(str::to_owned).collect();
        write(&host.stream, Kind::Reply, &tag, &value_reply("<string>hello</string>"), behind)?;
        Ok(host)
    }

    /// What the guest said that it serves.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// Calls a method; the parameters as XML. Gives the reply's value as XML.
    ///
    /// # Errors
    /// When the guest does not answer in time, or the method is not among those it listed: the original does not send it.
    pub fn call(&mut self, method: &str, params: &str) -> Result<Result<String, Fault>> {
        ensure!(self.methods.iter().any(|name| name == method), "the host refuses {method}: the guest did not list it");
        let xml = self.exchange(method, params)?;
        if xml.contains("<fault>") {
            let code = between(&xml, "<int>", "</int>").or_else(|| between(&xml, "<i4>", "</i4>"));
            let code = code.context("a fault without a code")?.parse()?;
            let message = between(&xml, "<string>", "</string>").context("a fault without words")?.to_owned();
            return Ok(Err(Fault { code, message }));
        }
        Ok(Ok(between(&xml, "<param>", "</param>").context("a reply without a value")?.trim().to_owned()))
    }

    fn exchange(&mut self, method: &str, params: &str) -> Result<String> {
        const TAG: &str = "testtag";
        write(&self.stream, Kind::Call, TAG, &call_xml(method, params), self.behind)?;
        let reply = self.reader.next(PATIENCE)?;
        let reply = reply.with_context(|| format!("{method} is not answered within 5 s: everything is cancelled"))?;
        if reply.kind != Kind::Reply || reply.tag != TAG {
            self.breaches.note(format!("in place of the reply to {method} came {reply:?}"));
        }
        Ok(reply.xml)
    }

    /// Whether the original would still live: nothing that it did not ask for comes within the time.
    ///
    /// # Errors
    /// When something did, or anything before ended it.
    pub fn check_quiet(&mut self, time: Duration) -> Result<()> {
        if let Some(frame) = self.reader.next(time)? {
            self.breaches.note(format!("unasked, late or twice: {frame:?}"));
        }
        self.breaches.check()
    }
}
