//! Port pairs inside: which are free, taken, or at rest after a call.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, PortPair, Refusal};

/// How long a released pair rests, so that the next call does not hear the last one's late packets.
pub const REST: Duration = Duration::from_secs(30);

/// Hands out even/odd port pairs of the inside addresses.
#[derive(Debug)]
pub struct Ports {
    addresses: Vec<IpAddr>,
    free: HashMap<IpAddr, VecDeque<u16>>,
    resting: VecDeque<(Instant, IpAddr, u16)>,
    taken: HashMap<CallId, Vec<PortPair>>,
}

impl Ports {
    /// All pairs with an even lower port from `low` to `high` on every address.
    pub fn new(addresses: &[IpAddr], low: u16, high: u16) -> Self {
        let first = low + low % 2;
        let evens: VecDeque<u16> = (first..high).step_by(2).collect();
        Self {
            addresses: addresses.to_vec(),
            free: addresses.iter().map(|address| (*address, evens.clone())).collect(),
            resting: VecDeque::new(),
            taken: HashMap::new(),
        }
    }

    /// Takes `count` pairs of the family of `toward` for a call.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a count that is not 1 to 8 or a call that has pairs already, [`Refusal::NoPorts`]
    /// where not so many are free; nothing is taken then.
    pub fn reserve(
        &mut self,
        call: CallId,
        toward: IpAddr,
        count: u8,
        now: Instant,
    ) -> Result<Vec<PortPair>, Refusal> {
        if !(1..=8).contains(&count) || self.taken.contains_key(&call) {
            return Err(Refusal::Malformed);
        }
        self.wake(now);
        let address = self.addresses.iter().find(|own| own.is_ipv4() == toward.is_ipv4());
        let address = *address.ok_or(Refusal::Unreachable)?;
        let free = self.free.get_mut(&address).ok_or(Refusal::NoPorts)?;
        if free.len() < usize::from(count) {
            return Err(Refusal::NoPorts);
        }
        let pairs: Vec<PortPair> = free.drain(..usize::from(count)).map(|port| pair(address, port)).collect();
        self.taken.insert(call, pairs.clone());
        Ok(pairs)
    }

    /// Gives a call the pairs that its plan names, as after a restart of the relay.
    pub fn adopt(&mut self, call: CallId, locals: impl Iterator<Item = SocketAddr>) {
        for local in locals {
            let rtp = SocketAddr::new(local.ip(), local.port() & !1);
            let Some(free) = self.free.get_mut(&rtp.ip()) else { continue };
            if let Some(at) = free.iter().position(|port| *port == rtp.port()) {
                free.remove(at);
                self.taken.entry(call).or_default().push(pair(rtp.ip(), rtp.port()));
            }
        }
    }

    /// Whether `local` is one of the call's ports.
    pub fn owns(&self, call: CallId, local: SocketAddr) -> bool {
        let pairs = self.taken.get(&call).map(Vec::as_slice).unwrap_or_default();
        pairs.iter().any(|pair| pair.rtp == local || pair.rtcp == local)
    }

    /// The call's ports.
    pub fn of(&self, call: CallId) -> impl Iterator<Item = SocketAddr> + '_ {
        self.taken.get(&call).into_iter().flatten().flat_map(|pair| [pair.rtp, pair.rtcp])
    }

    /// Puts the call's pairs to rest; returns them.
    pub fn release(&mut self, call: CallId, now: Instant) -> Vec<PortPair> {
        let pairs = self.taken.remove(&call).unwrap_or_default();
        self.resting.extend(pairs.iter().map(|pair| (now + REST, pair.rtp.ip(), pair.rtp.port())));
        pairs
    }

    /// Calls that hold pairs.
    pub fn holders(&self) -> impl Iterator<Item = CallId> + '_ {
        self.taken.keys().copied()
    }

    /// Pairs taken.
    pub fn taken(&self) -> usize {
        self.taken.values().map(Vec::len).sum()
    }

    fn wake(&mut self, now: Instant) {
        while let Some((until, address, port)) = self.resting.front().copied() {
            if until > now {
                break;
            }
            self.resting.pop_front();
            if let Some(free) = self.free.get_mut(&address) {
                free.push_back(port);
            }
        }
    }
}

fn pair(address: IpAddr, port: u16) -> PortPair {
    PortPair { rtp: SocketAddr::new(address, port), rtcp: SocketAddr::new(address, port + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn pairs_are_even_and_rest_after_release() {
        let now = Instant::now();
        let mut ports = Ports::new(&[HERE], 20001, 20005);
        let first = ports.reserve(CallId(1), HERE, 1, now).unwrap();
        assert_eq!((first[0].rtp.port(), first[0].rtcp.port()), (20002, 20003));
        assert!(ports.owns(CallId(1), first[0].rtcp) && !ports.owns(CallId(2), first[0].rtcp));
        ports.reserve(CallId(2), HERE, 1, now).unwrap();
        assert_eq!(ports.reserve(CallId(3), HERE, 1, now), Err(Refusal::NoPorts));
        assert_eq!(ports.release(CallId(1), now), first);
        assert_eq!(ports.reserve(CallId(3), HERE, 1, now), Err(Refusal::NoPorts));
        assert_eq!(ports.reserve(CallId(3), HERE, 1, now + REST).unwrap(), first);
        assert_eq!(ports.taken(), 2);
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let now = Instant::now();
        let mut ports = Ports::new(&[HERE], 20000, 20003);
        assert_eq!(ports.reserve(CallId(1), HERE, 3, now), Err(Refusal::NoPorts));
        assert_eq!(ports.reserve(CallId(1), HERE, 0, now), Err(Refusal::Malformed));
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(ports.reserve(CallId(1), v6, 1, now), Err(Refusal::Unreachable));
        assert_eq!(ports.taken(), 0);
        assert_eq!(ports.reserve(CallId(1), HERE, 2, now).unwrap().len(), 2);
        assert_eq!(ports.reserve(CallId(1), HERE, 1, now), Err(Refusal::Malformed));
    }

    #[test]
    fn adopted_pairs_are_not_given_twice() {
        let now = Instant::now();
        let mut ports = Ports::new(&[HERE], 20000, 20003);
        let locals = [20000, 20001].map(|port| SocketAddr::new(HERE, port));
        ports.adopt(CallId(1), locals.into_iter());
        assert_eq!(ports.taken(), 1);
        assert_eq!(ports.reserve(CallId(2), HERE, 2, now), Err(Refusal::NoPorts));
    }
}
