//! What silences calls elsewhere, played on purpose: a source of PCMU that restarts, jumps, holds, moves and is replaced while it
//! plays one tone, whose phase goes on through all of that. What is missing in a recording is then missing for a reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::speaker::to_ulaw;
use crate::tone;

/// Samples a second of G.711.
pub const RATE: u32 = 8000;
/// Samples of a packet: 5 ms, so that 70,000 packets are less than six minutes.
pub const FRAME: u32 = 40;
/// Between two packets.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// How long a call may take to be held, and its other side to agree that it is no more.
const AGREED: Duration = Duration::from_millis(100);
/// Packets that are sent while a call is held: two seconds.
pub const HELD: u32 = 400;
/// Packets of one who has no business in the call.
const INTRUDED: u16 = 20;
/// Behind so many packets of a new source its numbers wrap.
const SOON: u16 = 4;
/// How far numbers jump that are given anew.
const ANEW: u16 = 20_000;

/// What happens in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It holds for two seconds, sends all the same, and goes on.
    Hold,
    /// It holds, and numbers its packets anew after that, under the same SSRC, from below.
    HoldAndRewind,
    /// Another source at another address, as it was signalled.
    Transfer,
    /// Another SSRC in the same place, of which nobody was told.
    Source,
    /// Somebody at an address that nobody named sends as well, under another SSRC.
    Intruder,
    /// The same SSRC numbers its packets anew, from above: its first packet is in doubt.
    Restart,
    /// The same from below.
    Rewind,
    /// The same SSRC goes on with another clock's time.
    Clock,
    /// So many numbers are never sent, as if lost; time goes on as it did.
    Skip(u16),
    /// One packet of long ago.
    Straggler,
}

impl Trouble {
    /// How much further than one a packet the outgoing numbers are behind it: those in doubt are not sent on.
    pub const fn shift(self) -> i64 {
        match self {
            Self::Skip(numbers) => numbers as i64,
            Self::Restart | Self::Rewind => -1,
            _ => 0,
        }
    }
}

/// What was played so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets, but for those below that say so.
    pub sent: u64,
    /// Among them those in doubt, which are not heard.
    pub doubtful: u64,
    /// Numbers that were never sent.
    pub skipped: u64,
    /// Further packets while it was held.
    pub held: u64,
    /// Further ones of long ago.
    pub stragglers: u64,
    /// Further ones of others.
    pub intruded: u64,
    /// Holds.
    pub holds: u32,
    /// Packets in front of the first of them.
    pub unheld: Option<u64>,
    /// Holds, ends of holds and transfers: what was on its way then may be dropped.
    pub signalled: u32,
    /// Troubles in all.
    pub troubles: u32,
    /// The longest that a packet left behind its time, but for those that waited for signalling.
    pub late: Duration,
    /// All was played.
    pub done: bool,
}

impl Tally {
    /// Packets that are to be heard.
    pub const fn heard(&self) -> u64 {
        self.sent - self.doubtful
    }
}

/// What is to be played; it may be added to while it is.
#[derive(Debug, Default)]
pub struct Score(Mutex<Sheet>);

#[derive(Debug, Default)]
struct Sheet {
    packets: u32,
    due: BTreeMap<u32, Vec<Trouble>>,
    tally: Tally,
}

impl Score {
    /// So many packets without troubles.
    pub fn new(packets: u32) -> Self {
        Self(Mutex::new(Sheet { packets, ..Sheet::default() }))
    }

    fn sheet(&self) -> MutexGuard<'_, Sheet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has troubles happen in front of these packets.
    pub fn add(&self, troubles: &[(u32, Trouble)]) {
        let mut sheet = self.sheet();
        for (at, trouble) in troubles {
            sheet.due.entry(*at).or_default().push(*trouble);
        }
    }

    /// It ends behind so many packets.
    pub fn end_at(&self, packets: u32) {
        self.sheet().packets = packets;
    }

    /// What was played so far.
    pub fn tally(&self) -> Tally {
        self.sheet().tally
    }

    fn note(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.sheet().tally);
    }

    /// Troubles in front of a packet; `None` behind the last one.
    fn next(&self, at: u32) -> Option<Vec<Trouble>> {
        let mut sheet = self.sheet();
        (at < sheet.packets).then(|| sheet.due.remove(&at).unwrap_or_default())
    }
}

/// Who sends what is played.
pub trait Mouth {
    /// Sends a packet of RTP.
    ///
    /// # Errors
    /// What the system says.
    fn say(&mut self, packet: &[u8]) -> anyhow::Result<()>;

    /// Sends it from an address that nobody named.
    ///
    /// # Errors
    /// What the system says.
    fn intrude(&mut self, packet: &[u8]) -> anyhow::Result<()>;

    /// Holds, or goes on; comes back when that is agreed on.
    ///
    /// # Errors
    /// Where it is not.
    fn hold(&mut self, held: bool) -> anyhow::Result<()>;

    /// Goes on at another address; comes back when that is agreed on.
    ///
    /// # Errors
    /// Where it is not.
    fn transfer(&mut self) -> anyhow::Result<()>;

    /// Takes in what comes until then.
    ///
    /// # Errors
    /// What the system says.
    fn listen(&mut self, until: Instant) -> anyhow::Result<()>;
}

/// A source's numbers, and the tone that it plays.
#[derive(Debug, Clone)]
pub struct Voice {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    position: usize,
    samples: Vec<u8>,
}

impl Voice {
    /// One that plays `tone`, Hz; its first packet has these numbers.
    pub fn new(tone: u32, ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        let samples = tone::sine(tone, RATE, 1).samples.into_iter().map(to_ulaw).collect();
        Self { ssrc, sequence, timestamp, position: 0, samples }
    }

    fn packet(&self, ssrc: u32, sequence: u16, timestamp: u32) -> Vec<u8> {
        let mut octets = vec![0x80, 0];
        octets.extend_from_slice(&sequence.to_be_bytes());
        octets.extend_from_slice(&timestamp.to_be_bytes());
        octets.extend_from_slice(&ssrc.to_be_bytes());
        octets.extend(self.samples.iter().cycle().skip(self.position).take(FRAME as usize));
        octets
    }

    /// The next packet.
    fn next(&mut self) -> Vec<u8> {
        let packet = self.packet(self.ssrc, self.sequence, self.timestamp);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME);
        self.position = (self.position + FRAME as usize) % self.samples.len();
        packet
    }

    /// Its numbers wrap soon after, and its time a little later.
    fn another_source(&mut self) {
        self.ssrc = self.ssrc.wrapping_add(1);
        self.sequence = SOON.wrapping_neg();
        self.timestamp = (2 * u32::from(SOON) * FRAME).wrapping_neg();
    }
}

/// Plays a score to its end.
///
/// # Errors
/// What whoever sends it met.
pub fn play(mouth: &mut dyn Mouth, voice: &mut Voice, score: &Score) -> anyhow::Result<()> {
    let (mut next, mut waited) = (Instant::now(), false);
    for at in 0.. {
        let Some(troubles) = score.next(at) else { break };
        waited |= !troubles.is_empty();
        for trouble in troubles {
            score.note(|tally| tally.troubles += 1);
            happens(trouble, at > 0, (mouth, voice, &mut next), score)?;
        }
        mouth.listen(next)?;
        let late = next.elapsed();
        // Those that waited for signalling follow each other at once.
        waited &= late >= INTERVAL;
        mouth.say(&voice.next())?;
        next += INTERVAL;
        score.note(|tally| {
            tally.sent += 1;
            if !waited {
                tally.late = tally.late.max(late);
            }
        });
    }
    score.note(|tally| tally.done = true);
    Ok(())
}

fn happens(
    trouble: Trouble,
    begun: bool,
    (mouth, voice, next): (&mut dyn Mouth, &mut Voice, &mut Instant),
    score: &Score,
) -> anyhow::Result<()> {
    match trouble {
        Trouble::Hold | Trouble::HoldAndRewind => {
            score.note(|tally| tally.unheld = tally.unheld.or(Some(tally.sent)));
            mouth.hold(true)?;
            // The answer may come before the relay obeys.
            mouth.listen(Instant::now() + AGREED)?;
            *next = Instant::now();
            for _ in 0..HELD {
                mouth.listen(*next)?;
                mouth.say(&voice.next())?;
                *next += INTERVAL;
                score.note(|tally| tally.held += 1);
            }
            mouth.hold(false)?;
            // What is said before the other side has agreed as well is held yet, as it is in any call.
            mouth.listen(Instant::now() + AGREED)?;
            *next = Instant::now();
            score.note(|tally| (tally.holds, tally.signalled) = (tally.holds + 1, tally.signalled + 2));
            if trouble == Trouble::HoldAndRewind {
                voice.sequence = voice.sequence.wrapping_sub(ANEW);
            }
        }
        Trouble::Transfer => {
            mouth.transfer()?;
            score.note(|tally| tally.signalled += 1);
            voice.another_source();
        }
        Trouble::Source => voice.another_source(),
        Trouble::Intruder => {
            for at in 0..INTRUDED {
                mouth.intrude(&voice.packet(!voice.ssrc, at, voice.timestamp))?;
                score.note(|tally| tally.intruded += 1);
            }
        }
        Trouble::Restart | Trouble::Rewind => {
            let step = if trouble == Trouble::Restart { ANEW } else { ANEW.wrapping_neg() };
            voice.sequence = voice.sequence.wrapping_add(step);
            score.note(|tally| tally.doubtful += u64::from(begun));
        }
        Trouble::Clock => voice.timestamp = voice.timestamp.wrapping_mul(5).wrapping_sub(1 << 30),
        Trouble::Skip(numbers) => {
            voice.sequence = voice.sequence.wrapping_add(numbers);
            score.note(|tally| tally.skipped += u64::from(numbers));
        }
        Trouble::Straggler => {
            mouth.say(&voice.packet(voice.ssrc, voice.sequence.wrapping_sub(700), voice.timestamp))?;
            score.note(|tally| tally.stragglers += 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sallyport_wire::rtp::Header;

    use super::*;

    /// What was said: held, transferred, by an intruder; SSRC, sequence, timestamp.
    #[derive(Default)]
    struct Ear {
        held: bool,
        place: u32,
        said: Vec<(bool, u32, u32, u16, u32)>,
        intruded: usize,
    }

    impl Mouth for Ear {
        fn say(&mut self, packet: &[u8]) -> anyhow::Result<()> {
            let header = Header::parse(packet).unwrap();
            assert_eq!(packet.len(), 12 + FRAME as usize);
            self.said.push((self.held, self.place, header.ssrc(), header.sequence(), header.timestamp()));
            Ok(())
        }

        fn intrude(&mut self, _: &[u8]) -> anyhow::Result<()> {
            self.intruded += 1;
            Ok(())
        }

        fn hold(&mut self, held: bool) -> anyhow::Result<()> {
            assert_ne!(std::mem::replace(&mut self.held, held), held);
            Ok(())
        }

        fn transfer(&mut self) -> anyhow::Result<()> {
            self.place += 1;
            Ok(())
        }

        fn listen(&mut self, _: Instant) -> anyhow::Result<()> {
            Ok(())
        }
    }

    fn played(packets: u32, troubles: &[(u32, Trouble)]) -> (Ear, Tally) {
        let (mut ear, score) = (Ear::default(), Score::new(packets));
        score.add(troubles);
        play(&mut ear, &mut Voice::new(1000, 7, 65_534, 0xffff_ffd8), &score).unwrap();
        (ear, score.tally())
    }

    #[test]
    fn numbers_wrap_and_skip() {
        let (ear, tally) = played(4, &[(3, Trouble::Skip(500))]);
        let expected =
            [(65_534, 0xffff_ffd8), (65_535, 0), (0, 40), (501, 80)].map(|(s, t)| (false, 0, 7, s, t));
        assert_eq!(ear.said, expected);
        assert_eq!((tally.sent, tally.heard(), tally.skipped, tally.done), (4, 4, 500, true));
    }

    #[test]
    fn a_hold_is_two_seconds_of_packets_that_are_no_others() {
        let (ear, tally) = played(2, &[(1, Trouble::HoldAndRewind)]);
        assert_eq!(ear.said.iter().filter(|said| said.0).count(), HELD as usize);
        let last = ear.said.last().unwrap();
        assert_eq!((last.0, last.3), (false, 65_535u16.wrapping_add(400).wrapping_sub(20_000)));
        assert_eq!((tally.heard(), tally.held, tally.holds, tally.signalled), (2, 400, 1, 2));
        assert_eq!(tally.unheld, Some(1));
    }

    #[test]
    fn each_trouble_is_what_it_says() {
        let (ear, tally) = played(3, &[(1, Trouble::Transfer), (2, Trouble::Intruder), (2, Trouble::Rewind)]);
        assert_eq!([ear.said[0].1, ear.said[1].1], [0, 1]);
        assert_eq!([ear.said[0].2, ear.said[1].2, ear.said[2].2], [7, 8, 8]);
        assert_eq!(ear.said[2].3, ear.said[1].3.wrapping_add(1).wrapping_sub(20_000));
        assert_eq!((ear.intruded, tally.doubtful, tally.heard()), (20, 1, 2));
        let (ear, tally) = played(1, &[(0, Trouble::Restart), (0, Trouble::Straggler)]);
        assert_eq!(ear.said.len(), 2);
        assert_eq!((tally.doubtful, tally.stragglers, tally.heard()), (0, 1, 1), "nothing to be in doubt of");
    }
}
