//! Suites under every backend, and packets for them.

use sallyport_srtp::suites::{Backend, Desc, Refused, Suite, protect, unprotect};

#[path = "../behaviour/packets.rs"]
mod packets;
pub use packets::Random;

/// All suites with both lengths of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub gcm: bool,
    tag: usize,
    pub key: usize,
}

pub const FORMS: [Form; 6] = [
    Form { gcm: true, tag: 16, key: 16 },
    Form { gcm: true, tag: 16, key: 32 },
    Form { gcm: false, tag: 10, key: 16 },
    Form { gcm: false, tag: 10, key: 32 },
    Form { gcm: false, tag: 4, key: 16 },
    Form { gcm: false, tag: 4, key: 32 },
];

impl Form {
    pub fn tag(self) -> usize {
        self.tag
    }

    /// The same keys for the same seed, whatever the backend.
    pub fn suite(self, backend: Backend, seed: u64) -> Suite {
        let mut random = Random(seed);
        let key = random.octets(self.key);
        let mac: [u8; 20] = random.octets(20).try_into().unwrap();
        let salt: [u8; 14] = random.octets(14).try_into().unwrap();
        if self.gcm {
            Suite::gcm(backend, &key, salt.first_chunk().unwrap()).unwrap()
        } else if self.tag == 4 {
            Suite::aes_cm_short(backend, &key, &mac, &salt).unwrap()
        } else {
            Suite::aes_cm(backend, &key, &mac, &salt).unwrap()
        }
    }
}

/// The backends that this machine has, but for the portable one.
pub fn simd() -> Vec<Backend> {
    let missing: Vec<_> = Backend::ALL.into_iter().filter(|backend| !backend.is_supported()).collect();
    if !missing.is_empty() {
        println!("SKIPPED: this processor has no {missing:?}");
    }
    [Backend::Shani, Backend::Avx512].into_iter().filter(|backend| backend.is_supported()).collect()
}

/// All that this machine has.
pub fn backends() -> Vec<Backend> {
    [vec![Backend::Portable], simd()].concat()
}

/// One packet: octets with room for what sealing adds, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub octets: Vec<u8>,
    /// Octets in the clear; none for SRTCP.
    pub header: Option<usize>,
    pub ssrc: u32,
    pub index: u64,
}

impl Case {
    /// RTP with this much header and payload.
    pub fn rtp(random: &mut Random, form: Form, header: usize, payload: usize) -> Self {
        let octets = random.octets(header + payload + form.tag());
        let index = random.next() & 0xffff_ffff_ffff;
        Self { octets, header: Some(header), ssrc: random.next() as u32, index }
    }

    /// RTCP with this much behind its eight octets.
    pub fn rtcp(random: &mut Random, form: Form, payload: usize) -> Self {
        let octets = random.octets(8 + payload + 4 + form.tag());
        let index = random.next() & 0x7fff_ffff;
        Self { octets, header: None, ssrc: random.next() as u32, index }
    }

    /// The packet without what sealing adds.
    pub fn plain(&self, form: Form) -> &[u8] {
        let trailer = form.tag() + if self.header.is_some() { 0 } else { 4 };
        &self.octets[..self.octets.len() - trailer]
    }

    pub fn desc<'a>(
        &self,
        suite: &'a Suite,
        octets: &'a mut [u8],
        sealing: bool,
    ) -> Result<Desc<'a>, Refused> {
        match self.header {
            Some(header) => Desc::rtp(suite, octets, header, self.ssrc, self.index),
            None if sealing => Desc::sealing_rtcp(suite, octets, self.ssrc, self.index as u32),
            None => Desc::opening_rtcp(suite, octets, self.ssrc, self.index as u32),
        }
    }

    /// Seals a copy.
    pub fn sealed(&self, suite: &Suite) -> Vec<u8> {
        let mut octets = self.octets.clone();
        assert_eq!(protect(&mut [self.desc(suite, &mut octets, true).unwrap()]), 0);
        octets
    }

    /// Opens these octets in place: whether they were right.
    pub fn opens(&self, suite: &Suite, octets: &mut [u8]) -> bool {
        unprotect(&mut [self.desc(suite, octets, false).unwrap()]) == 0
    }
}
