//! The middle of a call by the JavaScript client, and by the drop-in for pages of another library, in Chromium: hold, digits, user
//! data, figures, another network path, transfer, connections that drop, a control that is replaced. Each step is heard.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::agent::{self, Agent};
use sallyport_lab::net::{AGENT, INSIDE, Place};
use sallyport_lab::tone::{self, Expected, listen};
use sallyport_lab::visitor::{Kind, Visitor};
use sallyport_lab::wav::Wav;
use serde_json::{Value, json};

use crate::stage::{possible, until};
use crate::tcp::{NO_UDP, connectable};
use crate::web::{World, world, world_with};

pub const SOON: Duration = Duration::from_secs(20);
pub const CONNECT: Duration = Duration::from_secs(30);
const TALK: Duration = Duration::from_secs(4);
/// The tone of an agent that calls.
const CALLER: u32 = 700;

/// The demo page in a browser, and an agent.
pub struct Scene {
    pub visitor: Visitor,
    pub agent: Agent,
    pub world: World,
}

impl Scene {
    /// `path`: of the demo page.
    pub fn set(path: &str) -> Self {
        Self::set_in(world(), path)
    }

    fn set_in(world: World, path: &str) -> Self {
        let agent = Agent::start(&world.lab, &agent::Setup::default()).unwrap();
        let visitor = world.visitor(Kind::Chromium, path);
        Self { visitor, agent, world }
    }

    /// A call to the agent that talks.
    pub fn calling() -> Self {
        Self::calling_in(world())
    }

    fn calling_in(world: World) -> Self {
        let scene = Self::set_in(world, "/demo/?raw");
        scene.visitor.click(&json!({ "to": "1000" }), "#place").unwrap();
        scene.talks();
        scene
    }

    pub fn runs(&self, body: &str) -> Value {
        self.visitor.run(body, &Value::Null).unwrap_or_else(|error| {
            panic!("{body}: {error:#}\n{}", self.world.appliance.process().last_words(30))
        })
    }

    pub fn talks(&self) {
        let connected = "lab.call() && lab.call().state === 'connected' && lab.call().remote";
        self.visitor.until(connected, CONNECT).unwrap();
    }

    /// The page hears this tone, and the agent hears the page as long.
    pub fn sounds(&self, what: &str, tone: u32, agent: &Agent) {
        let heard = |agent: &Agent| agent.heard().map_or(0.0, |wav| whole_seconds(&wav));
        let before = heard(agent);
        self.page_hears(what, tone);
        let expected = before + TALK.as_secs_f64() - 2.0;
        until(&format!("{what}: the agent hears the page"), SOON, || heard(agent) > expected);
    }

    /// As [`Self::sounds`], after a hold: baresip's recorder takes down nothing from then on, so that the packets that go to it are
    /// counted.
    fn sounds_again(&self, what: &str) {
        let before = self.inward();
        self.page_hears(what, tone::AGENT);
        let sent = self.inward() - before;
        let expected = TALK.as_secs() * 50 * 9 / 10;
        assert!(sent > expected, "{what}: {sent} packets went to the agent");
    }

    pub fn page_hears(&self, what: &str, tone: u32) {
        self.visitor.record().unwrap();
        std::thread::sleep(TALK);
        let wav = self.visitor.recorded().unwrap();
        let expected = Expected { tone, other: tone::BROWSER, seconds: TALK.as_secs_f64() - 1.5 };
        let page = listen(&wav, expected);
        page.judge(expected).unwrap_or_else(|fault| {
            let log = self.world.appliance.process().last_words(20);
            panic!("{what}: the page: {fault}: {page}\n{}\n{log}", self.shown())
        });
    }

    /// The only call as REST shows it.
    fn shown(&self) -> Value {
        let get =
            |path: &str| -> Value { serde_json::from_str(&self.world.appliance.get(path).unwrap()).unwrap() };
        get(&format!("/v1/calls/{}", get("/v1/calls")[0]["id"].as_str().unwrap()))
    }

    /// Packets of the page that went to the agent.
    fn inward(&self) -> u64 {
        let shown = self.shown();
        let directions = shown["media"]["directions"].as_array().unwrap();
        let inward = directions.iter().find(|direction| direction["from"] == "outside").unwrap();
        inward["packets"].as_u64().unwrap()
    }

    /// Packets that have come to the page.
    fn received(&self) -> u64 {
        self.runs("return (await lab.call().stats()).packetsReceived;").as_u64().unwrap()
    }

    /// A digit that the appliance sends as a named event, which the agent takes and does not log.
    fn digit(&self, digit: &str) {
        let sent = || self.world.appliance.status().unwrap().counter("event_rtp");
        let before = sent();
        let word = format!("{{ type: 'dtmf', call: lab.call().id, digits: '{digit}', duration: 100 }}");
        self.runs(&format!("await sallyport.link.request({word});"));
        until("the digit has left", SOON, || sent() == before + 7);
    }

    pub fn hangs_up(&self) {
        self.runs("await lab.call().hangup();");
        until("nothing is left", CONNECT, || self.world.appliance.status().unwrap().holds_nothing());
    }
}

/// Seconds of the page's tone in a recording.
fn whole_seconds(wav: &Wav) -> f64 {
    listen(wav, Expected { tone: tone::BROWSER, other: tone::AGENT, seconds: 1.0 }).seconds
}

#[test]
fn the_client_holds_sends_digits_and_data_and_tells_figures() {
    if !possible() {
        return;
    }
    let scene = Scene::calling();
    scene.sounds("connected", tone::AGENT, &scene.agent);
    let figures = scene.runs(
        "const quality = await new Promise(resolve => lab.call().once('quality', resolve)); \
         return { quality, server: await lab.call().serverStats() };",
    );
    let quality = &figures["quality"];
    assert!(quality["packetsReceived"].as_u64().unwrap() > 100, "{figures}");
    assert!(quality["mos"].as_f64().unwrap() > 3.0 && quality["loss"].as_f64().unwrap() < 5.0, "{figures}");
    assert_eq!(figures["server"]["state"], "connected");
    assert_eq!(figures["server"]["media"]["directions"].as_array().unwrap().len(), 2, "{figures}");

    // By the browser's own sender, whose events baresip does not log, and by the appliance's.
    scene.runs("await lab.call().dtmf('4');");
    scene.digit("5");
    scene.runs("await lab.call().hold(); if (!lab.call().held.byUs) throw new Error('not held');");
    std::thread::sleep(Duration::from_secs(1));
    let before = scene.received();
    std::thread::sleep(Duration::from_secs(2));
    assert!(scene.received() - before < 10, "nothing comes on hold");
    scene.runs("await lab.call().resume(); if (lab.call().held.byUs) throw new Error('held');");
    scene.sounds_again("resumed");

    scene.runs("await lab.call().sendData({ basket: 7 });");
    scene.sounds_again("after digits and data");
    scene.hangs_up();
}

#[test]
fn a_call_whose_path_breaks_finds_another() {
    if !possible() {
        return;
    }
    let scene = Scene::calling();
    // The nominated pair may be being checked just now.
    let path = "let reports, pair; \
                for (let turn = 0; !pair && turn < 100; turn++) { \
                    if (turn) await new Promise(done => setTimeout(done, 50)); \
                    reports = [...(await lab.call().peer.getStats()).values()]; \
                    pair = reports.find(one => one.type === 'candidate-pair' && one.nominated && one.state === 'succeeded'); \
                } \
                const local = reports.find(one => one.id === pair.localCandidateId); return local.relatedPort ?? local.port;";
    let port = scene.runs(path);
    let rules = format!(
        "add table ip cut\nadd chain ip cut forward {{ type filter hook forward priority -10; }}\n\
         add rule ip cut forward udp sport {port} drop\nadd rule ip cut forward udp dport {port} drop\n"
    );
    scene.world.lab.namespace(Place::Nat).nft(&rules).unwrap();
    scene.visitor.until("lab.call().peer.iceConnectionState === 'disconnected'", CONNECT).unwrap();
    let connected = "['connected', 'completed'].includes(lab.call().peer.iceConnectionState)";
    scene.visitor.until(connected, CONNECT).unwrap();
    assert_ne!(scene.runs(path), port, "by another port");
    scene.sounds("by another path", tone::AGENT, &scene.agent);
    scene.hangs_up();
}

/// The customer's router lets no UDP through any more: the client starts ICE over, and the call goes on by TCP. So it does when the
/// relay dies, and with it the connection.
#[test]
fn a_call_goes_on_by_tcp_where_udp_ends_and_by_another_connection_after_the_relay_died() {
    if !possible() {
        return;
    }
    let scene = Scene::calling_in(world_with(connectable));
    let path = "const reports = [...(await lab.call().peer.getStats()).values()]; \
                const way = reports.find(one => one.type === 'transport').selectedCandidatePairId; \
                const pair = reports.find(one => one.id === way); \
                const local = reports.find(one => one.id === (pair && pair.localCandidateId)); \
                return local ? [local.protocol, local.port] : null;";
    assert_eq!(scene.runs(path)[0], "udp");
    scene.sounds("by UDP", tone::AGENT, &scene.agent);
    scene.world.lab.namespace(Place::Nat).nft(NO_UDP).unwrap();
    until("the client takes TCP", CONNECT, || scene.runs(path)[0] == "tcp");
    scene.sounds("by TCP", tone::AGENT, &scene.agent);
    let before = scene.runs(path);
    let relay = scene.world.appliance.pid("sallyport-relay").unwrap();
    kill(Pid::from_raw(relay), Signal::SIGKILL).unwrap();
    let is_another = |path: &Value| path[0] == "tcp" && *path != before;
    until("the client takes another connection", CONNECT, || is_another(&scene.runs(path)));
    scene.sounds("by another connection", tone::AGENT, &scene.agent);
    scene.hangs_up();
}

#[test]
fn an_agent_transfers_its_caller() {
    if !possible() {
        return;
    }
    let scene = Scene::set("/demo/?raw#agent");
    scene.visitor.click(&json!({ "number": "2000" }), "#enter").unwrap();
    scene.visitor.until("!document.getElementById('signed-in').hidden", CONNECT).unwrap();
    let setup = agent::Setup { port: 5070, user: "1001".into(), tone: CALLER, ..agent::Setup::default() };
    let caller = Agent::start_calling(&scene.world.lab, &setup, &format!("sip:2000@{INSIDE}:5060")).unwrap();
    scene.visitor.until("document.querySelector('[data-state=incoming] .answer')", CONNECT).unwrap();
    scene.visitor.click(&Value::Null, ".answer").unwrap();
    scene.talks();
    scene.sounds("answered", CALLER, &caller);
    let before = scene.agent.recordings().len();
    let transfer = format!(
        "window.steps = []; lab.call().on('transfer', status => steps.push(status)); \
         await lab.call().transfer('sip:1000@{AGENT}:5060'); return steps;"
    );
    let steps = scene.runs(&transfer);
    assert_eq!(steps.as_array().unwrap().last(), Some(&200.into()), "{steps}");
    caller.process().wait_for_words("transferring call", SOON).unwrap();
    until("the agent is called by the other", SOON, || scene.agent.recordings().len() > before);
    scene.visitor.until("!lab.call()", SOON).unwrap();
    until("nothing is left", CONNECT, || scene.world.appliance.status().unwrap().holds_nothing());
}

#[test]
fn a_call_goes_on_over_a_cut_connection_and_another_control() {
    if !possible() {
        return;
    }
    let scene = Scene::calling();
    let session = scene.runs("return sallyport.link.session;");
    scene.runs(
        "window.states = []; sallyport.on('connection', state => states.push(state)); sallyport.link.socket.close();",
    );
    scene.visitor.until("states.join() === 'waiting,up'", SOON).unwrap();
    assert_eq!(scene.runs("return sallyport.link.session;"), session, "the same session");
    assert_eq!(scene.runs("return (await lab.call().serverStats()).state;"), "connected");

    let control = scene.world.appliance.pid("sallyport-control").unwrap();
    kill(Pid::from_raw(control), Signal::SIGKILL).unwrap();
    scene.sounds("without control", tone::AGENT, &scene.agent);
    scene.visitor.until("states.join() === 'waiting,up,waiting,up'", CONNECT).unwrap();
    assert_ne!(scene.runs("return sallyport.link.session;"), session, "another session");
    // What the session that was lost could do, the new one can.
    assert_eq!(scene.runs("return (await lab.call().serverStats()).state;"), "connected");
    scene.digit("7");
    scene.runs("await lab.call().hold(); await lab.call().resume();");
    scene.sounds_again("held and resumed by the new control");
    scene.hangs_up();
    scene.agent.process().wait_for_words("terminated", SOON).unwrap();
}

/// Loads the drop-in into the demo page, which is nothing but a page of ours then.
const GRTC: &str = "await new Promise((resolve, reject) => { \
    const script = Object.assign(document.createElement('script'), { src: '/client/grtc.js', onload: resolve, onerror: reject }); \
    document.head.append(script); }); \
    window.client = new Grtc.Client({ webrtc_gateway: location.origin, dtls_srtp: true, noanswer_timeout: '60000' }); \
    window.session = new Grtc.MediaSession(client); window.log = []; \
    for (const name of ['onFailed', 'onGatewayError', 'onWebrtcError', 'onConnectionError', 'onPeerClosing', 'onConnect', \
        'onRegister', 'onIncomingCall', 'onStatsFromServer']) client[name].add(detail => log.push([name, detail])); \
    session.onSessionHold.add(held => log.push(['onSessionHold', held])); \
    session.onRemoteStream.add(({ stream }) => { lab.call = () => ({ remote: stream }); new Audio().srcObject = stream; }); \
    window.logged = name => log.find(one => one[0] === name); \
    await new Promise((resolve, reject) => { client.onMediaSuccess.add(resolve); client.onMediaFailure.add(reject); \
        client.enableMediaSource({ echoCancellation: false, noiseSuppression: false, autoGainControl: false }, false); });";

fn grtc() -> Scene {
    let scene = Scene::set("/demo/?raw");
    scene.runs(GRTC);
    scene
}

#[test]
fn a_page_of_another_library_calls() {
    if !possible() {
        return;
    }
    let scene = grtc();
    scene.runs("client.onConnect.add(() => session.makeCall('1000', true, false)); client.connect();");
    scene.visitor.until("session.isEstablished()", CONNECT).unwrap();
    scene.sounds("called", tone::AGENT, &scene.agent);
    assert_eq!(scene.runs("return session.sendDTMF('5', { duration: 200, tonegap: 50 });"), true);
    scene.runs("session.holdCall();");
    scene.visitor.until("log.some(([name, held]) => name === 'onSessionHold' && held)", SOON).unwrap();
    scene.runs("session.resumeCall();");
    scene.visitor.until("log.some(([name, held]) => name === 'onSessionHold' && !held)", SOON).unwrap();
    scene.sounds_again("resumed");
    scene.runs("session.sendInfo({ basket: '7' }, true); session.getServerStats();");
    scene.visitor.until("logged('onStatsFromServer')", SOON).unwrap();
    let stats = scene.runs("return logged('onStatsFromServer')[1];");
    assert!(stats["audio"]["rx"]["packets"].as_u64().unwrap() > 100, "{stats}");
    scene.runs("session.terminateCall();");
    until("nothing is left", CONNECT, || scene.world.appliance.status().unwrap().holds_nothing());
    let faults = "return log.filter(([name]) => /Error|Failed/.test(name));";
    assert_eq!(scene.runs(faults), json!([]));
    scene.runs("client.disconnect();");
}

#[test]
fn a_page_of_another_library_is_called() {
    if !possible() {
        return;
    }
    let scene = grtc();
    scene.runs("client.onIncomingCall.add(data => session.acceptCall(true, false, data.peer)); client.register('2000');");
    scene.visitor.until("logged('onRegister')", SOON).unwrap();
    let setup = agent::Setup { port: 5070, user: "1001".into(), tone: CALLER, ..agent::Setup::default() };
    let caller = Agent::start_calling(&scene.world.lab, &setup, &format!("sip:2000@{INSIDE}:5060")).unwrap();
    scene.visitor.until("session.isEstablished()", CONNECT).unwrap();
    assert_eq!(scene.runs("return logged('onIncomingCall')[1].peer;"), "1001");
    scene.sounds("answered", CALLER, &caller);
    caller.process().signal(Signal::SIGINT).unwrap();
    scene.visitor.until("logged('onPeerClosing') && !session.isEstablished()", SOON).unwrap();
    until("nothing is left", CONNECT, || scene.world.appliance.status().unwrap().holds_nothing());
    assert_eq!(scene.runs("return log.filter(([name]) => /Error|Failed/.test(name));"), json!([]));
}
