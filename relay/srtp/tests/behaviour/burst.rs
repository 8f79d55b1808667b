//! Bursts against the same packets one after the other: same outcomes, same octets, same state.

use sallyport_plan::Profile;
use sallyport_srtp::{
    Kind, OpenError, OpenJob, Opened, Opener, Openers, SealError, SealJob, Sealer, Sealers, open_burst,
    seal_burst,
};
use sallyport_wire::PacketBuf;

use crate::packets::*;

struct Pool<T>(Vec<T>);

impl Openers for Pool<Opener> {
    fn opener(&self, number: u32) -> Option<&Opener> {
        self.0.get(number as usize)
    }

    fn opener_mut(&mut self, number: u32) -> Option<&mut Opener> {
        self.0.get_mut(number as usize)
    }
}

impl Sealers for Pool<Sealer> {
    fn sealer(&self, number: u32) -> Option<&Sealer> {
        self.0.get(number as usize)
    }

    fn sealer_mut(&mut self, number: u32) -> Option<&mut Sealer> {
        self.0.get_mut(number as usize)
    }
}

/// A packet for one of several openers or sealers.
#[derive(Debug, Clone)]
struct Sent {
    number: u32,
    kind: Kind,
    octets: Vec<u8>,
}

type Outcome<T, E> = (Result<T, E>, Vec<u8>);

fn opened_in_bursts(pool: &mut Pool<Opener>, sent: &[Sent]) -> Vec<Outcome<Opened, OpenError>> {
    let mut octets: Vec<Vec<u8>> = sent.iter().map(|sent| sent.octets.clone()).collect();
    let mut bufs: Vec<_> = octets.iter_mut().map(|octets| whole(octets, 0)).collect();
    let jobs = sent.iter().zip(&mut bufs);
    let mut jobs: Vec<_> = jobs.map(|(sent, buf)| OpenJob::new(sent.number, sent.kind, buf)).collect();
    open_burst(pool, &mut jobs);
    jobs.into_iter().map(|job| (job.outcome, job.buf.packet().to_vec())).collect()
}

fn opened_one_by_one(pool: &mut Pool<Opener>, sent: &[Sent]) -> Vec<Outcome<Opened, OpenError>> {
    let one = |sent: &Sent| {
        let mut octets = sent.octets.clone();
        let mut buf = whole(&mut octets, 0);
        let opener = pool.opener_mut(sent.number).unwrap();
        let outcome = match sent.kind {
            Kind::Rtp => opener.open_rtp(&mut buf),
            Kind::Rtcp => {
                let ssrc =
                    sent.octets.get(4..8).map_or(0, |ssrc| u32::from_be_bytes(ssrc.try_into().unwrap()));
                let opened = opener.open_rtcp(&mut buf);
                opened.map(|index| Opened { ssrc, index: u64::from(index), sequence: index as u16 })
            }
        };
        (outcome, buf.packet().to_vec())
    };
    sent.iter().map(one).collect()
}

fn whole(octets: &mut [u8], room: usize) -> PacketBuf<'_> {
    let end = octets.len() - room;
    PacketBuf::new(octets, 0..end).unwrap()
}

/// What a network makes of sources that begin near a turn: reordered, doubled, forged, cut, of many sources and keys.
fn history(random: &mut Random, profile: Profile, openers: u32, sources: u64, count: usize) -> Vec<Sent> {
    let mut sealers: Vec<Vec<Sealer>> = (0..openers)
        .map(|number| {
            let at = |ssrc| sealer_at(&key(profile, number as u8), ssrc as u32, Some(65_400), 0);
            (0..sources).map(at).collect()
        })
        .collect();
    let mut sequences = vec![65_401u64; (u64::from(openers) * sources) as usize];
    let mut sent: Vec<Sent> = Vec::new();
    for _ in 0..count {
        let (number, ssrc) = (random.below(u64::from(openers)) as u32, random.below(sources));
        if random.one_in(6) && !sent.is_empty() {
            let again = sent[random.below(sent.len() as u64) as usize].clone();
            sent.push(again);
            continue;
        }
        let sealer = &mut sealers[number as usize][ssrc as usize];
        let sealed = if random.one_in(5) {
            (Kind::Rtcp, seal_rtcp(sealer, &rtcp(ssrc as u32, random.below(20) as u16)))
        } else {
            let sequence = &mut sequences[(u64::from(number) * sources + ssrc) as usize];
            *sequence += if random.one_in(30) { random.below(300) } else { 1 };
            (Kind::Rtp, seal(sealer, &random_rtp(ssrc as u32, *sequence as u16, random)))
        };
        let (kind, Ok(mut octets)) = sealed else { continue };
        if random.one_in(8) {
            let at = random.below(octets.len() as u64) as usize;
            octets[at] ^= 1 << random.below(8);
        }
        if random.one_in(60) {
            octets.truncate(random.below(octets.len() as u64) as usize);
        }
        sent.push(Sent { number, kind, octets });
    }
    for at in 1..sent.len() {
        if random.one_in(3) {
            let back = random.below(12).min(at as u64) as usize;
            sent.swap(at, at - back);
        }
    }
    sent
}

fn random_rtp(ssrc: u32, sequence: u16, random: &mut Random) -> Vec<u8> {
    let payload = random.below(200) as usize;
    random.rtp(ssrc, sequence, payload)
}

fn openers(profile: Profile, count: u32) -> Pool<Opener> {
    Pool((0..count).map(|number| Opener::new(&key(profile, number as u8)).unwrap()).collect())
}

/// Few sources, so that one is often several times in a burst; and more than a context keeps, so that they push out each
/// other within it.
#[test]
fn opening_is_as_one_after_the_other() {
    let mut random = Random(71);
    for profile in PROFILES {
        for (count, sources) in [(1, 1), (1, 2), (3, 2), (70, 3), (2, 12)] {
            for _ in 0..12 {
                let sent = history(&mut random, profile, count, sources, 400);
                let (mut one, mut other) = (openers(profile, count), openers(profile, count));
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let (burst, behind) = rest.split_at(rest.len().min(1 + random.below(90) as usize));
                    rest = behind;
                    let bursts = opened_in_bursts(&mut one, burst);
                    let singles = opened_one_by_one(&mut other, burst);
                    for ((sent, burst), single) in burst.iter().zip(bursts).zip(singles) {
                        assert_eq!(burst.0, single.0, "{profile:?} {count} {sources} {sent:?}");
                        if burst.0 != Err(OpenError::Tag) || profile == Profile::AesCm128HmacSha1_80 {
                            assert_eq!(burst.1, single.1);
                        }
                    }
                    for (one, other) in one.0.iter().zip(&other.0) {
                        assert_eq!(one.checkpoint(), other.checkpoint());
                    }
                }
            }
        }
    }
}

/// The wrap within a burst, once with the packet that turns the counter in front, once with it forged.
#[test]
fn a_turn_within_a_burst() {
    for profile in PROFILES {
        let key = key(profile, 0);
        let order = [0xfff0u64, 0x1_7ff0, 0x1_0001, 0xffff, 0x1_0001, 0x2_0000];
        for forged in [None, Some(0), Some(1), Some(2)] {
            let mut sent: Vec<_> = order
                .iter()
                .map(|index| Sent {
                    number: 0,
                    kind: Kind::Rtp,
                    octets: sealed_at(&key, 9, *index, b"payload"),
                })
                .collect();
            if let Some(at) = forged {
                sent[at].octets[13] ^= 1;
            }
            let pool = || Pool(vec![opener_at(&key, 9, 0xffe0)]);
            let (mut one, mut other) = (pool(), pool());
            let results =
                |outcomes: Vec<Outcome<_, _>>| outcomes.into_iter().map(|(result, _)| result).collect();
            let bursts: Vec<Result<Opened, OpenError>> = results(opened_in_bursts(&mut one, &sent));
            let singles: Vec<Result<Opened, OpenError>> = results(opened_one_by_one(&mut other, &sent));
            assert_eq!(bursts, singles, "{forged:?}");
            assert_eq!(one.0[0].checkpoint(), other.0[0].checkpoint());
        }
    }
}

/// A packet that comes twice in one burst is opened once.
#[test]
fn a_replay_within_a_burst() {
    for profile in PROFILES {
        let sent =
            Sent { number: 0, kind: Kind::Rtp, octets: sealed_at(&key(profile, 0), 9, 70, b"payload") };
        let mut pool = openers(profile, 1);
        let results = opened_in_bursts(&mut pool, &vec![sent.clone(); 100]);
        assert!(results[0].0.is_ok());
        assert!(results[1..].iter().all(|(result, _)| *result == Err(OpenError::Replay)));
        assert!(results[1..].iter().all(|(_, octets)| *octets == sent.octets));
    }
}

#[test]
fn no_such_opener_and_no_such_sealer() {
    let profile = Profile::AeadAes128Gcm;
    let sent = [0, 5, 0].map(|number| Sent {
        number,
        kind: Kind::Rtp,
        octets: sealed_at(&key(profile, 0), 9, 70, b""),
    });
    let results = opened_in_bursts(&mut openers(profile, 1), &sent);
    assert!(results[0].0.is_ok());
    assert_eq!((results[1].0, results[2].0), (Err(OpenError::Malformed), Err(OpenError::Replay)));
    let mut octets = [rtp(1, 2, b"payload"), vec![0; 40]].concat();
    let mut buf = whole(&mut octets, 40);
    let mut jobs = [SealJob::new(0, Kind::Rtp, &mut buf)];
    seal_burst(&mut Pool(Vec::new()), &mut jobs);
    assert_eq!(jobs[0].outcome, Err(SealError::Malformed));
    open_burst(&mut openers(profile, 1), &mut []);
    seal_burst(&mut Pool(Vec::new()), &mut []);
}

fn sealed_in_bursts(pool: &mut Pool<Sealer>, plain: &[Sent]) -> Vec<Outcome<(), SealError>> {
    let room = |sent: &Sent| if sent.octets.len().is_multiple_of(9) { 3 } else { 40 };
    let mut octets: Vec<_> =
        plain.iter().map(|sent| [&sent.octets[..], &vec![0xee; room(sent)]].concat()).collect();
    let mut bufs: Vec<_> =
        octets.iter_mut().zip(plain).map(|(octets, sent)| whole(octets, room(sent))).collect();
    let jobs = plain.iter().zip(&mut bufs);
    let mut jobs: Vec<_> = jobs.map(|(sent, buf)| SealJob::new(sent.number, sent.kind, buf)).collect();
    seal_burst(pool, &mut jobs);
    jobs.into_iter().map(|job| (job.outcome, job.buf.packet().to_vec())).collect()
}

fn sealed_one_by_one(pool: &mut Pool<Sealer>, plain: &[Sent]) -> Vec<Outcome<(), SealError>> {
    let one = |sent: &Sent| {
        let room = if sent.octets.len().is_multiple_of(9) { 3 } else { 40 };
        let mut octets = [&sent.octets[..], &vec![0xee; room]].concat();
        let mut buf = whole(&mut octets, room);
        let sealer = pool.sealer_mut(sent.number).unwrap();
        let outcome = match sent.kind {
            Kind::Rtp => sealer.seal_rtp(&mut buf),
            Kind::Rtcp => sealer.seal_rtcp(&mut buf),
        };
        (outcome, buf.packet().to_vec())
    };
    plain.iter().map(one).collect()
}

#[test]
fn sealing_is_as_one_after_the_other() {
    let mut random = Random(72);
    for profile in PROFILES {
        for (count, sources) in [(1u32, 1u64), (3, 2), (70, 3), (2, 12)] {
            let sealers = || -> Pool<Sealer> {
                Pool(
                    (0..count)
                        .map(|number| sealer_at(&key(profile, number as u8), 0, Some(65_400), 0))
                        .collect(),
                )
            };
            let (mut one, mut other) = (sealers(), sealers());
            for _ in 0..60 {
                let plain: Vec<Sent> = (0..1 + random.below(90))
                    .map(|_| {
                        let (number, ssrc) =
                            (random.below(u64::from(count)) as u32, random.below(sources) as u32);
                        let (kind, octets) = match random.below(12) {
                            0 | 1 => (Kind::Rtcp, rtcp(ssrc, random.below(20) as u16)),
                            2 => (Kind::Rtp, vec![7; 11]),
                            _ => {
                                let sequence = 65_400u16.wrapping_add(random.below(400) as u16);
                                (Kind::Rtp, random_rtp(ssrc, sequence, &mut random))
                            }
                        };
                        Sent { number, kind, octets }
                    })
                    .collect();
                assert_eq!(sealed_in_bursts(&mut one, &plain), sealed_one_by_one(&mut other, &plain));
                for (one, other) in one.0.iter().zip(&other.0) {
                    assert_eq!(one.checkpoint(), other.checkpoint());
                }
            }
        }
    }
}
