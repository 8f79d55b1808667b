//! Kamailio as the enterprise's SIP server: registrar and stateful proxy with digest authentication.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::net::{AGENT, INSIDE, Lab, Place};
use crate::process::{Process, Program};

const CONFIG: &str = include_str!("registrar.cfg");
const PROGRAM: &str = "/usr/sbin/kamailio";
const PATIENCE: Duration = Duration::from_secs(10);
/// Password of every number.
pub const PASSWORD: &str = "open sesame";
/// Its realm.
pub const REALM: &str = "enterprise.example";

/// A registrar to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it is heard, UDP and TCP.
    pub address: SocketAddr,
    /// Numbers with a fixed place, as of phones that do not register: number and URI. Several places of one number ring
    /// at once.
    pub aliases: Vec<(String, String)>,
    /// Whether REGISTER needs the password, and the appliance's INVITE; phones beside the server are believed.
    pub digest: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { address: SocketAddr::from((AGENT, 5070)), aliases: Vec::new(), digest: true }
    }
}

/// A running Kamailio in [`Place::Enterprise`].
#[derive(Debug)]
pub struct Registrar {
    process: Process,
}

/// Debian's folder of Kamailio's modules; `None` where it is not installed.
pub fn modules() -> Option<PathBuf> {
    let places =
        std::fs::read_dir("/usr/lib").ok()?.flatten().map(|place| place.path().join("kamailio/modules"));
    places.into_iter().find(|path| path.join("registrar.so").exists() && Path::new(PROGRAM).exists())
}

impl Registrar {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// Where Kamailio is missing or does not start, with its last words.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        let modules = modules().context("kamailio is not installed; .ci/install installs it")?;
        let name = format!("kamailio-{}", setup.address.port());
        let folder = lab.folder().join(&name);
        std::fs::create_dir_all(&folder)?;
        let config = folder.join("kamailio.cfg");
        std::fs::write(&config, text(setup, &modules))?;
        let mut command = lab.namespace(Place::Enterprise).command(PROGRAM);
        command
            .args(["-DD", "-E", "-m", "32", "-f"])
            .arg(&config)
            .arg("-w")
            .arg(&folder)
            .arg("-Y")
            .arg(&folder);
        let process = lab.start(Program::new(name, command))?;
        let namespace = lab.namespace(Place::Enterprise);
        let listens = || namespace.within(|| crate::agent::ports("udp").contains(&setup.address.port()));
        process.wait_for(PATIENCE, || listens().unwrap_or(false).then_some(()))?;
        Ok(Self { process })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn text(setup: &Setup, modules: &Path) -> String {
    let mut aliases = String::new();
    let mut numbers: Vec<&String> = setup.aliases.iter().map(|(number, _)| number).collect();
    numbers.dedup();
    for number in numbers {
        let mut places = setup.aliases.iter().filter(|(of, _)| of == number).map(|(_, uri)| uri);
        let first = places.next().map(|uri| format!("$ru = \"{uri}\";")).unwrap_or_default();
        let more: String = places.map(|uri| format!(" append_branch(\"{uri}\");")).collect();
        aliases += &format!("    if ($rU == \"{number}\") {{ {first}{more} route(RELAY); exit; }}\n");
    }
    let challenge = |method: &str, check: &str| {
        format!(
            "    if (is_method(\"{method}\") && src_ip == {INSIDE}) {{\n        if (!pv_{check}_authenticate(\"{REALM}\", \"{PASSWORD}\", \"0\")) {{ \
             {check}_challenge(\"{REALM}\", \"1\"); exit; }}\n        consume_credentials();\n    }}\n"
        )
    };
    let (register, invite) = if setup.digest {
        (challenge("REGISTER", "www"), challenge("INVITE", "proxy"))
    } else {
        (String::new(), String::new())
    };
    CONFIG
        .replace("@LISTEN@", &setup.address.to_string())
        .replace("@MODULES@", &modules.display().to_string())
        .replace("@REGISTER@", &register)
        .replace("@INVITE@", &invite)
        .replace("@ALIASES@", &aliases)
}
