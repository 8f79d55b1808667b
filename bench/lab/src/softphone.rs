//! Browsers whose page speaks SIP by itself: JsSIP and SIP.js as they are published, in a real Chromium.
//!
//! `.ci/softphones` fetches them; nothing of them is in the tree.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use crate::browser::{Browser, FILM, Setup};
use crate::net::Lab;

const COMMON: &str = include_str!("softphone/common.js");

/// Which library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// JsSIP.
    JsSip,
    /// SIP.js.
    SipJs,
}

impl Library {
    const fn file(self) -> &'static str {
        match self {
            Self::JsSip => "jssip.js",
            Self::SipJs => "sip.js",
        }
    }

    const fn adapter(self) -> &'static str {
        match self {
            Self::JsSip => include_str!("softphone/jssip.js"),
            Self::SipJs => include_str!("softphone/sipjs.js"),
        }
    }

    /// Whether it was fetched into this folder.
    pub fn is_in(self, folder: &Path) -> bool {
        folder.join(self.file()).is_file()
    }
}

/// As whom a softphone registers, and where.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    /// `ws://HOST:PORT/sip`
    pub url: String,
    /// `sip:NUMBER@DOMAIN`
    pub uri: String,
    /// What answers challenges.
    pub password: String,
    /// `HOST:PORT` of the STUN server.
    pub stun: String,
}

/// A browser with a softphone.
#[derive(Debug)]
pub struct Softphone {
    /// For what any browser in the lab can do.
    pub browser: Browser,
}

impl Softphone {
    /// Starts one, with the library from `folder`.
    ///
    /// # Errors
    /// Where Chromium does not start or the library is missing.
    pub fn start(lab: &Lab, setup: &Setup, library: Library, folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(library.file());
        let published = fs::read_to_string(&file)
            .with_context(|| format!("{} is missing; .ci/softphones fetches it", file.display()))?;
        let scripts = format!("{published}\n{COMMON}\n{}\n{FILM}", library.adapter());
        Ok(Self { browser: Browser::start_with(lab, setup, scripts)? })
    }

    /// Registers; name and version of the library.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn register(&self, account: &Account) -> anyhow::Result<String> {
        self.browser.do_with("softRegister", &json!(account))
    }

    /// Waits for what the library tells its page; its detail.
    ///
    /// # Errors
    /// What it told instead.
    pub fn hears(&self, name: &str, patience: Duration) -> anyhow::Result<Value> {
        let patience = u64::try_from(patience.as_millis())?;
        self.browser.do_with("softEvent", &json!({ "name": name, "patience": patience }))
    }

    /// Does something that the library can do: `Dial`, `Answer`, `Hold`, `Digit`, `Refer`, `Bye`, `Unregister`.
    ///
    /// # Errors
    /// What the library says.
    pub fn does(&self, what: &str, argument: &Value) -> anyhow::Result<()> {
        self.browser.do_with::<Option<Value>>(&format!("soft{what}"), argument).map(|_| ())
    }
}
