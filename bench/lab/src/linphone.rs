//! linphonec, of the package linphone-cli: a phone that registers, plays one tone and records what it hears.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::stat::Mode;

use crate::net::{INSIDE, Lab, Place};
use crate::process::{Process, Program};
use crate::tone;
use crate::wav::Wav;

const PROGRAM: &str = "linphonec";
/// Port of its SIP, UDP: the default, since its Contact names none.
const PORT: u16 = 5060;
/// How long it may take to start, and to register.
const PATIENCE: Duration = Duration::from_secs(15);
/// For how long it can play, seconds.
const SECONDS: u32 = 120;

/// A phone to be, in [`Place::Enterprise`].
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its number.
    pub number: String,
    /// Where it registers, and calls by way of.
    pub server: SocketAddr,
    /// The tone that it plays, Hz.
    pub tone: u32,
}

/// A running linphonec, which answers every call at once.
#[derive(Debug)]
pub struct Linphone {
    process: Process,
    /// Its standard input; it ends with that.
    input: File,
    heard: PathBuf,
    server: SocketAddr,
}

/// Whether it is installed.
pub fn is_installed() -> bool {
    crate::installed(PROGRAM)
}

impl Linphone {
    /// Starts one and waits until it is registered.
    ///
    /// # Errors
    /// Where it does not start, or the server does not take it.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        let folder = lab.folder().join(format!("linphone-{}", setup.number));
        fs::create_dir_all(folder.join(".local/share/linphone"))?;
        let file = |name: &str| folder.join(name);
        tone::sine(setup.tone, 8000, SECONDS).write(&file("tone.wav"))?;
        fs::write(file("linphonerc"), config(setup))?;
        nix::unistd::mkfifo(&file("input"), Mode::S_IRUSR | Mode::S_IWUSR)?;
        // For reading as well: so nobody waits for the other end.
        let input = File::options().read(true).write(true).open(file("input"))?;
        let namespace = lab.namespace(Place::Enterprise);
        // Its own address is to it the one by which it would leave for the Internet, else 127.0.0.1.
        namespace.ip(&format!("route replace default via {INSIDE}\n"))?;
        let mut command = namespace.command("sh");
        command.args(["-c", "exec \"$0\" -a -c \"$1\" < \"$2\"", PROGRAM]);
        command.arg(file("linphonerc")).arg(file("input")).env("HOME", &folder).current_dir(&folder);
        let process = lab.start(Program::new(format!("linphone-{}", setup.number), command))?;
        let mut phone = Self { process, input, heard: file("heard.wav"), server: setup.server };
        let (tone, heard) = (file("tone.wav"), phone.heard.clone());
        phone.say("soundcard use files")?;
        phone.say(&format!("play {}", tone.display()))?;
        phone.say(&format!("record {}", heard.display()))?;
        phone.wait_registered()?;
        Ok(phone)
    }

    /// Calls a number by way of its server.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn call(&mut self, number: &str) -> anyhow::Result<()> {
        let server = self.server;
        self.say(&format!("call sip:{number}@{server}"))
    }

    /// Hangs up.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn hang_up(&mut self) -> anyhow::Result<()> {
        self.say("terminate")
    }

    /// What it heard in its latest call; complete once that is over.
    ///
    /// # Errors
    /// Where it had none, or the file is damaged.
    pub fn heard(&self) -> anyhow::Result<Wav> {
        Wav::read(&self.heard)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn wait_registered(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.process.last_words(50).contains("registered, identity=") {
            if Instant::now() > until || !self.process.is_running() {
                bail!("linphone is not registered:\n{}", self.process.last_words(20));
            }
            self.say("status register")?;
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).context(PROGRAM)
    }
}

fn config(setup: &Setup) -> String {
    let (number, server) = (&setup.number, setup.server);
    format!(
        "[sip]\nsip_port={PORT}\nsip_tcp_port=0\nsip_tls_port=0\nguess_hostname=1\nuse_ipv6=0\ndefault_proxy=0\n\
         [rtp]\naudio_rtp_port=31000\n[net]\nfirewall_policy=0\n\
         [proxy_0]\nreg_proxy=<sip:{server}>\nreg_route=<sip:{server};lr>\nreg_identity=sip:{number}@{server}\nreg_expires=600\nreg_sendregister=1\n\
         publish=0\n[audio_codec_0]\nmime=PCMU\nrate=8000\nenabled=1\n"
    )
}
