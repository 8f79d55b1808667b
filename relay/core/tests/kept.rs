//! A stream uses no more numbers than a restart steps over from the last checkpoint that is written, whatever its source does and
//! however late whoever writes is; and nobody feels that who sends as people talk and cameras film.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use std::collections::{BTreeMap, HashSet, VecDeque};

use common::{Bench, Out};
use proptest::prelude::*;
use sallyport_core::{Checkpoint, Digit, Limits, Reason, Translator};
use sallyport_plan::{CallId, Medium, Plan, Profile, Protection, Pt, Resend, Ssrc};
use table::world::*;

const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];
/// What a restart steps over here; less than the relay's, so that it is used up sooner.
const AHEAD: u16 = 1024;
/// SSRC and payload type of retransmissions.
const AGAIN: u32 = OUTSIDE_SSRC + 0x200;
const RTX: u8 = 97;

/// What may happen to a call.
#[derive(Debug, Clone)]
enum Step {
    /// The agent sends so many packets.
    Talk(u16),
    /// So many numbers are never sent.
    Skip(u16),
    /// Another source takes its place.
    Source(u16),
    /// The agent sends so many compounds.
    Report(u16),
    /// The browser asks for the last so many packets once more.
    Ask(u16),
    /// A digit is sent from here.
    Dial,
    /// A checkpoint is taken.
    Take,
    /// The oldest one is written.
    Write,
    /// The relay hears what was written.
    Hear,
    /// All three.
    Keep,
    /// The relay dies; the next one has what was written.
    Crash,
    /// Another key.
    Rekey,
    /// A plan without retransmissions, and one with them again.
    Replan,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u16..400).prop_map(Step::Talk),
        2 => Just(Step::Talk(1500)),
        6 => (1u16..1100).prop_map(Step::Skip),
        1 => any::<u16>().prop_map(Step::Source),
        2 => (1u16..1500).prop_map(Step::Report),
        3 => (1u16..250).prop_map(Step::Ask),
        1 => Just(Step::Dial),
        3 => Just(Step::Take),
        3 => Just(Step::Write),
        2 => Just(Step::Hear),
        3 => Just(Step::Keep),
        2 => Just(Step::Crash),
        1 => Just(Step::Rekey),
        1 => Just(Step::Replan),
    ]
}

/// Indices that have left under one key for one source.
#[derive(Default)]
struct Left {
    highest: Option<i64>,
    used: HashSet<i64>,
}

impl Left {
    /// Whether a sequence number is of an index that has not left, the one nearest to the highest (RFC 3711 section 3.3.1).
    fn is_fresh(&mut self, sequence: u16) -> bool {
        let highest = self.highest.unwrap_or(i64::from(sequence));
        let index = highest + i64::from(sequence.wrapping_sub((highest & 0xffff) as u16).cast_signed());
        self.highest = Some(highest.max(index));
        self.used.insert(index)
    }
}

/// A call whose checkpoints are written by somebody slow.
struct Call {
    bench: Bench,
    bound: bool,
    plan: Plan,
    browser: Peer,
    source: u32,
    sequence: u16,
    /// By key and SSRC.
    left: BTreeMap<(u8, u32), Left>,
    reports: HashSet<(u8, u32)>,
    keystreams: HashSet<Vec<u8>>,
    twice: usize,
    taken: VecDeque<Checkpoint>,
    written: Option<Checkpoint>,
    unheard: Vec<Checkpoint>,
}

fn translator(bound: bool) -> Translator {
    let core = Translator::new(3, Limits { calls: 2, directions: 4 }, [7; 32]);
    if bound { core.with_ahead(|_| AHEAD) } else { core }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Call {
    fn new(profile: Profile, bound: bool) -> Self {
        let mut plan = plan_with_consent(Some(profile), paths());
        plan.directions[1].resend = Self::rtx();
        let mut bench = Bench { core: translator(bound), ..Bench::new(1, 1) };
        bench.core.install(plan.clone(), bench.now).unwrap();
        let browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        let (left, reports, keystreams) = Default::default();
        let (taken, written, unheard) = Default::default();
        let (source, sequence, twice) = (2, 65_000, 0);
        let mut call = Self {
            bench,
            bound,
            plan,
            browser,
            source,
            sequence,
            left,
            reports,
            keystreams,
            twice,
            taken,
            written,
            unheard,
        };
        call.keep();
        call
    }

    fn rtx() -> Resend {
        Resend::Rtx { ssrc: Ssrc(AGAIN), payload_types: vec![(Pt(0), Pt(RTX))] }
    }

    /// An octet that tells which key is in use.
    fn key(&self) -> u8 {
        match &self.plan.directions[1].seal {
            Some(Protection::Srtp(key)) => key.key()[0],
            _ => panic!("it is sealed"),
        }
    }

    fn leaves(&mut self, sealed: &[u8]) {
        let at = (self.key(), word(sealed, 8));
        let sequence = u16::from_be_bytes([sealed[2], sealed[3]]);
        let mut fresh = self.left.entry(at).or_default().is_fresh(sequence);
        // What is spoken is zeros, behind two octets of a retransmission's own, so what leaves shows the keystream.
        if sealed.len() >= 12 + 32 {
            fresh &= self.keystreams.insert(sealed[14..32].to_vec());
        }
        self.twice += usize::from(!fresh);
    }

    /// The agent sends a packet; whether it leaves.
    fn speak(&mut self) -> bool {
        self.bench.elapse(5000);
        self.sequence = self.sequence.wrapping_add(1);
        let mut spoken = g711(self.source, self.sequence, u32::from(self.sequence) * 40);
        spoken.payload = vec![0; 32];
        match self.bench.send(paths().rtp, &spoken.bytes()) {
            Out::Rtp(_, sealed) => {
                self.leaves(&sealed);
                true
            }
            Out::Drop(Reason::Unkept | Reason::Late | Reason::OutOfSequence) => false,
            other => panic!("{other:?}"),
        }
    }

    fn talk(&mut self, packets: u16) -> usize {
        (0..packets).filter(|_| self.speak()).count()
    }

    fn report(&mut self, compounds: u16) -> usize {
        let mut left = 0;
        for _ in 0..compounds {
            match self.bench.send(paths().rtcp, &receiver_report(self.source, &[])) {
                Out::Rtcp(_, sealed) => {
                    let gcm = self.plan.directions[1].seal.as_ref().is_some_and(
                        |seal| matches!(seal, Protection::Srtp(key) if key.profile() == Profile::AeadAes128Gcm),
                    );
                    let at = sealed.len() - if gcm { 4 } else { 14 };
                    let fresh = self.reports.insert((self.key(), word(&sealed, at)));
                    self.twice += usize::from(!fresh);
                    left += 1;
                }
                Out::Drop(Reason::Unkept | Reason::RtcpSource) => {}
                other => panic!("{other:?}"),
            }
        }
        left
    }

    fn ask(&mut self, packets: u16) -> usize {
        // As long as one who asks is let wait.
        self.bench.elapse(60_000);
        let at = (self.key(), OUTSIDE_SSRC);
        let last = self.left.get(&at).and_then(|left| left.highest).unwrap_or(0);
        let number = |back: u16| ((last - i64::from(back)) & 0xffff) as u16;
        let entries: Vec<(u16, u16)> = (0..packets).map(|back| (number(back), 0)).collect();
        let asks = self.browser.seal_rtcp(&nack(5, OUTSIDE_SSRC, &entries));
        self.bench.send(paths().outside, &asks);
        self.resends()
    }

    fn resends(&mut self) -> usize {
        let sent = self.bench.resends();
        sent.iter().for_each(|(_, packet)| self.leaves(packet));
        sent.len()
    }

    fn dial(&mut self) -> usize {
        self.bench.core.dial(CallId(1), OUTWARD, &[Digit { event: 5, duration: 100 }], self.bench.now);
        let mut sent = Vec::new();
        for _ in 0..20 {
            self.bench.elapse(20_000);
            let now = self.bench.now;
            self.bench.core.handle_dials(now, &mut |_, bytes| sent.push(bytes.to_vec()));
        }
        sent.iter().for_each(|packet| self.leaves(packet));
        sent.len()
    }

    fn take(&mut self) {
        self.taken.extend(self.bench.core.checkpoint_of(CallId(1)));
    }

    fn write(&mut self) {
        if let Some(checkpoint) = self.taken.pop_front() {
            self.written = Some(checkpoint.clone());
            self.unheard.push(checkpoint);
        }
    }

    fn hear(&mut self) {
        for checkpoint in self.unheard.drain(..) {
            self.bench.core.kept(&checkpoint);
        }
        self.resends();
    }

    fn keep(&mut self) {
        self.take();
        while !self.taken.is_empty() {
            self.write();
        }
        self.hear();
    }

    fn crash(&mut self) {
        self.bench.core = translator(self.bound);
        self.bench.core.install(self.plan.clone(), self.bench.now).unwrap();
        self.bench.core.restore(self.written.as_ref().unwrap(), |_| AHEAD, self.bench.now);
        self.taken.clear();
        self.unheard.clear();
        self.take();
    }

    fn replan(&mut self, change: impl FnOnce(&mut Plan)) {
        self.plan.version += 1;
        change(&mut self.plan);
        self.bench.core.install(self.plan.clone(), self.bench.now).unwrap();
        self.take();
    }

    fn rekey(&mut self, profile: Profile) {
        let octet = self.key() + 1;
        self.replan(|plan| plan.directions[1].seal = Some(Protection::Srtp(key(profile, octet))));
    }

    fn happens(&mut self, step: &Step, profile: Profile) {
        match *step {
            Step::Talk(packets) => drop(self.talk(packets)),
            Step::Skip(numbers) => {
                self.sequence = self.sequence.wrapping_add(numbers);
                self.talk(2);
            }
            Step::Source(sequence) => {
                (self.source, self.sequence) = (self.source + 1, sequence);
                self.talk(2);
            }
            Step::Report(compounds) => drop(self.report(compounds)),
            Step::Ask(packets) => drop(self.ask(packets)),
            Step::Dial => drop(self.dial()),
            Step::Take => self.take(),
            Step::Write => self.write(),
            Step::Hear => self.hear(),
            Step::Keep => self.keep(),
            Step::Crash => self.crash(),
            Step::Rekey => self.rekey(profile),
            Step::Replan => {
                self.replan(|plan| plan.directions[1].resend = Resend::Never);
                self.replan(|plan| plan.directions[1].resend = Self::rtx());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Skips, floods, retransmissions, digits and reports; checkpoints that are written late or never, and heard of later still.
    #[test]
    fn no_index_is_used_twice_whatever_happens(steps in prop::collection::vec(step(), 1..80), gcm: bool) {
        let profile = PROFILES[usize::from(gcm)];
        let mut call = Call::new(profile, true);
        for step in &steps {
            call.happens(step, profile);
            prop_assert_eq!(call.twice, 0, "behind {:?}", step);
        }
        // Whatever was, it goes on once it is kept.
        call.keep();
        prop_assert!(call.talk(3) > 0 && call.report(1) == 1);
        prop_assert_eq!((call.twice, call.bench.counter("continuity_broken")), (0, 0));
    }
}

#[test]
fn each_kind_of_packet_would_use_some_twice_without_a_bound() {
    use Step::{Ask, Crash, Dial, Keep, Report, Skip, Talk};
    let skips: Vec<Step> = std::iter::repeat_n(Skip(900), 40).chain([Crash, Keep, Talk(1500)]).collect();
    let flood = vec![Talk(3000), Crash, Keep, Talk(3000)];
    let reports = vec![Report(3000), Crash, Keep, Report(3000)];
    let asks: Vec<Step> =
        (0..3).flat_map(|_| std::iter::once(Talk(60)).chain(std::iter::repeat_n(Ask(59), 12))).collect();
    let asks = [asks.clone(), vec![Crash, Keep], asks].concat();
    let digits: Vec<Step> = std::iter::repeat_n(Dial, 150).collect();
    let digits = [digits, vec![Crash, Keep, Talk(1500)]].concat();
    for steps in [skips, flood, reports, asks, digits] {
        for bound in [false, true] {
            let mut call = Call::new(PROFILES[1], bound);
            call.happens(&Talk(10), PROFILES[1]);
            call.happens(&Keep, PROFILES[1]);
            steps.iter().for_each(|step| call.happens(step, PROFILES[1]));
            assert_eq!(call.twice == 0, bound, "{} twice: {steps:?}", call.twice);
        }
    }
}

#[test]
fn beyond_what_is_kept_packets_are_counted_and_the_stream_goes_on_once_more_is() {
    for profile in PROFILES {
        let mut call = Call::new(profile, true);
        let passed = call.talk(3000);
        assert!((800..usize::from(AHEAD)).contains(&passed), "{passed}");
        assert_eq!(call.bench.counter("drop_unkept"), 3000 - passed as u64);
        assert_eq!(call.bench.core.poll_hasty(), Some(CallId(1)), "it is to be kept before its turn");
        assert_eq!(call.bench.core.poll_hasty(), None);
        assert!(call.dial() > 0, "digits have numbers that are left to them");
        let reports = call.report(3000);
        assert!(reports <= usize::from(AHEAD), "{reports}");
        call.take();
        call.write();
        assert_eq!(call.talk(10), 0, "nobody has told that it is written");
        call.hear();
        assert_eq!((call.talk(700), call.report(700)), (700, 700));
        assert_eq!(call.bench.counter("continuity_broken"), 0);
    }
}

#[test]
fn behind_a_restart_nothing_leaves_before_it_is_kept_and_then_all_does() {
    let mut call = Call::new(PROFILES[1], true);
    call.talk(200);
    call.ask(5);
    call.keep();
    for _ in 0..2 {
        // The second dies before anything of the first is written.
        call.crash();
        assert_eq!((call.talk(5), call.report(5), call.ask(5)), (0, 0, 0));
    }
    call.write();
    call.bench.core.kept(call.written.as_ref().unwrap());
    assert_eq!(call.resends(), 1, "the browser learns how far retransmissions have stepped");
    assert_eq!((call.talk(5), call.report(5), call.ask(5)), (5, 5, 5));
    assert_eq!(call.twice, 0);
}

#[test]
fn what_is_lost_for_good_is_bound_to_nothing() {
    let mut call = Call::new(PROFILES[1], true);
    call.bench.core.release(CallId(1));
    assert_eq!((call.talk(3000), call.report(3000)), (3000, 3000));
    call.bench.core.kept(call.written.as_ref().unwrap());
    call.rekey(PROFILES[1]);
    assert_eq!((call.talk(3000), call.report(3000)), (3000, 3000));
    assert_eq!(call.bench.core.poll_hasty(), None);
}

#[test]
fn a_wider_step_is_not_used_where_a_narrower_one_is_to_come() {
    let core = Translator::new(3, Limits { calls: 2, directions: 4 }, [7; 32]);
    let mut call = Call::new(PROFILES[1], true);
    call.bench.core = core.with_ahead(|medium| if medium == Medium::Video { 4096 } else { AHEAD });
    call.plan.directions.iter_mut().for_each(|direction| direction.medium = Medium::Video);
    call.bench.core.install(call.plan.clone(), call.bench.now).unwrap();
    assert_eq!(call.talk(900), 900);
    call.replan(|plan| plan.directions.iter_mut().for_each(|direction| direction.medium = Medium::Audio));
    assert_eq!(call.talk(100), 0);
}

/// A source whose packets come in bursts, every fiftieth lost and now and then a long row of them, its checkpoints written
/// `late` seconds after they are taken: each packet leaves as far from its number as the first one.
fn ordinary(medium: Medium, bursts: &[u16], apart: u64, row: u16, late: u64) {
    let ahead = |medium| if medium == Medium::Audio { 2048 } else { 8192 };
    let mut bench = Bench::new(1, 1);
    bench.core = Translator::new(3, Limits { calls: 2, directions: 4 }, [7; 32]).with_ahead(ahead);
    let mut plan = plan(Some(PROFILES[1]), paths());
    plan.directions.iter_mut().for_each(|direction| direction.medium = medium);
    bench.core.install(plan, bench.now).unwrap();
    let begin = bench.now;
    let (mut sequence, mut offset, mut taken) = (1000u16, None, VecDeque::new());
    for (nth, burst) in (0..60_000_000 / apart).zip(bursts.iter().cycle()) {
        let passed = bench.now.since(begin);
        if passed / 1_000_000 != (passed + apart) / 1_000_000 {
            taken.push_back((passed + late * 1_000_000, bench.core.checkpoint_of(CallId(1)).unwrap()));
        }
        if taken.front().is_some_and(|(due, _)| *due <= passed) {
            bench.core.kept(&taken.pop_front().unwrap().1);
        }
        for _ in 0..*burst {
            sequence = sequence.wrapping_add(if sequence.is_multiple_of(50) { 2 } else { 1 });
            let spoken = g711(2, sequence, (passed / 125) as u32);
            let sealed = bench.send(paths().rtp, &spoken.bytes()).forwarded();
            let moved = u16::from_be_bytes([sealed[2], sealed[3]]).wrapping_sub(sequence);
            assert_eq!(*offset.get_or_insert(moved), moved, "re-based behind {passed} us");
        }
        if nth % (8_000_000 / apart) == 8_000_000 / apart - 1 {
            sequence = sequence.wrapping_add(row);
        }
        bench.elapse(apart);
    }
    assert_eq!(bench.counter("drop_unkept"), 0);
}

#[test]
fn an_ordinary_call_feels_no_bound_though_writing_takes_seconds() {
    ordinary(Medium::Audio, &[1], 20_000, 300, 3);
    ordinary(Medium::Audio, &[1], 20_000, 950, 0);
}

/// 2 Mbit/s of 30 pictures a second, a whole one of 80 packets each second.
#[test]
fn a_film_of_two_megabits_feels_no_bound_though_writing_takes_seconds() {
    let mut bursts = vec![14; 30];
    bursts[7] = 80;
    ordinary(Medium::Video, &bursts, 33_333, 900, 3);
}
