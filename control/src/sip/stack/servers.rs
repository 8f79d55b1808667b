//! Requests of others: judged, remembered, answered.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use sallyport_proto::sip::{Method, Request, Response, TransactionId};

use super::{Stack, TimerKey, stamp};
use crate::message::{ConnectionId, SipEvent, Source};
use crate::random;
use crate::sip::client::Due;
use crate::sip::server::{Merge, Server, ServerKey};
use crate::sip::transport::Target;
use crate::sip::{codec, has_tag, outside};

/// Requests of others that are remembered at once, and octets that they may take; beyond, they are answered 503 and
/// forgotten. What is not from our peers within a dialog may take half of it.
pub const SERVERS_MAX: usize = 10_000;
pub const OCTETS_MAX: usize = 16 * 1024 * 1024;

/// All server transactions, by our number, and the ways to find them.
#[derive(Debug, Default)]
pub struct Servers {
    pub open: HashMap<TransactionId, Server>,
    by_key: HashMap<ServerKey, TransactionId>,
    by_merge: HashMap<Merge, TransactionId>,
    /// INVITEs by Call-ID and CSeq: an ACK to a 2xx has a branch of its own.
    by_call: HashMap<(String, u32), HashSet<TransactionId>>,
    by_connection: HashMap<ConnectionId, HashSet<TransactionId>>,
    /// Octets that `open` takes.
    pub held: usize,
    next: u64,
}

impl Servers {
    fn number(&mut self) -> TransactionId {
        let number = TransactionId(self.next);
        self.next += 1;
        number
    }

    fn insert(&mut self, server: Server) -> TransactionId {
        let number = self.number();
        self.held += server.cost();
        self.by_key.insert(server.key.clone(), number);
        if let Some(merge) = &server.merge {
            self.by_merge.insert(merge.clone(), number);
        }
        if server.is_invite() {
            self.by_call.entry((server.call_id.clone(), server.cseq)).or_default().insert(number);
        }
        if let Some(connection) = server.key.source.connection {
            self.by_connection.entry(connection).or_default().insert(number);
        }
        self.open.insert(number, server);
        number
    }

    fn forget(&mut self, number: TransactionId) {
        let Some(server) = self.open.remove(&number) else { return };
        self.held = self.held.saturating_sub(server.cost());
        self.by_key.remove(&server.key);
        if let Some(merge) = server.merge.as_ref().filter(|merge| self.by_merge.get(merge) == Some(&number)) {
            self.by_merge.remove(merge);
        }
        if server.is_invite() {
            leave(&mut self.by_call, &(server.call_id, server.cseq), number);
        }
        if let Some(connection) = server.key.source.connection {
            leave(&mut self.by_connection, &connection, number);
        }
    }

    /// What came over a connection needs no answer any more.
    pub fn forget_all_of(&mut self, connection: ConnectionId) {
        for number in self.by_connection.remove(&connection).unwrap_or_default() {
            self.forget(number);
        }
    }

    /// Whether nothing at all is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
            && self.by_key.is_empty()
            && self.by_merge.is_empty()
            && self.by_call.is_empty()
            && self.by_connection.is_empty()
            && self.held == 0
    }
}

/// Takes a number out of one of the sets, and the set away with the last.
fn leave<K: std::hash::Hash + Eq>(
    sets: &mut HashMap<K, HashSet<TransactionId>>,
    key: &K,
    number: TransactionId,
) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&number);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl Stack {
    pub(super) fn reply(&mut self, transaction: TransactionId, response: &Response) {
        let Some(server) = self.servers.open.get_mut(&transaction) else { return };
        let route = if response.status < 300 { server.record_route.as_slice() } else { &[] };
        let octets = codec::response(response, &server.vias, route);
        self.servers.held = self.servers.held.saturating_sub(server.cost());
        let source = server.key.source;
        if response.status < 200 {
            server.progressed(octets.clone());
        } else {
            let repeats = server.is_invite() && (!source.kind.is_reliable() || response.status < 300);
            server.answered(octets.clone(), repeats, Instant::now());
        }
        self.servers.held += server.cost();
        self.arm_server(transaction);
        self.transports.send(octets, source);
    }

    pub(super) fn incoming(
        &mut self,
        request: Request,
        mut vias: Vec<String>,
        record_route: Vec<String>,
        source: Target,
    ) {
        let Some(top) = vias.first_mut() else { return };
        let branch = branch_of(top, &request);
        *top = stamp(top, source.address);
        if request.method == Method::Ack {
            self.acknowledge(&branch, request, source);
            return;
        }
        let key = ServerKey { branch, source, method: request.method.clone() };
        if let Some(server) = self.servers.by_key.get(&key).and_then(|id| self.servers.open.get(id)) {
            if let Some(answer) = server.answer.clone() {
                self.transports.send(answer, source);
            }
            return;
        }
        let inside = has_tag(&request.to);
        let merge = (!inside && request.method != Method::Cancel).then(|| merge_of(&request));
        if let Some((status, reason)) = self.objection(&request, (merge.as_ref(), &vias), source) {
            self.refuse(reason);
            let mut refusal = Response::to_request(&request, status, reason);
            if !inside {
                refusal.to = format!("{};tag={}", refusal.to, random::hex::<8>());
            }
            self.transports.send(codec::response(&refusal, &vias, &[]), source);
            return;
        }
        let invite = ServerKey { method: Method::Invite, ..key.clone() };
        let cancels =
            (request.method == Method::Cancel).then(|| self.servers.by_key.get(&invite).copied()).flatten();
        let server = Server::new(&request, key, merge, (vias, record_route), Instant::now());
        let transaction = self.servers.insert(server);
        self.arm_server(transaction);
        match (cancels, source.connection) {
            (Some(invite), _) => self.cancelled(invite, transaction, &request),
            _ if inside => self.tell(SipEvent::Request { source: way(source), transaction, request }),
            (None, Some(connection)) if request.method != Method::Cancel => {
                self.tell(SipEvent::Gateway { connection, transaction, request });
            }
            (None, None) if request.method == Method::Invite => {
                self.tell(SipEvent::Request { source: Source::Sip, transaction, request });
            }
            _ => {
                if let Some(answer) = outside::answer(&request) {
                    self.reply(transaction, &answer);
                }
            }
        }
    }

    /// Why a request is not taken in.
    fn objection(
        &self,
        request: &Request,
        (merge, vias): (Option<&Merge>, &[String]),
        source: Target,
    ) -> Option<(u16, &'static str)> {
        // Who is in a dialog shows its tag, which is long and random: an agent may well speak past its server.
        let begins = request.method == Method::Invite && !has_tag(&request.to);
        if begins && source.connection.is_none() && !self.hears(source) {
            return Some((403, "Forbidden"));
        }
        let ongoing = |id: &TransactionId| self.servers.open.get(id).is_some_and(|server| !server.done);
        if merge.and_then(|merge| self.servers.by_merge.get(merge)).is_some_and(ongoing)
            || (!has_tag(&request.to) && self.came_back(request, vias))
        {
            return Some((482, "Loop Detected"));
        }
        self.is_full(request, source).then_some((503, "Service Unavailable"))
    }

    /// Whether a request of ours comes back as it left us: below the Via of who sent it on stands ours (RFC 3261 section
    /// 16.3). With another URI it may: that is a call from a browser to another, whose requests within it come back as well.
    fn came_back(&self, request: &Request, vias: &[String]) -> bool {
        let below = vias.iter().skip(1).filter_map(|via| codec::parameter(via, "branch"));
        below.into_iter().any(|branch| self.clients.sent(branch, request))
    }

    /// Whether calls are taken from there.
    fn hears(&self, source: Target) -> bool {
        let ip = source.address.ip();
        // Ours as well: without a server, calls of browsers to browsers come back to us.
        let own = ip == self.transports.local(source.kind).ip();
        own || self.peers.is_peer(ip) || self.accept.iter().any(|network| network.contains(ip))
    }

    /// A CANCEL of an INVITE that we know: it is answered whatever has become of that (RFC 3261 section 9.2).
    fn cancelled(&mut self, invite: TransactionId, cancel: TransactionId, request: &Request) {
        self.reply(cancel, &Response::to_request(request, 200, "OK"));
        if self.servers.open.get(&invite).is_some_and(|server| !server.done) {
            self.tell(SipEvent::Cancelled { transaction: invite, call_id: request.call_id.clone() });
        }
    }

    /// Whether there is no room to remember this request; strangers cannot take what our peers need to end their calls,
    /// nor browsers what telephony needs to begin one.
    fn is_full(&self, request: &Request, source: Target) -> bool {
        let part = match source.connection {
            Some(_) => 4,
            None if has_tag(&request.to) && self.peers.is_peer(source.address.ip()) => 1,
            None => 2,
        };
        self.servers.open.len() >= SERVERS_MAX / part || self.servers.held >= OCTETS_MAX / part
    }

    /// An ACK ends the repetition of the answer; one to a 2xx is the call's as well.
    fn acknowledge(&mut self, branch: &str, request: Request, source: Target) {
        let same = self.servers.by_call.get(&(request.call_id.clone(), request.cseq));
        let same: Vec<TransactionId> = same.into_iter().flatten().copied().collect();
        for number in same {
            let Some(server) = self.servers.open.get_mut(&number) else { continue };
            server.acknowledged();
            if server.key.branch == branch {
                return;
            }
        }
        let transaction = self.servers.number();
        self.tell(SipEvent::Request { source: way(source), transaction, request });
    }

    fn arm_server(&mut self, number: TransactionId) {
        let Some(server) = self.servers.open.get_mut(&number) else { return };
        let at = server.poll_timeout();
        if server.armed.wants(at) {
            self.timers.set(at, TimerKey::Server(number));
        }
    }

    pub(super) fn server_due(&mut self, number: TransactionId, now: Instant) {
        let Some(server) = self.servers.open.get_mut(&number) else { return };
        server.armed.passed(now);
        match server.due(now) {
            Due::Resend => {
                let (answer, source) = (server.answer.clone(), server.key.source);
                if let Some(answer) = answer {
                    self.transports.send(answer, source);
                }
            }
            Due::Timeout | Due::Forget => self.servers.forget(number),
            Due::Nothing | Due::Move => {}
        }
        self.arm_server(number);
    }
}

/// Which side a message came from.
fn way(source: Target) -> Source {
    source.connection.map_or(Source::Sip, Source::WebSocket)
}

fn tag_of(value: &str) -> &str {
    codec::parameter(value, "tag").unwrap_or_default()
}

fn merge_of(request: &Request) -> Merge {
    // With its URI: a group that rings several of our numbers at once is as many calls.
    (tag_of(&request.from).to_owned(), format!("{} {}", request.call_id, request.uri), request.cseq)
}

/// Branch and sent-by where the branch is one of RFC 3261, else what RFC 2543 tells transactions apart by (RFC 3261 section 17.2.3).
fn branch_of(via: &str, request: &Request) -> String {
    match codec::parameter(via, "branch") {
        Some(branch) if branch.len() > COOKIE.len() && starts_with_cookie(branch) => {
            let head = via.split(';').next().unwrap_or_default();
            let sent_by = head.split_whitespace().next_back().unwrap_or_default();
            format!("{branch} {}", sent_by.to_ascii_lowercase())
        }
        _ => {
            let Request { uri, from, to, call_id, cseq, .. } = request;
            // To of an ACK has a tag that To of its INVITE has not.
            let to = to.split_once(';').map_or(to.as_str(), |(to, _)| to);
            format!("{uri}\n{}\n{to}\n{call_id}\n{cseq}\n{via}", tag_of(from))
        }
    }
}

const COOKIE: &str = "z9hG4bK";

/// Tokens are compared without regard to case (RFC 3261 section 7.3.1).
fn starts_with_cookie(branch: &str) -> bool {
    branch.get(..COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(COOKIE))
}
