//! Real browsers: headless Chromium, driven by chromedriver, on a page that calls like a customer's page does.
//!
//! The microphone is a file with one tone, looped; what the far side plays is recorded through Web Audio.

pub(crate) mod webdriver;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::{Response, Server};
use crate::net::{Lab, Place};
use crate::process::{Process, Program};
use crate::tone;
use crate::wav::Wav;
use webdriver::Session;

const PAGE: &str = include_str!("browser/page.html");
/// Port of the page on the browser's loopback: a secure context without certificates.
const PAGE_PORT: u16 = 8000;
/// Port of chromedriver.
const DRIVER_PORT: u16 = 9515;
/// Sample rate of recordings.
const RATE: u32 = 16_000;
/// How long chromedriver may take to start.
const PATIENCE: Duration = Duration::from_secs(15);

/// Origin of the page, for the appliance's `[http] origins`.
pub const ORIGIN: &str = "http://127.0.0.1:8000";

/// Which tone a browser plays and where it is.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it is.
    pub place: Place,
    /// The tone of its microphone, Hz.
    pub tone: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self { place: Place::Browser, tone: tone::BROWSER }
    }
}

/// A call to be made.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// `http://HOST:PORT/v1/calls?to=USER`
    pub url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// `HOST:PORT` of the STUN server.
    pub stun: Option<String>,
    /// Send the offer at once and candidates as they are found, or the offer with all of them.
    pub trickle: bool,
}

/// An agent to be signed in.
#[derive(Debug, Clone, Serialize)]
pub struct SignIn {
    /// `http://HOST:PORT` of the API.
    pub base: String,
    /// The agent's number.
    pub number: String,
    /// Its password at the SIP server.
    pub password: Option<String>,
    /// Bearer token.
    pub token: Option<String>,
}

/// What the appliance answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Answered {
    /// URL of the call.
    pub location: String,
    /// SDP.
    pub offer: String,
    /// SDP.
    pub answer: String,
}

/// Milliseconds since the call's begin.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct Timings {
    /// The offer was sent; the answering side has none.
    pub offer_ms: Option<f64>,
    /// The answer was there; the answering side has none.
    pub answer_ms: Option<f64>,
    /// ICE and DTLS were done.
    pub connected_ms: f64,
    /// The far side's first packet was there.
    pub media_ms: f64,
}

/// One end of the selected candidate pair.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Candidate {
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: Option<String>,
    /// `udp` or `tcp`.
    pub protocol: Option<String>,
    /// IP address.
    pub address: Option<String>,
    /// Port.
    pub port: Option<u16>,
}

/// The browser's own view of DTLS-SRTP.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Dtls {
    /// `connected` when done.
    pub state: Option<String>,
    /// `client` or `server`.
    pub role: Option<String>,
    /// `FEFD`: 1.2; `FEFC`: 1.3.
    pub version: Option<String>,
    /// Name of the cipher suite.
    pub cipher: Option<String>,
    /// Name of the SRTP profile.
    pub srtp: Option<String>,
}

/// The browser's own statistics of a call (W3C webrtc-stats).
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Stats {
    /// State of ICE.
    pub ice: String,
    /// State of ICE and DTLS together.
    pub connection: String,
    /// DTLS-SRTP.
    pub dtls: Dtls,
    /// Codec that is received, `audio/PCMU`.
    pub codec: Option<String>,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets missing by sequence number.
    pub lost: i64,
    /// Packets that came too late to be played.
    pub discarded: u64,
    /// Samples played that no packet brought.
    pub concealed: u64,
    /// Those among them that were silence.
    pub silent_concealed: u64,
    /// Samples played.
    pub samples: u64,
    /// RTP packets missing at the far side, by its reports.
    pub reported_lost: Option<i64>,
    /// Round trip by the far side's reports, seconds.
    pub report_round_trip_s: Option<f64>,
    /// RTP packets that the far side says to have sent.
    pub reported_sent: Option<u64>,
    /// Of STUN checks, seconds.
    pub round_trip_s: Option<f64>,
    /// Our end.
    pub local: Candidate,
    /// The far end.
    pub remote: Candidate,
}

/// What more a page needs for a picture, as scripts for [`Browser::start_with`].
pub const FILM: &str = include_str!("browser/film.js");

/// The browser's own view of the picture of a call (W3C webrtc-stats).
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Film {
    /// Pictures decoded.
    pub decoded: u64,
    /// Key frames among them.
    pub keys: u64,
    /// RTP packets missing by sequence number.
    pub lost: i64,
    /// NACKs sent, and packets that came by retransmission.
    pub nacked: u64,
    /// See `nacked`.
    pub repeated: u64,
    /// Packets sent again.
    pub sent_again: u64,
    /// Key frames asked for.
    pub asked: u64,
    /// Pictures encoded.
    pub encoded: u64,
    /// Key frames that the far side asked for.
    pub was_asked: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets missing at the far side, by its reports.
    pub reported_lost: Option<i64>,
    /// Octets of payload sent.
    pub sent_octets: u64,
    /// Bits a second that the encoder aims at.
    pub target_bitrate: Option<f64>,
    /// Bits a second that the browser believes its path to bear.
    pub available_bitrate: Option<f64>,
    /// Mean red, green and blue of the last picture.
    pub colour: [u8; 3],
}

/// A running browser with the page open and the microphone granted.
#[derive(Debug)]
pub struct Browser {
    session: Session,
    driver: Process,
    _page: Server,
}

impl Browser {
    /// Starts one. A namespace takes one browser.
    ///
    /// # Errors
    /// Where Chromium or chromedriver does not start.
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Self> {
        Self::start_with(lab, setup, String::new())
    }

    /// As [`Self::start`], with more scripts in the page.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(lab: &Lab, setup: &Setup, scripts: String) -> anyhow::Result<Self> {
        for program in ["chromedriver", "chromium"] {
            if !crate::installed(program) {
                bail!("{program} is not installed; .ci/install installs it");
            }
        }
        let name = format!("chromium-{}", setup.place.name());
        let folder = lab.folder().join(&name);
        fs::create_dir_all(&folder)?;
        let tone = folder.join("tone.wav");
        tone::sine(setup.tone, 48_000, 10).write(&tone)?;
        let namespace = lab.namespace(setup.place);
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let page = Server::start(&namespace, local(PAGE_PORT), move |request| {
            let (status, kind, body) = match request.path.as_str() {
                "/" if scripts.is_empty() => (200, "text/html", PAGE.to_owned()),
                "/" => (200, "text/html", format!("{PAGE}<script src=\"/more.js\"></script>\n")),
                "/more.js" => (200, "text/javascript; charset=utf-8", scripts.clone()),
                _ => (404, "text/plain", String::new()),
            };
            Response { status, headers: vec![("Content-Type", kind.into())], body }
        })?;
        let mut command = namespace.command("chromedriver");
        command.arg(format!("--port={DRIVER_PORT}")).env("HOME", &folder).env("TMPDIR", &folder);
        let driver = lab.start(Program::new(name, command))?;
        driver.wait_for(PATIENCE, || webdriver::is_ready(&namespace, local(DRIVER_PORT)).then_some(()))?;
        let session = Session::open(&namespace, local(DRIVER_PORT), &capabilities(&folder, &tone))
            .with_context(|| {
                format!("Chromium does not start; its driver says:\n{}", driver.last_words(10))
            })?;
        let browser = Self { session, driver, _page: page };
        browser.session.go(&format!("{ORIGIN}/"))?;
        browser.session.call("open", &Value::Null)?;
        Ok(browser)
    }

    /// Makes a call and takes its answer; ICE and DTLS go on after that.
    ///
    /// # Errors
    /// What the page met, with status and body of the answer where it is not 201.
    pub fn call(&self, call: &Call) -> anyhow::Result<Answered> {
        self.do_with("call", &json!(call))
    }

    /// Signs an agent in at the API behind `base` (`http://HOST:PORT`).
    ///
    /// # Errors
    /// Status and body of the answer where it is not 201.
    pub fn sign_in(&self, sign_in: &SignIn) -> anyhow::Result<String> {
        self.do_with("signIn", &json!(sign_in))
    }

    /// Waits until an event of this name is told to the agent who signed in; its data.
    ///
    /// # Errors
    /// What was told instead.
    pub fn heard(&self, name: &str, patience: Duration) -> anyhow::Result<Value> {
        self.do_with("heard", &json!({ "name": name, "patience": u64::try_from(patience.as_millis())? }))
    }

    /// Takes a call that rings; ICE and DTLS go on after that.
    ///
    /// # Errors
    /// Status and body of the answer where it is not 200.
    pub fn take(&self, call: &str, stun: Option<&str>) -> anyhow::Result<Answered> {
        self.do_with("take", &json!({ "call": call, "stun": stun }))
    }

    /// Offers anew with another direction: `sendonly` or `inactive` holds, `sendrecv` resumes. The answer.
    ///
    /// # Errors
    /// Status and body of the answer where it is not 200.
    pub fn direct(&self, direction: &str) -> anyhow::Result<String> {
        self.do_with("direct", &json!(direction))
    }

    /// Asks the call for something: `dtmf`, `info` or `transfer`, with the JSON that the API takes.
    ///
    /// # Errors
    /// Status and body of the answer where it is no success.
    pub fn ask(&self, what: &str, body: &Value) -> anyhow::Result<u16> {
        self.do_with("ask", &json!({ "what": what, "body": body }))
    }

    /// Switches the camera on, for the calls to come. Needs [`FILM`].
    ///
    /// # Errors
    /// Where the page may not have it.
    pub fn camera(&self) -> anyhow::Result<()> {
        self.session.call("camera", &Value::Null).map(|_| ())
    }

    /// Adds the camera to the call that runs, by another offer; the answer. Needs [`FILM`].
    ///
    /// # Errors
    /// As [`Self::direct`].
    pub fn add_camera(&self) -> anyhow::Result<String> {
        self.do_with("addCamera", &Value::Null)
    }

    /// As [`Self::camera`], with pictures of this size and so many a second.
    ///
    /// # Errors
    /// As [`Self::camera`].
    pub fn camera_of(&self, width: u32, height: u32, rate: u32) -> anyhow::Result<()> {
        let wanted = json!({ "width": width, "height": height, "frameRate": rate });
        self.session.call("camera", &wanted).map(|_| ())
    }

    /// Its view of the picture. Needs [`FILM`].
    ///
    /// # Errors
    /// Where there is no call.
    pub fn film(&self) -> anyhow::Result<Film> {
        self.do_with("film", &Value::Null)
    }

    /// Turns its picture on or off by another offer, as [`Self::direct`] does with the sound. Needs [`FILM`].
    ///
    /// # Errors
    /// As [`Self::direct`].
    pub fn turn(&self, direction: &str) -> anyhow::Result<String> {
        self.do_with("turn", &json!(direction))
    }

    /// Waits for ICE, DTLS and the far side's first packet; how long they took.
    ///
    /// # Errors
    /// Where they fail or `patience` ends, with the states passed.
    pub fn wait_connected(&self, patience: Duration) -> anyhow::Result<Timings> {
        self.do_with("connected", &json!(u64::try_from(patience.as_millis())?))
    }

    /// Begins to record the far side.
    ///
    /// # Errors
    /// Where there is no far side yet.
    pub fn record(&self) -> anyhow::Result<()> {
        self.session.call("record", &json!(RATE)).map(|_| ())
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// Where none was begun.
    pub fn recorded(&self) -> anyhow::Result<Wav> {
        let text: String = self.do_with("recorded", &Value::Null)?;
        let bytes = STANDARD.decode(text).context("the recording is damaged")?;
        let samples = bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        Ok(Wav { rate: RATE, samples })
    }

    /// Sends digits as named events of RTP (`RTCDTMFSender`), each for `duration` and `gap` apart, in milliseconds; how many.
    ///
    /// # Errors
    /// Where the call has no named events.
    pub fn digits(&self, tones: &str, duration: u32, gap: u32) -> anyhow::Result<usize> {
        self.do_with("digits", &json!({ "tones": tones, "duration": duration, "gap": gap }))
    }

    /// Its statistics.
    ///
    /// # Errors
    /// Where there is no call.
    pub fn stats(&self) -> anyhow::Result<Stats> {
        self.do_with("stats", &Value::Null)
    }

    /// Hangs up with DELETE; the status of the answer.
    ///
    /// # Errors
    /// Where there is no call, or no answer.
    pub fn hang_up(&self) -> anyhow::Result<u16> {
        self.do_with("hangUp", &Value::Null)
    }

    /// Takes an offer as the answering side; the answer holds all candidates.
    ///
    /// # Errors
    /// Where the offer is not taken.
    pub fn answer(&self, offer: &str, stun: Option<&str>) -> anyhow::Result<String> {
        self.do_with("answer", &json!({ "offer": offer, "stun": stun }))
    }

    /// Takes candidates that the offering side found later (RFC 8840); how many.
    ///
    /// # Errors
    /// Where one is malformed.
    pub fn add_candidates(&self, fragment: &str) -> anyhow::Result<usize> {
        self.do_with("candidates", &json!(fragment))
    }

    pub(crate) fn do_with<T: for<'de> Deserialize<'de>>(
        &self,
        function: &str,
        argument: &Value,
    ) -> anyhow::Result<T> {
        let value = self.session.call(function, argument)?;
        serde_json::from_value(value).with_context(|| format!("{function}: an answer of another shape"))
    }

    /// Ends it before the lab ends.
    pub fn stop(self) {
        let _ = self.session.close();
        self.driver.stop();
    }
}

pub(crate) fn capabilities(folder: &Path, tone: &Path) -> Value {
    let mut arguments: Vec<String> = [
        "--headless",
        // Root has no other way.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        // Candidates with addresses; and a page on loopback may ask a server that is elsewhere.
        "--disable-features=WebRtcHideLocalIpsWithMdns,LocalNetworkAccessChecks",
    ]
    .map(Into::into)
    .into();
    arguments.push(format!("--use-file-for-fake-audio-capture={}", tone.display()));
    arguments.push(format!("--user-data-dir={}", folder.join("profile").display()));
    // Without this it first waits for a search engine's page, in a world without DNS.
    let preferences = json!({ "session": { "restore_on_startup": 4, "startup_urls": ["about:blank"] } });
    json!({ "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": arguments, "prefs": preferences } })
}
