//! What control is told: its sections of the configuration file, and the options that override them.

mod recording;
mod sip;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::{Deserialize, Serialize};

pub use sip::{DtmfMode, Identity, Redirect, Server, Servers, Sip, SipTls, Transport};

/// Sections that only other processes read.
const FOREIGN_SECTIONS: &[&str] = &["supervisor"];

/// Why a configuration is not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that no one knows, or a value of the wrong kind.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        message: String,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// Options of `sallyport-control`.
#[derive(Debug, Clone, Parser)]
#[command(name = "sallyport-control", version, about = "Sallyport's control plane: HTTP, SIP, ICE and DTLS")]
pub struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Outside interface: browsers. Overrides the file.
    #[arg(long, value_name = "IF")]
    pub outside: Option<String>,
    /// Inside interface: telephony. Overrides the file.
    #[arg(long, value_name = "IF")]
    pub inside: Option<String>,
    /// Taken for the sake of one command line for both daemons; the relay obeys it.
    #[arg(long, hide = true)]
    pub path: Option<String>,
    /// Hear NG there too: [udp:|tcp:]ADDRESS:PORT or unix:/PATH.
    #[arg(long, value_name = "ADDR")]
    pub ng: Vec<String>,
    /// Check the configuration, print what is in effect without secrets, and exit.
    #[arg(long)]
    pub check: bool,
    /// A bearer token beside the configured ones.
    #[arg(long, env = "SALLYPORT_TOKEN", hide = true, hide_env_values = true)]
    pub token: Option<String>,
}

/// What control obeys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Browsers' side.
    pub outside: Outside,
    /// Telephony's side.
    pub inside: Inside,
    /// The relay.
    pub relay: Relay,
    /// REST.
    pub http: Http,
    /// SIP.
    pub sip: Sip,
    /// Who gets copies of calls.
    pub recording: recording::Recording,
    /// NG.
    pub ng: crate::ng::Section,
    /// Whose tokens are believed.
    pub identity: crate::identity::Identity,
    /// How agents sign in.
    pub agents: crate::identity::Agents,
    /// Logs.
    pub log: Log,
    #[serde(flatten, skip_serializing)]
    others: toml::Table,
}

/// `[outside]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outside {
    /// Interface that browsers reach.
    pub interface: String,
    /// Media addresses; read by the relay.
    #[serde(skip_serializing)]
    pub addresses: Vec<IpAddr>,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub port: u16,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub tcp: Option<u16>,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub dscp: Option<u8>,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub mtu: Option<u32>,
    /// Public addresses of a 1:1 NAT, announced as candidates.
    pub advertised: Vec<IpAddr>,
    /// STUN server that tells how the media port looks from outside; empty: none.
    pub stun: String,
    /// `full` (default) or `lite`.
    pub ice: Ice,
}

/// Kind of ICE agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ice {
    /// RFC 8445 in full.
    #[default]
    Full,
    /// Answers checks only.
    Lite,
}

/// `[inside]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inside {
    /// Interface that telephony reaches.
    pub interface: String,
    /// Media addresses; the first one is where SIP listens by default.
    pub addresses: Vec<IpAddr>,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub ports: Option<[u16; 2]>,
    /// Read by the relay, whose status tells the port of browsers inside.
    #[serde(skip_serializing)]
    pub browsers: Option<u16>,
    /// Whether media there is encrypted, under keys in SIP's descriptions.
    pub srtp: Srtp,
    /// Whether telephony is heard from the port that it signals only, and not from another one of the same address.
    pub strict_source: bool,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub dscp: Option<u8>,
    /// Read by the relay.
    #[serde(skip_serializing)]
    pub mtu: Option<u32>,
}

/// Whether media inside is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Srtp {
    /// Never.
    #[default]
    Off,
    /// Where the far end has keys, too.
    Optional,
    /// Always.
    Required,
}

/// `[relay]`, of which control needs the socket; the relay judges the other keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Relay {
    /// Socket of the relay.
    pub socket: PathBuf,
}

impl Default for Relay {
    fn default() -> Self {
        Self { socket: "/run/sallyport/relay.sock".into() }
    }
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where REST is served.
    pub listen: Vec<SocketAddr>,
    /// PEM file of the certificate chain; empty: plain HTTP.
    pub certificate: String,
    /// PEM file of its key.
    pub key: String,
    /// Bearer tokens for the whole API.
    #[serde(skip_serializing)]
    pub tokens: Vec<String>,
    /// Destinations that may be called without a token.
    pub anonymous: Vec<String>,
    /// Origins whose pages may use the API.
    pub origins: Vec<String>,
    /// Addresses of reverse proxies whose X-Forwarded-For is believed.
    pub proxies: Vec<IpAddr>,
    /// Calls at once.
    pub max_calls: usize,
    /// Calls at once of one client without a token.
    pub max_anonymous_calls: usize,
    /// Who may read the metrics.
    pub metrics: Metrics,
    /// Whether the demo page is served at `/demo/`.
    pub demo: bool,
}

/// Who may read the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// Everybody.
    Open,
    /// Programs of this machine; all others with a token.
    #[default]
    Local,
    /// Whoever has a token.
    Token,
    /// Nobody.
    Off,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            certificate: String::new(),
            key: String::new(),
            tokens: Vec::new(),
            anonymous: Vec::new(),
            origins: Vec::new(),
            proxies: Vec::new(),
            max_calls: 1000,
            max_anonymous_calls: 10,
            metrics: Metrics::default(),
            demo: false,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Directives of tracing's `EnvFilter`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

impl Config {
    /// Reads the file named by the options, lets the options override it, and checks the outcome.
    ///
    /// # Errors
    /// [`ConfigError`] says which file, line or value.
    pub fn load(options: &Options) -> Result<Self, ConfigError> {
        let mut config = options.config.as_deref().map_or_else(|| Ok(Self::default()), read)?;
        if let Some(interface) = &options.outside {
            config.outside.interface.clone_from(interface);
        }
        if let Some(interface) = &options.inside {
            config.inside.interface.clone_from(interface);
        }
        config.ng.listen.extend(options.ng.iter().cloned());
        config.http.tokens.extend(options.token.clone());
        config.validate()?;
        Ok(config)
    }

    /// Whether keys of media inside travel where others on the way may read them: SRTP is not off, and SIP goes by UDP or
    /// TCP to one server at least, or is heard so.
    pub fn tells_keys(&self) -> bool {
        let clear = |server: Server| server.transport.unwrap_or(self.sip.transport()) != Transport::Tls;
        let servers = self.sip.servers().unwrap_or_default();
        self.inside.srtp != Srtp::Off && (servers.is_empty() || servers.into_iter().any(clear))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.into()));
        if self.http.listen.is_empty() {
            return invalid("[http] listen names no address");
        }
        if self.http.certificate.is_empty() != self.http.key.is_empty() {
            return invalid("[http] certificate and key go together");
        }
        if self.http.tokens.iter().any(|token| token.len() < 8) {
            return invalid("[http] a token must have 8 characters at least");
        }
        if self.inside.interface.is_empty() && self.sip.listen.is_none() {
            return invalid("[inside] interface is missing: name it in the file or with --inside");
        }
        if !self.outside.stun.is_empty() && !is_server(&self.outside.stun) {
            return invalid("[outside] stun must be ADDRESS:PORT or NAME:PORT");
        }
        if !self.sip.pass_headers.iter().all(|name| may_pass(name)) {
            return invalid("[sip] pass_headers names a header that dialogs, routing or authentication need");
        }
        if self.http.max_calls == 0 || self.http.max_anonymous_calls == 0 {
            return invalid("[http] max_calls and max_anonymous_calls must be 1 at least");
        }
        self.sip.validate().map_err(ConfigError::Invalid)?;
        self.agents.validate(!self.sip.server.is_empty()).map_err(ConfigError::Invalid)?;
        crate::identity::Identities::new(self).map_err(ConfigError::Invalid)?;
        self.recording.validate().map_err(ConfigError::Invalid)?;
        self.ng.validate().map_err(ConfigError::Invalid)
    }
}

/// Whether a header of an INVITE may pass: it is none that SIP itself obeys, nor one that tells of hosts.
fn may_pass(name: &str) -> bool {
    const OWN: [&str; 24] = [
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Contact",
        "Route",
        "Record-Route",
        "Max-Forwards",
        "Content-Length",
        "Content-Type",
        "Authorization",
        "Proxy-Authorization",
        "Require",
        "Supported",
        "Allow",
        "Replaces",
        "Session-Expires",
        "Min-SE",
        "Proxy-Require",
        "Path",
        "Referred-By",
        "Refer-To",
        "User-Agent",
    ];
    let token = name.len() > 1 && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    token && !OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a text is an address or a host's name, with a port.
fn is_server(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((name, port)) = text.rsplit_once(':') else { return false };
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    let named = (1..=253).contains(&name.len()) && name.bytes().all(octet);
    // Four numbers that are no address are no name either.
    let numeric = name.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    named && !numeric && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn read(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    parse(&text).map_err(|message| ConfigError::Parse { path: path.into(), message })
}

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    match config.others.keys().find(|name| !FOREIGN_SECTIONS.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown section [{name}]")),
        None => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_file_is_accepted() {
        parse(include_str!("../../appliance/files/sallyport.toml")).unwrap();
    }

    /// With every line that says nothing saying its default, and the interfaces named.
    #[test]
    fn the_packaged_file_is_accepted_with_all_its_examples() {
        let lines = include_str!("../../appliance/files/sallyport.toml").lines();
        let said = |line: &str| {
            let example =
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && rest.contains(" = "));
            example.unwrap_or(line).replace("interface = \"\"", "interface = \"x\"")
        };
        let text: Vec<String> = lines.map(said).collect();
        let config = parse(&text.join("\n")).unwrap();
        config.validate().unwrap();
        let (shown, default) = (config.http, Http::default());
        assert_eq!(
            (shown.max_calls, shown.max_anonymous_calls),
            (default.max_calls, default.max_anonymous_calls)
        );
        assert_eq!((shown.metrics, shown.listen), (default.metrics, default.listen));
        assert_eq!(config.outside.stun, "stun.example.com:3478");
    }

    #[test]
    fn each_mistake_is_named() {
        let base = "[inside]\ninterface = 'b'\n";
        let cases = [
            ("[sip]\nsever = 'a'\n".to_owned(), "unknown field `sever`"),
            ("[htp]\n".to_owned(), "unknown section [htp]"),
            (format!("{base}[http]\nlisten = []\n"), "listen"),
            (format!("{base}[http]\nkey = 'k'\n"), "go together"),
            (format!("{base}[http]\ntokens = ['short']\n"), "8 characters"),
            (format!("{base}[sip]\nring_timeout_s = 0\n"), "ring_timeout_s"),
            (format!("{base}[sip]\npass_headers = ['X-Data', 'via']\n"), "pass_headers"),
            (format!("{base}[sip]\npass_headers = ['X:Y']\n"), "pass_headers"),
            (format!("{base}[sip]\nredirect = 'maybe'\n"), "unknown variant"),
            (format!("{base}[outside]\nstun = 'x'\n"), "ADDRESS:PORT"),
            (format!("{base}[outside]\nstun = '300.1.1.1:3478'\n"), "ADDRESS:PORT"),
            (format!("{base}[outside]\nstun = 'a b:3478'\n"), "ADDRESS:PORT"),
            (format!("{base}[sip]\nlisten = '0.0.0.0:5060'\n"), "[sip] listen"),
            (format!("{base}[sip]\nlisten = '[::]:5060'\n"), "[sip] listen"),
            (format!("{base}[sip.tls]\nkey = 'k'\n"), "go together"),
            (format!("{base}[sip.tls]\nlisten = '10.0.0.1:5061'\n"), "needs a certificate"),
            (format!("{base}[sip.tls]\nverify_clients = true\n"), "needs ca"),
            (format!("{base}[sip]\ntransport = 'ws'\n"), "unknown variant"),
            (format!("{base}[sip]\nserver = ['10.0.0.5:5060', '10.0.0.6 5060']\n"), "[sip] server"),
            (format!("{base}[sip]\nserver = 'mailto:a'\n"), "[sip] server"),
            (format!("{base}[sip]\naccept = ['10.0.0.0/33']\n"), "[sip] accept"),
            (format!("{base}[sip]\nprobe_s = 5000\n"), "probe_s"),
            (format!("{base}[sip]\ncodecs = ['PCMU', 'G729']\n"), "none of PCMU"),
            (format!("{base}[sip]\ncodecs = ['opus', 'OPUS']\n"), "there twice"),
            (format!("{base}[sip]\ncodecs = ['CN']\n"), "carries speech"),
            (format!("{base}[http]\nmax_calls = 0\n"), "max_calls"),
            (format!("{base}[http]\nmetrics = 'maybe'\n"), "unknown variant"),
            (format!("{base}[outside]\nice = 'heavy'\n"), "unknown variant"),
            (format!("{base}[identity]\nhs256 = ['short']\n"), "32 octets"),
            (format!("{base}[identity]\ned25519 = ['x']\n"), "[identity] ed25519"),
            (format!("{base}[agents]\nnumbers = 'password'\n"), "server that verifies"),
            (format!("{base}[agents]\nregister = true\n"), "needs a [sip] server"),
            (format!("{base}[agents]\nexpires_s = 5\n"), "expires_s"),
            (format!("{base}[agents]\ngrace_s = 0\n"), "grace_s"),
            (format!("{base}[agents]\nsign_ins_per_minute = 0\n"), "sign_ins_per_minute"),
            (String::new(), "--inside"),
        ];
        for (text, expected) in cases {
            let outcome = parse(&text).map_err(ConfigError::Invalid).and_then(|config| config.validate());
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = "[inside]\ninterface='b'\n[http]\ntokens=['very secret token']\n[sip]\npassword='hush hush'\n\
                    [identity]\nhs256=['very secret key']\n";
        let shown = toml::to_string(&parse(text).unwrap()).unwrap();
        assert!(!shown.contains("secret") && !shown.contains("hush"), "{shown}");
    }
}
