//! Browsers inside: heard at their port before they are known, and carried by one interface both ways.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sallyport_bench::load::target::MEDIA;
use sallyport_plan::{Consent, FlowKey, IceRole, Zone};
use sallyport_wire::stun::{BINDING, Builder, Class, Message};

use crate::bare::{BROWSERS, Bare, Browser, World, worlds};
use crate::stage::possible;
use crate::telephone::Phone;

const RTP: u16 = 40;

fn request() -> Vec<u8> {
    let mut room = [0; 64];
    let length = Builder::new(&mut room, Class::Request, BINDING, *b"transaction!").unwrap().finish();
    room[..length].to_vec()
}

/// A browser inside, at an address of the far namespace.
fn browser(bare: &mut Bare, at: usize, world: World, remote: SocketAddr) -> Browser {
    Browser::new(bare, at, Zone::Inside, SocketAddr::new(world.inside, BROWSERS), remote, world.inside)
}

/// A check of nobody known is control's, and what control answers comes back from the browsers' port.
fn is_heard(bare: &mut Bare, world: World, from: &UdpSocket) {
    let port = SocketAddr::new(world.inside, BROWSERS);
    from.send_to(&request(), port).unwrap();
    let (path, call, payload) = bare.client.punt().unwrap();
    let expected = FlowKey { zone: Zone::Inside, local: port, remote: from.local_addr().unwrap() };
    assert_eq!((path, call, payload), (expected, None, request()));
    bare.client.say(path, b"\x01\x01an answer").unwrap();
    let mut room = [0; 64];
    let (length, sender) = from.recv_from(&mut room).unwrap();
    assert_eq!((&room[..length], sender), (&b"\x01\x01an answer"[..], port));
}

/// A browser and a telephone, both inside: what comes by the interface leaves by it.
fn calls_a_telephone(bare: &mut Bare, at: usize, world: World, remote: SocketAddr) {
    let mut browser = browser(bare, at, world, remote);
    is_heard(bare, world, &browser.socket);
    let phone = SocketAddr::new(world.agent, remote.port() + 2);
    let mut phone = Phone::new(bare.socket("i", phone), browser.ports);
    let mut plan = browser.plan(phone.address());
    let text = |text: &str| text.to_owned();
    plan.consents = vec![Consent {
        flow: browser.flow,
        local_ufrag: text("ours"),
        local_pwd: text("our-password-of-22-chars"),
        remote_ufrag: text("theirs"),
        remote_pwd: text("their-password-of-some-characters"),
        role: IceRole::Controlled(1),
    }];
    bare.client.install_plan(plan).unwrap();
    let check = browser.hear();
    assert_eq!(Message::parse(&check).unwrap().class(), Class::Request, "consent is asked for");

    let before = bare.counters();
    let handshake = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    browser.socket.send_to(&handshake, browser.flow.local).unwrap();
    assert_eq!(bare.client.punt().unwrap(), (browser.flow, Some(browser.call.id), handshake.to_vec()));
    for nth in 0..RTP {
        let spoken = browser.speak();
        assert_eq!(phone.hear(), spoken, "packet {nth}");
        let spoken = phone.speak();
        assert_eq!(browser.hear_media(), spoken, "packet {nth}");
    }
    let grew = bare.grown(&before);
    assert_eq!((grew("forward_rtp"), grew("hairpins")), (2 * u64::from(RTP), 0));
    let report = bare.client.report(browser.call.id).unwrap();
    assert!(report.iter().all(|one| (one.packets, one.from) == (RTP.into(), Zone::Inside)), "{report:?}");
    bare.client.remove(browser.call.id).unwrap();
}

/// Elsewhere inside nobody is heard.
fn is_deaf_elsewhere(bare: &mut Bare, world: World) {
    let stranger = bare.socket("i", SocketAddr::new(world.agent, 0));
    let before = bare.counters();
    stranger.send_to(&request(), SocketAddr::new(world.inside, 20_000)).unwrap();
    stranger.send_to(&[0x80; 172], SocketAddr::new(world.inside, BROWSERS)).unwrap();
    stranger.send_to(&request(), SocketAddr::new(world.inside, BROWSERS)).unwrap();
    bare.client.punt().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let grew = bare.grown(&before);
    assert_eq!(grew("punted"), 1);
    assert!(grew("drop_unknown_flow") + grew("xdp_drop_unknown_flow") >= 1, "media of nobody");
}

/// One outside, one inside, each with a call of its own.
fn pair(bare: &mut Bare, at: usize, world: World) -> [Browser; 2] {
    let outside = SocketAddr::new(world.outside, MEDIA);
    let customer = SocketAddr::new(world.browser, 31_000);
    let mut customer = Browser::new(bare, at, Zone::Outside, outside, customer, world.inside);
    let mut agent = browser(bare, at + 1, world, SocketAddr::new(world.agent, 31_001));
    let plans = [customer.plan(agent.ports.rtp), agent.plan(customer.ports.rtp)];
    for plan in plans {
        bare.client.install_plan(plan).unwrap();
    }
    [customer, agent]
}

fn hear_each_other([customer, agent]: &mut [Browser; 2]) {
    for _ in 0..RTP {
        let spoken = customer.speak();
        assert_eq!(agent.hear_media(), spoken);
        let spoken = agent.speak();
        assert_eq!(customer.hear_media(), spoken);
    }
}

fn calls_a_browser_inside(bare: &mut Bare, at: usize, world: World) {
    let mut pair = pair(bare, at, world);
    hear_each_other(&mut pair);
    let [customer, agent] = pair;
    for call in [customer.call.id, agent.call.id] {
        bare.client.remove(call).unwrap();
    }
}

fn browsers_inside(path: &str) {
    let mut bare = Bare::set(path, 2);
    for (nth, world) in worlds().into_iter().enumerate() {
        calls_a_telephone(&mut bare, 4 * nth, world, SocketAddr::new(world.agent, 40_000));
        calls_a_telephone(&mut bare, 4 * nth + 1, world, SocketAddr::new(world.routed, 40_100));
        is_deaf_elsewhere(&mut bare, world);
        calls_a_browser_inside(&mut bare, 4 * nth + 2, world);
    }
    bare.end([]);
}

#[test]
fn browsers_inside_are_served_by_native_xdp() {
    if possible() {
        browsers_inside("xdp");
    }
}

#[test]
fn browsers_inside_are_served_by_generic_xdp() {
    if possible() {
        browsers_inside("generic");
    }
}

#[test]
fn browsers_inside_are_served_by_sockets() {
    if possible() {
        browsers_inside("socket");
    }
}

/// Both calls, and that they point at each other, outlive the relay.
fn outlive_the_relay(path: &str) {
    let mut bare = Bare::supervised(path, 2);
    let mut pairs: Vec<[Browser; 2]> = Vec::new();
    for (nth, world) in worlds().into_iter().enumerate() {
        pairs.push(pair(&mut bare, 2 * nth, world));
    }
    for _ in 0..2 {
        pairs.iter_mut().for_each(hear_each_other);
        // Indices are kept once a second.
        std::thread::sleep(Duration::from_millis(1100));
        bare.kill_relay();
    }
    pairs.iter_mut().for_each(hear_each_other);
    let calls: Vec<_> = pairs.iter().flatten().map(|browser| browser.call.id).collect();
    bare.end(calls);
}

#[test]
fn calls_of_browsers_inside_outlive_the_relay_by_native_xdp() {
    if possible() {
        outlive_the_relay("xdp");
    }
}

#[test]
fn calls_of_browsers_inside_outlive_the_relay_by_sockets() {
    if possible() {
        outlive_the_relay("socket");
    }
}
