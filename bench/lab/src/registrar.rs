//! Kamailio as the enterprise's SIP server: registrar and stateful proxy with digest authentication.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::net::{AGENT, INSIDE, Lab, Place};
use crate::process::{Process, Program};

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
    /// Numbers with a fixed place, as of phones that do not register: number and URI.
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
    for (number, uri) in &setup.aliases {
        aliases += &format!("    if ($rU == \"{number}\") {{ $ru = \"{uri}\"; route(RELAY); exit; }}\n");
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
    let listen = setup.address;
    format!(
        r#"#!KAMAILIO
debug=1
log_stderror=yes
children=2
tcp_children=2
auto_aliases=no
listen=udp:{listen}
listen=tcp:{listen}
mpath="{}/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", 3600)
modparam("registrar", "append_branches", 1)
modparam("tm", "fr_inv_timer", 60000)
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("OPTIONS") && !has_totag()) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ route(RELAY); }} exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ route(RELAY); }}
        else if (is_method("ACK")) {{ if (t_check_trans()) {{ route(RELAY); }} }}
        else {{ sl_send_reply("404", "Not here"); }}
        exit;
    }}
    if (is_method("REGISTER")) {{
{register}        if (!save("location")) {{ sl_reply_error(); }}
        exit;
    }}
    t_check_trans();
    record_route();
    remove_hf("Route");
{invite}{aliases}    if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
    route(RELAY);
}}
route[RELAY] {{
    if (!t_relay()) {{ sl_reply_error(); }}
    exit;
}}
"#,
        modules.display(),
    )
}
