//! How a client wants the other side's SDP to look. Names are compared without regard to case, and to whether words are
//! joined by `-`, `_` or a space, as rtpengine does.

use std::net::IpAddr;

use super::value::Value;

/// How media is protected on a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protection {
    /// RTP as it is.
    Plain,
    /// SRTP, keys in the SDP (RFC 4568).
    Sdes,
    /// SRTP, keys by DTLS (RFC 5763).
    Dtls,
}

/// The profile of an `m=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// Which keys.
    pub protection: Protection,
    /// With early feedback (RFC 4585).
    pub feedback: bool,
}

impl Profile {
    /// By its name in an `m=` line; `RTP/SAVP(F)` counts as SDES until a fingerprint says otherwise.
    pub fn of(name: &str) -> Option<Self> {
        let (protection, feedback) = match name.to_ascii_uppercase().as_str() {
            "RTP/AVP" => (Protection::Plain, false),
            "RTP/AVPF" => (Protection::Plain, true),
            "RTP/SAVP" => (Protection::Sdes, false),
            "RTP/SAVPF" => (Protection::Sdes, true),
            "UDP/TLS/RTP/SAVP" => (Protection::Dtls, false),
            "UDP/TLS/RTP/SAVPF" => (Protection::Dtls, true),
            _ => return None,
        };
        Some(Self { protection, feedback })
    }

    /// Its name in an `m=` line.
    pub const fn name(self) -> &'static str {
        match (self.protection, self.feedback) {
            (Protection::Plain, false) => "RTP/AVP",
            (Protection::Plain, true) => "RTP/AVPF",
            (Protection::Sdes, false) => "RTP/SAVP",
            (Protection::Sdes, true) => "RTP/SAVPF",
            (Protection::Dtls, false) => "UDP/TLS/RTP/SAVP",
            (Protection::Dtls, true) => "UDP/TLS/RTP/SAVPF",
        }
    }
}

/// What is to become of ICE on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IceChoice {
    /// As the leg needs it.
    #[default]
    Default,
    /// None.
    Remove,
    /// Ours.
    Force,
}

/// `rtcp-mux`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MuxChoice {
    /// Offer it to the other side.
    pub offer: bool,
    /// Take it from the offerer, do not offer it on.
    pub demux: bool,
    /// Take it from the offerer.
    pub accept: bool,
    /// Offer nothing else.
    pub require: bool,
    /// Do not take it from the offerer.
    pub reject: bool,
}

/// `DTLS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtlsChoice {
    /// We take the server's role where we may choose.
    #[default]
    Default,
    /// None.
    Off,
    /// We wait for the ClientHello.
    Passive,
    /// We send the ClientHello.
    Active,
}

/// `SDES`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SdesChoice {
    /// None.
    pub off: bool,
    /// Suites not to be offered.
    pub without: Vec<String>,
    /// The only suites to be offered.
    pub only: Vec<String>,
}

impl SdesChoice {
    /// Whether a suite may be offered.
    pub fn allows(&self, suite: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case(suite));
        !named(&self.without) && (self.only.is_empty() || named(&self.only))
    }
}

/// `replace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replace {
    /// Address in `o=`.
    pub origin: bool,
    /// All of `o=`.
    pub origin_full: bool,
    /// `s=`.
    pub session_name: bool,
    /// User name in `o=`.
    pub username: bool,
}

/// `codec`, without transcoding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodecChoice {
    /// Taken out of the offer. `mask` means the same as long as nothing is transcoded.
    pub strip: Vec<String>,
    /// Not taken out by `all`. `offer` means the same.
    pub except: Vec<String>,
}

impl CodecChoice {
    /// Whether a codec stays; `name` as in `a=rtpmap`, such as `opus/48000/2`.
    pub fn keeps(&self, name: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|wanted| is_codec(wanted, name));
        let all = self
            .strip
            .iter()
            .any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("full"));
        !named(&self.strip) && (!all || named(&self.except))
    }
}

/// `PCMA`, or with as much of `/8000/1` as was written.
fn is_codec(wanted: &str, name: &str) -> bool {
    let mut have = name.split('/');
    let alike = wanted.split('/').all(|part| {
        let own = have.next().unwrap_or("1");
        own.eq_ignore_ascii_case(part)
    });
    alike && !wanted.is_empty()
}

/// All that a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// Profile of the other side.
    pub profile: Option<Profile>,
    /// ICE on the other side.
    pub ice: IceChoice,
    /// RTP and RTCP on one port.
    pub mux: MuxChoice,
    /// DTLS.
    pub dtls: DtlsChoice,
    /// Keys in the SDP.
    pub sdes: SdesChoice,
    /// What else is replaced.
    pub replace: Replace,
    /// Codecs.
    pub codec: CodecChoice,
    /// Named interfaces: the offerer's, the other side's.
    pub direction: Vec<String>,
    /// Whether the other side is reached by IPv4.
    pub ipv4: Option<bool>,
    /// Give sections names.
    pub generate_mid: bool,
    /// Where the SIP message came from.
    pub received_from: Option<IpAddr>,
    /// Media is there too, whatever the SDP says.
    pub sip_source: bool,
    /// Leave `a=rtcp` out.
    pub no_rtcp_attribute: bool,
    /// Telephony is heard from the port that it signals only.
    pub strict_source: bool,
    /// What it is sent goes to that port, wherever it sends from.
    pub asymmetric: bool,
    /// An unknown call is an error.
    pub fatal: bool,
    /// Names that mean nothing to us.
    pub unknown: Vec<String>,
}

/// Flags that change nothing here: media comes from the signalled address whatever they say, keys and ports stay over
/// re-offers, nothing is recorded.
const NO_EFFECT: &[&str] = &[
    "trust-address",
    "symmetric",
    "symmetric-codecs",
    "asymmetric-codecs",
    "force",
    "media-handover",
    "port-latching",
    "no-port-latching",
    "loop-protect",
    "pad-crypto",
    "full-rtcp-attribute",
    "early-media",
    "all",
    "debug",
    "debugging",
    "no-redis-update",
    "directional",
    "provisional",
    "unidirectional",
    "reuse-codecs",
    "no-codec-renegotiation",
    "reorder-codecs",
    "record-call",
    "fragment",
    "trickle-ice",
    "reset",
    "no-player",
    "no-audio-player",
    "no-passthrough",
    "passthrough",
    "nat-wait",
    "pierce-nat",
    "original-sendrecv",
    "allow-asymmetric-codecs",
    "auto",
    "inject-dtmf",
    "detect-dtmf",
    "no-jitter-buffer",
    "generate-rtcp",
    "weak-source",
    "local",
    "remote",
    "bridge",
    "any",
];

impl Flags {
    /// One item of `flags`, or a word of `rtpp-flags`.
    pub fn word(&mut self, word: &str) {
        if let Some((key, value)) = word.split_once('=') {
            if !self.member(key, &Value::text(value)) {
                self.unknown(key);
            }
            return;
        }
        if let Some(profile) = Profile::of(word) {
            self.profile = Some(profile);
            return;
        }
        let name = normal(word);
        match name.as_str() {
            "sip-source-address" => self.sip_source = true,
            "generate-mid" => self.generate_mid = true,
            "no-rtcp-attribute" => self.no_rtcp_attribute = true,
            "fatal" => self.fatal = true,
            "strict-source" => self.strict_source = true,
            "asymmetric" => self.asymmetric = true,
            "internal" | "external" => self.direction.push(name),
            "ice-remove" => self.ice = IceChoice::Remove,
            "ice-force" => self.ice = IceChoice::Force,
            "dtls-off" => self.dtls = DtlsChoice::Off,
            _ if NO_EFFECT.contains(&name.as_str()) => {}
            _ => self.prefixed(word, &name),
        }
    }

    /// `replace-origin`, `codec-strip-PCMA` and their like.
    fn prefixed(&mut self, word: &str, name: &str) {
        for prefix in ["replace", "rtcp-mux", "sdes", "codec"] {
            let rest = name.strip_prefix(prefix).filter(|rest| rest.len() > 1 && rest.starts_with('-'));
            if rest.is_some()
                && let Some(rest) = word.get(prefix.len() + 1..)
            {
                match prefix {
                    "replace" => self.replace(rest),
                    "rtcp-mux" => self.mux(rest),
                    "sdes" => self.sdes(rest),
                    _ => self.codec_word(rest),
                }
                return;
            }
        }
        self.unknown(word);
    }

    /// A member of the message; whether it is one of ours.
    pub fn member(&mut self, key: &str, value: &Value) -> bool {
        let text = || value.as_str().unwrap_or_default();
        match normal(key).as_str() {
            "flags" => value.texts().into_iter().for_each(|word| self.word(word)),
            "rtpp-flags" => text().split_whitespace().for_each(|word| self.word(word)),
            "replace" => value.texts().into_iter().for_each(|word| self.replace(word)),
            "rtcp-mux" => value.texts().into_iter().for_each(|word| self.mux(word)),
            "sdes" => value.texts().into_iter().for_each(|word| self.sdes(word)),
            "direction" => self.direction.extend(value.texts().into_iter().map(str::to_owned)),
            "transport-protocol" => match Profile::of(text()) {
                Some(profile) => self.profile = Some(profile),
                None => self.unknown(text()),
            },
            "ice" => self.ice(text()),
            "dtls" => self.dtls(text()),
            "address-family" => match normal(text()).as_str() {
                "ip4" | "ipv4" | "inet" | "inet4" => self.ipv4 = Some(true),
                "ip6" | "ipv6" | "inet6" => self.ipv4 = Some(false),
                other => self.unknown(other),
            },
            "received-from" => {
                self.received_from = value.texts().last().and_then(|address| address.parse().ok());
            }
            "codec" => self.codec(value),
            _ => return false,
        }
        true
    }

    fn unknown(&mut self, name: &str) {
        // Long or many names are not worth keeping.
        if self.unknown.len() < 32 {
            self.unknown.push(name.chars().take(64).collect());
        }
    }

    fn ice(&mut self, word: &str) {
        match normal(word).as_str() {
            "remove" => self.ice = IceChoice::Remove,
            "force" | "force-relay" => self.ice = IceChoice::Force,
            "default" | "optional" => self.ice = IceChoice::Default,
            other => self.unknown(other),
        }
    }

    fn dtls(&mut self, word: &str) {
        match normal(word).as_str() {
            "off" | "no" | "disable" => self.dtls = DtlsChoice::Off,
            "passive" => self.dtls = DtlsChoice::Passive,
            "active" => self.dtls = DtlsChoice::Active,
            other => self.unknown(other),
        }
    }

    fn mux(&mut self, word: &str) {
        match normal(word).as_str() {
            "offer" => self.mux.offer = true,
            "demux" => self.mux.demux = true,
            "accept" => self.mux.accept = true,
            "require" => self.mux.require = true,
            "reject" => self.mux.reject = true,
            other => self.unknown(other),
        }
    }

    fn replace(&mut self, word: &str) {
        match normal(word).as_str() {
            "origin" => self.replace.origin = true,
            "origin-full" => self.replace.origin_full = true,
            "session-name" => self.replace.session_name = true,
            "username" => self.replace.username = true,
            // Every connection address is replaced in any case; versions grow as the peer's own.
            "session-connection" | "sdp-version" | "force-increment-sdp-ver" | "zero-address" => {}
            other => self.unknown(other),
        }
    }

    fn sdes(&mut self, word: &str) {
        let name = normal(word);
        let suite =
            |prefix: &str| name.strip_prefix(prefix).map(|_| word.get(prefix.len()..).unwrap_or_default());
        match name.as_str() {
            "off" | "no" | "disable" => self.sdes.off = true,
            "nonew" | "pad" | "static" | "lifetime" => {}
            _ => match (suite("no-"), suite("only-")) {
                (Some(suite), _) => self.sdes.without.push(suite.to_owned()),
                (_, Some(suite)) => self.sdes.only.push(suite.to_owned()),
                _ => self.unknown(word),
            },
        }
    }

    fn codec(&mut self, value: &Value) {
        if let Value::Dict(dict) = value {
            for (what, names) in dict {
                let what = String::from_utf8_lossy(what).into_owned();
                for name in names.texts() {
                    self.codec_word(&format!("{what}-{name}"));
                }
            }
        } else {
            value.texts().into_iter().for_each(|word| self.codec_word(word));
        }
    }

    fn codec_word(&mut self, word: &str) {
        let (what, name) = word.split_once('-').unwrap_or((word, ""));
        // `opus/48000/2/32000` and `..` for what a flag cannot hold: only the codec counts.
        let name = name.split("..").next().unwrap_or_default().to_owned();
        match normal(what).as_str() {
            "strip" | "mask" | "consume" => self.codec.strip.push(name),
            "except" | "offer" => self.codec.except.push(name),
            // What both sides know passes through anyway.
            "accept" | "ignore" => {}
            _ => self.unknown(&format!("codec-{word}")),
        }
    }
}

/// Lower case, words joined by `-`.
pub fn normal(name: &str) -> String {
    name.trim().chars().map(|c| if matches!(c, ' ' | '_') { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_known_in_all_their_forms() {
        let mut flags = Flags::default();
        for word in [
            "trust address",
            "SIP-source-address",
            "replace-origin",
            "replace_session_connection",
            "ICE=force-relay",
            "rtcp-mux-demux",
            "UDP/TLS/RTP/SAVPF",
            "codec-strip-PCMA",
            "codec-mask-all",
            "codec-except-opus",
            "SDES-no-AES_CM_128_HMAC_SHA1_32",
            "DTLS=passive",
            "direction=pub",
            "direction=priv",
            "address-family=IP6",
            "generate mid",
            "strict_source",
            "make-coffee",
            "codec-transcode-G729",
        ] {
            flags.word(word);
        }
        assert_eq!(flags.unknown, ["make-coffee", "codec-transcode-G729"]);
        assert!(flags.sip_source && flags.replace.origin && flags.mux.demux && flags.generate_mid);
        assert_eq!((flags.ice, flags.dtls), (IceChoice::Force, DtlsChoice::Passive));
        assert_eq!(flags.profile.map(Profile::name), Some("UDP/TLS/RTP/SAVPF"));
        assert_eq!((flags.direction.len(), flags.ipv4), (2, Some(false)));
        assert!(
            flags.codec.keeps("opus/48000/2")
                && !flags.codec.keeps("PCMA/8000")
                && !flags.codec.keeps("G722/8000")
        );
        assert!(
            !flags.sdes.allows("AES_CM_128_HMAC_SHA1_32") && flags.sdes.allows("AES_CM_128_HMAC_SHA1_80")
        );
    }

    #[test]
    fn members_may_be_lists_words_or_dictionaries() {
        let mut flags = Flags::default();
        let list = |words: &[&str]| Value::List(words.iter().map(Value::text).collect());
        assert!(flags.member("rtcp-mux", &list(&["offer", "require"])));
        assert!(flags.member("received-from", &list(&["IP4", "192.0.2.9"])));
        assert!(flags.member("codec", &Value::dict([("strip", list(&["G722/8000"]))])));
        assert!(flags.member("transport protocol", &Value::text("RTP/AVP")));
        assert!(flags.member("rtpp-flags", &Value::text("replace-origin ICE=remove")));
        assert!(!flags.member("sdp", &Value::text("v=0")));
        assert!(flags.mux.offer && flags.mux.require && flags.replace.origin);
        assert_eq!(flags.received_from, "192.0.2.9".parse().ok());
        assert!(!flags.codec.keeps("G722/8000") && flags.codec.keeps("PCMU/8000"));
        assert_eq!(flags.ice, IceChoice::Remove);
    }
}
