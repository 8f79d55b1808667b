//! How many connections there are, of whom, and which of them nobody has answered yet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use sallyport_wire::site;

use super::TcpLimits;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are enough.
    Full,
    /// There are enough of its source.
    Source,
}

/// Numbers those that wait for an answer, in the order of their coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    all: usize,
    unanswered: usize,
}

/// Who is there.
#[derive(Debug)]
pub(super) struct Guests {
    sources: HashMap<u64, Count>,
    all: usize,
    /// Places of those that were not answered yet, the oldest first.
    unanswered: BTreeMap<Ticket, usize>,
    next: u64,
    limits: TcpLimits,
}

impl Guests {
    pub fn new(limits: &TcpLimits) -> Self {
        Self { sources: HashMap::new(), all: 0, unanswered: BTreeMap::new(), next: 0, limits: *limits }
    }

    /// Whether there is room for another one of a source; where only an unanswered one has to make room, that one's place.
    ///
    /// # Errors
    /// [`Refused`] says of what there are enough.
    pub fn room(&self, source: IpAddr) -> Result<Option<usize>, Refused> {
        let count = self.sources.get(&site(source)).copied().unwrap_or_default();
        let limits = &self.limits;
        if count.all >= limits.of_source || count.unanswered >= limits.unanswered_of_source {
            return Err(Refused::Source);
        }
        let oldest = self.unanswered.first_key_value().map(|(_, place)| *place);
        let crowded = self.all >= limits.total || self.unanswered.len() >= limits.unanswered;
        match (crowded, oldest) {
            (false, _) => Ok(None),
            (true, Some(oldest)) => Ok(Some(oldest)),
            (true, None) => Err(Refused::Full),
        }
    }

    /// Somebody has come, and has this place.
    pub fn enter(&mut self, source: IpAddr, place: usize) -> Ticket {
        let count = self.sources.entry(site(source)).or_default();
        count.all += 1;
        count.unanswered += 1;
        self.all += 1;
        let ticket = Ticket(self.next);
        self.next += 1;
        self.unanswered.insert(ticket, place);
        ticket
    }

    /// The one with this ticket was answered.
    pub fn answered(&mut self, source: IpAddr, ticket: Ticket) {
        if self.unanswered.remove(&ticket).is_some()
            && let Some(count) = self.sources.get_mut(&site(source))
        {
            count.unanswered -= 1;
        }
    }

    /// Somebody has gone; with a ticket where nobody had answered.
    pub fn leave(&mut self, source: IpAddr, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.answered(source, ticket);
        }
        self.all = self.all.saturating_sub(1);
        let site = site(source);
        if let Some(count) = self.sources.get_mut(&site) {
            count.all -= 1;
            if count.all == 0 {
                self.sources.remove(&site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guests() -> Guests {
        let limits = TcpLimits { total: 8, of_source: 4, unanswered: 3, ..TcpLimits::of_calls(0) };
        Guests::new(&TcpLimits { unanswered_of_source: 2, ..limits })
    }

    #[test]
    fn a_source_has_so_many_places_and_a_site_of_ipv6_is_one() {
        let mut guests = guests();
        let site = ["2001:db8::1", "2001:db8::ffff:1"].map(ip);
        let tickets = site.map(|source| guests.enter(source, 0));
        assert_eq!(guests.room(ip("2001:db8::3")), Err(Refused::Source));
        assert_eq!(guests.room(ip("2001:db8:0:1::3")), Ok(None));
        guests.answered(site[0], tickets[0]);
        guests.answered(site[1], tickets[1]);
        for _ in 0..2 {
            assert_eq!(guests.room(site[0]), Ok(None));
            let ticket = guests.enter(site[0], 0);
            guests.answered(site[0], ticket);
        }
        assert_eq!(guests.room(site[0]), Err(Refused::Source), "in all");
        guests.leave(site[0], None);
        assert_eq!(guests.room(site[0]), Ok(None));
    }

    #[test]
    fn the_oldest_unanswered_one_makes_room_and_answered_ones_never() {
        let mut guests = guests();
        let source = |n: u8| ip(&format!("192.0.2.{n}"));
        let tickets: Vec<Ticket> = (0..3).map(|n| guests.enter(source(n), usize::from(n))).collect();
        assert_eq!(guests.room(source(9)), Ok(Some(0)));
        guests.answered(source(0), tickets[0]);
        assert_eq!(guests.room(source(9)), Ok(None));
        guests.enter(source(9), 9);
        assert_eq!(guests.room(source(10)), Ok(Some(1)));
        for (n, ticket) in tickets.iter().enumerate() {
            guests.answered(source(n as u8), *ticket);
        }
        for n in 20..24 {
            let ticket = guests.enter(source(n), usize::from(n));
            guests.answered(source(n), ticket);
        }
        assert_eq!(guests.room(source(40)), Ok(Some(9)), "eight in all, one of them unanswered");
        guests.answered(source(9), Ticket(3));
        assert_eq!(guests.room(source(40)), Err(Refused::Full));
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let mut guests = guests();
        let (one, other) = (ip("192.0.2.1"), ip("2001:db8::1"));
        let ticket = guests.enter(one, 0);
        let known = guests.enter(other, 1);
        guests.answered(other, known);
        guests.leave(one, Some(ticket));
        guests.leave(other, None);
        assert!(guests.sources.is_empty() && guests.unanswered.is_empty() && guests.all == 0);
    }
}
