//! DTLS-SRTP against two strangers: dimpl, which shares no line with our library, and BoringSSL with other wishes than
//! ours. Both roles, both versions, both profiles, and a path that loses, doubles and swaps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boring::asn1::Asn1Time;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::ssl::{
    HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode,
    SslVersion,
};
use boring::x509::X509;
use dimpl::{Config, DtlsCertificate, Output, SrtpProfile};
use sallyport_control::dtls::{Done, Dtls, Identity, Step};
use sallyport_plan::Profile;
use sallyport_proto::DtlsRole;

/// What a stranger has when it is done: profile, keying material as exported, SHA-256 of our certificate.
type Outcome = (Profile, Vec<u8>, [u8; 32]);

trait Stranger {
    fn receive(&mut self, datagram: &[u8]);
    fn transmit(&mut self) -> Vec<Vec<u8>>;
    fn pass_time(&mut self, now: Instant);
    fn outcome(&self) -> Option<Outcome>;
    /// SHA-256 of its certificate.
    fn fingerprint(&self) -> [u8; 32];
}

fn certificate() -> (PKey<Private>, X509) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (key, builder.build())
}

fn digest(certificate: &X509) -> [u8; 32] {
    certificate.digest(MessageDigest::sha256()).unwrap()[..].try_into().unwrap()
}

/// dimpl.
struct Dimpl {
    dtls: dimpl::Dtls,
    outgoing: Vec<Vec<u8>>,
    due: Option<Instant>,
    peer: Option<[u8; 32]>,
    keys: Option<(Profile, Vec<u8>)>,
    fingerprint: [u8; 32],
}

impl Dimpl {
    fn new(version: SslVersion, is_client: bool) -> Self {
        let (key, x509) = certificate();
        let fingerprint = digest(&x509);
        let private_key = key.private_key_to_der_pkcs8().unwrap();
        let certificate = DtlsCertificate { certificate: x509.to_der().unwrap(), private_key };
        // As patient as browsers are, in a tenth of their time.
        let config = Config::builder().use_server_cookie(false);
        let config = config.flight_start_rto(Duration::from_millis(50)).flight_retries(6);
        let (config, now) = (Arc::new(config.build().unwrap()), Instant::now());
        let mut dtls = if version == SslVersion::DTLS1_2 {
            dimpl::Dtls::new_12(config, certificate, now)
        } else {
            dimpl::Dtls::new_13(config, certificate, now)
        };
        dtls.set_active(is_client);
        dtls.handle_timeout(now).unwrap();
        let mut dimpl = Self { dtls, outgoing: Vec::new(), due: None, peer: None, keys: None, fingerprint };
        dimpl.drain();
        dimpl
    }

    fn drain(&mut self) {
        let mut room = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut room) {
                Output::Packet(packet) => self.outgoing.push(packet.to_vec()),
                Output::Timeout(at) => {
                    self.due = Some(at);
                    return;
                }
                Output::PeerCert(der) => self.peer = Some(digest(&X509::from_der(der).unwrap())),
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                        SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
                        other => panic!("{other:?} was never offered"),
                    };
                    self.keys = Some((profile, material.to_vec()));
                }
                _ => {}
            }
        }
    }
}

impl Stranger for Dimpl {
    fn receive(&mut self, datagram: &[u8]) {
        self.dtls.handle_packet(datagram).unwrap();
        self.drain();
    }

    fn transmit(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outgoing)
    }

    fn pass_time(&mut self, now: Instant) {
        if self.due.is_some_and(|at| at <= now) {
            self.dtls.handle_timeout(now).unwrap();
            self.drain();
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        let (profile, keys) = self.keys.clone()?;
        Some((profile, keys, self.peer?))
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Datagrams of BoringSSL.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<[VecDeque<Vec<u8>>; 2]>>);

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let datagram = self.0.lock().unwrap()[0].pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        room[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap()[1].push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// BoringSSL with profiles of the test's choice. It never sends again by itself: ours has to.
struct Boring {
    middle: Option<MidHandshakeSslStream<Pipe>>,
    done: Option<SslStream<Pipe>>,
    pipe: Pipe,
    fingerprint: [u8; 32],
}

impl Boring {
    fn new(version: SslVersion, profiles: &str, is_client: bool) -> Self {
        let (key, x509) = certificate();
        let mut builder = SslContext::builder(SslMethod::dtls()).unwrap();
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        builder.set_tlsext_use_srtp(profiles).unwrap();
        builder.set_certificate(&x509).unwrap();
        builder.set_private_key(&key).unwrap();
        builder.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, _| true);
        builder.set_options(SslOptions::NO_QUERY_MTU);
        let mut ssl = Ssl::new(&builder.build()).unwrap();
        ssl.set_mtu(1200).unwrap();
        let pipe = Pipe::default();
        let middle = if is_client { ssl.setup_connect(pipe.clone()) } else { ssl.setup_accept(pipe.clone()) };
        let mut boring = Self { middle: Some(middle), done: None, pipe, fingerprint: digest(&x509) };
        boring.advance();
        boring
    }

    fn advance(&mut self) {
        if let Some(middle) = self.middle.take() {
            match middle.handshake() {
                Ok(stream) => self.done = Some(stream),
                Err(HandshakeError::WouldBlock(middle)) => self.middle = Some(middle),
                Err(error) => panic!("{error}"),
            }
        } else if let Some(stream) = &mut self.done {
            let _ = stream.ssl_read(&mut [0; 64]);
        }
    }
}

impl Stranger for Boring {
    fn receive(&mut self, datagram: &[u8]) {
        self.pipe.0.lock().unwrap()[0].push_back(datagram.to_vec());
        self.advance();
    }

    fn transmit(&mut self) -> Vec<Vec<u8>> {
        self.pipe.0.lock().unwrap()[1].drain(..).collect()
    }

    fn pass_time(&mut self, _: Instant) {}

    fn outcome(&self) -> Option<Outcome> {
        let ssl = self.done.as_ref()?.ssl();
        let profile = match ssl.selected_srtp_profile()?.name() {
            "SRTP_AES128_CM_SHA1_80" => Profile::AesCm128HmacSha1_80,
            "SRTP_AEAD_AES_128_GCM" => Profile::AeadAes128Gcm,
            "SRTP_AEAD_AES_256_GCM" => Profile::AeadAes256Gcm,
            "SRTP_AES128_CM_SHA1_32" => Profile::AesCm128HmacSha1_32,
            other => panic!("{other} was never offered"),
        };
        let mut material = vec![0; 2 * (profile.key_len() + profile.salt_len())];
        ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None).unwrap();
        Some((profile, material, digest(&ssl.peer_certificate()?)))
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Datagrams on their way; `carry` gets the number of the flight and where it goes.
type Carry<'a> = &'a mut dyn FnMut(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>;

fn shake(role: DtlsRole, stranger: &mut dyn Stranger, carry: Carry<'_>) -> (Done, Outcome, [u8; 32]) {
    let identity = Identity::new().unwrap();
    let mut ours = Dtls::new(&identity, role).unwrap();
    let (mut done, begun) = (None, Instant::now());
    let take = |step, done: &mut Option<Done>| match step {
        Step::Done(keys) => *done = Some(*keys),
        Step::Failed(text) => panic!("{text}"),
        Step::Going | Step::Closed => {}
    };
    for round in 0.. {
        assert!(begun.elapsed() < Duration::from_secs(20), "no end");
        for datagram in carry(2 * round, std::iter::from_fn(|| ours.poll_transmit()).collect()) {
            stranger.receive(&datagram);
        }
        for datagram in carry(2 * round + 1, stranger.transmit()) {
            take(ours.receive(&datagram), &mut done);
        }
        let now = Instant::now();
        stranger.pass_time(now);
        if ours.poll_timeout(now).is_some_and(|at| at <= now) {
            take(ours.handle_timeout(), &mut done);
        }
        if let (Some(_), Some(outcome), true) = (&done, stranger.outcome(), round > 20) {
            return (done.unwrap(), outcome, identity.fingerprint());
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    unreachable!("rounds have no end")
}

/// Both ends have the same keys, each for its direction, and each saw the other's certificate.
fn agree(role: DtlsRole, stranger: &mut dyn Stranger, carry: Carry<'_>) -> Profile {
    let (ours, (profile, material, seen), fingerprint) = shake(role, stranger, carry);
    assert_eq!(ours.profile, profile);
    assert_eq!((ours.peer_fingerprint, seen), (stranger.fingerprint(), fingerprint));
    // RFC 5764 section 4.2: client key, server key, client salt, server salt.
    let (key, salt) = (profile.key_len(), profile.salt_len());
    let (client_key, rest) = material.split_at(key);
    let (server_key, rest) = rest.split_at(key);
    let (client_salt, server_salt) = rest.split_at(salt);
    let (client, server) = match role {
        DtlsRole::Active => (&ours.send, &ours.receive),
        DtlsRole::Passive => (&ours.receive, &ours.send),
    };
    assert_eq!((client.key(), client.salt()), (client_key, client_salt));
    assert_eq!((server.key(), server.salt()), (server_key, server_salt));
    profile
}

const ROLES: [DtlsRole; 2] = [DtlsRole::Active, DtlsRole::Passive];
const VERSIONS: [SslVersion; 2] = [SslVersion::DTLS1_2, SslVersion::DTLS1_3];

#[test]
fn dimpl_and_we_agree_in_both_roles_and_versions() {
    for role in ROLES {
        for version in VERSIONS {
            let mut dimpl = Dimpl::new(version, role == DtlsRole::Passive);
            let profile = agree(role, &mut dimpl, &mut |_, datagrams| datagrams);
            if role == DtlsRole::Passive {
                assert_eq!(profile, Profile::AeadAes128Gcm, "as the server we choose");
            }
        }
    }
}

#[test]
fn dimpl_and_we_agree_over_a_bad_path() {
    type Bad = fn(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let swapped: Bad = |_, datagrams| datagrams.into_iter().rev().collect();
    let doubled: Bad = |_, datagrams| datagrams.into_iter().flat_map(|one| [one.clone(), one]).collect();
    let first_flight_lost: Bad = |flight, datagrams| if flight < 2 { Vec::new() } else { datagrams };
    for bad in [swapped, doubled, first_flight_lost] {
        for role in ROLES {
            for version in VERSIONS {
                agree(role, &mut Dimpl::new(version, role == DtlsRole::Passive), &mut { bad });
            }
        }
    }
}

/// Loses one of every three datagrams, each time at another place among them: a flight and its answer that come again
/// would else lose the same datagram for ever, where they happen to be three.
#[test]
fn every_third_datagram_may_be_lost() {
    for role in ROLES {
        for version in VERSIONS {
            let mut count = 0;
            let mut lossy = |_: usize, mut datagrams: Vec<Vec<u8>>| {
                datagrams.retain(|_| {
                    count += 1;
                    count % 3 != count / 3 % 3
                });
                datagrams
            };
            agree(role, &mut Dimpl::new(version, role == DtlsRole::Passive), &mut lossy);
        }
    }
}

#[test]
fn all_profiles_are_spoken_in_both_roles() {
    let cases = [
        ("SRTP_AES128_CM_SHA1_80", Profile::AesCm128HmacSha1_80),
        ("SRTP_AEAD_AES_128_GCM", Profile::AeadAes128Gcm),
        ("SRTP_AEAD_AES_256_GCM", Profile::AeadAes256Gcm),
    ];
    for (name, profile) in cases {
        for role in ROLES {
            for version in VERSIONS {
                let mut boring = Boring::new(version, name, role == DtlsRole::Passive);
                assert_eq!(agree(role, &mut boring, &mut |_, datagrams| datagrams), profile, "{name}");
            }
        }
    }
}

#[test]
fn the_server_s_order_of_profiles_rules() {
    let chromium = "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM";
    let mut client = Boring::new(SslVersion::DTLS1_3, chromium, true);
    assert_eq!(agree(DtlsRole::Passive, &mut client, &mut |_, all| all), Profile::AeadAes128Gcm);
    let mut server = Boring::new(SslVersion::DTLS1_3, chromium, false);
    assert_eq!(agree(DtlsRole::Active, &mut server, &mut |_, all| all), Profile::AesCm128HmacSha1_80);
    let prefers_256 = "SRTP_AES128_CM_SHA1_32:SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM";
    let mut client = Boring::new(SslVersion::DTLS1_3, prefers_256, true);
    assert_eq!(agree(DtlsRole::Passive, &mut client, &mut |_, all| all), Profile::AeadAes256Gcm);
}

/// Short tags are taken of a client that knows no others, and never offered to a server that might prefer them.
#[test]
fn short_tags_are_accepted_where_there_is_nothing_else_and_not_offered() {
    for version in VERSIONS {
        let mut client = Boring::new(version, "SRTP_AES128_CM_SHA1_32", true);
        let profile = agree(DtlsRole::Passive, &mut client, &mut |_, all| all);
        assert_eq!(profile, Profile::AesCm128HmacSha1_32);
        let both = "SRTP_AES128_CM_SHA1_32:SRTP_AES128_CM_SHA1_80";
        let mut server = Boring::new(version, both, false);
        let profile = agree(DtlsRole::Active, &mut server, &mut |_, all| all);
        assert_eq!(profile, Profile::AesCm128HmacSha1_80);
    }
}

#[test]
fn a_peer_without_a_profile_of_ours_or_without_a_certificate_fails() {
    let identity = Identity::new().unwrap();
    let mut ours = Dtls::new(&identity, DtlsRole::Active).unwrap();
    let mut stranger = Boring::new(SslVersion::DTLS1_3, "SRTP_AES128_CM_SHA1_32", false);
    let mut failed = false;
    for _ in 0..10 {
        for datagram in stranger.transmit() {
            match ours.receive(&datagram) {
                Step::Failed(text) => {
                    assert!(text.contains("profile"), "{text}");
                    failed = true;
                }
                Step::Done(_) => panic!("no profile is shared"),
                Step::Going | Step::Closed => {}
            }
        }
        while let Some(datagram) = ours.poll_transmit() {
            stranger.receive(&datagram);
        }
    }
    assert!(failed);
}
