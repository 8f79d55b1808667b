//! A dictionary as a request, and what goes back.

use super::flags::{Flags, normal};
use super::value::{DecodeError, Value};

/// Characters that a Call-ID may have.
const CALL_ID_MAX: usize = 512;
/// Characters that a tag or branch may have.
const TAG_MAX: usize = 256;
/// Seconds that the end of a call may be put off.
const DELAY_MAX: i64 = 3600;
/// Calls that a list names, unless asked for more.
const LIST: usize = 32;

/// Members that mean something to rtpengine and nothing here.
const NO_EFFECT: &[&str] = &[
    "command",
    "call-id",
    "from-tag",
    "to-tag",
    "via-branch",
    "sdp",
    "supports",
    "limit",
    "delete-delay",
    "label",
    "from-label",
    "to-label",
    "set-label",
    "metadata",
    "tos",
    "record-call",
    "template",
    "xmlrpc-callback",
    "media-timeout",
    "cookie",
    "version",
    "body",
    "content-type",
    "address",
    "instance",
];

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Are you there?
    Ping,
    /// The first SDP of a negotiation.
    Offer,
    /// The second.
    Answer,
    /// The end.
    Delete,
    /// One call.
    Query,
    /// All calls.
    List,
    /// All numbers.
    Statistics,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub verb: Verb,
    /// Call-ID of the SIP dialog; empty where the verb needs none.
    pub call_id: String,
    /// Tag in From: the offerer's, also in an answer.
    pub from_tag: String,
    /// Tag in To.
    pub to_tag: Option<String>,
    /// Branch of Via, where one Call-ID stands for several calls.
    pub via_branch: Option<String>,
    /// The session description.
    pub sdp: String,
    /// All the rest.
    pub flags: Flags,
    /// Seconds until a deleted call is gone.
    pub delete_delay: Option<u32>,
    /// Names that a list may have.
    pub limit: usize,
}

impl Request {
    /// Reads a dictionary.
    ///
    /// # Errors
    /// `error-reason` in rtpengine's words.
    pub fn parse(message: &Value) -> Result<Self, String> {
        let Value::Dict(dict) = message else { return Err(DecodeError::NotDictionary.to_string()) };
        let command = message.get("command").and_then(Value::as_str);
        let verb = match command.ok_or("Dictionary contains no key \"command\"")? {
            "ping" => Verb::Ping,
            "offer" => Verb::Offer,
            "answer" => Verb::Answer,
            "delete" => Verb::Delete,
            "query" => Verb::Query,
            "list" => Verb::List,
            "statistics" => Verb::Statistics,
            _ => return Err("Unrecognized command".into()),
        };
        let mut flags = Flags::default();
        for (key, value) in dict {
            let key = String::from_utf8_lossy(key);
            if !flags.member(&key, value) && !NO_EFFECT.contains(&normal(&key).as_str()) {
                flags.unknown.push(key.chars().take(64).collect());
            }
        }
        let text = |key: &str, most: usize| {
            let text = message.get(key).and_then(Value::as_str).unwrap_or_default();
            if text.len() > most { Err(format!("{key} is too long")) } else { Ok(text.to_owned()) }
        };
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let delay =
            message.get("delete-delay").or_else(|| message.get("delete delay")).and_then(Value::as_int);
        let limit =
            message.get("limit").and_then(Value::as_int).and_then(|limit| usize::try_from(limit).ok());
        let request = Self {
            verb,
            call_id: text("call-id", CALL_ID_MAX)?,
            from_tag: text("from-tag", TAG_MAX)?,
            to_tag: given(text("to-tag", TAG_MAX)?),
            via_branch: given(text("via-branch", TAG_MAX)?),
            sdp: text("sdp", usize::MAX)?,
            flags,
            delete_delay: delay.and_then(|delay| u32::try_from(delay.clamp(0, DELAY_MAX)).ok()),
            limit: limit.unwrap_or(LIST),
        };
        request.complete()
    }

    fn complete(self) -> Result<Self, String> {
        let media = matches!(self.verb, Verb::Offer | Verb::Answer);
        if media && self.sdp.is_empty() {
            return Err("No SDP body in message".into());
        }
        if (media || matches!(self.verb, Verb::Delete | Verb::Query)) && self.call_id.is_empty() {
            return Err("No call-id in message".into());
        }
        if media && self.from_tag.is_empty() {
            return Err("No from-tag in message".into());
        }
        if self.verb == Verb::Answer && self.to_tag.is_none() {
            return Err("No to-tag in message".into());
        }
        Ok(self)
    }
}

/// `result: ok` with these members.
pub fn ok<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::dict(members.into_iter().chain([("result", Value::text("ok"))]))
}

/// `result: error` with its reason.
pub fn error(reason: impl AsRef<str>) -> Value {
    Value::dict([("result", Value::text("error")), ("error-reason", Value::text(reason))])
}

/// `result: pong`.
pub fn pong() -> Value {
    Value::dict([("result", Value::text("pong"))])
}

/// What a delete, query or answer of an unknown call is told; rtpengine forgives a delete unless told not to.
pub fn unknown_call(request: &Request) -> Value {
    const WARNING: &str = "Call-ID not found or tags didn't match";
    match request.verb {
        Verb::Delete if request.flags.fatal => error(WARNING),
        Verb::Delete => ok([("warning", Value::text(WARNING))]),
        _ => error("Unknown call-id"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bencode;
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(&bencode::parse(text.as_bytes()).unwrap().0)
    }

    #[test]
    fn what_kamailio_sends_is_understood() {
        let text = "d8:supportsl10:load limite3:sdp4:v=0\n3:ICE6:remove5:flagsl13:trust-address6:coffeee7:replacel6:origin18:\
            session-connectione8:rtcp-muxl5:demuxe18:transport-protocol7:RTP/AVP7:call-id3:a@b13:received-froml3:IP49:\
            192.0.2.1e8:from-tag3:abc7:command5:offere";
        let request = parse(text).unwrap();
        assert_eq!(
            (request.verb, request.call_id.as_str(), request.from_tag.as_str()),
            (Verb::Offer, "a@b", "abc")
        );
        assert_eq!(request.flags.unknown, ["coffee"]);
        assert!(request.flags.mux.demux && request.flags.replace.origin);
        assert_eq!(request.to_tag, None);
    }

    #[test]
    fn what_is_missing_is_told_in_rtpengines_words() {
        for (text, reason) in [
            ("de", "Dictionary contains no key \"command\""),
            ("d7:command4:danee", "Unrecognized command"),
            ("d7:command4:PINGe", "Unrecognized command"),
            ("d7:commandi1ee", "Dictionary contains no key \"command\""),
            ("d7:commandd1:a1:bee", "Dictionary contains no key \"command\""),
            ("le", "Invalid NG data format"),
            ("d7:command5:offer7:call-id1:a8:from-tag1:b3:sdpi3ee", "No SDP body in message"),
            ("d7:command5:offer7:call-idl1:ae8:from-tag1:b3:sdp1:ve", "No call-id in message"),
            ("d7:command5:offer7:call-id1:a8:from-tagde3:sdp1:ve", "No from-tag in message"),
            ("d7:command6:answer7:call-id1:a8:from-tag1:b3:sdp1:v6:to-tagi1ee", "No to-tag in message"),
            ("d7:command5:offere", "No SDP body in message"),
            ("d7:command5:offer3:sdp1:ve", "No call-id in message"),
            ("d7:command6:deletee", "No call-id in message"),
            ("d7:command5:offer3:sdp1:v7:call-id1:ae", "No from-tag in message"),
            ("d7:command6:answer3:sdp1:v7:call-id1:a8:from-tag1:be", "No to-tag in message"),
        ] {
            assert_eq!(parse(text).unwrap_err(), reason, "{text}");
        }
        let long = format!("d7:command6:delete7:call-id{}:{}e", CALL_ID_MAX + 1, "x".repeat(CALL_ID_MAX + 1));
        assert_eq!(parse(&long).unwrap_err(), "call-id is too long");
    }

    #[test]
    fn a_delete_of_nothing_is_forgiven() {
        let request = parse("d7:command6:delete7:call-id1:a12:delete-delay2:10e").unwrap();
        assert_eq!(request.delete_delay, Some(10));
        assert!(unknown_call(&request).get("warning").is_some());
        let request = parse("d7:command6:delete7:call-id1:a5:flagsl5:fatalee").unwrap();
        assert_eq!(unknown_call(&request).get("result"), Some(&Value::text("error")));
        let request = parse("d7:command5:query7:call-id1:ae").unwrap();
        assert_eq!(unknown_call(&request).get("error-reason"), Some(&Value::text("Unknown call-id")));
    }
}
