//! Requests of ours: sent, moved from peer to peer, answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::sip::{Method, Request, Response, TransactionId};

use super::{Stack, TimerKey, branch, uri_target, with_to};
use crate::message::{ConnectionId, SipEvent};
use crate::random;
use crate::sip::client::{Client, Due, Journey, Owner};
use crate::sip::guard::AGENT;
use crate::sip::transport::Target;
use crate::sip::{codec, has_tag};

/// All client transactions, by our number, by branch and method (RFC 3261 section 17.1.3), and by whose they are.
#[derive(Debug, Default)]
pub struct Clients {
    pub by_number: HashMap<u64, Client>,
    by_branch: HashMap<(String, Method), u64>,
    by_owner: HashMap<Owner, u64>,
    next: u64,
}

impl Clients {
    fn insert(&mut self, client: Client) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_branch.insert((client.branch.clone(), client.method.clone()), number);
        if matches!(client.owner, Owner::Call(..)) {
            self.by_owner.insert(client.owner, number);
        }
        self.by_number.insert(number, client);
        number
    }

    /// Forgets one.
    pub fn remove(&mut self, number: u64) -> Option<Client> {
        let client = self.by_number.remove(&number)?;
        self.by_branch.remove(&(client.branch.clone(), client.method.clone()));
        if self.by_owner.get(&client.owner) == Some(&number) {
            self.by_owner.remove(&client.owner);
        }
        Some(client)
    }

    /// Whether this request went out from us under this branch and is not answered yet.
    pub fn sent(&self, branch: &str, request: &Request) -> bool {
        let number = self.by_branch.get(&(branch.to_owned(), request.method.clone()));
        let client = number.and_then(|number| self.by_number.get(number)).filter(|client| !client.done);
        let start = format!("{} {} ", request.method, request.uri);
        client.is_some_and(|client| client.octets.starts_with(start.as_bytes()))
    }

    /// Whether nothing at all is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty() && self.by_branch.is_empty() && self.by_owner.is_empty()
    }
}

impl Stack {
    pub(super) fn via(&self, target: Target, branch: &str) -> String {
        if target.connection.is_some() {
            // Browsers answer where they were asked, and need not know an address of the inside (RFC 7118 section 5).
            return format!("SIP/2.0/{} sallyport.invalid;branch={branch}", target.kind.name());
        }
        codec::via(self.transports.local(target.kind), target.kind, branch)
    }

    /// A request outside a dialog and without a route goes to the best peer, any other to its next hop, or to another peer
    /// where that is a dead one (RFC 3263 section 4.3); a name that is no address is the peers' business.
    pub(super) fn target(&self, request: &Request, over: Option<ConnectionId>) -> Option<Target> {
        if let Some(connection) = over {
            return self.browsers.get(&connection).copied();
        }
        let now = Instant::now();
        let inside = has_tag(&request.to) || !request.route.is_empty();
        let Some(target) = inside.then(|| uri_target(request.next_hop())).flatten() else {
            return self.peers.best(now, &[], true);
        };
        let other = self.peers.is_dead(target).then(|| self.peers.best(now, &[target], false)).flatten();
        Some(other.unwrap_or(target))
    }

    pub(super) fn request(
        &mut self,
        (call, transaction): (CallId, TransactionId),
        request: Request,
        over: Option<ConnectionId>,
    ) {
        let Some(target) = self.target(&request, over) else {
            self.tell(SipEvent::TransportError { call, transaction });
            return;
        };
        let owner = Owner::Call(call, transaction);
        let moves = over.is_none() && self.peers.contains(target);
        let journey = Box::new(Journey { request, tried: vec![target] });
        self.start(owner, target, journey, moves);
    }

    /// Sends a request; on to the next peer where it cannot be sent.
    fn start(&mut self, owner: Owner, target: Target, journey: Box<Journey>, moves: bool) {
        let now = Instant::now();
        let branch = branch();
        let request = self.by_way_of(&journey.request, target);
        let octets = codec::request(&request, &self.via(target, &branch));
        // A full socket buffer is a lost datagram: it is sent again. A stream that cannot take it has failed.
        let sent = self.transports.send(octets.clone(), target);
        let method = journey.request.method.clone();
        let mut client = Client::new(owner, branch, octets, target, method, now);
        if client.method == Method::Invite {
            client.ack = Some(self.ack_template(&request, target, &client.branch));
        }
        client.may_move(moves.then_some(journey));
        let number = self.clients.insert(client);
        self.arm_client(number);
        if !sent && target.kind.is_reliable() {
            self.failed(number, "the connection takes nothing", now);
        }
    }

    /// Sends a request to the next peer, where there is one, in a transaction of its own; whether it did.
    fn advance(&mut self, number: u64, now: Instant) -> bool {
        let tried = self.clients.by_number.get(&number).and_then(|client| client.journey.as_ref());
        let next = tried.and_then(|journey| self.peers.best(now, &journey.tried, false));
        let Some(next) = next else { return false };
        let Some(client) = self.clients.remove(number) else { return false };
        let Some(mut journey) = client.journey else { return false };
        journey.tried.push(next);
        self.start(client.owner, next, journey, true);
        true
    }

    /// A request cannot get where it was sent.
    fn failed(&mut self, number: u64, reason: &str, now: Instant) {
        let Some(client) = self.clients.by_number.get(&number) else { return };
        let (target, owner) = (client.target, client.owner);
        self.peers.lost(target, reason, now);
        if self.outlasts(number, now) || self.advance(number, now) {
            return;
        }
        self.clients.remove(number);
        if let Owner::Call(call, transaction) = owner {
            self.tell(SipEvent::TransportError { call, transaction });
        }
    }

    /// Nothing can be sent there.
    pub(super) fn unreachable(&mut self, peer: Target, reason: &str) {
        let now = Instant::now();
        self.peers.lost(peer, reason, now);
        let lost = |(_, client): &(&u64, &Client)| client.target == peer && !client.done;
        let lost: Vec<u64> = self.clients.by_number.iter().filter(lost).map(|(number, _)| *number).collect();
        for number in lost {
            self.failed(number, reason, now);
        }
    }

    /// ACK to a final answer other than 2xx: the INVITE's, but for the To of the answer (RFC 3261 section 17.1.1.3).
    fn ack_template(&self, invite: &Request, target: Target, branch: &str) -> Vec<u8> {
        let ack = Request {
            method: Method::Ack,
            contact: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
            ..invite.clone()
        };
        codec::request(&ack, &self.via(target, branch))
    }

    pub(super) fn cancel(&mut self, owner: (CallId, TransactionId), request: &Request) {
        let invite = self.clients.by_owner.get(&Owner::Call(owner.0, owner.1)).copied();
        let Some((number, client)) =
            invite.and_then(|number| Some((number, self.clients.by_number.get_mut(&number)?)))
        else {
            return;
        };
        let now = Instant::now();
        client.cancelled(now);
        let (target, branch) = (client.target, client.branch.clone());
        self.arm_client(number);
        let octets = codec::request(request, &self.via(target, &branch));
        self.transports.send(octets.clone(), target);
        let client = Client::new(Owner::Nobody, branch, octets, target, request.method.clone(), now);
        let number = self.clients.insert(client);
        self.arm_client(number);
    }

    pub(super) fn response(&mut self, response: Response, via: &str) {
        let Some(branch) = codec::parameter(via, "branch") else { return };
        let key = (branch.to_owned(), response.method.clone());
        let Some(number) = self.clients.by_branch.get(&key).copied() else { return };
        let Some(client) = self.clients.by_number.get_mut(&number) else { return };
        let now = Instant::now();
        self.peers.heard(client.target, now);
        let (invite, first) = (client.method == Method::Invite, !client.done);
        if invite && response.status >= 300 {
            let ack = client.ack.as_deref().map(|ack| with_to(ack, &response.to));
            if let Some(ack) = ack {
                self.transports.send(ack, client.target);
            }
        }
        if response.status == 503 && first {
            let target = client.target;
            let inside = client.journey.as_ref().is_none_or(|journey| has_tag(&journey.request.to));
            if let Some(pause) = retry_after(&response) {
                self.peers.busy(target, pause, now);
            }
            // A dialog has its place: another peer would not know it.
            if !inside && self.advance(number, now) {
                return;
            }
        }
        let Some(client) = self.clients.by_number.get_mut(&number) else { return };
        if response.status >= 200 {
            client.finish(now);
        } else if first {
            client.provisional(now);
        }
        let (owner, target, rings) = (client.owner, client.target, client.rang && !client.done);
        if rings {
            self.peers.watch(target, now);
            self.arm_probe();
        }
        self.arm_client(number);
        // A 2xx to INVITE comes again until its ACK arrives: the call answers each.
        let again = invite && (200..300).contains(&response.status);
        if let Owner::Call(call, transaction) = owner
            && (first || again)
        {
            self.tell(SipEvent::Response { call, transaction, response });
        }
    }

    pub(super) fn arm_client(&mut self, number: u64) {
        let Some(client) = self.clients.by_number.get_mut(&number) else { return };
        if let Some(at) = client.poll_timeout().filter(|at| client.armed.wants(*at)) {
            self.timers.set(at, TimerKey::Client(number));
        }
    }

    pub(super) fn client_due(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.by_number.get_mut(&number) else { return };
        client.armed.passed(now);
        match client.due(now) {
            Due::Nothing => {}
            Due::Resend => {
                self.transports.send(client.octets.clone(), client.target);
            }
            Due::Move if client.rang => self.reconsider(number, now),
            Due::Move => {
                let (target, sent) = (client.target, client.sent);
                let tried = client.journey.as_ref().map_or(&[][..], |journey| &journey.tried);
                // A peer that lives has said so within this time (RFC 3261 section 17.2.1), or to somebody else.
                let silent = !self.peers.heard_since(target, sent);
                if silent && self.peers.best(now, tried, false).is_some() {
                    self.peers.lost(target, "it did not answer a request", now);
                    self.advance(number, now);
                }
            }
            Due::Timeout => {
                if let Some(client) = self.clients.remove(number) {
                    self.timed_out(&client, now);
                }
            }
            Due::Forget => drop(self.clients.remove(number)),
        }
        self.arm_client(number);
    }

    fn timed_out(&mut self, client: &Client, now: Instant) {
        if !self.peers.heard_since(client.target, client.sent) {
            self.peers.lost(client.target, "it did not answer in time", now);
            self.doubt(client.target, now);
        }
        if let Owner::Call(call, transaction) = client.owner {
            self.tell(SipEvent::Timeout { call, transaction });
        }
    }

    /// Asks peers whether they are alive (RFC 3261 section 11).
    pub(super) fn probe(&mut self, now: Instant) {
        self.probe_armed.passed(now);
        let ringing = self.ringing();
        for target in self.peers.due(now) {
            let host = target.address;
            let local = self.transports.local(target.kind);
            let parameter = match target.kind {
                crate::config::Transport::Udp => "",
                crate::config::Transport::Tcp => ";transport=tcp",
                _ => ";transport=tls",
            };
            let request = Request {
                method: Method::Options,
                uri: format!("sip:{host}{parameter}"),
                from: format!("<sip:{local}>;tag={}", random::hex::<8>()),
                to: format!("<sip:{host}>"),
                call_id: random::hex::<16>(),
                cseq: 1,
                route: Vec::new(),
                record_route: Vec::new(),
                contact: Some(format!("<sip:{local}{parameter}>")),
                content_type: None,
                headers: vec![
                    ("Max-Forwards".into(), "70".into()),
                    ("User-Agent".into(), AGENT.into()),
                    ("Accept".into(), "application/sdp".into()),
                ],
                body: Vec::new(),
            };
            self.start(Owner::Probe, target, Box::new(Journey { request, tried: Vec::new() }), false);
            if ringing.contains(&target) {
                self.peers.watch(target, now);
            }
        }
        self.arm_probe();
    }

    pub(super) fn arm_probe(&mut self) {
        if let Some(at) = self.peers.poll_timeout().filter(|at| self.probe_armed.wants(*at)) {
            self.timers.set(at, TimerKey::Probe);
        }
    }
}

/// Seconds of Retry-After (RFC 3261 section 20.33).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.header("Retry-After").next()?;
    let digits = value.trim_start().split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().map(Duration::from_secs)
}
