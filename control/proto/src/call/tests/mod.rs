//! Calls played from all sides: browser, relay and called side are the test's, and a ledger watches every command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod adding;
mod addresses;
mod dialog;
mod early;
mod extensions;
mod hold;
mod incoming;
mod ledger;
mod network;
mod proposing;
mod random;
mod recorder;
mod recording;
mod relay;
mod sdes;
mod sdes_video;
mod setup;
mod sources;
mod starting_over;
mod timers;
mod transfer;
mod userdata;
mod video;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceCreds, Protocol};
use sallyport_plan::{CallId, FlowKey, KeyMaterial, Plan, PortPair, Profile, Zone};

use super::Call;
use crate::api::{CallEvent, CallFailure, Command, EndCause, Input};
use crate::error::AcceptError;
use crate::random::Seed;
use crate::settings::Settings;
use crate::sip::{Dialog, Method, Request, Response, TransactionId};
use ledger::Ledger;
pub use world::{FINGERPRINT, INVITE, address, invite, media, offer, placing, sdp, settings};

/// A call with the test on all its sides.
pub struct Rig {
    pub call: Call,
    pub now: Instant,
    /// Every command, in order.
    pub done: Vec<Command>,
    ledger: Ledger,
    pub browser: IceAgent,
    pub at: Vec<SocketAddr>,
    /// Addresses of the browser that nothing passes to or from.
    pub cut: Vec<SocketAddr>,
    next_request: u64,
    pub remote_cseq: u32,
    /// The far end acknowledges our answers to its offers.
    pub acknowledges: bool,
    /// The relay runs each plan at once.
    pub obedient: bool,
    /// The relay keeps each record at once.
    pub keeps: bool,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(settings("secret"), "")
    }

    pub fn with(settings: Arc<Settings>, more: &str) -> Self {
        let mut browser = IceAgent::new(IceCreds::new());
        browser.set_controlling(true);
        let at = vec![address("198.51.100.7:40000")];
        browser.add_local_candidate(Candidate::host(at[0], "udp").unwrap());
        let text = offer(browser.local_credentials(), more);
        let now = Instant::now() + Duration::from_secs(1000);
        let call = Call::new(CallId(7), settings, Seed([3; 32]), placing(), now, 0, &text).unwrap();
        Self::around(call, browser, (now, Ledger::default()), at)
    }

    fn around(call: Call, browser: IceAgent, (now, ledger): (Instant, Ledger), at: Vec<SocketAddr>) -> Self {
        let mut rig = Self {
            call,
            now,
            done: Vec::new(),
            ledger,
            browser,
            at,
            cut: Vec::new(),
            next_request: 0,
            remote_cseq: 0,
            acknowledges: true,
            obedient: false,
            keeps: true,
        };
        rig.drain();
        rig
    }

    /// A call from the inside, under the number [`INVITE`], with this body and these headers.
    pub fn incoming(body: &[u8], headers: &[(&str, &str)]) -> Result<Self, Box<Response>> {
        Self::invited_by(invite(body, headers))
    }

    pub fn invited_by(request: Request) -> Result<Self, Box<Response>> {
        Self::invited_with(request, settings("secret"))
    }

    pub fn invited_with(request: Request, settings: Arc<Settings>) -> Result<Self, Box<Response>> {
        let mut browser = IceAgent::new(IceCreds::new());
        browser.set_controlling(true);
        let at = vec![address("198.51.100.7:40000")];
        browser.add_local_candidate(Candidate::host(at[0], "udp").unwrap());
        let now = Instant::now() + Duration::from_secs(1000);
        let mut ledger = Ledger::default();
        ledger.input(&Input::SipRequest { transaction: INVITE, request: request.clone() });
        let name = (CallId(9), Seed([5; 32]), 0);
        let call = Call::incoming(name, settings, "2000".into(), INVITE, request, now)?;
        let mut rig = Self::around(call, browser, (now, ledger), at);
        rig.remote_cseq = 5;
        rig.next_request = INVITE.0 + 1;
        Ok(rig)
    }

    /// The browser takes the call.
    pub fn take(&mut self) -> Result<(), AcceptError> {
        self.take_with("")
    }

    /// The browser takes the call and offers more than sound.
    pub fn take_with(&mut self, more: &str) -> Result<(), AcceptError> {
        let text = offer(self.browser.local_credentials(), more);
        let outcome = self.call.accept(&text, Zone::Outside, self.now);
        self.drain();
        outcome
    }

    /// The caller acknowledges our 2xx to its INVITE.
    pub fn acknowledge(&mut self, body: &[u8]) {
        let ack = Request { method: Method::Ack, body: body.to_vec(), ..invite(b"", &[]) };
        let ack = Request { to: self.call.inside.dialog.from.clone(), ..ack };
        assert_eq!(self.request(ack), None);
    }

    /// A call from the inside, straight to media both ways.
    pub fn called() -> Self {
        let mut rig =
            Self::incoming(&sdp("10.0.0.9", "0 8 101", ""), &[("Allow", "INVITE, UPDATE")]).unwrap();
        rig.reserve();
        rig.take().unwrap();
        rig.acknowledge(b"");
        rig.come_up();
        rig
    }

    /// The browser offers anew; what it says.
    pub fn offers_again(&mut self, change: impl FnOnce(String) -> String) -> Result<String, AcceptError> {
        let text = change(offer(self.browser.local_credentials(), ""));
        self.call.renegotiate(&text, self.now)?;
        self.drain();
        Ok(text)
    }

    /// The browser offers anew; our answer.
    pub fn reoffer(&mut self, change: impl FnOnce(String) -> String) -> Result<String, AcceptError> {
        self.offers_again(change)?;
        let mut answers = self.done.iter().rev();
        Ok(answers
            .find_map(|command| match command {
                Command::Renegotiated(text) => Some(text.clone()),
                _ => None,
            })
            .unwrap())
    }

    /// The browser says what it does with the sound.
    pub fn turn(&mut self, direction: &str) -> String {
        self.reoffer(|text| text.replace("a=sendrecv", &format!("a={direction}"))).unwrap()
    }

    /// A new control goes on with the call whose plan this is.
    pub fn restored(plan: &Plan, at: Instant) -> Self {
        Self::restored_with(&settings("secret"), plan, at)
    }

    /// The same under its own settings.
    pub fn restored_with(settings: &Settings, plan: &Plan, at: Instant) -> Self {
        // Each control has a certificate of its own.
        let other = Settings { fingerprint: [9; 32], ..settings.clone() };
        let call = Call::restore(plan, Arc::new(other), Seed([4; 32]), at).unwrap();
        let ledger = Ledger::restored(plan, &call.inside.dialog.call_id);
        let mut rig = Self {
            call,
            now: at,
            done: Vec::new(),
            ledger,
            browser: IceAgent::new(IceCreds::new()),
            at: Vec::new(),
            cut: Vec::new(),
            next_request: 0,
            remote_cseq: 100,
            acknowledges: true,
            obedient: false,
            keeps: true,
        };
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        while let Some(command) = self.call.poll_command() {
            self.ledger.command(&command);
            if let Command::Install(plan) = &command
                && (self.obedient || (self.keeps && plan.is_silent()))
            {
                let installed = Input::Installed(plan.version);
                self.ledger.input(&installed);
                self.call.handle(self.now, installed);
            }
            self.done.push(command);
        }
    }

    pub fn put(&mut self, input: Input) {
        self.ledger.input(&input);
        self.call.handle(self.now, input);
        self.drain();
    }

    /// Time passes, deadline by deadline.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.call.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.call.handle_timeout(self.now);
            self.drain();
            self.now += Duration::from_millis(1);
        }
        self.now = self.now.max(end);
    }

    /// The relay gives as many port pairs as it was asked for.
    pub fn reserve(&mut self) {
        let asked = self.done.iter().find_map(|command| match command {
            Command::Reserve { pairs, .. } => Some(u16::from(*pairs)),
            _ => None,
        });
        let port = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let pair = |nth| PortPair { rtp: port(20_000 + 2 * nth), rtcp: port(20_001 + 2 * nth) };
        self.put(Input::Reserved((0..asked.unwrap_or(1)).map(pair).collect()));
    }

    pub fn requests(&self, method: &Method) -> Vec<(TransactionId, Request)> {
        let of = |command: &Command| match command {
            Command::Sip { transaction, request } if request.method == *method => {
                Some((*transaction, request.clone()))
            }
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    pub fn acks(&self) -> Vec<Request> {
        let of = |command: &Command| match command {
            Command::SipAck(request) => Some(request.clone()),
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    pub fn cancels(&self) -> usize {
        self.done.iter().filter(|command| matches!(command, Command::SipCancel { .. })).count()
    }

    pub fn removes(&self) -> usize {
        self.done.iter().filter(|command| matches!(command, Command::Remove)).count()
    }

    /// Plans with media.
    pub fn plans(&self) -> Vec<Plan> {
        self.installs().filter(|plan| !plan.is_silent()).cloned().collect()
    }

    /// What a next control would find of a call without media.
    pub fn record(&self) -> Option<Plan> {
        self.installs().filter(|plan| plan.is_silent()).last().cloned()
    }

    fn installs(&self) -> impl Iterator<Item = &Plan> {
        self.done.iter().filter_map(|command| match command {
            Command::Install(plan) => Some(plan),
            _ => None,
        })
    }

    pub fn events(&self) -> Vec<CallEvent> {
        let of = |command: &Command| match command {
            Command::Notify(event) => Some(event.clone()),
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.events().iter().map(CallEvent::name).collect()
    }

    pub fn answer(&self) -> Option<String> {
        self.done.iter().find_map(|command| match command {
            Command::Answer(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub fn failure(&self) -> Option<CallFailure> {
        self.done.iter().find_map(|command| match command {
            Command::Fail(failure) => Some(failure.clone()),
            _ => None,
        })
    }

    pub fn cause(&self) -> Option<EndCause> {
        self.events().into_iter().find_map(|event| match event {
            CallEvent::Ended { cause } => Some(cause),
            _ => None,
        })
    }

    /// The called side answers the last request of a method.
    pub fn respond(
        &mut self,
        method: &Method,
        status: u16,
        tag: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) {
        let (transaction, request) = self.requests(method).pop().unwrap();
        let mut response = Response::to_request(&request, status, "Reason");
        if !tag.is_empty() && !response.to.contains(";tag=") {
            response.to = format!("{};tag={tag}", response.to);
        }
        response.contact = Some("<sip:agent@10.0.0.5>".into());
        response.body = body.to_vec();
        response.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.put(Input::SipResponse { transaction, response });
    }

    pub fn ring(&mut self) {
        self.respond(&Method::Invite, 180, "pbx", b"", &[]);
    }

    pub fn pick_up(&mut self, formats: &str) {
        self.respond(&Method::Invite, 200, "pbx", &sdp("10.0.0.5", formats, ""), &[]);
    }

    /// The far end asks; what it is answered.
    pub fn ask(&mut self, method: Method, tag: &str, body: &[u8]) -> Option<Response> {
        self.ask_with(method, tag, body, None, &[])
    }

    /// The same with headers and a type of the body.
    pub fn ask_with(
        &mut self,
        method: Method,
        tag: &str,
        body: &[u8],
        content_type: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        let dialog = self.call.inside.dialog.clone();
        self.ask_in(&dialog, (method, tag), body, content_type, headers)
    }

    /// The same in any dialog.
    pub fn ask_in(
        &mut self,
        dialog: &Dialog,
        (method, tag): (Method, &str),
        body: &[u8],
        content_type: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        if method != Method::Ack {
            self.remote_cseq += 1;
        }
        let request = Request {
            method: method.clone(),
            uri: "sip:sallyport@10.0.0.1".into(),
            from: format!("<sip:1000@pbx>;tag={tag}"),
            to: dialog.from.clone(),
            call_id: dialog.call_id.clone(),
            cseq: self.remote_cseq,
            route: Vec::new(),
            record_route: Vec::new(),
            contact: Some("<sip:agent@10.0.0.5>".into()),
            content_type: content_type.map(str::to_owned),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: body.to_vec(),
        };
        let response = self.request(request.clone());
        let taken = response.as_ref().is_some_and(|response| response.status == 200);
        if method == Method::Invite && taken && self.acknowledges && !body.is_empty() {
            self.request(Request { method: Method::Ack, body: Vec::new(), ..request });
        }
        response
    }

    /// A request arrives; what it is answered.
    pub fn request(&mut self, request: Request) -> Option<Response> {
        let transaction = TransactionId(self.next_request);
        self.next_request += 1;
        self.put(Input::SipRequest { transaction, request });
        self.replies(transaction).pop()
    }

    pub fn replies(&self, transaction: TransactionId) -> Vec<Response> {
        let of = |command: &Command| match command {
            Command::SipReply { transaction: of, response } if *of == transaction => Some(response.clone()),
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    /// The relay runs the last plan.
    pub fn installed(&mut self) {
        let version = self.plans().last().unwrap().version;
        self.put(Input::Installed(version));
    }

    /// Datagrams of ICE go both ways for a while, in steps of 10 ms.
    pub fn ice(&mut self, time: Duration) {
        let end = self.now + time;
        let mut heard = self.done.len();
        while self.now < end {
            self.browser.handle_timeout(self.now);
            while let Some(transmit) = self.browser.poll_transmit() {
                let path =
                    FlowKey { zone: Zone::Outside, local: transmit.destination, remote: transmit.source };
                self.put(Input::Stun { path, payload: transmit.contents.to_vec() });
            }
            self.wait(Duration::from_millis(10));
            let sent: Vec<Command> = self.done[heard..].to_vec();
            heard = self.done.len();
            for command in sent {
                if let Command::Send { path, payload } = command {
                    self.hear(path, &payload);
                }
            }
        }
    }

    pub fn hear(&mut self, path: FlowKey, payload: &[u8]) {
        if self.at.contains(&path.remote)
            && !self.cut.contains(&path.remote)
            && let Ok(message) = StunMessage::parse(payload)
        {
            let (source, destination) = (path.local, path.remote);
            let packet = StunPacket { proto: Protocol::Udp, source, destination, message };
            self.browser.handle_packet(self.now, packet);
        }
    }

    /// From the browser's answer to media both ways; the relay is obedient from now on.
    pub fn come_up(&mut self) {
        self.connect();
        self.installed();
        self.keys(FINGERPRINT);
        self.installed();
        assert_eq!(self.names().last(), Some(&"connected"));
        self.obedient = true;
    }

    /// The browser reads its answer and checks until a pair is nominated.
    pub fn connect(&mut self) {
        self.meet();
        self.ice(Duration::from_secs(2));
    }

    pub fn meet(&mut self) {
        let answer = self.answer().expect("an answer");
        let value =
            |start: &str| answer.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
        let (ufrag, pass) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        self.browser.set_remote_credentials(IceCreds { ufrag, pass });
        self.browser.add_remote_candidate(Candidate::host(media(), "udp").unwrap());
    }

    pub fn keys(&mut self, fingerprint: [u8; 32]) {
        let key = |octet| KeyMaterial::new(Profile::AeadAes128Gcm, &[octet; 16], &[0; 12]).unwrap();
        self.put(Input::DtlsDone {
            profile: Profile::AeadAes128Gcm,
            receive: key(1),
            send: key(2),
            peer_fingerprint: fingerprint,
        });
    }

    /// Straight to media both ways.
    pub fn connected() -> Self {
        let mut rig = Self::new();
        rig.reserve();
        rig.ring();
        rig.pick_up("0 8 101");
        rig.come_up();
        rig
    }

    /// Ends it from our side and lets everybody be silent: nothing is left.
    pub fn finish(mut self) {
        self.put(Input::HangUp);
        self.wait(Duration::from_secs(120));
        self.ledger.balanced();
    }

    /// It has ended by itself, with nothing left.
    pub fn is_over(&mut self) {
        self.wait(Duration::from_secs(120));
        self.ledger.balanced();
    }
}
