//! A browser on a page of the appliance's own: Chromium by chromedriver, Firefox by Marionette. The story says what to click.

mod marionette;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::browser::{self, webdriver};
use crate::net::{Lab, Place};
use crate::process::{Process, Program};
use crate::tone;
use crate::wav::Wav;

/// Sample rate of recordings.
const RATE: u32 = 16_000;
/// Port of chromedriver; Firefox's is its default.
const DRIVER_PORT: u16 = 9516;
const MARIONETTE_PORT: u16 = 2828;
/// How long a browser may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// What stories use beside the page's own `sallyport` and its buttons.
const HELPERS: &str = include_str!("visitor/helpers.js");

/// Which browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's Chromium.
    Chromium,
    /// Debian's Firefox ESR.
    Firefox,
}

#[derive(Debug)]
enum Driver {
    Chromium(webdriver::Session),
    Firefox(marionette::Session),
}

/// A running browser whose microphone plays a tone.
#[derive(Debug)]
pub struct Visitor {
    driver: Driver,
    process: Process,
}

impl Visitor {
    /// Starts one and opens `path` of `origin`, which it takes for a secure one though it is plain HTTP.
    ///
    /// # Errors
    /// Where the browser does not start, or does not load the page.
    pub fn open(lab: &Lab, kind: Kind, origin: &str, path: &str) -> anyhow::Result<Self> {
        let visitor = match kind {
            Kind::Chromium => Self::chromium(lab, origin)?,
            Kind::Firefox => Self::firefox(lab, origin)?,
        };
        visitor.go(&format!("{origin}{path}"))?;
        Ok(visitor)
    }

    /// Loads a page in the same tab: another one, or the same anew.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn go(&self, url: &str) -> anyhow::Result<()> {
        match &self.driver {
            Driver::Chromium(session) => session.go(url)?,
            Driver::Firefox(session) => session.go(url)?,
        }
        let ready = format!("{HELPERS}; await lab.until(() => window.sallyport, 10000); return true;");
        self.run(&ready, &Value::Null).map(|_| ())
    }

    fn chromium(lab: &Lab, origin: &str) -> anyhow::Result<Self> {
        let folder = lab.folder().join("visitor-chromium");
        fs::create_dir_all(&folder)?;
        let sound = folder.join("tone.wav");
        tone::sine(tone::BROWSER, 48_000, 10).write(&sound)?;
        let namespace = lab.namespace(Place::Browser);
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, DRIVER_PORT));
        let mut command = namespace.command("chromedriver");
        command.arg(format!("--port={DRIVER_PORT}")).env("HOME", &folder).env("TMPDIR", &folder);
        let process = lab.start(Program::new("visitor-chromium", command))?;
        process.wait_for(PATIENCE, || webdriver::is_ready(&namespace, driver).then_some(()))?;
        let mut capabilities = browser::capabilities(&folder, &sound);
        let arguments = capabilities["goog:chromeOptions"]["args"].as_array_mut();
        let trusted = format!("--unsafely-treat-insecure-origin-as-secure={origin}");
        arguments.context("no arguments")?.push(trusted.into());
        let session = webdriver::Session::open(&namespace, driver, &capabilities).with_context(|| {
            format!("Chromium does not start; its driver says:\n{}", process.last_words(10))
        })?;
        Ok(Self { driver: Driver::Chromium(session), process })
    }

    fn firefox(lab: &Lab, origin: &str) -> anyhow::Result<Self> {
        if !crate::installed("firefox-esr") {
            bail!("firefox-esr is not installed; .ci/install test installs it");
        }
        let folder = lab.folder().join("visitor-firefox");
        let profile = folder.join("profile");
        fs::create_dir_all(&profile)?;
        fs::write(profile.join("user.js"), preferences(origin))?;
        let namespace = lab.namespace(Place::Browser);
        let mut command = namespace.command("firefox-esr");
        command.args(["--headless", "--marionette", "--no-remote", "--profile"]).arg(&profile);
        command.env("HOME", &folder).env("TMPDIR", &folder).env("MOZ_DISABLE_CONTENT_SANDBOX", "1");
        let process = lab.start(Program::new("visitor-firefox", command))?;
        let session =
            process.wait_for(PATIENCE, || marionette::Session::open(&namespace, MARIONETTE_PORT).ok())?;
        Ok(Self { driver: Driver::Firefox(session), process })
    }

    /// Runs the body of an asynchronous function of `argument` in the page; what it returns.
    ///
    /// # Errors
    /// What it throws.
    pub fn run(&self, body: &str, argument: &Value) -> anyhow::Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1]; (async argument => {{ {body} }})(arguments[0]).then(\
             value => done({{ value }}), error => done({{ error: String(error) + (error && error.stack || '') }}));"
        );
        let mut outcome = match &self.driver {
            Driver::Chromium(session) => session.run(&script, argument)?,
            Driver::Firefox(session) => session.run(&script, argument)?,
        };
        if let Some(error) = outcome["error"].as_str() {
            bail!("the page says: {error}");
        }
        Ok(outcome["value"].take())
    }

    /// Waits until an expression of the page is true.
    ///
    /// # Errors
    /// Where it does not become so, with what the page shows.
    pub fn until(&self, expression: &str, patience: Duration) -> anyhow::Result<()> {
        let milliseconds = u64::try_from(patience.as_millis())?;
        self.run(&format!("await lab.until(() => ({expression}), argument);"), &json!(milliseconds))
            .map(|_| ())
    }

    /// Fills fields by their ids and clicks on what a selector finds.
    ///
    /// # Errors
    /// Where there is none.
    pub fn click(&self, fields: &Value, selector: &str) -> anyhow::Result<()> {
        self.run(
            "lab.click(argument.fields, argument.selector);",
            &json!({ "fields": fields, "selector": selector }),
        )
        .map(|_| ())
    }

    /// Begins to record the far side of the only call.
    ///
    /// # Errors
    /// Where there is none.
    pub fn record(&self) -> anyhow::Result<()> {
        self.run("lab.record();", &Value::Null).map(|_| ())
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// Where none was begun.
    pub fn recorded(&self) -> anyhow::Result<Wav> {
        let text = self.run("return lab.recorded(argument);", &json!(RATE))?;
        let bytes = STANDARD.decode(text.as_str().context("no recording")?)?;
        let samples = bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        Ok(Wav { rate: RATE, samples })
    }

    /// Writes what it shows into a PNG file.
    ///
    /// # Errors
    /// Where the browser does not give it.
    pub fn picture(&self, file: &Path) -> anyhow::Result<()> {
        let text = match &self.driver {
            Driver::Chromium(session) => session.picture()?,
            Driver::Firefox(session) => session.picture()?,
        };
        Ok(fs::write(file, STANDARD.decode(text)?)?)
    }

    /// Its process: chromedriver, or Firefox itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// What Firefox is told: a microphone that plays a tone, and no talk with the world.
fn preferences(origin: &str) -> String {
    let host = origin.trim_start_matches("http://").split(':').next().unwrap_or_default();
    let lines = [
        ("media.navigator.streams.fake", json!(true)),
        ("media.navigator.permission.disabled", json!(true)),
        ("media.navigator.audio.fake_frequency", json!(tone::BROWSER)),
        ("media.devices.insecure.enabled", json!(true)),
        ("media.getusermedia.insecure.enabled", json!(true)),
        ("media.autoplay.default", json!(0)),
        ("media.autoplay.blocking_policy", json!(0)),
        ("media.peerconnection.ice.obfuscate_host_addresses", json!(false)),
        ("media.gmp-manager.updateEnabled", json!(false)),
        ("media.gmp-manager.url", json!("")),
        ("dom.securecontext.allowlist", json!(host)),
        ("marionette.port", json!(MARIONETTE_PORT)),
        ("app.update.disabledForTesting", json!(true)),
        ("browser.startup.page", json!(0)),
        ("browser.startup.homepage_override.mstone", json!("ignore")),
        ("browser.shell.checkDefaultBrowser", json!(false)),
        ("browser.safebrowsing.downloads.enabled", json!(false)),
        ("browser.search.update", json!(false)),
        ("browser.tabs.remote.autostart", json!(true)),
        ("datareporting.policy.dataSubmissionEnabled", json!(false)),
        ("toolkit.telemetry.enabled", json!(false)),
        ("toolkit.telemetry.server", json!("")),
        ("extensions.update.enabled", json!(false)),
        ("network.captive-portal-service.enabled", json!(false)),
        ("network.connectivity-service.enabled", json!(false)),
        ("network.dns.disablePrefetch", json!(true)),
        ("services.settings.server", json!("")),
        ("dom.security.https_only_mode", json!(false)),
        ("dom.security.https_first", json!(false)),
        ("dom.security.https_first_schemeless", json!(false)),
    ];
    lines.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n")).concat()
}
