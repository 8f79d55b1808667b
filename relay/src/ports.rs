//! Port pairs inside: which are free, taken, or at rest after a call.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, PortPair, Refusal};

/// How long a released pair rests, so that the next call does not hear the last one's late packets.
pub const REST: Duration = Duration::from_secs(30);
/// How long it rests where every other pair is taken or rests. By then only a far end that has not heard of its call's end
/// still sends, and its packets are taken only by a plan that names the same address and port of it again.
pub const REST_LEAST: Duration = Duration::from_secs(5);

/// Pairs of a call.
const MOST: usize = 8;

/// Hands out even/odd port pairs of the inside addresses.
#[derive(Debug)]
pub struct Ports {
    addresses: Vec<IpAddr>,
    pools: HashMap<IpAddr, Pool>,
    taken: HashMap<CallId, Vec<PortPair>>,
    hurried: u64,
}

/// Pairs of one address, by their even ports.
#[derive(Debug, Clone)]
struct Pool {
    free: VecDeque<u16>,
    /// With when they were released, the longest ago first.
    resting: VecDeque<(Instant, u16)>,
}

impl Pool {
    /// How many have rested so long.
    fn rested(&self, rest: Duration, now: Instant) -> usize {
        let rested = |(released, _): &&(Instant, u16)| now.saturating_duration_since(*released) >= rest;
        self.resting.iter().take_while(rested).count()
    }

    /// The `count` that have rested longest are free.
    fn wake(&mut self, count: usize) {
        self.free.extend(self.resting.drain(..count).map(|(_, port)| port));
    }
}

impl Ports {
    /// All pairs with an even lower port from `low` to `high` on every address.
    pub fn new(addresses: &[IpAddr], low: u16, high: u16) -> Self {
        let first = low + low % 2;
        let evens: VecDeque<u16> = (first..high).step_by(2).collect();
        Self {
            addresses: addresses.to_vec(),
            pools: addresses
                .iter()
                .map(|address| (*address, Pool { free: evens.clone(), resting: VecDeque::new() }))
                .collect(),
            taken: HashMap::new(),
            hurried: 0,
        }
    }

    /// Takes `count` pairs of the family of `toward` for a call: such as have rested for [`REST`], and where there are none
    /// those that have rested longest, for [`REST_LEAST`] at least.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a count that is not 1 to 8, [`Refusal::TooLarge`] where the call would have more than 8,
    /// [`Refusal::NoPorts`] where not so many are free; nothing is taken then.
    pub fn reserve(
        &mut self,
        call: CallId,
        toward: IpAddr,
        count: u8,
        now: Instant,
    ) -> Result<Vec<PortPair>, Refusal> {
        if !(1..=MOST).contains(&usize::from(count)) {
            return Err(Refusal::Malformed);
        }
        if self.taken.get(&call).map_or(0, Vec::len) + usize::from(count) > MOST {
            return Err(Refusal::TooLarge);
        }
        let address = self.addresses.iter().find(|own| own.is_ipv4() == toward.is_ipv4());
        let address = *address.ok_or(Refusal::Unreachable)?;
        let pool = self.pools.get_mut(&address).ok_or(Refusal::NoPorts)?;
        pool.wake(pool.rested(REST, now));
        let missing = usize::from(count).saturating_sub(pool.free.len());
        if missing > 0 {
            if pool.rested(REST_LEAST, now) < missing {
                return Err(Refusal::NoPorts);
            }
            pool.wake(missing);
            self.hurried += u64::try_from(missing).unwrap_or(u64::MAX);
        }
        let pairs: Vec<PortPair> =
            pool.free.drain(..usize::from(count)).map(|port| pair(address, port)).collect();
        self.taken.entry(call).or_default().extend(&pairs);
        Ok(pairs)
    }

    /// Gives a call the pairs that its plan names, as after a restart of the relay.
    pub fn adopt(&mut self, call: CallId, locals: impl Iterator<Item = SocketAddr>) {
        for local in locals {
            let rtp = SocketAddr::new(local.ip(), local.port() & !1);
            let Some(pool) = self.pools.get_mut(&rtp.ip()) else { continue };
            if let Some(at) = pool.free.iter().position(|port| *port == rtp.port()) {
                pool.free.remove(at);
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
        for pair in &pairs {
            if let Some(pool) = self.pools.get_mut(&pair.rtp.ip()) {
                pool.resting.push_back((now, pair.rtp.port()));
            }
        }
        pairs
    }

    /// Puts some of the call's pairs to rest.
    pub fn give_back(&mut self, call: CallId, pairs: &[PortPair], now: Instant) {
        let Some(taken) = self.taken.get_mut(&call) else { return };
        taken.retain(|pair| !pairs.contains(pair));
        if taken.is_empty() {
            self.taken.remove(&call);
        }
        for pair in pairs {
            if let Some(pool) = self.pools.get_mut(&pair.rtp.ip()) {
                pool.resting.push_back((now, pair.rtp.port()));
            }
        }
    }

    /// Calls that hold pairs.
    pub fn holders(&self) -> impl Iterator<Item = CallId> + '_ {
        self.taken.keys().copied()
    }

    /// Pairs taken.
    pub fn taken(&self) -> usize {
        self.taken.values().map(Vec::len).sum()
    }

    /// Pairs that rested for less than [`REST`], so far: were there many, the range would be too small.
    pub fn hurried(&self) -> u64 {
        self.hurried
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
        let early = now + REST_LEAST - Duration::from_millis(1);
        assert_eq!(ports.reserve(CallId(3), HERE, 1, early), Err(Refusal::NoPorts));
        assert_eq!(ports.reserve(CallId(3), HERE, 1, now + REST).unwrap(), first);
        assert_eq!(ports.hurried(), 0, "it rested in full");
        assert_eq!(ports.taken(), 2);
    }

    #[test]
    fn under_pressure_the_pair_that_rested_longest_is_given_out_after_five_seconds() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut ports = Ports::new(&[HERE], 20000, 20007);
        let take = |ports: &mut Ports, call: u128, seconds: u64| {
            ports.reserve(CallId(call), HERE, 1, at(seconds)).map(|pairs| pairs[0].rtp.port())
        };
        for call in 0..3 {
            take(&mut ports, call, 0).unwrap();
        }
        ports.release(CallId(1), at(1));
        ports.release(CallId(0), at(2));
        assert_eq!(take(&mut ports, 10, 2), Ok(20006), "a pair that nobody had comes first");
        assert_eq!(ports.hurried(), 0);
        assert_eq!(take(&mut ports, 11, 5), Err(Refusal::NoPorts), "none has rested long enough");
        assert_eq!(take(&mut ports, 11, 6), Ok(20002));
        assert_eq!(take(&mut ports, 12, 6), Err(Refusal::NoPorts), "the other one was released later");
        assert_eq!(ports.reserve(CallId(12), HERE, 2, at(7)), Err(Refusal::NoPorts));
        assert_eq!(ports.hurried(), 1);
        assert_eq!(take(&mut ports, 13, 7), Ok(20000), "the refusal took nothing");
        assert_eq!((ports.taken(), ports.hurried()), (4, 2));
    }

    #[test]
    fn a_pool_turns_over_every_five_seconds_and_loses_no_pair() {
        let begin = Instant::now();
        let mut ports = Ports::new(&[HERE], 20000, 20199);
        for call in 0..10_000_u128 {
            // A hundred pairs, twenty calls a second: as fast as pairs come back.
            let now = begin + Duration::from_millis(50 * u64::try_from(call).unwrap());
            let pair = ports.reserve(CallId(call), HERE, 1, now).unwrap()[0];
            assert!(pair.rtp.port().is_multiple_of(2) && ports.owns(CallId(call), pair.rtcp));
            ports.release(CallId(call), now);
        }
        assert!(ports.hurried() >= 9_900 && ports.taken() == 0);
        let later = begin + Duration::from_secs(1000);
        let all: std::collections::HashSet<u16> = (0..100_u128)
            .map(|call| ports.reserve(CallId(call), HERE, 1, later).unwrap()[0].rtp.port())
            .collect();
        assert_eq!(all.len(), 100);
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
        assert_eq!(ports.reserve(CallId(1), HERE, 1, now), Err(Refusal::NoPorts));
        assert_eq!(ports.reserve(CallId(1), HERE, 7, now), Err(Refusal::TooLarge));
        assert_eq!(ports.taken(), 2);
    }

    #[test]
    fn a_call_may_have_more_in_its_middle_and_give_them_back() {
        let now = Instant::now();
        let mut ports = Ports::new(&[HERE], 20000, 20005);
        let first = ports.reserve(CallId(1), HERE, 1, now).unwrap();
        let more = ports.reserve(CallId(1), HERE, 1, now).unwrap();
        assert!(ports.owns(CallId(1), first[0].rtp) && ports.owns(CallId(1), more[0].rtcp));
        ports.give_back(CallId(1), &more, now);
        assert!(ports.owns(CallId(1), first[0].rtp) && !ports.owns(CallId(1), more[0].rtcp));
        let more = ports.reserve(CallId(1), HERE, 1, now).unwrap();
        assert_eq!(ports.release(CallId(1), now), [first, more].concat());
        assert_eq!(ports.taken(), 0);
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
