//! The 12 messages of RFC 5118, each with its traps, and what it must come to here.

use super::Case;
use super::Verdict::{self, Heard, Status};

const SDP_V6: &str = "v=0\no=assistant 971731711378798081 0 IN IP6 2001:db8::20\ns=Live video feed for today's meeting\nc=IN IP6 2001:db8::20\nt=3338481189 3370017201\nm=audio 6000 RTP/AVP 2\na=rtpmap:2 G726-32/8000\nm=video 6024 RTP/AVP 107\na=rtpmap:107 H263-1998/90000\n";
const SDP_BOTH: &str = "v=0\no=bob 280744730 28977631 IN IP4 host.example.com\ns=\nt=0 0\nm=audio 22334 RTP/AVP 0\nc=IN IP4 192.0.2.1\nm=video 6024 RTP/AVP 107\nc=IN IP6 2001:db8::1\na=rtpmap:107 H263-1998/90000\n";

/// A request with what the cases have in common.
fn request(name: &str, start: &str, via: &str, to: &str, more: &str, verdict: Verdict) -> Case {
    let method = start.split(' ').next().unwrap_or_default();
    let id = name.split(' ').nth(1).unwrap_or_default();
    let text = format!(
        "{start} SIP/2.0\nTo: {to}\nFrom: sip:user@example.com;tag=81x2\nVia: {via}\nCall-ID: {id}.SSG9559905523997077@hlau_4100\nMax-Forwards: 70\n{more}CSeq: 98176 {method}\nContent-Length: {{length}}\n\n"
    );
    Case::new(name, &text, verdict)
}

/// The messages in the order of the RFC.
pub fn cases() -> Vec<Case> {
    let own = "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111";
    let contact = "Contact: \"Caller\" <sip:caller@[2001:db8::1]>\n";
    let user = "sip:user@example.com";
    let ended = "sip:user@example.com;tag=bd76ya";
    let sdp = format!("{contact}Content-Type: application/sdp\n");
    vec![
        request("4.1 ipv6-good", "REGISTER sip:[2001:db8::10]", own, user, contact, Status(405)).browser(Heard),
        // Without brackets nobody knows where the port begins.
        request("4.2 ipv6-bad", "REGISTER sip:2001:db8::10", own, user, contact, Status(400)),
        // What looks like a port is the address's last group.
        request("4.3 port-ambiguous", "REGISTER sip:[2001:db8::10:5070]", own, user, contact, Status(405)).browser(Heard),
        request("4.4 port-unambiguous", "REGISTER sip:[2001:db8::10]:5070", own, user, contact, Status(405)).browser(Heard),
        request("4.5.1 via-received-param-with-delim", "BYE sip:[2001:db8::10]", "SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111", ended, "", Status(481)),
        request("4.5.2 via-received-param-no-delim", "OPTIONS sip:[2001:db8::10]", "SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3", user, "", Status(200)).browser(Heard),
        request("4.6 ipv6-in-sdp", "INVITE sip:user@[2001:db8::10]", "SIP/2.0/UDP [2001:db8::20];branch=z9hG4bKas3-111", user, &sdp, Status(480)).body(SDP_V6),
        request("4.7 mult-ip-in-header", "BYE sip:user@host.example.net", "SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144\nVia: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200", ended, "", Status(481)),
        request("4.8 mult-ip-in-sdp", "INVITE sip:user@[2001:db8::10]", "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-112", user, &sdp, Status(480)).body(SDP_BOTH),
        request("4.9 ipv4-mapped-ipv6", "INVITE sip:user@example.com", "SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19\nVia: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111", user, "Contact: \"T. desk phone\" <sip:ted@[::ffff:192.0.2.2]>\nContent-Type: application/sdp\n", Status(480)).body(SDP_BOTH),
        // RFC 3261's grammar asked for three colons; no address has them (RFC 4291).
        request("4.10.1 ipv6-bug-abnf-3-colons", "OPTIONS sip:user@[2001:db8:::192.0.2.1]", own, user, "", Status(400)),
        request("4.10.2 ipv6-correct-abnf-2-colons", "OPTIONS sip:user@[2001:db8::192.0.2.1]", own, user, "", Status(200)).browser(Heard),
    ]
}
