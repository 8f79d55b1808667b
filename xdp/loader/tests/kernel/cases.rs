//! The table: frame in, fate.

use sallyport_abi::Counter::{
    DropFragment, DropMalformed, DropNoSocket, DropSource, DropTooLong, DropUnknownFlow, PassFragment,
    PassNotIp, PassNotMedia, PassNotUdp, PassUnknownInterface,
};
use sallyport_abi::FRAME_MAX;

use crate::frames::{
    ETHERNET, UDP_V4, UDP_V6, address, dtls, extended, fragment_v4, fragment_v6, ip, options, rtp, stun,
    tagged, udp, with,
};
use crate::runner::{
    By::{self, Inside, Outside, Unknown},
    FLOWS,
    Fate::{self, Drop, Flow, Pass, Punt},
};

pub struct Case {
    pub name: &'static str,
    pub by: By,
    pub queue: u32,
    pub frame: Vec<u8>,
    pub fate: Fate,
}

fn case(name: &'static str, by: By, frame: Vec<u8>, fate: Fate) -> Case {
    Case { name, by, queue: 0, frame, fate }
}

fn on(queue: u32, case: Case) -> Case {
    Case { queue, ..case }
}

/// A packet of an installed flow.
pub fn of(flow: usize, payload: &[u8]) -> Vec<u8> {
    udp(FLOWS[flow].2, FLOWS[flow].1, payload)
}

const fn hit(flow: usize) -> Fate {
    Flow(FLOWS[flow].3, FLOWS[flow].4)
}

const V4: &str = "192.0.2.1:10000";
const V6: &str = "[2001:db8::1]:10000";
const STRANGER_V4: &str = "198.51.100.66:6666";
const STRANGER_V6: &str = "[2001:db8:66::66]:6666";
/// Binding request.
const REQUEST: u16 = 1;

pub fn all() -> Vec<Case> {
    [
        known(),
        strangers(),
        browsers_inside(),
        places(),
        not_udp(),
        links(),
        fragments(),
        malformed(),
        sources(),
        sizes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn known() -> Vec<Case> {
    vec![
        case("rtp outside v4", Outside, of(0, &rtp(160)), hit(0)),
        case("rtp outside v6", Outside, of(1, &rtp(160)), hit(1)),
        case("rtp inside v4", Inside, of(2, &rtp(160)), hit(2)),
        case("rtp inside v6, all bits set", Inside, of(3, &rtp(160)), hit(3)),
        case("rtp on the second queue", Outside, of(0, &rtp(160)), hit(0)),
        on(1, case("rtp on queue 1", Outside, of(0, &rtp(160)), hit(0))),
        on(1, case("rtp inside on queue 1", Inside, of(2, &rtp(160)), hit(2))),
        case("stun of a known flow", Outside, of(0, &stun(REQUEST, 8)), hit(0)),
        case("dtls of a known flow", Outside, of(1, &dtls()), hit(1)),
        case("no payload", Outside, of(0, &[]), hit(0)),
        case("one octet", Outside, of(1, &[0x80]), hit(1)),
        case("an address of both zones, outside", Outside, of(5, &rtp(20)), hit(5)),
        case("an address of both zones, inside", Inside, of(4, &rtp(20)), hit(4)),
    ]
}

fn strangers() -> Vec<Case> {
    let (v4, v6) =
        (|payload: &[u8]| udp(STRANGER_V4, V4, payload), |payload: &[u8]| udp(STRANGER_V6, V6, payload));
    let long = [stun(REQUEST, 8), vec![0]].concat();
    let unknown = Drop(DropUnknownFlow);
    vec![
        case("stun request v4", Outside, v4(&stun(REQUEST, 0)), Punt),
        case("stun request v6", Outside, v6(&stun(REQUEST, 88)), Punt),
        case("stun success response", Outside, v4(&stun(0x0101, 12)), Punt),
        case("stun error response", Outside, v6(&stun(0x0111, 12)), Punt),
        case("stun of 19 octets", Outside, v4(&stun(REQUEST, 0)[..19]), unknown),
        case(
            "stun with another cookie",
            Outside,
            v4(&with(stun(REQUEST, 0), 4, &[0x21, 0x12, 0xa4, 0x43])),
            unknown,
        ),
        case("stun with a first octet of 4", Outside, v4(&stun(0x0400, 0)), unknown),
        case("stun that names more than there is", Outside, v4(&with(stun(REQUEST, 0), 2, &[0, 4])), unknown),
        case("stun with an octet behind", Outside, v4(&long), unknown),
        case("stun of no multiple of four", Outside, v4(&with(long.clone(), 2, &[0, 9])), unknown),
        case("dtls v4", Outside, v4(&dtls()), unknown),
        case("dtls v6", Outside, v6(&dtls()), unknown),
        case("rtp v4", Outside, v4(&rtp(160)), unknown),
        case("rtp v6", Outside, v6(&rtp(160)), unknown),
        case("no payload of nobody", Outside, v4(&[]), unknown),
        case("stun inside v4", Inside, udp("10.0.0.9:5", "10.0.0.1:20000", &stun(REQUEST, 0)), unknown),
        case("stun inside v6", Inside, udp("[fd00::9]:5", "[fd00::1]:20000", &stun(REQUEST, 0)), unknown),
    ]
}

/// Their port is to them what the outside's is to browsers outside, and no other port inside is.
fn browsers_inside() -> Vec<Case> {
    let unknown = Drop(DropUnknownFlow);
    let v4 = |payload: &[u8]| udp("10.0.0.66:6666", "10.0.0.1:10001", payload);
    let v6 = |payload: &[u8]| udp("[fd00:66::66]:6666", "[fd00::1]:10001", payload);
    let to = |to: &str| udp("10.0.0.66:6666", to, &stun(REQUEST, 8));
    vec![
        case("srtp of a browser inside v4", Inside, of(6, &rtp(160)), hit(6)),
        case("srtp of a browser inside v6", Inside, of(7, &rtp(160)), hit(7)),
        case("stun of a known browser inside", Inside, of(6, &stun(REQUEST, 8)), hit(6)),
        case("dtls of a known browser inside", Inside, of(7, &dtls()), hit(7)),
        case("stun of a new browser inside v4", Inside, v4(&stun(REQUEST, 8)), Punt),
        case("stun of a new browser inside v6", Inside, v6(&stun(REQUEST, 88)), Punt),
        case("tagged stun of a new browser inside", Inside, tagged(v4(&stun(REQUEST, 8)), 0x8100, 7), Punt),
        case("dtls of nobody inside", Inside, v4(&dtls()), unknown),
        case("rtp of nobody to the browsers' port", Inside, v6(&rtp(160)), unknown),
        case(
            "a browser inside from another port",
            Inside,
            udp("10.0.0.77:50001", "10.0.0.1:10001", &rtp(20)),
            unknown,
        ),
        case(
            "stun from ourselves inside",
            Inside,
            udp("10.0.0.1:20000", "10.0.0.1:10001", &stun(REQUEST, 8)),
            Drop(DropSource),
        ),
        case("stun below the browsers' port", Inside, to("10.0.0.1:10000"), Pass(PassNotMedia)),
        case("stun above the browsers' port", Inside, to("10.0.0.1:10002"), Pass(PassNotMedia)),
        case("stun to the end of the range", Inside, to("10.0.0.1:29999"), unknown),
        case("stun where there are no browsers inside", Inside, to("203.0.113.5:10001"), Pass(PassNotMedia)),
        case("stun to port 0 there", Inside, to("203.0.113.5:0"), Pass(PassNotMedia)),
        case(
            "the inside browsers' port, outside",
            Outside,
            udp(STRANGER_V4, "192.0.2.1:10001", &stun(REQUEST, 8)),
            Pass(PassNotMedia),
        ),
        case("a flow of a browser inside, outside", Outside, of(6, &rtp(20)), Pass(PassNotMedia)),
        case(
            "first fragment to the browsers' port",
            Inside,
            fragment_v4(of(6, &rtp(20)), 0, true),
            Drop(DropFragment),
        ),
        on(
            2,
            case(
                "a browser inside on a queue without a socket",
                Inside,
                v4(&stun(REQUEST, 8)),
                Drop(DropNoSocket),
            ),
        ),
    ]
}

fn places() -> Vec<Case> {
    let unknown = Drop(DropUnknownFlow);
    let elsewhere = Pass(PassNotMedia);
    let rtp = &rtp(160)[..];
    let inside = |to: &str| udp("10.0.0.9:30000", to, rtp);
    vec![
        case("another port of the peer", Outside, udp("198.51.100.7:4001", V4, rtp), unknown),
        case("another address of the peer", Outside, udp("198.51.100.8:4000", V4, rtp), unknown),
        case("another v6 address of the peer", Outside, udp("[2001:db8:7::8]:4000", V6, rtp), unknown),
        case("peer and ourselves swapped", Outside, udp(V4, "198.51.100.7:4000", rtp), elsewhere),
        case("an outside flow, inside", Inside, of(0, rtp), elsewhere),
        case("an inside flow, outside", Outside, of(2, rtp), elsewhere),
        case("an inside flow of a common address, outside", Outside, of(4, rtp), elsewhere),
        case("the common port inside", Inside, of(5, rtp), elsewhere),
        case(
            "a flow of the other zone by address and port",
            Inside,
            udp("198.51.100.7:4000", "203.0.113.5:20002", rtp),
            unknown,
        ),
        case("outside, a port below", Outside, udp("198.51.100.7:4000", "192.0.2.1:9999", rtp), elsewhere),
        case("outside, a port above", Outside, udp("198.51.100.7:4000", "192.0.2.1:10001", rtp), elsewhere),
        case(
            "outside v6, a port above",
            Outside,
            udp("[2001:db8:7::7]:4000", "[2001:db8::1]:10001", rtp),
            elsewhere,
        ),
        case("inside, below the range", Inside, inside("10.0.0.1:19999"), elsewhere),
        case("inside, start of the range", Inside, inside("10.0.0.1:20000"), hit(2)),
        case("inside, end of the range", Inside, inside("10.0.0.1:29999"), unknown),
        case("inside, above the range", Inside, inside("10.0.0.1:30000"), elsewhere),
        case(
            "sip inside",
            Inside,
            udp("10.0.0.9:5060", "10.0.0.1:5060", b"OPTIONS sip:x SIP/2.0\r\n"),
            elsewhere,
        ),
        case("another address of ours v4", Outside, udp(STRANGER_V4, "192.0.2.2:10000", rtp), elsewhere),
        case("another address of ours v6", Outside, udp(STRANGER_V6, "[2001:db8::2]:10000", rtp), elsewhere),
        case(
            "stun to another address",
            Outside,
            udp(STRANGER_V4, "192.0.2.2:10000", &stun(REQUEST, 0)),
            elsewhere,
        ),
        case("a flow by an unknown interface", Unknown, of(0, rtp), Pass(PassUnknownInterface)),
        case("no socket on the queue, flow", Outside, of(0, rtp), hit(0)),
        on(2, case("flow on a queue without a socket", Outside, of(0, rtp), Drop(DropNoSocket))),
        on(
            3,
            case(
                "stun on a queue without a socket",
                Outside,
                udp(STRANGER_V4, V4, &stun(REQUEST, 0)),
                Drop(DropNoSocket),
            ),
        ),
        on(3, case("nobody's on a queue without a socket", Outside, udp(STRANGER_V4, V4, rtp), unknown)),
    ]
}

fn not_udp() -> Vec<Case> {
    let (v4, v6) = (address(V4).ip(), address(V6).ip());
    let (from_v4, from_v6) = (address(STRANGER_V4).ip(), address(STRANGER_V6).ip());
    let tcp = [0x27, 0x10, 0x27, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let ethernet = |ethertype: u16| {
        let frame = with(udp(STRANGER_V4, V4, &[0; 40]), 12, &ethertype.to_be_bytes());
        frame[..60].to_vec()
    };
    vec![
        case("arp", Outside, ethernet(0x0806), Pass(PassNotIp)),
        case("lldp", Inside, ethernet(0x88cc), Pass(PassNotIp)),
        case("802.3 length", Inside, ethernet(38), Pass(PassNotIp)),
        case("tcp v4", Outside, ip(from_v4, v4, 6, &tcp), Pass(PassNotUdp)),
        case("tcp v6", Outside, ip(from_v6, v6, 6, &tcp), Pass(PassNotUdp)),
        case("icmp", Outside, ip(from_v4, v4, 1, &[8, 0, 0, 0, 0, 1, 0, 1]), Pass(PassNotUdp)),
        case("neighbour solicitation", Outside, ip(from_v6, v6, 58, &[135; 24]), Pass(PassNotUdp)),
        case(
            "udp-lite",
            Outside,
            ip(from_v4, v4, 136, &[0x27, 0x10, 0x27, 0x10, 0, 8, 0, 0]),
            Pass(PassNotUdp),
        ),
        case(
            "hop-by-hop options",
            Outside,
            extended(of(1, &rtp(20)), 0, &[0, 5, 2, 0, 0, 1, 0]),
            Pass(PassNotUdp),
        ),
        case(
            "destination options",
            Outside,
            extended(of(1, &rtp(20)), 60, &[0, 1, 4, 0, 0, 0, 0]),
            Pass(PassNotUdp),
        ),
        case("routing header", Outside, extended(of(1, &rtp(20)), 43, &[0; 7]), Pass(PassNotUdp)),
    ]
}

fn links() -> Vec<Case> {
    let rtp = &rtp(160)[..];
    let request = &stun(REQUEST, 8)[..];
    vec![
        case("802.1Q v4", Outside, tagged(of(0, rtp), 0x8100, 7), hit(0)),
        case("802.1Q v6", Outside, tagged(of(1, rtp), 0x8100, 0xffff), hit(1)),
        case("priority tag", Inside, tagged(of(2, rtp), 0x8100, 0xa000), hit(2)),
        case("802.1Q stun", Outside, tagged(udp(STRANGER_V4, V4, request), 0x8100, 7), Punt),
        case(
            "802.1Q of nobody",
            Outside,
            tagged(udp(STRANGER_V6, V6, rtp), 0x8100, 7),
            Drop(DropUnknownFlow),
        ),
        case("two tags", Outside, tagged(tagged(of(0, rtp), 0x8100, 7), 0x8100, 8), Pass(PassNotIp)),
        case("802.1ad", Outside, tagged(of(0, rtp), 0x88a8, 7), Pass(PassNotIp)),
        case(
            "802.1ad around 802.1Q",
            Outside,
            tagged(tagged(of(0, rtp), 0x8100, 7), 0x88a8, 8),
            Pass(PassNotIp),
        ),
        case("one word of options", Outside, options(of(0, rtp), 1), hit(0)),
        case("ten words of options", Outside, options(of(0, rtp), 10), hit(0)),
        case(
            "options, tag, stun",
            Outside,
            tagged(options(udp(STRANGER_V4, V4, request), 10), 0x8100, 7),
            Punt,
        ),
        case("options of nobody", Outside, options(udp(STRANGER_V4, V4, rtp), 3), Drop(DropUnknownFlow)),
        case("don't fragment", Outside, with(of(0, rtp), ETHERNET + 6, &[0x40, 0]), hit(0)),
        case("dscp and ecn", Outside, with(of(0, rtp), ETHERNET + 1, &[0xb9]), hit(0)),
        case(
            "traffic class and flow label",
            Outside,
            with(of(1, rtp), ETHERNET, &[0x6b, 0x91, 2, 3]),
            hit(1),
        ),
        case("ethernet padding", Outside, [of(0, &[1]), vec![0; 17]].concat(), hit(0)),
        case("udp ends before ip", Outside, with(of(0, rtp), UDP_V4 + 4, &[0, 20]), hit(0)),
    ]
}

fn fragments() -> Vec<Case> {
    let rtp = &rtp(160)[..];
    let dropped = Drop(DropFragment);
    let sip = udp("10.0.0.9:5060", "10.0.0.1:5060", rtp);
    let sip_v6 = udp("[fd00::9]:5060", "[fd00::1]:5060", rtp);
    let other = udp(STRANGER_V4, "192.0.2.2:10000", rtp);
    let tcp = with(of(0, rtp), ETHERNET + 9, &[6]);
    vec![
        case("first fragment v4", Outside, fragment_v4(of(0, rtp), 0, true), dropped),
        case("first fragment v6", Outside, fragment_v6(of(1, rtp), 0, true), dropped),
        case("first fragment inside", Inside, fragment_v4(of(2, rtp), 0, true), dropped),
        case(
            "first fragment whose udp goes on in the next",
            Outside,
            with(fragment_v4(of(0, rtp), 0, true), UDP_V4 + 4, &[9, 9]),
            dropped,
        ),
        case("middle fragment v4", Outside, fragment_v4(of(0, rtp), 100, true), dropped),
        case("last fragment v4", Outside, fragment_v4(of(0, rtp), 0x1fff, false), dropped),
        case("last fragment v6", Outside, fragment_v6(of(1, rtp), 100, false), dropped),
        case("atomic fragment v6", Outside, fragment_v6(of(1, rtp), 0, false), dropped),
        case("fragment with a tag", Outside, tagged(fragment_v4(of(0, rtp), 1, false), 0x8100, 7), dropped),
        case("first fragment of sip", Inside, fragment_v4(sip.clone(), 0, true), Pass(PassNotMedia)),
        case("first fragment of sip v6", Inside, fragment_v6(sip_v6.clone(), 0, true), Pass(PassNotMedia)),
        case("later fragment inside", Inside, fragment_v4(sip, 100, false), Pass(PassFragment)),
        case("later fragment inside v6", Inside, fragment_v6(sip_v6, 100, false), Pass(PassFragment)),
        case("fragment to another address", Outside, fragment_v4(other, 100, false), Pass(PassNotMedia)),
        case("fragment of tcp", Outside, fragment_v4(tcp, 100, false), Pass(PassNotUdp)),
        case(
            "fragment of icmpv6",
            Outside,
            with(fragment_v6(of(1, rtp), 0, true), UDP_V6, &[58]),
            Pass(PassNotUdp),
        ),
        case(
            "first fragment too short for ports",
            Outside,
            fragment_v4(with(of(0, &[]), ETHERNET + 2, &[0, 27]), 0, true),
            Drop(DropMalformed),
        ),
        case(
            "fragment header cut off",
            Outside,
            with(of(1, &[])[..UDP_V6 + 7].to_vec(), ETHERNET + 6, &[44]),
            Drop(DropMalformed),
        ),
    ]
}

fn malformed() -> Vec<Case> {
    let rtp = &rtp(160)[..];
    let bad = Drop(DropMalformed);
    let other = udp(STRANGER_V4, "192.0.2.2:10000", rtp);
    vec![
        case("ipv4 header of 16 octets", Outside, with(of(0, rtp), ETHERNET, &[0x44]), bad),
        case("ipv4 header of none", Outside, with(of(0, rtp), ETHERNET, &[0x40]), bad),
        case("ipv4 header beyond the frame", Outside, with(of(0, &[]), ETHERNET, &[0x4f]), bad),
        case("version 6 in ipv4", Outside, with(of(0, rtp), ETHERNET, &[0x65]), bad),
        case("version 4 in ipv6", Outside, with(of(1, rtp), ETHERNET, &[0x40]), bad),
        case("ipv4 length beyond the frame", Outside, with(of(0, &[]), ETHERNET + 2, &[0, 29]), bad),
        case("ipv4 length below the header", Outside, with(of(0, rtp), ETHERNET + 2, &[0, 19]), bad),
        case("ipv4 length without udp", Outside, with(of(0, rtp), ETHERNET + 2, &[0, 27]), bad),
        case("ipv4 length of 0", Outside, with(of(0, rtp), ETHERNET + 2, &[0, 0]), bad),
        case("ipv6 length beyond the frame", Outside, with(of(1, &[]), ETHERNET + 4, &[0, 9]), bad),
        case("ipv6 length without udp", Outside, with(of(1, rtp), ETHERNET + 4, &[0, 7]), bad),
        case("ipv6 jumbogram", Outside, with(of(1, rtp), ETHERNET + 4, &[0, 0]), bad),
        case("udp length of 7", Outside, with(of(0, rtp), UDP_V4 + 4, &[0, 7]), bad),
        case("udp length of 0", Outside, with(of(1, rtp), UDP_V6 + 4, &[0, 0]), bad),
        case("udp length beyond ip", Outside, with(of(0, &[1]), UDP_V4 + 4, &[0, 10]), bad),
        case(
            "udp length beyond ip, in the padding",
            Outside,
            with([of(0, &[]), vec![0; 18]].concat(), UDP_V4 + 4, &[0, 10]),
            bad,
        ),
        case("udp length of 65535", Outside, with(of(1, rtp), UDP_V6 + 4, &[0xff, 0xff]), bad),
        case("mapped destination", Outside, udp(STRANGER_V6, "[::ffff:192.0.2.1]:10000", rtp), bad),
        case("mapped flow", Outside, udp("[::ffff:198.51.100.7]:4000", "[::ffff:192.0.2.1]:10000", rtp), bad),
        case("malformed to another address", Outside, with(other, UDP_V4 + 4, &[0, 7]), Pass(PassNotMedia)),
    ]
}

fn sources() -> Vec<Case> {
    let request = &stun(REQUEST, 0)[..];
    let v4 = |from: &str| udp(from, V4, request);
    let v6 = |from: &str| udp(from, V6, request);
    let bad = Drop(DropSource);
    vec![
        case("from ourselves", Outside, v4("192.0.2.1:10000"), bad),
        case("from ourselves v6", Outside, v6("[2001:db8::1]:10000"), bad),
        case("from our inside address", Outside, v4("10.0.0.1:5"), bad),
        case("from our inside v6 address", Outside, v6("[fd00::1]:5"), bad),
        case(
            "from our outside address, inside",
            Inside,
            udp("192.0.2.1:10000", "10.0.0.1:20000", request),
            bad,
        ),
        case("from 0.0.0.0", Outside, v4("0.0.0.0:5"), bad),
        case("from 127.0.0.1", Outside, v4("127.0.0.1:5"), bad),
        case("from multicast", Outside, v4("224.0.0.1:5"), bad),
        case("from a reserved address", Outside, v4("240.0.0.1:5"), bad),
        case("from broadcast", Outside, v4("255.255.255.255:5"), bad),
        case("from below multicast", Outside, v4("223.255.255.255:5"), Punt),
        case("from the unspecified address", Outside, v6("[::]:5"), bad),
        case("from loopback v6", Outside, v6("[::1]:5"), bad),
        case("from above loopback v6", Outside, v6("[::2]:5"), Punt),
        case("from multicast v6", Outside, v6("[ff02::1]:5"), bad),
        case("from a mapped address", Outside, v6("[::ffff:198.51.100.7]:4000"), bad),
        case("from port 0", Outside, v4("198.51.100.66:0"), bad),
        case("from port 256", Outside, v6("[2001:db8:66::66]:256"), Punt),
        case("rtp from multicast", Outside, udp("224.0.0.1:5", V4, &rtp(20)), bad),
    ]
}

fn sizes() -> Vec<Case> {
    let most_v4 = FRAME_MAX as usize - UDP_V4 - 8;
    let most_v6 = FRAME_MAX as usize - UDP_V6 - 8;
    let attributes = u16::try_from(most_v4 - 20 + 4).unwrap() & !3;
    vec![
        case("as long as a frame v4", Outside, of(0, &vec![0x80; most_v4]), hit(0)),
        case("as long as a frame v6", Outside, of(1, &vec![0x80; most_v6]), hit(1)),
        case("one too long v4", Outside, of(0, &vec![0x80; most_v4 + 1]), Drop(DropTooLong)),
        case("one too long v6", Outside, of(1, &vec![0x80; most_v6 + 1]), Drop(DropTooLong)),
        case(
            "one too long by padding",
            Outside,
            [of(0, &vec![0x80; most_v4]), vec![0]].concat(),
            Drop(DropTooLong),
        ),
        case(
            "too long of nobody",
            Outside,
            udp(STRANGER_V4, V4, &stun(REQUEST, attributes)),
            Drop(DropTooLong),
        ),
        case("jumbo frame in several buffers", Outside, of(0, &vec![0x80; 8900]), Drop(DropTooLong)),
        case(
            "jumbo frame to another port",
            Outside,
            udp(STRANGER_V4, "192.0.2.1:53", &vec![0; 8900]),
            Pass(PassNotMedia),
        ),
    ]
}
