//! A relay that goes and comes, gives ports in the middle of a call, or refuses.

use std::time::Instant;

use sallyport_plan::{PortPair, Refusal};

use super::{Call, adding};
use crate::api::EndCause;

impl Call {
    /// Ports that came in the middle of the call; a recording asks for more than a picture does.
    pub(super) fn reserved_later(&mut self, ports: &[PortPair], now: Instant) {
        if self.recording.waits_for_ports() && ports.len() > 1 {
            self.reserved_for_recording(ports, now);
        } else {
            self.reserved_for_picture(ports.first(), now);
        }
    }

    /// What is not installed yet is lost with the connection: its ports are free for others. What runs goes on, and has
    /// some time to be found again.
    pub(super) fn relay_away(&mut self, now: Instant) {
        if self.cause.is_some() || self.relayed.away {
            return;
        }
        if self.relayed.installed == 0 || self.outside.nominated.is_none() {
            self.end(EndCause::RelayLost, now);
            return;
        }
        self.relayed.away = true;
        self.tell_renegotiated();
        self.picture_refused(now);
        self.video.lose_ports();
        self.recording_loses_relay();
        self.deadlines.relay = Some(now + self.settings.timeouts.away);
    }

    /// What was on its way while the relay went may have arrived or not; what came about since is still to be told.
    pub(super) fn relay_back(&mut self, version: u32, now: Instant) {
        if self.cause.is_some() || !self.relayed.away {
            return;
        }
        self.deadlines.relay = None;
        self.recording_installed(version);
        if self.relayed.returns(version) {
            self.replan(now);
        }
        self.tell_connected();
    }

    pub(super) fn refused(&mut self, refusal: Refusal, now: Instant) {
        let of_ports = matches!(refusal, Refusal::NoPorts | Refusal::TooLarge | Refusal::Unreachable);
        if self.recording.waits_for_ports() && (of_ports || !self.relayed.in_flight) {
            return self.recording_over(true, now);
        }
        // Where no plan is on its way it is the ports that were asked for.
        let ports = self.adding == Some(adding::Adding::Ports) && !self.relayed.in_flight;
        if ports || (refusal == Refusal::NoPorts && self.adding.is_some()) {
            return self.picture_refused(now);
        }
        self.deadlines.relay = None;
        self.relayed.in_flight = false;
        if !self.recording_refused(now) {
            self.end(EndCause::Refused(refusal), now);
        }
    }
}
