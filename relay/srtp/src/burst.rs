//! Bursts through openers and sealers of many directions: what one call each would do, in the order of the packets, with
//! the crypto of all done side by side.

use arrayvec::ArrayVec;
use sallyport_wire::PacketBuf;

use crate::index::guess;
use crate::opener::{OpenError, Opened, Opener};
use crate::replay::{WINDOW, Window};
use crate::sealer::{SealError, Sealer};
use crate::suites::{BURST, Batch, Desc, Refused, Suite};

/// Which of the two a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// SRTP.
    #[default]
    Rtp,
    /// SRTCP.
    Rtcp,
}

/// Where openers are kept, by numbers of the caller's.
pub trait Openers {
    /// The opener of this number.
    fn opener(&self, number: u32) -> Option<&Opener>;
    /// The same, to be changed.
    fn opener_mut(&mut self, number: u32) -> Option<&mut Opener>;
}

/// Where sealers are kept, by numbers of the caller's.
pub trait Sealers {
    /// The sealer of this number.
    fn sealer(&self, number: u32) -> Option<&Sealer>;
    /// The same, to be changed.
    fn sealer_mut(&mut self, number: u32) -> Option<&mut Sealer>;
}

/// A packet to be opened.
pub struct OpenJob<'p, 'b> {
    /// Its opener.
    pub opener: u32,
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub buf: &'p mut PacketBuf<'b>,
    /// What became of it; [`OpenError::Malformed`] where there is no such opener.
    pub outcome: Result<Opened, OpenError>,
}

/// A packet to be sealed.
pub struct SealJob<'p, 'b> {
    /// Its sealer.
    pub sealer: u32,
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub buf: &'p mut PacketBuf<'b>,
    /// What became of it; [`SealError::Malformed`] where there is no such sealer.
    pub outcome: Result<(), SealError>,
}

impl<'p, 'b> OpenJob<'p, 'b> {
    /// A job that is not done yet.
    pub fn new(opener: u32, kind: Kind, buf: &'p mut PacketBuf<'b>) -> Self {
        Self { opener, kind, buf, outcome: Err(OpenError::Malformed) }
    }
}

impl<'p, 'b> SealJob<'p, 'b> {
    /// A job that is not done yet.
    pub fn new(sealer: u32, kind: Kind, buf: &'p mut PacketBuf<'b>) -> Self {
        Self { sealer, kind, buf, outcome: Err(SealError::Malformed) }
    }
}

/// What is known of a packet before its crypto is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub kind: Kind,
    pub ssrc: u32,
    pub index: u64,
    /// Octets in the clear.
    pub header: u32,
}

/// What an opener knows of a packet's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// The source, but no packet of this kind.
    First,
    /// The highest index of this kind.
    Highest(u64),
}

impl Known {
    pub const fn of(source: Option<&Option<Window>>) -> Self {
        match source {
            None => Self::New,
            Some(None) => Self::First,
            Some(Some(window)) => Self::Highest(window.highest()),
        }
    }
}

impl Plan {
    const NONE: Self = Self { kind: Kind::Rtp, ssrc: 0, index: 0, header: 0 };

    /// What is to be done to a packet of RTP.
    #[inline]
    pub fn desc<'a>(&self, suite: &'a Suite, packet: &'a mut [u8]) -> Result<Desc<'a>, Refused> {
        Desc::rtp(suite, packet, self.header as usize, self.ssrc, self.index)
    }
}

/// Opens packets in place, each as [`Opener::open_rtp`] or [`Opener::open_rtcp`] would if called for one after the other:
/// same outcomes, same state. Allocates nothing.
///
/// A packet whose outcome hangs on that of one before it (an index guess near a turn, a replay within the burst, a source
/// that may take another's place) waits until that one is decided.
pub fn open_burst(pool: &mut impl Openers, jobs: &mut [OpenJob<'_, '_>]) {
    for jobs in jobs.chunks_mut(BURST) {
        let mut pending = u64::MAX >> (BURST - jobs.len());
        while pending != 0 {
            let mut wave = Wave { entries: ArrayVec::new(), openers: 0 };
            let (later, refused) = wave.unprotect(pool, jobs, pending);
            wave.commit(pool, jobs, refused);
            pending = later;
        }
    }
}

/// How many packets ahead of the one at work state is fetched into the cache.
const STATES_AHEAD: usize = 8;

/// A packet of a wave.
#[derive(Debug, Clone, Copy)]
struct Entry {
    job: u8,
    /// Whether it would add its source.
    new: bool,
    opener: u32,
    plan: Plan,
}

/// Packets none of whose outcomes hangs on another's.
struct Wave {
    entries: ArrayVec<Entry, BURST>,
    /// A bit by the opener's number: clear where no packet before was of this opener.
    openers: u64,
}

const fn bit(number: u32) -> u64 {
    1 << (number % 64)
}

impl Wave {
    /// Takes in what of the pending jobs can be decided now, and does its crypto; what is still pending then, and a bit for
    /// each entry that is refused. Nothing overtakes a packet of its own opener.
    fn unprotect(&mut self, pool: &impl Openers, jobs: &mut [OpenJob<'_, '_>], pending: u64) -> (u64, u64) {
        let mut batch = Batch::new();
        let (mut later, mut waiting) = (0, 0);
        let (mut apart, mut refused) = (0u64, 0u64);
        let mut jobs = jobs.iter_mut();
        for at in 0..BURST {
            let ahead = jobs.as_slice().get(STATES_AHEAD).map(|next| (next.opener, next.kind));
            let Some(job) = jobs.next() else { break };
            if let Some((opener, kind)) = ahead.and_then(|(number, kind)| Some((pool.opener(number)?, kind)))
            {
                opener.prefetch(kind);
            }
            if pending >> at & 1 == 0 {
                continue;
            }
            let same = bit(job.opener);
            // By bits only, so one of another opener may wait too: for nothing, but no longer than a wave.
            if waiting & same != 0 {
                later |= 1 << at;
                continue;
            }
            let Some(opener) = pool.opener(job.opener) else {
                job.outcome = Err(OpenError::Malformed);
                continue;
            };
            match opener.plan(job.kind, job.buf.packet()) {
                Ok((plan, known)) if self.is_free(job.opener, &plan, known) => {
                    let number = self.entries.len();
                    let entry = Entry { job: at as u8, new: known == Known::New, opener: job.opener, plan };
                    // There is room for as many as there are jobs.
                    let _ = self.entries.try_push(entry);
                    self.openers |= same;
                    let packet = job.buf.packet_mut();
                    let outcome = match plan.kind {
                        Kind::Rtp => match plan.desc(&opener.rtp, packet).map(|desc| batch.push(desc)) {
                            Ok(Ok(())) => continue,
                            Ok(Err(_)) | Err(Refused) => Err(Refused),
                        },
                        Kind::Rtcp => opener.rtcp.unprotect(packet, plan.ssrc, plan.index as u32),
                    };
                    apart |= 1 << number;
                    refused |= u64::from(outcome.is_err()) << number;
                }
                Err(error) if error.is_of_form() || self.openers & same == 0 => job.outcome = Err(error),
                Ok(_) | Err(_) => {
                    later |= 1 << at;
                    waiting |= same;
                }
            }
        }
        (later, refused | spread(batch.unprotect(), apart))
    }

    /// Whether a plan holds whatever becomes of the packets before it.
    #[inline]
    fn is_free(&self, opener: u32, plan: &Plan, known: Known) -> bool {
        self.openers & bit(opener) == 0 || self.is_free_of(opener, plan, known)
    }

    fn is_free_of(&self, opener: u32, plan: &Plan, known: Known) -> bool {
        let before = || self.entries.iter().filter(|entry| entry.opener == opener);
        // A new source may push another out, and with it what is known of this one.
        if before().any(|entry| entry.new) {
            return false;
        }
        let mut same = before().filter(|entry| entry.plan.ssrc == plan.ssrc && entry.plan.kind == plan.kind);
        match known {
            // The first packet sets the window.
            Known::New | Known::First => same.next().is_none(),
            Known::Highest(highest) => {
                same.all(|entry| still_holds(plan, highest.max(entry.plan.index), entry))
            }
        }
    }

    fn commit(&self, pool: &mut impl Openers, jobs: &mut [OpenJob<'_, '_>], refused: u64) {
        for (number, entry) in self.entries.iter().enumerate() {
            let Some(job) = jobs.get_mut(usize::from(entry.job)) else { continue };
            job.outcome = match pool.opener_mut(entry.opener) {
                Some(opener) if refused >> number & 1 == 0 => opener.finish(job.buf, &entry.plan),
                Some(_) | None => Err(OpenError::Tag),
            };
        }
    }
}

/// Whether a plan is the same with the window moved on to `highest` by another packet of the source: same guess (which
/// follows from the rest, but costs little to ask), not the same index, not fallen out of the window.
fn still_holds(plan: &Plan, highest: u64, before: &Entry) -> bool {
    let same_guess = plan.kind == Kind::Rtcp || guess(highest, plan.index as u16) == Some(plan.index);
    same_guess && plan.index != before.plan.index && highest.saturating_sub(plan.index) < WINDOW
}

/// Seals packets in place, each as [`Sealer::seal_rtp`] or [`Sealer::seal_rtcp`] would if called for one after the other:
/// same outcomes, same state. Allocates nothing.
pub fn seal_burst(pool: &mut impl Sealers, jobs: &mut [SealJob<'_, '_>]) {
    for jobs in jobs.chunks_mut(BURST) {
        let mut plans = [Plan::NONE; BURST];
        for (at, plan) in plans.iter_mut().enumerate().take(jobs.len()) {
            if let Some(next) = jobs.get(at + STATES_AHEAD)
                && let Some(sealer) = pool.sealer(next.sealer)
            {
                sealer.prefetch(next.kind);
            }
            let Some(job) = jobs.get_mut(at) else { continue };
            let planned = pool.sealer_mut(job.sealer).ok_or(SealError::Malformed);
            // What is planned is committed: nothing behind it can fail, so no two are given one index.
            job.outcome =
                planned.and_then(|sealer| sealer.commit(job.kind, job.buf)).map(|planned| *plan = planned);
        }
        protect(pool, jobs, &plans);
    }
}

fn protect(pool: &impl Sealers, jobs: &mut [SealJob<'_, '_>], plans: &[Plan; BURST]) {
    let mut batch = Batch::new();
    // Those that are not in the batch, and those of them that are refused.
    let (mut apart, mut refused) = (0u64, 0u64);
    for (at, (job, plan)) in jobs.iter_mut().zip(plans).enumerate() {
        let sealer = if job.outcome.is_ok() { pool.sealer(job.sealer) } else { None };
        let packet = job.buf.packet_mut();
        let outcome = match (sealer, plan.kind) {
            (Some(sealer), Kind::Rtp) => {
                if plan.desc(&sealer.rtp, packet).map(|desc| batch.push(desc).is_ok()) == Ok(true) {
                    continue;
                }
                Err(Refused)
            }
            (Some(sealer), Kind::Rtcp) => sealer.rtcp.protect(packet, plan.ssrc, plan.index as u32),
            (None, _) => Err(Refused),
        };
        apart |= 1 << at;
        refused |= u64::from(outcome.is_err()) << at;
    }
    refused |= spread(batch.protect(), apart);
    // Of what was committed none is ever refused. If one were, its index would be gone and it must not leave.
    for (at, job) in jobs.iter_mut().enumerate() {
        if refused >> at & 1 != 0 && job.outcome.is_ok() {
            job.outcome = Err(SealError::Malformed);
        }
    }
}

/// The bits of `bad`, which are those of a batch in its order, in their places: those that are not `apart`.
fn spread(bad: u64, apart: u64) -> u64 {
    let (mut refused, mut bad, mut rest) = (0, bad, !apart);
    while bad != 0 && rest != 0 {
        refused |= (bad & 1) << rest.trailing_zeros();
        bad >>= 1;
        rest &= rest - 1;
    }
    refused
}
