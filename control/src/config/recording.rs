//! `[recording]`.

use std::net::IpAddr;

use sallyport_proto::RecordingSettings;
use serde::{Deserialize, Serialize};

use super::sip::{Server, Transport};
use crate::ng::Network;

/// `[recording]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// The session recording server (RFC 7866): a SIP URI. One whose host is an address is asked directly, a name by the SIP server;
    /// empty: none.
    pub server: String,
    /// Which calls it gets.
    pub calls: Recorded,
    /// Whether no media passes before it agrees, and calls end that it does not record.
    pub required: bool,
    /// Addresses and networks to which administrators may send copies of a call.
    pub networks: Vec<String>,
}

/// Which calls are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorded {
    /// Every one.
    #[default]
    All,
    /// Those for which an administrator asks.
    Asked,
}

/// The recorder, as configured.
struct Recorder {
    uri: String,
    server: Server,
}

impl Recording {
    /// Checks all that can be checked here.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        self.recorder()?;
        self.networks()?;
        if self.required && self.server.is_empty() {
            return Err("[recording] required needs a server".into());
        }
        Ok(())
    }

    fn recorder(&self) -> Result<Option<Recorder>, String> {
        let text = self.server.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || {
            format!("[recording] server: {text:?} is no SIP URI such as sip:srs@10.0.0.20:5060;transport=tcp")
        };
        let bare = text.strip_prefix("sip:").unwrap_or(text);
        let (user, place) = bare.split_once('@').map_or((None, bare), |(user, place)| (Some(user), place));
        let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.!~*'()+$&=".contains(&octet);
        if user.is_some_and(|user| user.is_empty() || user.len() > 128 || !user.bytes().all(octet)) {
            return Err(wrong());
        }
        let server = Server::parse(place).ok_or_else(wrong)?;
        if server.transport == Some(Transport::Tls) {
            return Err("[recording] server: recorders are reached by UDP or TCP".into());
        }
        Ok(Some(Recorder { uri: format!("sip:{bare}"), server }))
    }

    /// The recorder's address, where it is one: its requests are heard.
    pub fn address(&self) -> Option<IpAddr> {
        self.recorder().ok().flatten()?.server.address
    }

    /// What calls take of it; `None` without a recorder.
    pub fn settings(&self) -> Option<RecordingSettings> {
        let Recorder { uri, server } = self.recorder().ok().flatten()?;
        let place = |server: &Server| {
            let port = server.port.map_or_else(String::new, |port| format!(":{port}"));
            let tcp = if server.transport == Some(Transport::Tcp) { ";transport=tcp" } else { "" };
            format!("<sip:{}{port}{tcp};lr>", server.host())
        };
        Some(RecordingSettings {
            uri,
            route: server.address.map(|_| place(&server)).into_iter().collect(),
            family: server.address,
            all: self.calls == Recorded::All,
            required: self.required,
        })
    }

    /// Where administrators may send copies.
    ///
    /// # Errors
    /// Which of them cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>, String> {
        let read = |text: &String| {
            let wrong = |_| format!("[recording] networks: {text:?} is no address or network");
            text.parse::<Network>().map_err(wrong)
        };
        self.networks.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<RecordingSettings>, String> {
        let section: Recording = toml::from_str(text).map_err(|error| error.to_string())?;
        section.validate()?;
        Ok(section.settings())
    }

    #[test]
    fn a_recorder_is_an_address_or_a_name() {
        let settings = read("server = 'sip:srs@10.0.0.20:5070;transport=tcp'").unwrap().unwrap();
        assert_eq!(settings.uri, "sip:srs@10.0.0.20:5070;transport=tcp");
        assert_eq!(settings.route, ["<sip:10.0.0.20:5070;transport=tcp;lr>"]);
        assert!(settings.all && !settings.required);
        let named =
            read("server = 'srs@recorder.example.com'\ncalls = 'asked'\nrequired = true").unwrap().unwrap();
        assert_eq!((named.uri.as_str(), named.route.len()), ("sip:srs@recorder.example.com", 0));
        assert!(!named.all && named.required);
        assert_eq!(read("networks = ['10.0.0.0/24', '2001:db8::7']"), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_words() {
        for (text, words) in [
            ("server = 'sip:@10.0.0.20'", "is no SIP URI"),
            ("server = 'http://x'", "is no SIP URI"),
            ("server = 'sip:a b@10.0.0.20'", "is no SIP URI"),
            ("server = '10.0.0.20;transport=tls'", "UDP or TCP"),
            ("required = true", "needs a server"),
            ("networks = ['10.0.0.0/33']", "no address or network"),
            ("calls = 'some'", "calls"),
            ("servers = ''", "unknown field"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}");
        }
    }
}
