//! Around a peer that died: requests whose route names it, INVITEs that ring by way of it.

use std::collections::HashSet;
use std::time::Instant;

use sallyport_proto::sip::Request;
use sallyport_proto::sip::header::uri_of;

use super::{Stack, uri_target};
use crate::config::Transport;
use crate::message::SipEvent;
use crate::sip::client::{Client, Owner};
use crate::sip::has_tag;
use crate::sip::transport::Target;

/// Parameters of a Route that say how the one who recorded it is reached (RFC 3261 section 19.1.1), or that it did so
/// twice: they are not true of who stands in for it.
const PLACE: [&str; 4] = ["transport", "lr", "maddr", "r2"];

impl Stack {
    /// A request as it is sent by way of this peer: where its route begins with another peer, this one takes that one's
    /// place, as both serve the same domain; it would but send the request on to the other else.
    pub(super) fn by_way_of(&self, request: &Request, target: Target) -> Request {
        let mut request = request.clone();
        let hop = |route: &String| uri_target(uri_of(route));
        let Some(first) = request.route.first().and_then(hop) else { return request };
        if first == target || !self.peers.contains(target) || !self.peers.is_peer(first.address.ip()) {
            return request;
        }
        // One that joins two transports has recorded itself twice.
        let same = |route: &&String| hop(route).is_some_and(|hop| hop.address.ip() == first.address.ip());
        let passed = request.route.iter().take_while(same).count();
        let stand_in = request.route.first().map(|route| instead(uri_of(route), target));
        request.route.splice(..passed, stand_in);
        request
    }

    /// Where INVITEs ring.
    pub(super) fn ringing(&self) -> HashSet<Target> {
        let rings = |client: &&Client| client.rang && !client.done;
        self.clients.by_number.values().filter(rings).map(|client| client.target).collect()
    }

    /// A peer died: whatever rings by way of it has lost its answer, unless the peer comes back with its memory.
    pub(super) fn doubt(&mut self, peer: Target, now: Instant) {
        let rings = |(_, client): &(&u64, &Client)| client.target == peer && client.rang && !client.done;
        let rings: Vec<u64> =
            self.clients.by_number.iter().filter(rings).map(|(number, _)| *number).collect();
        for number in rings {
            if let Some(client) = self.clients.by_number.get_mut(&number) {
                client.doubt(now);
            }
            self.arm_client(number);
        }
    }

    /// Whether a request goes on though its peer cannot be reached: an INVITE that rings is looked after by
    /// [`Self::reconsider`], a request in a dialog waits for a peer as long as a transaction may (RFC 3261 section 17.1.2.2):
    /// a server that starts anew ends no call.
    pub(super) fn outlasts(&mut self, number: u64, now: Instant) -> bool {
        let Some(client) = self.clients.by_number.get_mut(&number) else { return false };
        let Owner::Call(..) = client.owner else { return false };
        let Some(journey) = client.journey.as_ref().filter(|_| !client.rang) else {
            if client.rang && client.target.connection.is_none() {
                client.doubt(now);
                self.arm_client(number);
                return true;
            }
            return false;
        };
        let inside = has_tag(&journey.request.to);
        if !inside || self.peers.best(now, &journey.tried, false).is_some() {
            return false;
        }
        client.persist(now);
        self.arm_client(number);
        true
    }

    /// An INVITE rings by way of a peer that seemed to have died: it is the call's to place it anew where another peer
    /// lives. Where none does it goes on, since who comes back passes answers on (RFC 3261 section 16.7).
    pub(super) fn reconsider(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.by_number.get_mut(&number) else { return };
        let target = client.target;
        if !self.peers.is_dead(target) {
            client.trust();
            return;
        }
        if self.peers.best(now, &[target], false).is_none() {
            return;
        }
        let owner = self.clients.remove(number).map(|client| client.owner);
        if let Some(Owner::Call(call, transaction)) = owner {
            self.tell(SipEvent::TransportError { call, transaction });
        }
    }
}

/// A Route like this one, by way of another place.
fn instead(uri: &str, target: Target) -> String {
    let name = |part: &str| part.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let kept = uri.split(';').skip(1).filter(|part| !PLACE.contains(&name(part).as_str()));
    let kept: String = kept.map(|part| format!(";{part}")).collect();
    let transport = match target.kind {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
        _ => ";transport=tls",
    };
    format!("<sip:{}{transport}{kept};lr>", target.address)
}
