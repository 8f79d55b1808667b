//! Who the next hop of an address is, and its hardware address: AF_XDP frames carry their own Ethernet header.
//!
//! One thread asks the kernel, so that a next hop that does not answer keeps nobody waiting; it watches what it has
//! answered and reports a neighbour that moved.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use sallyport_plan::{FlowKey, Refusal, Zone};
use sallyport_wire::frame::Link;

use crate::facts::Interface;
use crate::netlink::{Mac, Netlink, Route};

/// How long a next hop may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same, where nothing depends on it.
const HOPE: Duration = Duration::from_millis(50);
/// How often an unanswered one is looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// How often the answered ones are looked at, and the others asked for again.
const REFRESH: Duration = Duration::from_secs(1);

/// Link headers of some paths.
pub type Links = Vec<(FlowKey, Link)>;

/// What the resolver is asked.
#[derive(Debug)]
pub enum Question {
    /// Resolve these paths; the answer carries `ticket`.
    Resolve {
        /// Comes back with the answer.
        ticket: u64,
        /// Where packets are to go.
        paths: Vec<FlowKey>,
        /// The same, but the answer is good without them and waits for them but briefly; what is found later is told as moved.
        hopes: Vec<FlowKey>,
        /// Keep watching them until forgotten.
        watch: bool,
    },
    /// Nobody sends there any more.
    Forget(Vec<FlowKey>),
}

/// What the resolver says.
#[derive(Debug)]
pub enum Answer {
    /// All paths of a question, or why not.
    Resolved {
        /// Of the question.
        ticket: u64,
        /// Their links.
        links: Result<Links, Refusal>,
    },
    /// Watched paths whose next hop has another hardware address now.
    Moved(Links),
}

/// What the kernel is asked.
trait Kernel {
    /// [`Netlink::route`].
    fn route(&mut self, address: IpAddr) -> io::Result<Route>;
    /// [`Netlink::neighbours`].
    fn neighbours(&mut self, ifindex: u32) -> io::Result<Vec<(IpAddr, Mac)>>;
    /// [`Netlink::resolve`].
    fn resolve(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()>;
}

impl Kernel for Netlink {
    fn route(&mut self, address: IpAddr) -> io::Result<Route> {
        Self::route(self, address)
    }

    fn neighbours(&mut self, ifindex: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
        Self::neighbours(self, ifindex)
    }

    fn resolve(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        Self::resolve(self, ifindex, address)
    }
}

/// Starts the resolver in the network namespace of the calling thread; it ends when the returned sender is dropped.
///
/// # Errors
/// What the system says of the netlink socket or the thread.
pub fn spawn(
    interfaces: [Interface; 2],
    answer: impl Fn(Answer) + Send + 'static,
) -> io::Result<Sender<Question>> {
    let (questions, inbox) = channel();
    let resolver = Resolver {
        netlink: Netlink::open()?,
        interfaces,
        waiting: Vec::new(),
        watched: HashMap::new(),
        answer,
    };
    thread::Builder::new().name("nexthop".into()).spawn(move || resolver.run(&inbox))?;
    Ok(questions)
}

struct Waiting {
    ticket: u64,
    watch: bool,
    until: Instant,
    hops: Vec<(FlowKey, Hop)>,
    /// Until when the hopes among the hops are waited for, which begin at this one.
    hopes: (usize, Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    ifindex: u32,
    address: IpAddr,
    mac: Option<Mac>,
}

struct Resolver<F, K> {
    netlink: K,
    interfaces: [Interface; 2],
    waiting: Vec<Waiting>,
    watched: HashMap<FlowKey, Hop>,
    answer: F,
}

impl<F: Fn(Answer), K: Kernel> Resolver<F, K> {
    fn run(mut self, inbox: &Receiver<Question>) {
        let mut refresh = Instant::now() + REFRESH;
        loop {
            let pause = if self.waiting.is_empty() { REFRESH } else { GLANCE };
            match inbox.recv_timeout(pause) {
                Ok(question) => self.take(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.waiting.is_empty() {
                self.look();
            }
            if Instant::now() >= refresh {
                self.refresh();
                refresh = Instant::now() + REFRESH;
            }
        }
    }

    fn take(&mut self, question: Question) {
        match question {
            Question::Forget(paths) => {
                for path in paths {
                    self.watched.remove(&path);
                }
            }
            Question::Resolve { ticket, paths, hopes, watch } => {
                let hops: Result<Vec<_>, Refusal> =
                    paths.into_iter().map(|path| Ok((path, self.hop(&path)?))).collect();
                match hops {
                    Ok(mut hops) => {
                        let now = Instant::now();
                        let (until, first) = (now + PATIENCE, hops.len());
                        let found = hopes.into_iter().filter_map(|path| Some((path, self.hop(&path).ok()?)));
                        hops.extend(found);
                        let hopes = (first, now + HOPE);
                        self.waiting.push(Waiting { ticket, watch, until, hops, hopes });
                    }
                    Err(refusal) => (self.answer)(Answer::Resolved { ticket, links: Err(refusal) }),
                }
            }
        }
    }

    fn interface(&self, zone: Zone) -> &Interface {
        match zone {
            Zone::Outside => &self.interfaces[0],
            Zone::Inside => &self.interfaces[1],
        }
    }

    /// The route decides the gateway; the zone decides the interface, so that nothing crosses by a stray route.
    fn hop(&mut self, path: &FlowKey) -> Result<Hop, Refusal> {
        let ifindex = self.interface(path.zone).ifindex;
        let route = self.netlink.route(path.remote.ip()).map_err(|_| Refusal::Unreachable)?;
        if route.ifindex != ifindex {
            return Err(Refusal::Unreachable);
        }
        Ok(Hop { ifindex, address: route.next_hop, mac: None })
    }

    fn look(&mut self) {
        let mut table = self.table();
        let mut waiting = std::mem::take(&mut self.waiting);
        for job in &mut waiting {
            for (_, hop) in &mut job.hops {
                hop.mac = table.get(&(hop.ifindex, hop.address)).copied();
                if hop.mac.is_none() {
                    // Asked once per look and next hop; the kernel paces its own solicitations.
                    let _ = self.netlink.resolve(hop.ifindex, hop.address);
                    if let Some(mac) = self.table_entry(hop) {
                        table.insert((hop.ifindex, hop.address), mac);
                        hop.mac = Some(mac);
                    }
                }
            }
        }
        waiting.retain(|job| !self.finish(job));
        self.waiting = waiting;
    }

    fn table_entry(&mut self, hop: &Hop) -> Option<Mac> {
        let entries = self.netlink.neighbours(hop.ifindex).ok()?;
        entries.into_iter().find(|(address, _)| *address == hop.address).map(|(_, mac)| mac)
    }

    /// Answers a job that is resolved or out of patience; whether it did.
    fn finish(&mut self, job: &Waiting) -> bool {
        let (first, until) = job.hopes;
        let (needed, hoped) = job.hops.split_at(first.min(job.hops.len()));
        let hopeless = Instant::now() >= until;
        let links = |hops: &[(FlowKey, Hop)]| -> Vec<Option<(FlowKey, Link)>> {
            hops.iter().map(|(path, hop)| Some((*path, self.link(path, hop)?))).collect()
        };
        let mut hoped = links(hoped);
        if hopeless {
            hoped.retain(Option::is_some);
        }
        let links: Option<Links> = links(needed).into_iter().chain(hoped).collect();
        let links = match links {
            Some(links) => {
                if job.watch {
                    self.watched.extend(job.hops.iter().copied());
                }
                Ok(links)
            }
            None if Instant::now() >= job.until => Err(Refusal::Unreachable),
            None => return false,
        };
        (self.answer)(Answer::Resolved { ticket: job.ticket, links });
        true
    }

    fn link(&self, path: &FlowKey, hop: &Hop) -> Option<Link> {
        let Interface { mac: source_mac, dscp, .. } = *self.interface(path.zone);
        hop.mac.map(|destination_mac| Link { source_mac, destination_mac, vlan: None, dscp })
    }

    fn table(&mut self) -> HashMap<(u32, IpAddr), Mac> {
        let mut table = HashMap::new();
        for ifindex in [self.interfaces[0].ifindex, self.interfaces[1].ifindex] {
            for (address, mac) in self.netlink.neighbours(ifindex).unwrap_or_default() {
                table.insert((ifindex, address), mac);
            }
        }
        table
    }

    fn refresh(&mut self) {
        if self.watched.is_empty() {
            return;
        }
        let table = self.table();
        let (mut moved, mut missing) = (Vec::new(), HashSet::new());
        for (path, hop) in &mut self.watched {
            let now = table.get(&(hop.ifindex, hop.address)).copied();
            if now.is_none() {
                missing.insert((hop.ifindex, hop.address));
            } else if now != hop.mac {
                hop.mac = now;
                moved.push((*path, *hop));
            }
        }
        // Nobody else asks: packets leave past the kernel. It may have been down, or unknown when it was asked for.
        for (ifindex, address) in missing {
            let _ = self.netlink.resolve(ifindex, address);
        }
        let links: Links =
            moved.iter().filter_map(|(path, hop)| Some((*path, self.link(path, hop)?))).collect();
        if !links.is_empty() {
            (self.answer)(Answer::Moved(links));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;
    use std::net::SocketAddr;
    use std::rc::Rc;

    use super::*;
    use crate::facts::imagined;

    /// A kernel whose neighbours come and go.
    #[derive(Default)]
    struct State {
        neighbours: Vec<(IpAddr, Mac)>,
        asked: Vec<IpAddr>,
    }

    #[derive(Default, Clone)]
    struct Told(Rc<RefCell<State>>);

    impl Kernel for Told {
        fn route(&mut self, address: IpAddr) -> io::Result<Route> {
            Ok(Route { ifindex: 2, next_hop: address })
        }

        fn neighbours(&mut self, ifindex: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
            Ok(if ifindex == 2 { self.0.borrow().neighbours.clone() } else { Vec::new() })
        }

        fn resolve(&mut self, _: u32, address: IpAddr) -> io::Result<()> {
            self.0.borrow_mut().asked.push(address);
            Ok(())
        }
    }

    fn path(last: u8) -> FlowKey {
        let [local, remote] = [1, last].map(|last| SocketAddr::from(([10, 0, 0, last], 20_000)));
        FlowKey { zone: Zone::Inside, local, remote }
    }

    #[test]
    fn a_next_hop_that_was_unknown_or_has_gone_is_asked_for_until_it_answers() {
        let (kernel, answers) = (Told::default(), RefCell::new(Vec::new()));
        let mut resolver = Resolver {
            netlink: kernel.clone(),
            interfaces: [imagined(Zone::Outside, 1), imagined(Zone::Inside, 2)],
            waiting: Vec::new(),
            watched: HashMap::new(),
            answer: |answer| answers.borrow_mut().push(answer),
        };
        let knows = |all: &[(u8, u8)]| {
            let entry = |(last, mac): &(u8, u8)| (path(*last).remote.ip(), [*mac; 6]);
            kernel.0.borrow_mut().neighbours = all.iter().map(entry).collect();
        };
        let asked = || std::mem::take(&mut kernel.0.borrow_mut().asked);
        let told = || answers.borrow_mut().pop();
        let moved = |last: u8, mac: u8| match told() {
            Some(Answer::Moved(links)) => {
                links.len() == 1 && links[0].0 == path(last) && links[0].1.destination_mac == [mac; 6]
            }
            _ => false,
        };
        knows(&[(9, 9)]);
        resolver.take(Question::Resolve {
            ticket: 1,
            paths: vec![path(9)],
            hopes: vec![path(66)],
            watch: true,
        });
        thread::sleep(HOPE);
        resolver.look();
        assert!(matches!(told(), Some(Answer::Resolved { links: Ok(links), .. }) if links.len() == 1));
        asked();
        resolver.refresh();
        resolver.refresh();
        assert_eq!(asked(), [path(66).remote.ip(); 2], "again, and nobody who is known");
        assert!(told().is_none());
        knows(&[(9, 9), (66, 6)]);
        resolver.refresh();
        assert!(moved(66, 6) && asked().is_empty());
        knows(&[(9, 9)]);
        resolver.refresh();
        assert_eq!((asked(), told().is_none()), (vec![path(66).remote.ip()], true), "it has gone");
        knows(&[(9, 9), (66, 7)]);
        resolver.refresh();
        assert!(moved(66, 7), "another machine has its address");
        resolver.take(Question::Forget(vec![path(66)]));
        knows(&[(9, 9)]);
        resolver.refresh();
        assert!(asked().is_empty());
    }
}
