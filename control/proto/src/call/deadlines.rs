//! When what has to happen.

use std::time::Instant;

/// Deadlines of the steps under way.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    pub relay: Option<Instant>,
    pub ring: Option<Instant>,
    pub ice: Option<Instant>,
    pub dtls: Option<Instant>,
    /// An ICE restart that finds nothing.
    pub restart: Option<Instant>,
    /// The time after a 491.
    pub glare: Option<Instant>,
    pub refresh: Option<Instant>,
    pub expiry: Option<Instant>,
    pub referral: Option<Instant>,
    pub transfer: Option<Instant>,
    /// The answer to a browser that adds a picture.
    pub adding: Option<Instant>,
    /// A recorder's answer to our INVITE.
    pub recording: Option<Instant>,
    /// Its ACK to our 2xx, the time after its 491, and that of asking whether it is still there.
    pub recorder_ack: Option<Instant>,
    pub recorder_glare: Option<Instant>,
    pub recorder_alive: Option<Instant>,
    /// Another connection of the browser, whose handshake has not ended.
    pub successor: Option<Instant>,
    /// A browser that has closed its connection and may come back by another.
    pub gone: Option<Instant>,
    /// The far end has our new key.
    pub rekeyed: Option<Instant>,
    pub former: Option<Instant>,
    pub linger: Option<Instant>,
}

impl Deadlines {
    /// The next of them.
    pub fn next(&self) -> Option<Instant> {
        let setup = [self.relay, self.ring, self.ice, self.dtls, self.restart];
        let dialog = [self.glare, self.refresh, self.expiry, self.referral, self.former, self.linger];
        let later = [self.transfer, self.adding, self.recording, self.successor, self.gone, self.rekeyed];
        let recorder = [self.recorder_ack, self.recorder_glare, self.recorder_alive];
        let later = later.into_iter().chain(recorder);
        setup.into_iter().chain(dialog).chain(later).flatten().min()
    }
}

/// Whether a deadline has come; it is over then.
pub(super) fn passed(deadline: &mut Option<Instant>, now: Instant) -> bool {
    deadline.take_if(|at| *at <= now).is_some()
}
