//! A SIP server that behaves as the called user's name says.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use boring::hash::{MessageDigest, hash};

/// What the server has seen.
#[derive(Default)]
pub struct State {
    /// Every request, in order.
    pub requests: Vec<String>,
    /// Call-IDs that are answered and not ended.
    pub talking: HashSet<String>,
    /// Call-IDs whose 2xx was acknowledged.
    pub acknowledged: HashSet<String>,
    /// The INVITE that is not answered yet, by Call-ID.
    ringing: HashMap<String, String>,
    /// Answers to requests of ours.
    pub answers: Vec<String>,
}

/// Writes a message back the way its request came.
type Writer = Arc<dyn Fn(&str) + Send + Sync>;

/// The server.
#[derive(Clone)]
pub struct Pbx {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    socket: Arc<UdpSocket>,
}

/// What it sends encrypted media under (RFC 4568's example).
pub const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

impl Pbx {
    /// Serves UDP and TCP.
    pub fn start(address: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(address).unwrap());
        let pbx = Self { address, state: Arc::default(), socket: socket.clone() };
        let listener = TcpListener::bind(address).unwrap();
        let (datagrams, streams) = (pbx.clone(), pbx.clone());
        thread::spawn(move || {
            let mut room = vec![0; 65_536];
            while let Ok((length, source)) = socket.recv_from(&mut room) {
                let back = socket.clone();
                let writer: Writer = Arc::new(move |text: &str| {
                    back.send_to(text.as_bytes(), source).unwrap();
                });
                datagrams.take(std::str::from_utf8(&room[..length]).unwrap(), &writer);
            }
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (pbx, stream) = (streams.clone(), stream.unwrap());
                thread::spawn(move || pbx.follow(stream));
            }
        });
        pbx
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Requests of a method, so far.
    pub fn heard(&self, method: &str) -> Vec<String> {
        let start = format!("{method} ");
        self.state().requests.iter().filter(|request| request.starts_with(&start)).cloned().collect()
    }

    fn follow(&self, mut stream: TcpStream) {
        let back = Mutex::new(stream.try_clone().unwrap());
        let writer: Writer = Arc::new(move |text: &str| {
            // The peer may be gone.
            let _ = back.lock().unwrap().write_all(text.as_bytes());
        });
        let mut pending = String::new();
        let mut piece = vec![0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            pending.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            while let Some(end) = pending.find("\r\n\r\n") {
                let body: usize = line(&pending, "Content-Length").parse().unwrap();
                if pending.len() < end + 4 + body {
                    break;
                }
                let message: String = pending.drain(..end + 4 + body).collect();
                self.take(&message, &writer);
            }
        }
    }

    fn take(&self, message: &str, writer: &Writer) {
        if message.starts_with("SIP/2.0 ") {
            self.state().answers.push(message.to_owned());
            return;
        }
        let (method, _) = message.split_once(' ').unwrap();
        if method == "OPTIONS" {
            // Whether we are alive: no test counts it.
            writer(&answer(message, "200 OK", "", &[]));
            return;
        }
        let id = line(message, "Call-ID").to_owned();
        let again = self.state().requests.iter().any(|request| request == message);
        self.state().requests.push(message.to_owned());
        match method {
            "INVITE" => self.invite(message, &id, again, writer),
            "ACK" => self.acknowledge(message, &id, writer),
            "CANCEL" => {
                writer(&answer(message, "200 OK", "", &[]));
                if let Some(invite) = self.state().ringing.remove(&id) {
                    writer(&answer(&invite, "487 Request Terminated", "", &[]));
                }
            }
            "BYE" if message.contains("secret@") && !again && !is_authorized(message) => {
                let challenge =
                    "Proxy-Authenticate: Digest realm=\"pbx\", nonce=\"n2\", qop=\"auth\", algorithm=MD5";
                writer(&answer(message, "407 Proxy Authentication Required", "", &[challenge]));
            }
            "BYE" => {
                let known = self.state().talking.remove(&id) || again;
                writer(&answer(message, if known { "200 OK" } else { "481 Unknown" }, "", &[]));
            }
            "REGISTER" => {
                let to = line(message, "To");
                let same = |request: &&String| request.starts_with("REGISTER ") && line(request, "To") == to;
                let before = self.state().requests.iter().filter(same).count() - 1;
                writer(&super::registrar::register(message, before));
            }
            "NOTIFY" | "INFO" => writer(&answer(message, "200 OK", "", &[])),
            "REFER" => writer(&answer(message, "202 Accepted", "", &[])),
            other => panic!("the daemon sent {other}"),
        }
    }

    fn invite(&self, invite: &str, id: &str, again: bool, writer: &Writer) {
        let user = invite.split("sip:").nth(1).and_then(|uri| uri.split('@').next()).unwrap_or_default();
        match user {
            "silent" => {}
            "busy" => writer(&answer(invite, "486 Busy Here", "", &[])),
            "decline" => writer(&answer(invite, "603 Decline", "", &[])),
            "ring" => {
                self.state().ringing.insert(id.into(), invite.into());
                writer(&answer(invite, "180 Ringing", "", &[]));
            }
            "late" => {
                writer(&answer(invite, "180 Ringing", "", &[]));
                let (pbx, invite, id, writer) =
                    (self.clone(), invite.to_owned(), id.to_owned(), writer.clone());
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(600));
                    pbx.accept(&invite, &id, &pbx.sdp(), &writer);
                });
            }
            "early" => {
                let pbx = self.clone();
                let (invite, id, writer) = (invite.to_owned(), id.to_owned(), writer.clone());
                writer(&answer(&invite, "183 Session Progress", &self.sdp(), &[&self.contact()]));
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(400));
                    pbx.accept(&invite, &id, &pbx.sdp(), &writer);
                });
            }
            "guarded" | "secret" if !again && !is_authorized(invite) => {
                let challenge =
                    "Proxy-Authenticate: Digest realm=\"pbx\", nonce=\"n1\", qop=\"auth\", algorithm=MD5";
                writer(&answer(invite, "407 Proxy Authentication Required", "", &[challenge]));
            }
            "nosdp" => self.accept(invite, id, "", writer),
            "garbage" => self.accept(invite, id, "this is no session description\r\n", writer),
            "nocodec" => {
                let sdp =
                    self.sdp().replace("RTP/AVP 0", "RTP/AVP 18").replace("rtpmap:0 PCMU", "rtpmap:18 G729");
                self.accept(invite, id, &sdp, writer);
            }
            "secret-media" => {
                // Takes the line of AES_CM_128_HMAC_SHA1_80 with a key of its own.
                let taken = invite.lines().find(|line| line.contains(" AES_CM_128_HMAC_SHA1_80 ")).unwrap();
                let tag = taken.trim_start_matches("a=crypto:").split(' ').next().unwrap();
                let profile = if invite.contains("RTP/SAVP ") { "RTP/SAVP" } else { "RTP/AVP" };
                let line = format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31\r\n");
                let sdp = self.sdp().replace("RTP/AVP", profile) + &line;
                self.accept(invite, id, &sdp, writer);
            }
            "noise" => {
                writer("SIP/2.0 200 OK\r\nVia: nonsense\r\n\r\n");
                writer(&answer(invite, "180 Ringing", "", &[]).replace("CSeq: ", "CSeq: x"));
                self.accept(invite, id, &self.sdp(), writer);
            }
            _ => {
                writer(&answer(invite, "100 Trying", "", &[]));
                self.accept(invite, id, &self.sdp(), writer);
            }
        }
    }

    fn accept(&self, invite: &str, id: &str, sdp: &str, writer: &Writer) {
        let route = format!("Record-Route: <sip:{};lr>", self.address);
        writer(&answer(invite, "200 OK", sdp, &[&self.contact(), &route]));
        self.state().talking.insert(id.into());
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:agent@{}>", self.address)
    }

    fn acknowledge(&self, ack: &str, id: &str, writer: &Writer) {
        if !self.state().talking.contains(id) {
            return;
        }
        assert!(ack.contains(&format!("Route: <sip:{};lr>", self.address)), "the route set is kept: {ack}");
        let guarded = ["<sip:guarded@", "<sip:secret@"].iter().any(|user| ack.contains(user));
        assert!(!guarded || ack.contains("Proxy-Authorization: "), "the INVITE's credentials: {ack}");
        let first = self.state().acknowledged.insert(id.into());
        if first && ack.contains("<sip:hangup@") {
            // Long enough for what its answer brings about.
            std::thread::sleep(std::time::Duration::from_millis(300));
            let bye = self.request("BYE", ack, 1);
            self.state().talking.remove(id);
            writer(&bye);
        }
    }

    /// A request of ours in the dialog that `ack` belongs to.
    pub fn request(&self, method: &str, ack: &str, cseq: u32) -> String {
        let invites = self.heard("INVITE");
        let invite = invites.iter().find(|invite| line(invite, "Call-ID") == line(ack, "Call-ID")).unwrap();
        let contact = line(invite, "Contact").trim_start_matches('<').split('>').next().unwrap();
        let via = line(ack, "Via").split(' ').next().unwrap();
        format!(
            "{method} {contact} SIP/2.0\r\nVia: {via} {};branch=z9hG4bKpbx{method}{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            self.address,
            line(ack, "To"),
            line(ack, "From"),
            line(ack, "Call-ID"),
        )
    }

    /// Sends a datagram from the server's address.
    pub fn send_datagram(&self, text: &str, to: SocketAddr) {
        // The socket is shared by address only: another port of the same host.
        let socket = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        socket.send_to(text.as_bytes(), to).unwrap();
        let mut room = vec![0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let (length, _) = socket.recv_from(&mut room).unwrap();
        self.state().answers.push(String::from_utf8(room[..length].to_vec()).unwrap());
    }

    /// Sends a datagram from the server's own socket: its answers are among [`State::answers`].
    pub fn say(&self, text: &str, to: SocketAddr) {
        self.socket.send_to(text.as_bytes(), to).unwrap();
    }

    /// Sends a datagram that has no answer.
    pub fn drop_datagram(&self, text: &str, to: SocketAddr) {
        let socket = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        socket.send_to(text.as_bytes(), to).unwrap();
    }

    /// A message with this SDP in place of no body.
    pub fn with_sdp(&self, message: &str, sdp: &str) -> String {
        let lines = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
        message.replace("Content-Length: 0\r\n\r\n", &lines)
    }

    /// What it says of its media.
    pub fn sdp(&self) -> String {
        let ip = self.address.ip();
        format!(
            "v=0\r\no=pbx 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0 101\r\n\
             a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
        )
    }
}

/// The value of a header.
pub fn line<'a>(message: &'a str, name: &str) -> &'a str {
    let start = format!("{name}: ");
    let found = message.lines().find_map(|line| line.strip_prefix(&start));
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// An answer to a request.
pub fn answer(request: &str, status: &str, body: &str, extra: &[&str]) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for via in request.lines().filter(|line| line.starts_with("Via: ")) {
        text.push_str(&format!("{via}\r\n"));
    }
    for name in ["From", "Call-ID", "CSeq"] {
        text.push_str(&format!("{name}: {}\r\n", line(request, name)));
    }
    let to = line(request, "To");
    let tag = if to.contains(";tag=") || status.starts_with("100") { "" } else { ";tag=pbx" };
    text.push_str(&format!("To: {to}{tag}\r\n"));
    for header in extra {
        text.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text
}

/// Whether a request bears the right digest for user `sallyport`, password `secret` (RFC 2617 section 3.2.2).
fn is_authorized(request: &str) -> bool {
    let Some(given) = request.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Digest "))
    else {
        return false;
    };
    let part = |name: &str| {
        let mut parts = given.split(", ").filter_map(|part| part.trim().split_once('='));
        parts.find(|(have, _)| *have == name).map_or("", |(_, value)| value).trim_matches('"').to_owned()
    };
    let md5 = |text: String| -> String {
        let digest = hash(MessageDigest::md5(), text.as_bytes()).unwrap();
        digest.iter().map(|octet| format!("{octet:02x}")).collect()
    };
    let method = request.split(' ').next().unwrap();
    let (one, two) = (md5("sallyport:pbx:secret".into()), md5(format!("{method}:{}", part("uri"))));
    let middle = format!("{}:{}:{}:{}", part("nonce"), part("nc"), part("cnonce"), part("qop"));
    part("response") == md5(format!("{one}:{middle}:{two}"))
}
