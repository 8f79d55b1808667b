//! SIPp, by scenarios of a few words: a phone inside that does what a story wants of it, or fails.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use crate::net::{Lab, Place};
use crate::process::{Process, Program};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Headers of an answer, of the request that came last.
const ANSWER: &str = "[last_Via:]\n[last_From:]\n[last_To:]@TAG@\n[last_Call-ID:]\n[last_CSeq:]\n[last_Record-Route:]\n\
                      Contact: <sip:[local_ip]:[local_port]>\n";
const TAG: &str = "[pid]lab[call_number]";

/// What a phone says of its media.
#[derive(Debug, Clone, Copy)]
pub struct Sound {
    /// Address and port of its RTP; port 0: of SIPp's own, for [`Scenario::play`].
    pub at: SocketAddr,
    /// `sendrecv`, `sendonly`, `recvonly`, `inactive`.
    pub direction: &'static str,
    /// What follows `a=crypto:`, where its media is under a key.
    pub crypto: Option<&'static str>,
}

impl Sound {
    /// Both ways.
    pub const fn at(at: SocketAddr) -> Self {
        Self { at, direction: "sendrecv", crypto: None }
    }

    fn body(&self, version: u32) -> String {
        let (ip, direction) = (self.at.ip(), self.direction);
        let port = match self.at.port() {
            0 => "[rtpstream_audio_port]".to_owned(),
            port => port.to_string(),
        };
        let profile = if self.crypto.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
        let crypto = self.crypto.map(|line| format!("a=crypto:{line}\n")).unwrap_or_default();
        format!(
            "v=0\no=lab 7 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\nt=0 0\nm=audio {port} {profile} 0 101\n\
             a=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\na={direction}\n{crypto}"
        )
    }
}

/// The steps of a call.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    steps: String,
    /// From and To of its own requests.
    from: String,
    to: String,
    cseq: u32,
    version: u32,
}

impl Scenario {
    /// It is called: an INVITE comes.
    pub fn called() -> Self {
        Self::called_with("")
    }

    /// As [`Self::called`]; `check` is what the INVITE must hold, as a regular expression.
    pub fn called_with(check: &str) -> Self {
        let checked = format!(
            "<ereg regexp=\"{}\" search_in=\"msg\" check_it=\"true\" assign_to=\"seen\"/>",
            escaped(check)
        );
        let checked = if check.is_empty() { "" } else { &checked };
        let keep = |header: &str, name: &str| {
            format!("<ereg regexp=\".*\" search_in=\"hdr\" header=\"{header}\" assign_to=\"{name}\"/>")
        };
        let steps = format!(
            "<recv request=\"INVITE\" rrs=\"true\"><action>{checked}{}{}</action></recv>\n",
            keep("From:", "theirs"),
            keep("To:", "ours") + &keep("CSeq:", "order")
        );
        let (from, to) = (format!("[$ours];tag={TAG}"), "[$theirs]".to_owned());
        Self { steps, from, to, ..Self::default() }
    }

    /// It calls whom [`Setup::calls`] names, and is answered 200.
    pub fn calling(user: &str, sound: Sound) -> Self {
        let from = format!("<sip:{user}@[local_ip]:[local_port]>;tag={TAG}");
        let mut own = Self { from: from.clone(), to: "[$theirs]".into(), ..Self::default() };
        let to = "<sip:[service]@[remote_ip]:[remote_port]>";
        let head = own.head("INVITE", "sip:[service]@[remote_ip]:[remote_port]", to, "");
        own.send(&head, Some(sound));
        own.steps += "<recv response=\"100\" optional=\"true\"/>\n<recv response=\"180\" optional=\"true\"/>\n\
                      <recv response=\"183\" optional=\"true\"/>\n<recv response=\"200\" rrs=\"true\"><action>\
                      <ereg regexp=\".*\" search_in=\"hdr\" header=\"To:\" assign_to=\"theirs\"/>\
                      <ereg regexp=\".*\" search_in=\"hdr\" header=\"From:\" assign_to=\"ours\"/></action></recv>\n";
        own.acknowledged()
    }

    /// Answers the INVITE, or another request that began no dialog yet, as `180 Ringing`.
    #[must_use]
    pub fn answer(self, status: &str, sound: Option<Sound>) -> Self {
        self.reply(status, &format!(";tag={TAG}"), sound)
    }

    /// Answers the INVITE with a description of one's own.
    #[must_use]
    pub fn accept(mut self, description: &str) -> Self {
        let head = ANSWER.replace("@TAG@", &format!(";tag={TAG}"));
        let _ = writeln!(
            self.steps,
            "<send><![CDATA[\n\nSIP/2.0 200 OK\n{head}Content-Type: application/sdp\nContent-Length: [len]\n\n\
             {description}\n]]></send>"
        );
        self
    }

    /// Answers a request of the dialog.
    #[must_use]
    pub fn agree(self, status: &str) -> Self {
        self.reply(status, "", None)
    }

    /// The INVITE is cancelled: it is answered 487, as the CANCEL tells of it (RFC 3261 section 9.2).
    #[must_use]
    pub fn terminate(mut self) -> Self {
        let head = ANSWER.replace("@TAG@", &format!(";tag={TAG}"));
        let head = head.replace("[last_CSeq:]", "CSeq: [$order]");
        self.send(&format!("SIP/2.0 487 Request Terminated\n{head}"), None);
        self
    }

    fn reply(mut self, status: &str, tag: &str, sound: Option<Sound>) -> Self {
        let head = format!("SIP/2.0 {status}\n{}", ANSWER.replace("@TAG@", tag));
        self.send(&head, sound);
        self
    }

    /// A request comes. `check`: what its text must hold, as a regular expression.
    #[must_use]
    pub fn expect(mut self, method: &str, check: Option<&str>) -> Self {
        let action = check.map(|regexp| {
            format!(
                "<action><ereg regexp=\"{}\" search_in=\"msg\" check_it=\"true\" assign_to=\"seen\"/></action>",
                escaped(regexp)
            )
        });
        let action = action.unwrap_or_default();
        let _ = writeln!(self.steps, "<recv request=\"{method}\">{action}</recv>");
        self
    }

    /// A request comes within this time and the steps that follow are done, or they are passed over up to [`Self::label`].
    #[must_use]
    pub fn expect_or_jump(mut self, method: &str, within: Duration, label: u32) -> Self {
        let within = within.as_millis();
        let _ =
            writeln!(self.steps, "<recv request=\"{method}\" timeout=\"{within}\" ontimeout=\"{label}\"/>");
        self
    }

    /// Where to go on from [`Self::expect_or_jump`].
    #[must_use]
    pub fn label(mut self, label: u32) -> Self {
        let _ = writeln!(self.steps, "<label id=\"{label}\"/>");
        self
    }

    /// Goes on at a label.
    #[must_use]
    pub fn jump(mut self, label: u32) -> Self {
        let _ = writeln!(self.steps, "<nop next=\"{label}\"/>");
        self
    }

    /// Waits.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        let _ = writeln!(self.steps, "<pause milliseconds=\"{}\"/>", time.as_millis());
        self
    }

    /// Waits for an INFO, which is the story's sign to go on.
    #[must_use]
    pub fn sign(self) -> Self {
        self.expect("INFO", None).agree("200 OK")
    }

    /// Plays a file of PCMU without a header, over and over, to where the far end's description says.
    #[must_use]
    pub fn play(mut self, file: &str) -> Self {
        let _ = writeln!(self.steps, "<nop><action><exec rtp_stream=\"{file},-1,0\"/></action></nop>");
        self
    }

    /// Offers anew, and takes the answer.
    #[must_use]
    pub fn reinvite(mut self, sound: Sound) -> Self {
        let (to, more) = (self.to.clone(), "[routes]\n");
        let head = self.head("INVITE", "[next_url]", &to, more);
        self.send(&head, Some(sound));
        self.steps += "<recv response=\"100\" optional=\"true\"/>\n<recv response=\"200\"/>\n";
        self.acknowledged()
    }

    /// Asks the far end to call somebody else, and hears how that goes: `Refer-To` as it is written. It is told 200.
    #[must_use]
    pub fn refer(mut self, refer_to: &str) -> Self {
        let (to, more) = (self.to.clone(), format!("[routes]\nRefer-To: {refer_to}\n"));
        let head = self.head("REFER", "[next_url]", &to, &more);
        self.send(&head, None);
        self.steps += "<recv response=\"202\"/>\n";
        // 100, maybe 180, 200: each is answered; the last one ends the subscription.
        self.steps += "<label id=\"70\"/>\n<recv request=\"NOTIFY\"><action><ereg regexp=\"SIP/2.0 ([0-9]+)\" \
                       search_in=\"body\" assign_to=\"seen,status\"/><strcmp assign_to=\"differs\" \
                       variable=\"status\" value=\"200\"/><test assign_to=\"more\" variable=\"differs\" \
                       compare=\"not_equal\" value=\"0\"/></action></recv>\n";
        let head = format!("SIP/2.0 200 OK\n{}", ANSWER.replace("@TAG@", ""));
        // By the answer itself: a step of its own would be one in which the next NOTIFY is not expected.
        self.send_with(" test=\"more\" next=\"70\"", &head, None);
        self
    }

    /// Hangs up.
    #[must_use]
    pub fn bye(mut self) -> Self {
        let to = self.to.clone();
        let head = self.head("BYE", "[next_url]", &to, "[routes]\n");
        self.send(&head, None);
        self.steps += "<recv response=\"200\"/>\n";
        self
    }

    /// The far end hangs up.
    #[must_use]
    pub fn hung_up(self) -> Self {
        self.expect("BYE", None).agree("200 OK")
    }

    fn acknowledged(mut self) -> Self {
        let (from, to, cseq) = (&self.from, &self.to, self.cseq);
        let head = format!(
            "ACK [next_url] SIP/2.0\nVia: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]\nMax-Forwards: 70\n\
             [routes]\nFrom: {from}\nTo: {to}\nCall-ID: [call_id]\nCSeq: {cseq} ACK\n"
        );
        self.send(&head, None);
        self
    }

    fn head(&mut self, method: &str, uri: &str, to: &str, more: &str) -> String {
        self.cseq += 1;
        let (from, cseq) = (&self.from, self.cseq);
        format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]\nMax-Forwards: 70\n\
             {more}From: {from}\nTo: {to}\nCall-ID: [call_id]\nCSeq: {cseq} {method}\n\
             Contact: <sip:[local_ip]:[local_port]>\n"
        )
    }

    fn send(&mut self, head: &str, sound: Option<Sound>) {
        let repeats = !["ACK ", "SIP/2.0 "].iter().any(|start| head.starts_with(start));
        self.send_with(if repeats { " retrans=\"500\"" } else { "" }, head, sound);
    }

    fn send_with(&mut self, attributes: &str, head: &str, sound: Option<Sound>) {
        self.version += u32::from(sound.is_some());
        let body = sound.map(|sound| sound.body(self.version));
        let kind = if body.is_some() { "Content-Type: application/sdp\n" } else { "" };
        let body = body.unwrap_or_default();
        let _ = writeln!(
            self.steps,
            "<send{attributes}><![CDATA[\n\n{head}{kind}Content-Length: [len]\n\n{body}\n]]></send>"
        );
    }

    fn text(&self) -> String {
        // SIPp refuses a scenario that gives a variable a value and does nothing with it.
        let unused: Vec<&str> = ["theirs", "ours", "order", "seen"]
            .into_iter()
            .filter(|name| self.steps.contains(&format!("assign_to=\"{name}")))
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<scenario name=\"lab\">\n{}<Reference variables=\"{}\"/>\n</scenario>\n",
            self.steps,
            unused.join(",")
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A SIPp to be, in [`Place::Enterprise`].
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names its files.
    pub name: &'static str,
    /// Where its SIP is, UDP.
    pub at: SocketAddr,
    /// What it does.
    pub scenario: Scenario,
    /// How many calls it serves; it ends with the last one.
    pub calls: u32,
    /// Whom it calls, and through whom; `None`: it is called.
    pub target: Option<(String, SocketAddr)>,
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
    messages: std::path::PathBuf,
}

impl Sipp {
    /// Starts it and, where it is to be called, waits until it listens.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        let file = |what: &str| lab.folder().join(format!("{}.{what}", setup.name));
        fs::write(file("xml"), setup.scenario.text())?;
        let namespace = lab.namespace(Place::Enterprise);
        let mut command = namespace.command("sipp");
        if let Some((user, through)) = &setup.target {
            command.arg(through.to_string()).args(["-s", user]);
        }
        command.arg("-sf").arg(file("xml")).args(["-i", &setup.at.ip().to_string()]);
        command.args(["-p", &setup.at.port().to_string(), "-m", &setup.calls.to_string()]);
        command.args(["-t", "u1", "-nostdin", "-trace_err", "-trace_msg", "-error_file"]).arg(file("errors"));
        command.arg("-message_file").arg(file("messages"));
        command.env("TERM", "dumb").current_dir(lab.folder());
        let mut program = Program::new(setup.name, command);
        program.farewell = Signal::SIGKILL;
        let process = lab.start(program).context("sipp")?;
        let listens = || namespace.within(|| crate::agent::ports("udp").contains(&setup.at.port()));
        process.wait_for(PATIENCE, || listens().unwrap_or(false).then_some(()))?;
        Ok(Self { process, messages: file("messages") })
    }

    /// Waits until its calls have come to their end.
    ///
    /// # Errors
    /// Where one did not go as its scenario says, with the messages of the last one.
    pub fn finish(&self, patience: Duration) -> anyhow::Result<()> {
        let status = self.process.wait_ended(patience).with_context(|| self.said())?;
        if status != 0 {
            bail!("the scenario did not come to its end ({status}):\n{}", self.said());
        }
        Ok(())
    }

    /// Its messages so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
