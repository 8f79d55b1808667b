//! Which backend new keys are for: what the processor has, or what was asked for; behind a test of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{BURST, Desc, Refused, Suite, Tag, protect, unprotect};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// ring and RustCrypto, on any machine.
    Portable,
    /// x86-64 with AVX, AES-NI, PCLMULQDQ and SHA-NI.
    Shani,
    /// x86-64 with AVX-512 (F, BW, DQ, VL), VAES, VPCLMULQDQ, and what [`Backend::Shani`] needs.
    Avx512,
}

impl Backend {
    /// All of them, the best one last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Shani, Self::Avx512];

    /// Its name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Shani => "shani",
            Self::Avx512 => "avx512",
        }
    }

    /// The backend of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// Whether this machine has what it needs.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Shani => {
                is_x86_feature_detected!("avx")
                    && is_x86_feature_detected!("aes")
                    && is_x86_feature_detected!("pclmulqdq")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
                    && is_x86_feature_detected!("sha")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Shani.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("vaes")
                    && is_x86_feature_detected!("vpclmulqdq")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Shani | Self::Avx512 => false,
        }
    }
}

/// The machine lacks what the backend needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported;

/// What new keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// The backend.
    pub backend: Backend,
    /// The one that should have been taken, where it gave other octets than the portable one: a fault of the machine or
    /// of ours, and cause for alarm.
    pub failed: Option<Backend>,
}

/// [`force`]'s wish: 0 for none, else one more than the place in [`Backend::ALL`].
static FORCED: AtomicU8 = AtomicU8::new(0);

/// Takes this backend for all keys made from now on, be it only as good as its self-test. For an operator's option and
/// for tests.
///
/// # Errors
/// [`Unsupported`]; nothing changes.
pub fn force(backend: Backend) -> Result<(), Unsupported> {
    if !backend.is_supported() {
        return Err(Unsupported);
    }
    FORCED.store(1 + backend as u8, Ordering::Relaxed);
    Ok(())
}

/// What new keys are for: what was forced, else the best that the machine has; the portable backend where that one fails
/// its self-test. The test runs once for each backend, on first use: some milliseconds, and it allocates.
pub fn selected() -> Selection {
    let forced =
        FORCED.load(Ordering::Relaxed).checked_sub(1).and_then(|at| Backend::ALL.get(usize::from(at)));
    let best = || Backend::ALL.into_iter().rfind(|backend| backend.is_supported());
    let wanted = forced.copied().or_else(best).unwrap_or(Backend::Portable);
    choose(wanted, passed(wanted))
}

fn passed(backend: Backend) -> bool {
    static PASSED: [OnceLock<bool>; 3] = [const { OnceLock::new() }; 3];
    PASSED.get(backend as usize).is_some_and(|passed| *passed.get_or_init(|| self_test(backend)))
}

const fn choose(wanted: Backend, passed: bool) -> Selection {
    if passed {
        Selection { backend: wanted, failed: None }
    } else {
        Selection { backend: Backend::Portable, failed: Some(wanted) }
    }
}

/// Whether a backend gives the same octets as the portable one and refuses what was changed: all tags, both key
/// lengths, short and long packets, headers of several lengths, RTP and RTCP.
pub fn self_test(backend: Backend) -> bool {
    backend.is_supported() && agrees(backend, protect, unprotect)
}

type Run = fn(&mut [Desc<'_>]) -> u64;

fn agrees(backend: Backend, seal: Run, open: Run) -> bool {
    let tags = [Tag::HmacSha1_80, Tag::HmacSha1_32, Tag::Gcm];
    let forms = tags.into_iter().flat_map(|tag| [(tag, 16), (tag, 32)]);
    forms.into_iter().all(|(tag, length)| {
        let key: Vec<u8> = (0..length).map(|n: u8| n.wrapping_mul(29) ^ 7).collect();
        let (mac, salt) = (b"twenty octets of key", b"fourteen of it");
        let suite = |backend| match tag {
            Tag::Gcm => Suite::gcm(backend, &key, b"self-test of"),
            Tag::HmacSha1_80 => Suite::aes_cm(backend, &key, mac, salt),
            Tag::HmacSha1_32 => Suite::aes_cm_short(backend, &key, mac, salt),
        };
        match (suite(backend), suite(Backend::Portable)) {
            (Ok(ours), Ok(portable)) => bursts_agree(&ours, &portable, seal, open).unwrap_or(false),
            (Err(_), _) | (_, Err(_)) => false,
        }
    })
}

/// Payloads that touch every path of the kernels: within one block, of whole blocks, around four, fourteen and sixteen.
const PAYLOADS: [usize; 24] = [
    0, 1, 15, 16, 17, 20, 33, 47, 48, 49, 80, 111, 112, 160, 161, 175, 224, 225, 239, 240, 241, 500, 1199,
    1200,
];
const HEADERS: [usize; 5] = [12, 16, 20, 33, 72];

/// A packet of the test: its octets with room behind them, its header (none for RTCP).
fn packet(at: usize, tag: usize) -> (Vec<u8>, Option<usize>) {
    let payload = PAYLOADS[at % PAYLOADS.len()];
    let header = (at % 6 != 5).then_some(HEADERS[at % HEADERS.len()]);
    let length = header.map_or(8 + payload + tag + 4, |header| header + payload + tag);
    ((0..length).map(|n| (n * 7 + at) as u8).collect(), header)
}

fn describe<'a>(
    suite: &'a Suite,
    packets: &'a mut [(Vec<u8>, Option<usize>)],
    sealing: bool,
) -> Result<Vec<Desc<'a>>, Refused> {
    let one = |(at, (octets, header)): (usize, &'a mut (Vec<u8>, Option<usize>))| {
        let ssrc = 0x1234_5678 + at as u32;
        match header {
            Some(header) => Desc::rtp(suite, octets, *header, ssrc, 0x1234_5678_9abc + at as u64),
            None if sealing => Desc::sealing_rtcp(suite, octets, ssrc, 0x0012_3456 + at as u32),
            None => Desc::opening_rtcp(suite, octets, ssrc, 0x0012_3456 + at as u32),
        }
    };
    packets.iter_mut().enumerate().map(one).collect()
}

fn bursts_agree(ours: &Suite, portable: &Suite, seal: Run, open: Run) -> Result<bool, Refused> {
    let count = 48.min(BURST);
    let plain: Vec<_> = (0..count).map(|at| packet(at, ours.tag_len())).collect();
    let (mut one, mut other) = (plain.clone(), plain.clone());
    let mut agree = seal(&mut describe(ours, &mut one, true)?) == 0;
    agree &= protect(&mut describe(portable, &mut other, true)?) == 0;
    agree &= one == other;
    // Of what is sealed a bit is changed in every packet, here in the header, there in the payload or the tag.
    for (at, (octets, _)) in other.iter_mut().enumerate() {
        let changed = (at * 11) % octets.len();
        octets[changed] ^= 1 << (at % 8);
    }
    agree &= open(&mut describe(ours, &mut other, false)?) == (1 << count) - 1;
    agree &= open(&mut describe(ours, &mut one, false)?) == 0;
    let trailer = |header: Option<usize>| ours.tag_len() + if header.is_some() { 0 } else { 4 };
    agree &= one.iter().zip(&plain).all(|((octets, header), (plain, _))| {
        let end = octets.len() - trailer(*header);
        octets[..end] == plain[..end]
    });
    Ok(agree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_of_this_machine_passes() {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_supported()) {
            assert!(self_test(backend), "{backend:?}");
            assert_eq!(Backend::named(backend.name()), Some(backend));
        }
        let best = Backend::ALL.into_iter().rfind(|backend| backend.is_supported()).unwrap();
        assert_eq!(selected(), Selection { backend: best, failed: None });
    }

    #[test]
    fn what_is_forced_is_selected() {
        force(Backend::Portable).unwrap();
        assert_eq!(selected().backend, Backend::Portable);
        FORCED.store(0, Ordering::Relaxed);
    }

    #[test]
    fn a_backend_that_errs_is_found_out_and_replaced() {
        let best = selected().backend;
        let wrong_octet: Run = |burst| {
            let refused = protect(burst);
            if let Some(octet) = burst.get_mut(13).and_then(|desc| desc.packet.last_mut()) {
                *octet ^= 1;
            }
            refused
        };
        let lenient: Run = |burst| unprotect(burst) & !(1 << 20);
        assert!(agrees(best, protect, unprotect));
        assert!(!agrees(best, wrong_octet, unprotect));
        assert!(!agrees(best, protect, lenient));
        let expected = Selection { backend: Backend::Portable, failed: Some(Backend::Avx512) };
        assert_eq!(choose(Backend::Avx512, false), expected);
    }
}
