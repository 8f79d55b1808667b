//! What a worker counts itself; the translator counts the rest.

use sallyport_plan::Counter;

use super::Running;
use crate::orders::Notice;

/// Packets, by what became of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub received: u64,
    pub forwarded: u64,
    pub replied: u64,
    pub punted: u64,
    pub punt_overflow: u64,
    pub no_frame: u64,
    pub no_link: u64,
    pub transmit_full: u64,
    pub transmit_failed: u64,
    pub sent: u64,
    /// Passed on from one leg of ours to another.
    pub hairpins: u64,
    /// Passed on too often.
    pub hairpin_loop: u64,
    pub strays: u64,
    pub stray_overflow: u64,
    pub receive_errors: u64,
    /// Copies that could not leave.
    pub fork_lost: u64,
}

impl Counts {
    const fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("received", self.received),
            ("forwarded", self.forwarded),
            ("stun_answered", self.replied),
            ("punted", self.punted),
            ("punt_overflow", self.punt_overflow),
            ("sent", self.sent),
            ("hairpins", self.hairpins),
            ("drop_hairpin_loop", self.hairpin_loop),
            ("drop_no_frame", self.no_frame),
            ("drop_no_link", self.no_link),
            ("drop_transmit_full", self.transmit_full),
            ("drop_transmit_failed", self.transmit_failed),
            ("strays", self.strays),
            ("drop_stray_overflow", self.stray_overflow),
            ("receive_errors", self.receive_errors),
            ("fork_lost", self.fork_lost),
        ]
    }
}

impl<N: Fn(Notice) -> bool> Running<N> {
    /// Tells every counter, and where the frames are.
    pub(super) fn status(&mut self, ticket: u64) {
        let own = self.counts.named();
        let port = self.worker.edge.port();
        let frames = port.frames();
        let edge = port.counters().named();
        let counters = own.into_iter().chain(edge).chain(self.worker.translator.counters());
        let counters = counters.map(|(name, value)| Counter { name: name.into(), value });
        let stays = self.residence.iter().flat_map(|residence| residence.counters());
        let counters = counters.chain(stays).collect();
        (self.notify)(Notice::Status { ticket, counters, frames });
    }
}
