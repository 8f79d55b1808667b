//! DTLS-SRTP by BoringSSL, driven as a state machine: datagrams in, datagrams out, timers by the caller
//! (RFC 5763, RFC 5764, RFC 9147).
//!
//! The peer's certificate is self-signed: its fingerprint is handed out and compared by the call before any key is used.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boring::asn1::Asn1Time;
use boring::bn::{BigNum, MsbOption};
use boring::ec::{EcGroup, EcKey};
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::ssl::{
    HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslStream, SslVerifyMode, SslVersion,
};
use boring::x509::{X509, X509NameBuilder};
use foreign_types::ForeignTypeRef;
use sallyport_plan::{KeyMaterial, Profile};
use sallyport_proto::DtlsRole;
use zeroize::Zeroizing;

/// Octets of a datagram that we send.
const MTU: u32 = 1200;
/// First retransmission after this, then doubling: the path has just been proven by ICE.
const INITIAL_TIMEOUT_MS: u32 = 100;
/// Label of the exporter (RFC 5764 section 4.2).
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

/// SRTP profiles that we accept of a client that offers them, the first of these that it has being taken. Best first: GCM
/// costs half of what AES-CM with HMAC does and says no less; a longer key says more and costs more, and nobody asked
/// us for it who has the shorter one too. Last the one with tags of 32 bits (RFC 5764 section 4.1.2), for gateways that
/// know no other.
const ACCEPTED: &str =
    "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80:SRTP_AES128_CM_SHA1_32";
/// What we offer as a client: a server might prefer the short tags, and every one has what is here.
const OFFERED: &str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80";

/// What a handshake yields.
pub struct Done {
    /// SRTP profile agreed on.
    pub profile: Profile,
    /// Key of what the browser sends us.
    pub receive: KeyMaterial,
    /// Key of what we send the browser.
    pub send: KeyMaterial,
    /// SHA-256 over the peer's certificate in DER.
    pub peer_fingerprint: [u8; 32],
}

/// Our certificate and policy, shared by all calls of the process.
pub struct Identity {
    context: SslContext,
    fingerprint: [u8; 32],
}

impl Identity {
    /// Makes a key and a self-signed certificate.
    ///
    /// # Errors
    /// What the library says.
    pub fn new() -> Result<Self, ErrorStack> {
        let (key, certificate) = certificate()?;
        let mut builder = SslContextBuilder::new(SslMethod::dtls())?;
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        builder.set_max_proto_version(Some(SslVersion::DTLS1_3))?;
        builder.set_curves_list("X25519MLKEM768:X25519:P-256")?;
        builder.set_certificate(&certificate)?;
        builder.set_private_key(&key)?;
        // Any certificate will do here: the call compares its fingerprint with the offer's before any key is used.
        builder.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, _| true);
        builder.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_TICKET);
        let fingerprint = fingerprint(&certificate)?;
        Ok(Self { context: builder.build(), fingerprint })
    }

    /// SHA-256 over our certificate in DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

fn certificate() -> Result<(PKey<Private>, X509), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "sallyport")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(64, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(365)?.as_ref())?;
    builder.set_pubkey(&key)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((key, builder.build()))
}

fn fingerprint(certificate: &X509) -> Result<[u8; 32], ErrorStack> {
    let digest = certificate.digest(MessageDigest::sha256())?;
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.get(..32).unwrap_or(&[0; 32]));
    Ok(octets)
}

/// Datagrams on their way in and out of the library.
#[derive(Debug, Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

/// One datagram a call, as DTLS wants it.
#[derive(Debug, Clone, Default)]
struct Pipe(Arc<Mutex<Queues>>);

impl Pipe {
    fn with<T>(&self, act: impl FnOnce(&mut Queues) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let datagram = self.with(|queues| queues.incoming.pop_front()).ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(room.len());
        room[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.with(|queues| queues.outgoing.push_back(datagram.to_vec()));
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    Handshake(MidHandshakeSslStream<Pipe>),
    Done(SslStream<Pipe>),
    Failed,
}

/// What came of a step.
pub enum Step {
    /// More datagrams are needed.
    Going,
    /// The handshake has ended; said once.
    Done(Box<Done>),
    /// The handshake has failed, in words; said once.
    Failed(String),
    /// The peer closed the association.
    Closed,
}

/// One association.
pub struct Dtls {
    state: State,
    pipe: Pipe,
    role: DtlsRole,
}

impl Dtls {
    /// Begins; as a client the first flight is ready in [`Dtls::poll_transmit`].
    ///
    /// # Errors
    /// What the library says.
    pub fn new(identity: &Identity, role: DtlsRole) -> Result<Self, String> {
        let mut ssl = Ssl::new(&identity.context).map_err(|error| error.to_string())?;
        ssl.set_mtu(MTU).map_err(|error| error.to_string())?;
        let profiles = if role == DtlsRole::Active { OFFERED } else { ACCEPTED };
        ssl.set_tlsext_use_srtp(profiles).map_err(|error| error.to_string())?;
        set_initial_timeout(&ssl);
        let pipe = Pipe::default();
        let begun = match role {
            DtlsRole::Active => ssl.setup_connect(pipe.clone()),
            DtlsRole::Passive => ssl.setup_accept(pipe.clone()),
        };
        let mut dtls = Self { state: State::Handshake(begun), pipe, role };
        match dtls.advance() {
            Step::Failed(text) => Err(text),
            Step::Going | Step::Done(_) | Step::Closed => Ok(dtls),
        }
    }

    /// Takes in a datagram. An empty one would look to the library like the end of the stream.
    pub fn receive(&mut self, datagram: &[u8]) -> Step {
        if datagram.is_empty() {
            return Step::Going;
        }
        self.pipe.with(|queues| queues.incoming.push_back(datagram.to_vec()));
        self.advance()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.pipe.with(|queues| queues.outgoing.pop_front())
    }

    /// When [`Dtls::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        timeout(self.ssl()?).map(|left| now + left)
    }

    /// Sends again what was not answered.
    pub fn handle_timeout(&mut self) -> Step {
        if let Some(ssl) = self.ssl() {
            retransmit(ssl);
        }
        self.advance()
    }

    /// Tells the peer that no more will come.
    pub fn close(&mut self) {
        if let State::Done(stream) = &mut self.state {
            let _ = stream.shutdown();
        }
    }

    fn ssl(&self) -> Option<&SslRef> {
        match &self.state {
            State::Handshake(middle) => Some(middle.ssl()),
            State::Done(stream) => Some(stream.ssl()),
            State::Failed => None,
        }
    }

    fn advance(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Handshake(middle) => match middle.handshake() {
                Ok(stream) => self.finish(stream),
                Err(HandshakeError::WouldBlock(middle)) => {
                    self.state = State::Handshake(middle);
                    Step::Going
                }
                Err(HandshakeError::Failure(failed)) => Step::Failed(failed.error().to_string()),
                Err(HandshakeError::SetupFailure(error)) => Step::Failed(error.to_string()),
            },
            State::Done(stream) => self.listen(stream),
            State::Failed => Step::Going,
        }
    }

    fn finish(&mut self, stream: SslStream<Pipe>) -> Step {
        let done = keys(stream.ssl(), self.role);
        self.state = State::Done(stream);
        match done {
            Ok(done) => Step::Done(Box::new(done)),
            Err(text) => Step::Failed(text),
        }
    }

    /// After the handshake: acknowledgements, retransmitted flights, close_notify.
    fn listen(&mut self, mut stream: SslStream<Pipe>) -> Step {
        let mut room = [0; 2048];
        let mut closed = false;
        while self.pipe.with(|queues| !queues.incoming.is_empty()) {
            match stream.ssl_read(&mut room) {
                Ok(_) => {}
                Err(error) => {
                    closed |= error.code() == boring::ssl::ErrorCode::ZERO_RETURN;
                    if error.code() != boring::ssl::ErrorCode::WANT_READ {
                        self.pipe.with(|queues| queues.incoming.clear());
                    }
                }
            }
        }
        self.state = State::Done(stream);
        if closed { Step::Closed } else { Step::Going }
    }
}

/// Keys and fingerprint of a finished handshake (RFC 5764 section 4.2: client key, server key, client salt, server salt).
fn keys(ssl: &SslRef, role: DtlsRole) -> Result<Done, String> {
    let name = ssl.selected_srtp_profile().map(|profile| profile.name().to_owned());
    let profile = match name.as_deref() {
        Some("SRTP_AES128_CM_SHA1_80") => Profile::AesCm128HmacSha1_80,
        Some("SRTP_AEAD_AES_128_GCM") => Profile::AeadAes128Gcm,
        Some("SRTP_AEAD_AES_256_GCM") => Profile::AeadAes256Gcm,
        Some("SRTP_AES128_CM_SHA1_32") => Profile::AesCm128HmacSha1_32,
        _ => return Err("no SRTP profile was agreed on".into()),
    };
    let certificate = ssl.peer_certificate().ok_or("the peer showed no certificate")?;
    let peer_fingerprint = fingerprint(&certificate).map_err(|error| error.to_string())?;
    let (key, salt) = (profile.key_len(), profile.salt_len());
    let mut material = Zeroizing::new(vec![0; 2 * (key + salt)]);
    ssl.export_keying_material(&mut material, EXPORTER, None).map_err(|error| error.to_string())?;
    let (keys, salts) = material.split_at(2 * key);
    let (client_key, server_key) = keys.split_at(key);
    let (client_salt, server_salt) = salts.split_at(salt);
    let broken = || "keying material of a wrong length".to_owned();
    let client = KeyMaterial::new(profile, client_key, client_salt).ok_or_else(broken)?;
    let server = KeyMaterial::new(profile, server_key, server_salt).ok_or_else(broken)?;
    let (receive, send) = match role {
        DtlsRole::Active => (server, client),
        DtlsRole::Passive => (client, server),
    };
    Ok(Done { profile, receive, send, peer_fingerprint })
}

fn set_initial_timeout(ssl: &SslRef) {
    // SAFETY: the pointer is that of a live SSL object, borrowed for the call; the function only writes a field of it.
    unsafe { boring_sys::DTLSv1_set_initial_timeout_duration(ssl.as_ptr(), INITIAL_TIMEOUT_MS) };
}

/// Time to the next retransmission; `None` while no timer runs.
fn timeout(ssl: &SslRef) -> Option<Duration> {
    let mut left = boring_sys::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: both pointers are valid for the call: a live SSL object and a timeval on this stack, which is only written.
    let running = unsafe { boring_sys::DTLSv1_get_timeout(ssl.as_ptr(), &raw mut left) };
    let seconds = u64::try_from(left.tv_sec).unwrap_or(0);
    let micros = u64::try_from(left.tv_usec).unwrap_or(0);
    (running == 1).then(|| Duration::from_secs(seconds) + Duration::from_micros(micros))
}

fn retransmit(ssl: &SslRef) {
    // SAFETY: the pointer is that of a live SSL object that nobody else uses: `Dtls` is borrowed mutably by the only caller.
    // The library may write datagrams through the pipe, which takes its own lock.
    unsafe { boring_sys::DTLSv1_handle_timeout(ssl.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries datagrams between two associations until both are done; `carry` may lose, swap or repeat them.
    fn pair(mut carry: impl FnMut(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> (Done, Done) {
        let (ours, theirs) = (Identity::new().unwrap(), Identity::new().unwrap());
        let mut ends =
            [Dtls::new(&ours, DtlsRole::Passive).unwrap(), Dtls::new(&theirs, DtlsRole::Active).unwrap()];
        let mut done = [None, None];
        for round in 0..400 {
            for from in [1, 0] {
                let sent: Vec<Vec<u8>> = std::iter::from_fn(|| ends[from].poll_transmit()).collect();
                for datagram in carry(round, sent) {
                    match ends[1 - from].receive(&datagram) {
                        Step::Done(keys) => done[1 - from] = Some(*keys),
                        Step::Failed(text) => panic!("{text}"),
                        Step::Going | Step::Closed => {}
                    }
                }
            }
            if let [Some(_), Some(_)] = done {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            for (end, done) in ends.iter_mut().zip(&mut done) {
                if end.poll_timeout(Instant::now()).is_some_and(|at| at <= Instant::now())
                    && let Step::Done(keys) = end.handle_timeout()
                {
                    *done = Some(*keys);
                }
            }
        }
        let [Some(one), Some(other)] = done else { panic!("no handshake") };
        (one, other)
    }

    fn agree((server, client): (Done, Done)) {
        assert_eq!(server.profile, Profile::AeadAes128Gcm);
        assert_eq!((&server.send, &server.receive), (&client.receive, &client.send));
        assert_ne!(server.send, server.receive);
        assert_ne!(server.peer_fingerprint, client.peer_fingerprint);
    }

    #[test]
    fn two_ends_agree_on_keys() {
        agree(pair(|_, sent| sent));
    }

    #[test]
    fn fragments_may_come_swapped_and_twice() {
        agree(pair(|_, mut sent| {
            sent.reverse();
            sent.iter().cloned().chain(sent.iter().cloned()).collect()
        }));
    }

    #[test]
    fn a_lost_flight_is_sent_again() {
        agree(pair(|round, sent| if round < 3 { Vec::new() } else { sent }));
    }

    #[test]
    fn rubbish_changes_nothing() {
        let identity = Identity::new().unwrap();
        let mut server = Dtls::new(&identity, DtlsRole::Passive).unwrap();
        for datagram in [&[0u8; 0][..], &[22], &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200], &[0xff; 1500]]
        {
            assert!(matches!(server.receive(datagram), Step::Going));
        }
    }
}
