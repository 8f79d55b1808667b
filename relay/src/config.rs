//! What the relay is told: the sections of the configuration file that it obeys, and the options that override them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// Sections that other processes read from the same file.
const FOREIGN_SECTIONS: &[&str] = &["agents", "http", "identity", "ng", "recording", "sip", "supervisor"];

/// Workers at the most.
pub const WORKERS_MAX: u32 = 64;

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

/// Which way packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PathChoice {
    /// Native XDP, else generic XDP, else sockets.
    #[default]
    Auto,
    /// Native XDP with AF_XDP, or nothing.
    Xdp,
    /// Generic XDP with AF_XDP, or nothing.
    Generic,
    /// UDP sockets.
    Socket,
}

/// How workers wait for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Asleep until a packet comes; while they come densely, naps of 100 us.
    #[default]
    Adaptive,
    /// Asleep until a packet comes.
    Sleep,
    /// Never asleep: a processor for each worker, and the lowest latency.
    Busy,
}

/// Who encrypts and decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpChoice {
    /// The best that the processor has, behind a test of its own.
    #[default]
    Auto,
    /// Libraries, on any machine.
    Portable,
    /// SHA-NI and AES-NI, or nothing.
    Shani,
    /// AVX-512, or nothing.
    Avx512,
}

/// Options of `sallyport-relay`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "sallyport-relay",
    version,
    about = "Sallyport's media plane: XDP, AF_XDP and the SRTP translator"
)]
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
    /// Way that packets take. Overrides the file.
    #[arg(long, value_enum)]
    pub path: Option<PathChoice>,
    /// Check the configuration, print what is in effect, and exit.
    #[arg(long)]
    pub check: bool,
}

/// What the relay obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Browsers' side.
    pub outside: Outside,
    /// Telephony's side.
    pub inside: Inside,
    /// The relay itself.
    pub relay: Relay,
    /// Logs.
    pub log: Log,
}

/// DSCP of media (RFC 2474): 46, expedited forwarding, unless the configuration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dscp(pub u8);

impl Default for Dscp {
    fn default() -> Self {
        Self(46)
    }
}

/// MTU below which no path of IPv6 may be (RFC 8200 section 5).
const MTU_MIN: u32 = 1280;
/// The longest IP packet.
const MTU_MAX: u32 = 65_535;

/// `[outside]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outside {
    /// Interface that browsers reach.
    pub interface: String,
    /// Media addresses; empty: the interface's global ones.
    pub addresses: Vec<IpAddr>,
    /// The one UDP port for all browsers; 0 stands for 10000.
    pub port: u16,
    /// The one TCP port for browsers that UDP does not reach; absent: there is none.
    pub tcp: Option<u16>,
    /// DSCP of what leaves here, 0 to 63.
    pub dscp: Dscp,
    /// Octets of the longest IP packet that leaves here uncut, 1280 or more; absent: as the interface has it.
    pub mtu: Option<u32>,
    /// Read by control: addresses that a 1:1 NAT maps to ours.
    #[serde(skip_serializing)]
    pub advertised: Vec<IpAddr>,
    /// Read by control: STUN server.
    #[serde(skip_serializing)]
    pub stun: String,
    /// Read by control: `full` or `lite`.
    #[serde(skip_serializing)]
    pub ice: String,
}

/// `[inside]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inside {
    /// Interface that telephony reaches.
    pub interface: String,
    /// Media addresses; empty: the interface's global ones.
    pub addresses: Vec<IpAddr>,
    /// Lowest and highest media port; RTP takes the even ones.
    pub ports: [u16; 2],
    /// The one UDP port for browsers inside; absent: there are none.
    pub browsers: Option<u16>,
    /// Read by control: whether media there is encrypted.
    #[serde(skip_serializing)]
    pub srtp: Option<String>,
    /// Read by control: whether telephony is heard from the port that it signals only.
    #[serde(skip_serializing)]
    pub strict_source: Option<bool>,
    /// DSCP of what leaves here, 0 to 63.
    pub dscp: Dscp,
    /// Octets of the longest IP packet that leaves here uncut, 1280 or more; absent: as the interface has it.
    pub mtu: Option<u32>,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            interface: String::new(),
            addresses: Vec::new(),
            ports: [20000, 29999],
            browsers: None,
            srtp: None,
            strict_source: None,
            dscp: Dscp::default(),
            mtu: None,
        }
    }
}

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// Way that packets take.
    pub path: PathChoice,
    /// Workers; 0: one per RX queue, but no more than processors. On sockets: one per processor.
    pub workers: u32,
    /// On sockets: whether the system may merge packets of one flow that come together (`UDP_GRO`), and cut up what is sent
    /// together (`UDP_SEGMENT`).
    pub udp_offload: bool,
    /// Socket that control connects to.
    pub socket: PathBuf,
    /// Where maps are pinned: a bpffs of our own.
    pub pins: PathBuf,
    /// Calls at the most.
    pub max_calls: u32,
    /// How workers wait for packets.
    pub poll: Poll,
    /// Whether several workers stay on a processor each, where there are enough.
    pub pin: bool,
    /// Whether the status tells how long packets stay inside.
    pub residence: bool,
    /// Who encrypts and decrypts.
    pub srtp: SrtpChoice,
    /// Whether network cards are told to spread UDP over their RX queues by ports as well as by addresses.
    pub hash_ports: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            path: PathChoice::Auto,
            workers: 0,
            udp_offload: true,
            socket: "/run/sallyport/relay.sock".into(),
            pins: "/run/sallyport/bpf".into(),
            max_calls: 1000,
            poll: Poll::Adaptive,
            pin: true,
            residence: false,
            srtp: SrtpChoice::Auto,
            hash_ports: true,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// The file as it lies there: ours checked, the others' sections let pass.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    outside: Outside,
    inside: Inside,
    relay: Relay,
    log: Log,
    #[serde(flatten)]
    others: toml::Table,
}

impl Config {
    /// Reads the file named by the options, lets the options override it, and checks the outcome.
    ///
    /// # Errors
    /// [`ConfigError`] says which file, line or value.
    pub fn load(options: &Options) -> Result<Self, ConfigError> {
        let file = options.config.as_deref().map_or_else(|| Ok(File::default()), read)?;
        let mut config =
            Self { outside: file.outside, inside: file.inside, relay: file.relay, log: file.log };
        config.override_by(options);
        config.validate()?;
        Ok(config)
    }

    fn override_by(&mut self, options: &Options) {
        if let Some(interface) = &options.outside {
            self.outside.interface.clone_from(interface);
        }
        if let Some(interface) = &options.inside {
            self.inside.interface.clone_from(interface);
        }
        if let Some(path) = options.path {
            self.relay.path = path;
        }
        if self.outside.port == 0 {
            self.outside.port = 10000;
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.into()));
        if self.outside.interface.is_empty() {
            return invalid("[outside] interface is missing: name it in the file or with --outside");
        }
        if self.inside.interface.is_empty() {
            return invalid("[inside] interface is missing: name it in the file or with --inside");
        }
        if self.outside.interface == self.inside.interface {
            return invalid("[outside] and [inside] must be two interfaces");
        }
        let [low, high] = self.inside.ports;
        if low < 1024 || high <= low {
            return invalid("[inside] ports must be [lowest, highest] with 1024 <= lowest < highest");
        }
        if self.inside.browsers.is_some_and(|port| port == 0 || (low..=high).contains(&port)) {
            return invalid("[inside] browsers must be a port that does not lie among the [inside] ports");
        }
        if self.outside.tcp.is_some_and(|port| port == 0 || port == self.outside.port) {
            return invalid("[outside] tcp must be a port, and another one than [outside] port");
        }
        if self.outside.dscp.0 > 63 || self.inside.dscp.0 > 63 {
            return invalid("[outside] dscp and [inside] dscp must lie between 0 and 63");
        }
        let mtus = [self.outside.mtu, self.inside.mtu];
        if mtus.iter().flatten().any(|mtu| !(MTU_MIN..=MTU_MAX).contains(mtu)) {
            return invalid("[outside] mtu and [inside] mtu must lie between 1280 and 65535");
        }
        if self.relay.max_calls == 0 || self.relay.max_calls > 100_000 {
            return invalid("[relay] max_calls must lie between 1 and 100000");
        }
        if self.relay.workers > WORKERS_MAX {
            return invalid("[relay] workers must be 64 at the most");
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    parse(&text).map_err(|message| ConfigError::Parse { path: path.into(), message })
}

fn parse(text: &str) -> Result<File, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    match file.others.keys().find(|name| !FOREIGN_SECTIONS.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown section [{name}]")),
        None => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = parse(text).map_err(ConfigError::Invalid)?;
        let mut config =
            Config { outside: file.outside, inside: file.inside, relay: file.relay, log: file.log };
        config.override_by(&Options::parse_from(["sallyport-relay"]));
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn two_interfaces_are_enough() {
        let config = load("[outside]\ninterface = 'a'\n[inside]\ninterface = 'b'\n").unwrap();
        assert_eq!(config.outside.port, 10000);
        assert_eq!(config.inside.ports, [20000, 29999]);
        assert_eq!(config.relay.path, PathChoice::Auto);
        assert_eq!(config.inside.browsers, None);
        let base = "[outside]\ninterface = 'a'\n[inside]\ninterface = 'b'\n";
        assert_eq!(load(&format!("{base}browsers = 30000\n")).unwrap().inside.browsers, Some(30000));
        let narrow = load(&format!("{base}mtu = 1280\n")).unwrap();
        assert_eq!((narrow.outside.mtu, narrow.inside.mtu), (None, Some(1280)));
    }

    #[test]
    fn each_mistake_is_named() {
        let base = "[outside]\ninterface = 'a'\n[inside]\ninterface = 'b'\n";
        let cases = [
            ("[outside]\ninterfaces = 'a'\n".to_owned(), "unknown field `interfaces`"),
            (format!("{base}[rellay]\n"), "unknown section [rellay]"),
            ("[inside]\ninterface = 'b'\n".to_owned(), "--outside"),
            ("[outside]\ninterface = 'a'\n".to_owned(), "--inside"),
            ("[outside]\ninterface = 'a'\n[inside]\ninterface = 'a'\n".to_owned(), "two interfaces"),
            (format!("{base}ports = [9, 8]\n"), "ports must be"),
            (format!("{base}browsers = 20000\n"), "browsers must be"),
            (base.replacen('\n', "\ntcp = 0\n", 1), "tcp must be"),
            (base.replacen('\n', "\ntcp = 10000\n", 1), "tcp must be"),
            (base.replacen('\n', "\ntcp = 1\nport = 1\n", 1), "tcp must be"),
            (format!("{base}browsers = 0\n"), "browsers must be"),
            (format!("{base}ports = [30000, 30005]\nbrowsers = 30005\n"), "browsers must be"),
            (format!("{base}browsers = 65536\n"), "u16"),
            (format!("{base}mtu = 1279\n"), "mtu must lie"),
            (base.replacen('\n', "\nmtu = 65536\n", 1), "mtu must lie"),
            (format!("{base}[relay]\nmax_calls = 0\n"), "max_calls"),
            (format!("{base}[relay]\npath = 'dpdk'\n"), "unknown variant `dpdk`"),
            (format!("{base}[relay]\nsrtp = 'avx2'\n"), "unknown variant `avx2`"),
        ];
        for (text, expected) in cases {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// Other processes are given new sections without a word to us: the file that we come with has all of them.
    #[test]
    fn the_file_that_is_installed_is_understood() {
        let shipped = include_str!("../../appliance/files/sallyport.toml");
        let file = parse(shipped).unwrap();
        assert!(file.others.contains_key("agents") && file.others.contains_key("sip"));
        // Its defaults are written as comments.
        let keys = shipped
            .lines()
            .map(|line| line.strip_prefix('#').filter(|key| key.contains(" = ")).unwrap_or(line));
        let ours = |text: &str| {
            ["outside", "inside", "relay", "log"].iter().any(|name| text.starts_with(&format!("[{name}]")))
        };
        let text = keys.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let sections = text.split("\n[").map(|section| format!("[{}", section.trim_start_matches('[')));
        let text = sections.filter(|section| ours(section)).collect::<Vec<_>>().join("\n");
        let file = parse(&text).unwrap();
        assert_eq!((file.inside.browsers, file.relay.hash_ports), (Some(10_000), true));
        assert_eq!(file.outside.tcp, Some(443));
    }

    #[test]
    fn sections_of_the_other_processes_pass() {
        load("[outside]\ninterface='a'\n[inside]\ninterface='b'\n[http]\ntokens=['x']\n[sip]\nuser='u'\n")
            .unwrap();
    }
}
