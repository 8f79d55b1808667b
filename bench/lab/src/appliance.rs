//! The appliance: `sallyport run` in the DMZ, its configuration, and what it and its kernel say of themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::browser::ORIGIN;
use crate::namespace::Namespace;
use crate::net::{AGENT, APPLIANCE_PUBLIC, INSIDE_INTERFACE, Lab, OUTSIDE_INTERFACE, Place, STUN};
use crate::process::{Process, Program};

/// The UDP port for all browsers.
pub const MEDIA_PORT: u16 = 10_000;
/// Port of the REST API.
pub const API_PORT: u16 = 8080;
/// Lowest and highest media port inside.
pub const INSIDE_PORTS: [u16; 2] = [20_000, 29_999];
/// Its processes.
pub const PROGRAMS: [&str; 3] = ["sallyport", "sallyport-relay", "sallyport-control"];

/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(40);
/// How long it may take to end: calls are hung up first.
const FAREWELL: Duration = Duration::from_secs(15);
/// How long an answer of its API may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Which way packets are to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Native XDP and AF_XDP.
    Xdp,
    /// Generic XDP and AF_XDP.
    Generic,
    /// UDP sockets.
    Socket,
    /// The best that works.
    Auto,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Generic => "generic",
            Self::Socket => "socket",
            Self::Auto => "auto",
        })
    }
}

/// An appliance to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Folder of its programs; see [`programs`].
    pub programs: PathBuf,
    /// Way that packets take.
    pub way: Way,
    /// Next hop of SIP.
    pub server: SocketAddr,
    /// `udp` or `tcp`, toward the next hop.
    pub transport: &'static str,
    /// STUN server; `None`: the 1:1 NAT's public address is configured instead.
    pub stun: Option<SocketAddr>,
    /// Directives of the log.
    pub log: String,
    /// Keys to add or to overwrite, by section.
    pub more: toml::Table,
}

impl Setup {
    /// Deployment A: an agent inside, addresses by STUN.
    pub fn new(programs: PathBuf, way: Way) -> Self {
        Self {
            programs,
            way,
            server: SocketAddr::from((AGENT, 5060)),
            transport: "udp",
            stun: Some(STUN),
            log: "info".into(),
            more: toml::Table::new(),
        }
    }

    fn config(&self, folder: &Path, token: &str) -> toml::Table {
        let (stun, advertised) = match self.stun {
            Some(server) => (server.to_string(), Vec::new()),
            None => (String::new(), vec![APPLIANCE_PUBLIC.to_string()]),
        };
        let path = |name: &str| folder.join(name).display().to_string();
        let mut config = toml::toml! {
            [outside]
            [inside]
            [relay]
            [http]
            [sip]
            [supervisor]
            [ng]
            [agents]
            [identity]
            [recording]
            [log]
        };
        let mut set = |section: &str, key: &str, value: toml::Value| {
            if let Some(table) = config.get_mut(section).and_then(toml::Value::as_table_mut) {
                table.insert(key.into(), value);
            }
        };
        set("outside", "interface", OUTSIDE_INTERFACE.into());
        set("outside", "port", i64::from(MEDIA_PORT).into());
        set("outside", "stun", stun.into());
        set("outside", "advertised", advertised.into());
        set("inside", "interface", INSIDE_INTERFACE.into());
        set("inside", "ports", INSIDE_PORTS.map(i64::from).to_vec().into());
        set("relay", "socket", path("relay.sock").into());
        set("relay", "pins", path("bpf").into());
        set("http", "listen", vec![format!("0.0.0.0:{API_PORT}")].into());
        set("http", "tokens", vec![token.to_owned()].into());
        set("http", "origins", vec![ORIGIN.to_owned()].into());
        set("sip", "server", self.server.to_string().into());
        set("sip", "transport", self.transport.into());
        set("log", "filter", self.log.clone().into());
        for (section, keys) in &self.more {
            for (key, value) in keys.as_table().into_iter().flatten() {
                set(section, key, value.clone());
            }
        }
        config
    }
}

/// Where the appliance's programs lie: the folder in `SALLYPORT_PROGRAMS`, else that of the running program, else the one
/// above it, as test programs lie in `deps`.
///
/// # Errors
/// Where they are not built.
pub fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let named = std::env::var_os("SALLYPORT_PROGRAMS").map(PathBuf::from);
    let folders: Vec<PathBuf> = match named {
        Some(folder) => vec![folder],
        None => own.ancestors().skip(1).take(2).map(Path::to_path_buf).collect(),
    };
    let complete = |folder: &&PathBuf| PROGRAMS.iter().all(|name| folder.join(name).is_file());
    let found = folders.iter().find(complete).cloned();
    found.with_context(|| format!("{} are not built beside {}", PROGRAMS.join(", "), own.display()))
}

/// A running appliance.
#[derive(Debug)]
pub struct Appliance {
    process: Process,
    namespace: Namespace,
    folder: PathBuf,
    token: String,
}

impl Appliance {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// With its last words where it does not get ready.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        let folder = lab.folder().join("appliance");
        fs::create_dir_all(&folder)?;
        let token = format!("lab-{}", lab.name());
        let config = folder.join("sallyport.toml");
        fs::write(&config, toml::to_string(&setup.config(&folder, &token))?)?;
        let namespace = lab.namespace(Place::Dmz);
        let program = setup.programs.join("sallyport");
        let mut command = namespace.command(&program.display().to_string());
        command.args(["run", "--outside", OUTSIDE_INTERFACE, "--inside", INSIDE_INTERFACE]);
        command.arg("--config").arg(&config).args(["--path", &setup.way.to_string()]);
        let mut program = Program::new("sallyport", command);
        program.farewell = Signal::SIGINT;
        program.patience = FAREWELL;
        let process = lab.start(program)?;
        let appliance = Self { process, namespace, folder, token };
        appliance.process.wait_for(READY, || appliance.get("/readyz").ok())?;
        Ok(appliance)
    }

    /// Its bearer token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where the Internet calls a user of the inside.
    pub fn call_url(&self, user: &str) -> String {
        self.public_url(&format!("/v1/calls?to={user}"))
    }

    /// A path of its API as the Internet asks for it.
    pub fn public_url(&self, path: &str) -> String {
        format!("http://{APPLIANCE_PUBLIC}:{API_PORT}{path}")
    }

    /// Folder of its pinned maps.
    pub fn pins(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// Socket of its relay.
    pub fn relay_socket(&self) -> PathBuf {
        self.folder.join("relay.sock")
    }

    /// Its supervisor.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The id of one of [`PROGRAMS`] as it runs now.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self, program: &str) -> anyhow::Result<i32> {
        let is_it = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|path| path.file_name() == Some(program.as_ref()))
        };
        self.namespace.pids().into_iter().find(is_it).with_context(|| format!("{program} does not run"))
    }

    /// Body of a successful answer of its API, asked on its own loopback with the token.
    ///
    /// # Errors
    /// No answer, or one that is no success, with its body.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{API_PORT}{path}");
        self.namespace.within(|| {
            let config =
                ureq::Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false);
            let agent: ureq::Agent = config.build().into();
            let request = agent.get(&url).header("Authorization", format!("Bearer {}", self.token));
            let mut response = request.call()?;
            let body = response.body_mut().read_to_string()?;
            if !response.status().is_success() {
                bail!("{path} answers {}: {body}", response.status());
            }
            Ok(body)
        })?
    }

    /// Its own state.
    ///
    /// # Errors
    /// As [`Appliance::get`].
    pub fn status(&self) -> anyhow::Result<Status> {
        Status::read(&self.get("/v1/status")?)
    }

    /// Its metrics in Prometheus form.
    ///
    /// # Errors
    /// As [`Appliance::get`].
    pub fn metrics(&self) -> anyhow::Result<String> {
        self.get("/metrics")
    }

    /// What the kernel's UDP stack of the appliance has taken so far.
    ///
    /// # Errors
    /// Where the namespace is gone.
    pub fn kernel_udp(&self) -> anyhow::Result<u64> {
        self.namespace.within(|| {
            let read =
                |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            udp_taken(&read("snmp"), &read("snmp6"))
        })?
    }
}

/// UDP datagrams that reached the stack over IPv4 and IPv6: those delivered, those nobody wanted, and those dropped.
fn udp_taken(snmp: &str, snmp6: &str) -> anyhow::Result<u64> {
    const TAKEN: [&str; 3] = ["InDatagrams", "NoPorts", "InErrors"];
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no Udp")?;
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let v4 =
        pairs.filter(|(name, _)| TAKEN.contains(name)).filter_map(|(_, value)| value.parse::<u64>().ok());
    let rows = snmp6.lines().filter_map(|line| line.strip_prefix("Udp6")?.split_once(char::is_whitespace));
    let v6 = rows
        .filter(|(name, _)| TAKEN.contains(name))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok());
    Ok(v4.sum::<u64>() + v6.sum::<u64>())
}

/// What `/v1/status` said.
#[derive(Debug, Clone)]
pub struct Status(Value);

impl Status {
    /// Reads an answer.
    ///
    /// # Errors
    /// Where it is no JSON.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// Every counter of kernel and relay by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let object = self.0["relay"]["counters"].as_object().into_iter().flatten();
        object.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
    }

    /// One counter; 0 where there is none of that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.0["relay"]["counters"][name].as_u64().unwrap_or(0)
    }

    /// Name and path of each interface.
    pub fn paths(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let interfaces = self.0["relay"]["interfaces"].as_array().into_iter().flatten();
        interfaces.map(|interface| (text(&interface["name"]), text(&interface["path"]))).collect()
    }

    /// Calls that the relay carries.
    pub fn calls(&self) -> u64 {
        self.0["relay"]["calls"].as_u64().unwrap_or(0)
    }

    /// Whether the relay holds no call, port pair, flow or direction.
    pub fn holds_nothing(&self) -> bool {
        ["calls", "ports", "flows", "directions"].iter().all(|what| self.0["relay"][what] == 0)
    }

    /// The whole answer.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_udp_counters_are_added_up() {
        let snmp = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 100 20 3 4000\n\
                    UdpLite: InDatagrams\nUdpLite: 9\n";
        let snmp6 = "Ip6InReceives 7\nUdp6InDatagrams      \t50\nUdp6NoPorts \t4\nUdp6OutDatagrams 9\n";
        assert_eq!(udp_taken(snmp, snmp6).unwrap(), 177);
        assert_eq!(udp_taken(snmp, "").unwrap(), 123);
        assert!(udp_taken("", "").is_err());
    }

    #[test]
    fn a_configuration_is_complete_and_can_be_overwritten() {
        let mut setup = Setup::new("/programs".into(), Way::Xdp);
        setup.more = toml::toml! {
            [sip]
            user = "someone"
            transport = "tcp"
        };
        let config = setup.config(Path::new("/run/lab"), "secret");
        assert_eq!(config["outside"]["stun"].as_str(), Some("192.0.2.10:3478"));
        assert_eq!(config["sip"]["user"].as_str(), Some("someone"));
        assert_eq!(config["sip"]["transport"].as_str(), Some("tcp"));
        assert_eq!(config["relay"]["socket"].as_str(), Some("/run/lab/relay.sock"));
        setup.stun = None;
        let config = setup.config(Path::new("/run/lab"), "secret");
        assert_eq!(config["outside"]["advertised"][0].as_str(), Some("203.0.113.7"));
        assert_eq!(config["outside"]["stun"].as_str(), Some(""));
    }

    #[test]
    fn a_status_is_read() {
        let status = Status(serde_json::json!({ "relay": {
            "calls": 1, "counters": { "forward_rtp": 7 },
            "interfaces": [{ "name": "outside", "path": "xdp" }],
        }}));
        assert_eq!(status.counter("forward_rtp"), 7);
        assert_eq!(status.counter("other"), 0);
        assert_eq!(status.counters().len(), 1);
        assert_eq!(status.paths(), [("outside".to_owned(), "xdp".to_owned())]);
        assert_eq!(status.calls(), 1);
    }
}
