//! From a punted datagram to its call.

use std::time::Instant;

use sallyport_plan::{CallId, FlowKey};
use sallyport_proto::Input;
use sallyport_wire::demux::{Kind, classify};
use sallyport_wire::stun::{self, Message as Stun};

use super::Calls;

impl Calls {
    /// STUN belongs to the call that its USERNAME names, else to the call of its flow; DTLS to the call of its flow only:
    /// the relay punts it from nominated pairs and nowhere else.
    pub(super) fn punt(&mut self, path: FlowKey, call: Option<CallId>, payload: Vec<u8>) {
        if self.stun.receive(&path, &payload, Instant::now()) {
            return;
        }
        match classify(&payload) {
            Kind::Stun => {
                let id = self.by_username(&payload).or(call).or_else(|| self.by_response(&payload, &path));
                if let Some(id) = id {
                    self.input(id, Input::Stun { path, payload });
                }
            }
            Kind::Dtls => {
                if let Some(id) = call {
                    self.dtls(id, path, &payload);
                }
            }
            Kind::Rtp | Kind::Rtcp | Kind::Unknown => {}
        }
    }

    /// Left of the colon stands our user fragment (RFC 8445 section 7.2.2).
    fn by_username(&self, payload: &[u8]) -> Option<CallId> {
        let message = Stun::parse(payload).ok()?;
        let username = message.attribute(stun::USERNAME)?;
        let ours = username.split(|octet| *octet == b':').next()?;
        self.index.by_ufrag(ours)
    }

    /// Answers carry no user name: the call is the one that sent a check there.
    fn by_response(&self, payload: &[u8], path: &FlowKey) -> Option<CallId> {
        let message = Stun::parse(payload).ok()?;
        let check = message.transaction_id();
        let id = self.index.by_check(check)?;
        self.calls.get(&id).is_some_and(|runtime| runtime.sent(path, check)).then_some(id)
    }
}
