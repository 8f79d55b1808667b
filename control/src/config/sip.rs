//! `[sip]`.

use std::net::{IpAddr, SocketAddr};

use sallyport_proto::sdp::Kind;
use serde::{Deserialize, Serialize};

use crate::ng::Network;

/// Transport of SIP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 3261 section 18 over datagrams.
    #[default]
    Udp,
    /// Over a stream.
    Tcp,
    /// Over TLS.
    Tls,
    /// Over WebSocket (RFC 7118): browsers only, not to be configured.
    #[serde(skip)]
    Ws,
    /// Over WebSocket within TLS.
    #[serde(skip)]
    Wss,
}

impl Transport {
    /// As a Via names it (RFC 3261 section 20.42, RFC 7118 section 5.2).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// Whether a message that it took will arrive, or the connection end: nothing is sent again.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// `[sip]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sip {
    /// Where SIP is heard; default: first inside address, port 5060.
    pub listen: Option<SocketAddr>,
    /// Toward servers that do not say it themselves; default: UDP, or what the domain's records say.
    pub transport: Option<Transport>,
    /// Next hops of every call: peers of ours, the first that is alive.
    pub server: Servers,
    /// Addresses and networks whose requests are heard beside the peers'; `*`: everybody.
    pub accept: Vec<String>,
    /// How often each peer is asked whether it is alive (OPTIONS), seconds; 0: never.
    pub probe_s: u16,
    /// Host part of URIs; default: the server's address.
    pub domain: String,
    /// Our user part, and the user name of digest authentication.
    pub user: String,
    /// Password of digest authentication.
    #[serde(skip_serializing)]
    pub password: String,
    /// Shown to the called side.
    pub display_name: String,
    /// Whether video passes that browsers and the inside offer.
    pub video: bool,
    /// How long a call may ring.
    pub ring_timeout_s: u16,
    /// Whom to ask for hosts' records; default: whom the system asks.
    pub dns: Option<SocketAddr>,
    /// What becomes of a call that a 3xx sends elsewhere.
    pub redirect: Redirect,
    /// Whether P-Asserted-Identity says who calls.
    pub trust_identity: bool,
    /// How our own INVITEs say it.
    pub assert_identity: Identity,
    /// Names of headers of INVITEs that pass both ways.
    pub pass_headers: Vec<String>,
    /// Types of bodies of INFOs that pass both ways.
    pub pass_types: Vec<String>,
    /// Codecs that are spoken, the one that is preferred inside first: `PCMU`, `PCMA`, `G722`, `opus`, and `CN` for comfort noise.
    pub codecs: Vec<String>,
    /// How digits that browsers send as named events, and those of the API, go inside.
    pub dtmf: DtmfMode,
    /// Whether INVITEs offer how loud packets are (RFC 6464), where the browser tells it.
    pub audio_level: bool,
    /// SIP over TLS.
    pub tls: SipTls,
}

/// How digits that browsers send as named events (RFC 4733) go inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtmfMode {
    /// As named events where the inside takes them and is not on hold, else by INFO.
    #[default]
    Auto,
    /// As named events only.
    Rfc4733,
    /// By INFO only.
    Info,
    /// Both ways at once.
    Both,
}

/// What becomes of a call that a 3xx sends elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// It goes there, through the server, at most five times.
    Follow,
    /// It is refused.
    #[default]
    Refuse,
}

/// Header that asserts who calls (RFC 3325).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// None.
    #[default]
    None,
    /// P-Asserted-Identity.
    Asserted,
    /// P-Preferred-Identity.
    Preferred,
}

/// `[sip.tls]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SipTls {
    /// Where SIP is heard over TLS; default: nowhere.
    pub listen: Option<SocketAddr>,
    /// PEM file of our certificate chain, shown to who connects to us and to peers that ask for it.
    pub certificate: String,
    /// PEM file of its key.
    pub key: String,
    /// PEM file of the authorities that peers' certificates are verified by; empty: the system's.
    pub ca: String,
    /// Whether who connects to us must show a certificate as well.
    pub verify_clients: bool,
}

impl Default for Sip {
    fn default() -> Self {
        Self {
            listen: None,
            transport: None,
            server: Servers::default(),
            accept: Vec::new(),
            probe_s: 10,
            domain: String::new(),
            user: "sallyport".into(),
            password: String::new(),
            display_name: String::new(),
            video: true,
            ring_timeout_s: 60,
            dns: None,
            redirect: Redirect::default(),
            trust_identity: false,
            assert_identity: Identity::default(),
            pass_headers: Vec::new(),
            pass_types: vec!["application/json".into(), "text/plain".into()],
            codecs: Kind::SPOKEN.iter().map(|kind| kind.name().to_owned()).collect(),
            dtmf: DtmfMode::default(),
            audio_level: false,
            tls: SipTls::default(),
        }
    }
}

impl Sip {
    /// What cannot be, in words.
    pub(super) fn validate(&self) -> Result<(), String> {
        let invalid = |text: &str| Err(text.to_owned());
        if !(1..=600).contains(&self.ring_timeout_s) {
            return invalid("[sip] ring_timeout_s must lie between 1 and 600");
        }
        if self.listen.is_some_and(|listen| listen.ip().is_unspecified()) {
            return invalid("[sip] listen must be one address of this machine: Via and Contact name it");
        }
        let tls = &self.tls;
        if tls.certificate.is_empty() != tls.key.is_empty() {
            return invalid("[sip.tls] certificate and key go together");
        }
        if tls.listen.is_some() && tls.certificate.is_empty() {
            return invalid("[sip.tls] listen needs a certificate");
        }
        if tls.listen.is_some_and(|listen| listen.ip().is_unspecified()) {
            return invalid("[sip.tls] listen must be one address of this machine: Via and Contact name it");
        }
        if tls.verify_clients && tls.ca.is_empty() {
            return invalid("[sip.tls] verify_clients needs ca: whose certificates are good");
        }
        if self.probe_s > 600 {
            return invalid("[sip] probe_s must lie between 0 and 600");
        }
        self.spoken()?;
        self.servers()?;
        self.accepted().map(|_| ())
    }

    /// The codecs, in the order of the file.
    ///
    /// # Errors
    /// Which of them is none of ours or is there twice; or that none of them carries speech.
    pub fn spoken(&self) -> Result<Vec<Kind>, String> {
        let mut kinds = Vec::new();
        for name in &self.codecs {
            let kind = Kind::named(name)
                .ok_or_else(|| format!("[sip] codecs: {name:?} is none of PCMU, PCMA, G722, opus, CN"))?;
            if kinds.contains(&kind) {
                return Err(format!("[sip] codecs: {name:?} is there twice"));
            }
            kinds.push(kind);
        }
        // Noise is never what is preferred.
        kinds.sort_by_key(|kind| !kind.is_sound());
        if kinds.iter().any(|kind| kind.is_sound()) {
            Ok(kinds)
        } else {
            Err("[sip] codecs must name one that carries speech".into())
        }
    }

    /// The peers, in the order of the file.
    ///
    /// # Errors
    /// Which of them cannot be read.
    pub fn servers(&self) -> Result<Vec<Server>, String> {
        let read = |text: &String| {
            Server::parse(text)
                .ok_or_else(|| format!("[sip] server: {text:?} is no ADDRESS:PORT, host or SIP URI"))
        };
        self.server.as_slice().iter().map(read).collect()
    }

    /// Whose requests are heard beside the peers'.
    ///
    /// # Errors
    /// Which of them cannot be read.
    pub fn accepted(&self) -> Result<Vec<Network>, String> {
        let read = |text: &String| {
            text.parse::<Network>().map_err(|_| format!("[sip] accept: {text:?} is no address or network"))
        };
        let all: Result<Vec<_>, _> = self.accept.iter().filter(|text| *text != "*").map(read).collect();
        let everybody = self.accept.iter().any(|text| text == "*");
        all.map(|mut all| {
            if everybody {
                all.extend(["0.0.0.0/0", "::/0"].into_iter().filter_map(|all| all.parse::<Network>().ok()));
            }
            all
        })
    }

    /// Name of the first server's host, where it is no address.
    pub fn domain_of_server(&self) -> Option<String> {
        self.server.as_slice().first().and_then(|text| Server::parse(text)?.name)
    }

    /// Toward a server that does not say it itself.
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or_default()
    }
}

/// One server or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Servers {
    /// One.
    One(String),
    /// Several, the best first.
    Several(Vec<String>),
}

impl Default for Servers {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Servers {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// A server as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As written.
    pub text: String,
    /// A host's name, where it is no address.
    pub name: Option<String>,
    /// The address, where it is one.
    pub address: Option<IpAddr>,
    /// The port, where it is said.
    pub port: Option<u16>,
    /// The transport, where it is said.
    pub transport: Option<Transport>,
}

impl Server {
    /// Reads `ADDRESS`, `ADDRESS:PORT`, `HOST`, `HOST:PORT`, or a SIP URI with those and perhaps `;transport=`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if ["sip", "sips"].contains(&scheme) => (scheme, rest),
            _ => ("sip", text),
        };
        let mut parts = rest.split(';');
        let place = parts.next()?;
        let mut transport = (scheme == "sips").then_some(Transport::Tls);
        for part in parts {
            transport = Some(match part.strip_prefix("transport=")? {
                "udp" => Transport::Udp,
                "tcp" => Transport::Tcp,
                "tls" => Transport::Tls,
                _ => return None,
            });
        }
        let server = Self { text: text.to_owned(), name: None, address: None, port: None, transport };
        if let Ok(address) = place.parse::<SocketAddr>() {
            let port = Some(address.port()).filter(|port| *port != 0)?;
            return Some(Self { address: Some(address.ip()), port: Some(port), ..server });
        }
        let bare = place.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(place);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self { address: Some(address), ..server });
        }
        let (name, port) = match place.split_once(':') {
            Some((name, port)) => (name, Some(port.parse::<u16>().ok().filter(|port| *port != 0)?)),
            None => (place, None),
        };
        let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
        let numeric = name.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        let named = (1..=253).contains(&name.len()) && name.bytes().all(octet) && !numeric;
        named.then(|| Self { name: Some(name.to_owned()), port, ..server })
    }

    /// As the host part of a URI.
    pub fn host(&self) -> String {
        match (&self.name, self.address) {
            (_, Some(IpAddr::V6(v6))) => format!("[{v6}]"),
            (_, Some(IpAddr::V4(v4))) => v4.to_string(),
            (name, None) => name.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_hosts_or_uris() {
        let read =
            |text: &str| Server::parse(text).map(|server| (server.host(), server.port, server.transport));
        for (text, host, port, transport) in [
            ("10.0.0.5:5060", "10.0.0.5", Some(5060), None),
            ("10.0.0.5", "10.0.0.5", None, None),
            ("[2001:db8::5]:5080", "[2001:db8::5]", Some(5080), None),
            ("2001:db8::5", "[2001:db8::5]", None, None),
            ("sip.example.com", "sip.example.com", None, None),
            ("sip.example.com:5070", "sip.example.com", Some(5070), None),
            ("sip:10.0.0.5;transport=tcp", "10.0.0.5", None, Some(Transport::Tcp)),
            ("sips:sip.example.com", "sip.example.com", None, Some(Transport::Tls)),
        ] {
            assert_eq!(read(text), Some((host.to_owned(), port, transport)), "{text}");
        }
        for bad in [
            "",
            "a b",
            "300.1.1.1",
            "10.0.0.5:0",
            "h:x",
            "h:99999",
            "http://h",
            "h;transport=ws",
            "h;lr",
            "user@h",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_server_or_several() {
        let read = |text: &str| toml::from_str::<Sip>(text).unwrap().servers().unwrap().len();
        assert_eq!(read("server = '10.0.0.5:5060'"), 1);
        assert_eq!(read("server = ['10.0.0.5:5060', 'sip.example.com']"), 2);
        assert_eq!(read(""), 0);
    }
}
