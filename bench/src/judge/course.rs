//! Which trouble comes in front of which packet: around the first packets, half a turn of the outgoing numbers, their wrap, and in
//! between.

use sallyport_lab::trouble::Trouble;

/// What happens to a phone's stream to a browser.
pub const OUTWARD: [Trouble; 10] = [
    Trouble::Hold,
    Trouble::Transfer,
    Trouble::Straggler,
    Trouble::Restart,
    Trouble::Source,
    Trouble::HoldAndRewind,
    Trouble::Intruder,
    Trouble::Clock,
    Trouble::Rewind,
    Trouble::Skip(500),
];
/// What happens to a browser's stream to a phone: its numbers never go back under one key.
pub const INWARD: [Trouble; 6] =
    [Trouble::Intruder, Trouble::Source, Trouble::Hold, Trouble::Restart, Trouble::Clock, Trouble::Skip(500)];

/// Packets between two troubles: a source that begins anew needs two to be believed.
const APART: u32 = 4;
/// Where troubles begin.
const EARLY: u32 = 3;
/// A place where nothing else is going on.
const PLAIN: u32 = 10_000;
/// Where a short call begins to skip numbers, to come to the end of the turn soon; so many at once, and so far apart: of what a
/// restart of the relay steps over they use up a sixth each, and several pass before the relay has kept where it is.
const RUN_UP: u32 = 300;
const SKIPPED: u16 = 300;
const STRIDE: u32 = 15;
/// Numbers that are left for the troubles in front of the end.
const ROOM: i64 = 700;
/// Packets behind the last trouble of a short call.
const REST: u32 = 400;
/// One turn of sequence numbers.
const TURN: i64 = 65_536;

/// A call's troubles in their order.
#[derive(Debug, Clone)]
pub struct Course {
    kinds: Vec<Trouble>,
    turn: usize,
    hold_last: bool,
    due: Vec<(u32, Trouble)>,
    /// How far the outgoing numbers are ahead of the packets sent, beside their first one.
    shift: i64,
}

impl Course {
    /// Begins with those in front of the first packets. `turn` has others in the same place; a short call has two there.
    /// With `hold_last` it is held at the wrap only.
    pub fn begin(kinds: &[Trouble], turn: usize, short: bool, hold_last: bool) -> Self {
        let mut kinds = kinds.to_vec();
        let length = kinds.len().max(1);
        kinds.rotate_left(turn % length);
        let mut course = Self { kinds, turn, hold_last, due: Vec::new(), shift: 0 };
        if short {
            course.push(EARLY, Trouble::Source);
            course.push(EARLY + APART, Trouble::Clock);
        } else {
            let kinds = course.kinds.clone();
            let kinds = kinds.into_iter().filter(|kind| !hold_last || *kind != Trouble::Hold);
            (0..).step_by(APART as usize).zip(kinds).for_each(|(at, kind)| course.push(EARLY + at, kind));
        }
        course
    }

    /// Those so far.
    pub fn due(&self) -> &[(u32, Trouble)] {
        &self.due
    }

    /// The rest of a long call, where the first outgoing number is known.
    pub fn long(&mut self, packets: u32, first: u16) -> Vec<(u32, Trouble)> {
        let before = self.due.len();
        self.around(i64::from(PLAIN) + i64::from(first) + self.shift, first);
        self.around(TURN / 2, first);
        self.around(TURN, first);
        self.due.retain(|(at, _)| *at < packets);
        self.due.split_off(before)
    }

    /// The rest of a short call, and how many packets it has.
    pub fn short(&mut self, first: u16) -> (Vec<(u32, Trouble)>, u32) {
        let before = self.due.len();
        let mut at = RUN_UP;
        while self.outgoing(at, first) + i64::from(SKIPPED) + ROOM < TURN {
            self.push(at, Trouble::Skip(SKIPPED));
            at += STRIDE;
        }
        self.around(TURN, first);
        let end = self.due.last().map_or(at, |(at, _)| *at) + REST;
        (self.due.split_off(before), end)
    }

    fn push(&mut self, at: u32, trouble: Trouble) {
        self.shift += trouble.shift();
        self.due.push((at, trouble));
    }

    /// The outgoing number of a packet behind all troubles so far.
    fn outgoing(&self, packet: u32, first: u16) -> i64 {
        i64::from(packet) + i64::from(first) + self.shift
    }

    /// Each kind once, the one in the middle in front of this outgoing number or up to three behind it.
    fn around(&mut self, outgoing: i64, first: u16) {
        let (mut kinds, apart) = (self.kinds.clone(), i64::from(APART));
        if self.hold_last && outgoing != TURN {
            kinds.retain(|kind| *kind != Trouble::Hold);
        }
        let middle = (kinds.len() / 2) as i64;
        let begin = outgoing + (self.turn % APART as usize) as i64 - middle * apart;
        // What lies in front of skipped numbers begins so much earlier.
        let skips = (0..).zip(&kinds).find_map(|(place, kind)| match kind {
            Trouble::Skip(numbers) if place < middle => Some((place, i64::from(*numbers))),
            _ => None,
        });
        for (place, kind) in (0..).zip(kinds) {
            let earlier = skips.filter(|(skip, _)| place <= *skip).map_or(0, |(_, numbers)| numbers);
            let wanted = begin + place * apart - earlier - i64::from(first) - self.shift;
            let earliest = self.due.last().map_or(0, |(at, _)| at + APART);
            self.push(u32::try_from(wanted).unwrap_or(0).max(earliest), kind);
        }
        // Other kinds are in the middle of the next group.
        self.kinds.rotate_left(3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outgoing numbers in front of which each kind happens.
    fn played(early: &[(u32, Trouble)], rest: &[(u32, Trouble)], first: u16) -> Vec<(Trouble, i64)> {
        let all: Vec<_> = [early, rest].concat();
        assert!(all.windows(2).all(|pair| pair[1].0 >= pair[0].0 + APART), "{all:?}");
        let mut shift = i64::from(first);
        let number = |(at, trouble): &(u32, Trouble)| {
            let outgoing = i64::from(*at) + shift;
            shift += trouble.shift();
            (*trouble, outgoing)
        };
        all.iter().map(number).collect()
    }

    #[test]
    fn a_long_call_has_every_kind_around_each_place() {
        for (turn, first) in (0..12).zip([256, 300, 9000, 12_543].into_iter().cycle()) {
            let mut course = Course::begin(&OUTWARD, turn, false, false);
            let early = course.due().to_vec();
            let all = played(&early, &course.long(70_000, first), first);
            assert_eq!(all.len(), 40, "turn {turn}");
            for place in [32_768, 65_536] {
                let near = all.iter().filter(|(_, outgoing)| (outgoing - place).abs() < 600).count();
                assert_eq!(near, 10, "turn {turn}, {place}");
                let exact = place + i64::try_from(turn).unwrap() % 4;
                let exact = all.iter().any(|(_, outgoing)| *outgoing == exact);
                assert!(exact, "turn {turn}, {place}: {all:?}");
            }
        }
    }

    #[test]
    fn over_the_turns_every_kind_is_at_the_wrap() {
        let mut at_wrap = Vec::new();
        for turn in 0..10 {
            let mut course = Course::begin(&OUTWARD, turn, true, false);
            let early = course.due().to_vec();
            let (rest, end) = course.short(9000);
            let all = played(&early, &rest, 9000);
            let near = all.iter().filter(|(_, outgoing)| (65_536..65_540).contains(outgoing));
            at_wrap.extend(near.map(|(kind, _)| *kind));
            assert!(end < 4400, "{end}: no more than 22 s");
        }
        let all = OUTWARD.iter().filter(|kind| at_wrap.contains(kind)).count();
        assert_eq!(all, 10, "{at_wrap:?}");
    }

    #[test]
    fn a_call_of_fewer_packets_has_what_fits() {
        let mut course = Course::begin(&INWARD, 0, false, false);
        assert_eq!(course.due().len(), 6);
        assert!(course.long(9000, 256).is_empty());
        let mut course = Course::begin(&INWARD, 0, false, true);
        let all = [course.due().to_vec(), course.long(70_000, 256)].concat();
        let holds: Vec<u32> =
            all.iter().filter(|(_, kind)| *kind == Trouble::Hold).map(|(at, _)| *at).collect();
        assert!(matches!(holds[..], [at] if at > 60_000), "{holds:?}");
    }
}
