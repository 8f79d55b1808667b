//! `[ng]` of the configuration.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sallyport_proto::ng::BridgeSettings;
use serde::{Deserialize, Serialize};

/// `[ng]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// Where requests are heard: `ADDRESS:PORT` by UDP and TCP, `udp:` or `tcp:` before it for one of them, or
    /// `unix:/PATH`. Empty: nowhere.
    pub listen: Vec<String>,
    /// Who may ask, as addresses or networks. Loopback may where only loopback is listened on; any other address needs
    /// this list.
    pub peers: Vec<String>,
    /// Names of `direction` for the browsers' side.
    pub external: Vec<String>,
    /// Names of `direction` for telephony's side.
    pub internal: Vec<String>,
    /// How long a call may be without answer or without path.
    pub answer_timeout_s: u32,
    /// How long a call inside may be without a packet.
    pub media_timeout_s: u32,
    /// How long a deleted call stays, unless the request says.
    pub delete_delay_s: u32,
}

impl Default for Section {
    fn default() -> Self {
        let BridgeSettings { external, internal, .. } = BridgeSettings::default();
        Self {
            listen: Vec::new(),
            peers: Vec::new(),
            external,
            internal,
            answer_timeout_s: 300,
            media_timeout_s: 3600,
            delete_delay_s: 0,
        }
    }
}

/// Where requests are heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Datagrams.
    Udp(SocketAddr),
    /// A stream.
    Tcp(SocketAddr),
    /// Datagrams of this machine.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("[ng] peers: {text} is no address or network");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if prefix <= most { Ok(Self { address, prefix }) } else { Err(wrong()) }
    }
}

impl From<IpAddr> for Network {
    /// The address alone.
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits - u32::from(self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Section {
    /// The listeners.
    ///
    /// # Errors
    /// One sentence with what is wrong.
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let mut addresses = Vec::new();
        for text in &self.listen {
            let wrong = || format!("[ng] listen: {text} is neither [udp:|tcp:]ADDRESS:PORT nor unix:/PATH");
            if let Some(path) = text.strip_prefix("unix:") {
                if !path.starts_with('/') {
                    return Err(wrong());
                }
                addresses.push(Address::Unix(path.into()));
            } else if let Some(address) = text.strip_prefix("udp:") {
                addresses.push(Address::Udp(address.parse().map_err(|_| wrong())?));
            } else if let Some(address) = text.strip_prefix("tcp:") {
                addresses.push(Address::Tcp(address.parse().map_err(|_| wrong())?));
            } else {
                let address = text.parse().map_err(|_| wrong())?;
                addresses.extend([Address::Udp(address), Address::Tcp(address)]);
            }
        }
        Ok(addresses)
    }

    /// Who may ask.
    ///
    /// # Errors
    /// One sentence with what is wrong.
    pub fn networks(&self) -> Result<Vec<Network>, String> {
        self.peers.iter().map(|text| text.parse()).collect()
    }

    /// Checks what can be checked without the system.
    ///
    /// # Errors
    /// One sentence with what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        let addresses = self.addresses()?;
        let peers = self.networks()?;
        let open = |address: &&Address| match address {
            Address::Udp(at) | Address::Tcp(at) => !at.ip().is_loopback(),
            Address::Unix(_) => false,
        };
        if let Some(address) = addresses.iter().find(open).filter(|_| peers.is_empty()) {
            return Err(format!(
                "[ng] listen: {address} can be reached from outside this machine: name the peers that may ask"
            ));
        }
        if !(5..=86_400).contains(&self.answer_timeout_s) {
            return Err("[ng] answer_timeout_s must lie between 5 and 86400".into());
        }
        if !(60..=86_400).contains(&self.media_timeout_s) {
            return Err("[ng] media_timeout_s must lie between 60 and 86400".into());
        }
        if self.delete_delay_s > 3600 {
            return Err("[ng] delete_delay_s must lie between 0 and 3600".into());
        }
        Ok(())
    }

    /// What bridges need to know of it.
    pub fn bridges(&self) -> BridgeSettings {
        BridgeSettings {
            external: self.external.clone(),
            internal: self.internal.clone(),
            patience: Duration::from_secs(self.answer_timeout_s.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(listen: &[&str], peers: &[&str]) -> Section {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Section { listen: owned(listen), peers: owned(peers), ..Section::default() }
    }

    #[test]
    fn nothing_is_open_without_a_list_of_peers() {
        assert_eq!(section(&[], &[]).validate(), Ok(()));
        assert_eq!(section(&["127.0.0.1:2223", "[::1]:2223", "unix:/run/ng"], &[]).validate(), Ok(()));
        for open in ["0.0.0.0:2223", "udp:10.0.0.1:2223", "tcp:[::]:2223"] {
            assert!(section(&[open], &[]).validate().unwrap_err().contains("peers"), "{open}");
            assert_eq!(section(&[open], &["10.0.0.5"]).validate(), Ok(()));
        }
        for wrong in ["2223", "localhost:2223", "unix:ng", "sctp:127.0.0.1:1"] {
            assert!(section(&[wrong], &[]).validate().is_err(), "{wrong}");
        }
        for wrong in ["x", "10.0.0.0/33", "10.0.0.0/", "::1/129"] {
            assert!(section(&[], &[wrong]).validate().is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_contain_their_own() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(
            network.contains("10.1.2.3".parse().unwrap())
                && network.contains("::ffff:10.1.2.3".parse().unwrap())
        );
        assert!(!network.contains("10.2.0.1".parse().unwrap()) && !network.contains("::1".parse().unwrap()));
        let one: Network = "2001:db8::5".parse().unwrap();
        assert!(
            one.contains("2001:db8::5".parse().unwrap()) && !one.contains("2001:db8::6".parse().unwrap())
        );
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()));
    }
}
