//! Where peers inside really send from, and are sent to (symmetric RTP, RFC 4961): a port of the address that they signalled.

use std::net::SocketAddr;

use sallyport_plan::{FlowKey, Plan, Zone};

/// Peers that turned out to be at other ports than they signalled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// One of each port of ours at the most.
    heard: Vec<Heard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    /// Our address and port.
    local: SocketAddr,
    signalled: SocketAddr,
    /// Where it is.
    from: SocketAddr,
}

impl Sources {
    /// What a plan says of that; `signalled`: addresses and ports of ours, and what was signalled of who is at their other ends.
    pub fn of(plan: &Plan, signalled: &[(SocketAddr, SocketAddr)]) -> Self {
        let mut sources = Self::default();
        for flow in plan.directions.iter().flat_map(|direction| &direction.ingress) {
            sources.hear(flow, signalled);
        }
        sources
    }

    /// The relay hears a peer by a flow; whether that is news. Another address than was signalled is none.
    pub fn hear(&mut self, flow: &FlowKey, signalled: &[(SocketAddr, SocketAddr)]) -> bool {
        let ours = signalled.iter().find(|(local, _)| flow.zone == Zone::Inside && *local == flow.local);
        let Some((local, signalled)) = ours.copied() else { return false };
        let from = flow.remote;
        let heard = Heard { local, signalled, from };
        if from.ip() != signalled.ip() || from.port() == 0 || self.heard.contains(&heard) {
            return false;
        }
        let before = self.heard.len();
        self.heard.retain(|former| former.local != local);
        if from != signalled {
            self.heard.push(heard);
        }
        self.heard.len() != before || from != signalled
    }

    /// Forgets those of whom something else is signalled by now.
    pub fn keep(&mut self, signalled: &[(SocketAddr, SocketAddr)]) {
        self.heard.retain(|heard| signalled.contains(&(heard.local, heard.signalled)));
    }

    /// Has a plan, made of what was signalled, hear where the peers are, and send there where it is to.
    pub fn settle(&self, plan: &mut Plan, sends: bool) {
        for direction in &mut plan.directions {
            let egress = [&mut direction.rtp, &mut direction.rtcp].into_iter().filter(|_| sends);
            let paths = direction.ingress.iter_mut().chain(egress);
            for path in paths.filter(|path| path.zone == Zone::Inside) {
                let heard = self
                    .heard
                    .iter()
                    .find(|heard| (heard.local, heard.signalled) == (path.local, path.remote));
                path.remote = heard.map_or(path.remote, |heard| heard.from);
            }
        }
    }
}
