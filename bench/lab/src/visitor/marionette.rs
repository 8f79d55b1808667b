//! The few commands of Firefox's remote protocol that the lab needs: `LENGTH:JSON` over TCP, one at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::namespace::Namespace;

/// Longer than any script of ours.
const PATIENCE: Duration = Duration::from_secs(130);
/// Longest message that is believed: a recording of minutes.
const LONGEST: usize = 256 << 20;

/// A session: one browser.
#[derive(Debug)]
pub(super) struct Session(Mutex<Wire>);

#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    last: u64,
}

impl Session {
    /// Takes over a browser that listens on the namespace's loopback.
    pub(super) fn open(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = namespace.within(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut wire = Wire { stream, last: 0 };
        wire.read().context("no greeting")?;
        wire.ask("WebDriver:NewSession", &json!({}))?;
        let timeouts = json!({ "script": 120_000, "pageLoad": 60_000 });
        wire.ask("WebDriver:SetTimeouts", &timeouts)?;
        Ok(Self(Mutex::new(wire)))
    }

    fn ask(&self, command: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ask(command, parameters)
    }

    pub(super) fn go(&self, url: &str) -> anyhow::Result<()> {
        self.ask("WebDriver:Navigate", &json!({ "url": url })).map(|_| ())
    }

    /// Runs an asynchronous script with one argument and what it calls at its end.
    pub(super) fn run(&self, script: &str, argument: &Value) -> anyhow::Result<Value> {
        let parameters =
            json!({ "script": script, "args": [argument], "newSandbox": false, "sandbox": null });
        Ok(self.ask("WebDriver:ExecuteAsyncScript", &parameters)?["value"].take())
    }

    /// What it shows: a PNG in base64.
    pub(super) fn picture(&self) -> anyhow::Result<String> {
        let shown = self.ask("WebDriver:TakeScreenshot", &json!({ "full": true }))?;
        Ok(shown["value"].as_str().context("no picture")?.to_owned())
    }
}

impl Wire {
    fn ask(&mut self, command: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.last += 1;
        let text = json!([0, self.last, command, parameters]).to_string();
        self.stream.write_all(format!("{}:{text}", text.len()).as_bytes())?;
        let mut answer = self.read().with_context(|| command.to_owned())?;
        if answer[1] != self.last {
            bail!("{command}: an answer to something else");
        }
        if !answer[2].is_null() {
            bail!("the browser says: {}: {}", answer[2]["error"], answer[2]["message"]);
        }
        Ok(answer[3].take())
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut length = 0_usize;
        loop {
            let mut octet = [0];
            self.stream.read_exact(&mut octet)?;
            match octet[0] {
                digit @ b'0'..=b'9' if length < LONGEST => length = length * 10 + usize::from(digit - b'0'),
                b':' if length <= LONGEST => break,
                _ => bail!("this is not Firefox"),
            }
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}
