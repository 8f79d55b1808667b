//! Several SIP servers: the living are called, the dead found out, hosts looked up; and TLS to them and from them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::browser::Browser;
use super::harness::{Control, Net, until};
use super::pbx::Pbx;
use super::relay::Relay;

fn peers(control: &Control) -> Vec<(String, Option<bool>, String)> {
    let status = control.status();
    let peer = |peer: &serde_json::Value| {
        let text = |name: &str| peer[name].as_str().unwrap().to_owned();
        (text("address"), peer["alive"].as_bool(), text("reason"))
    };
    status["sip"]["peers"].as_array().unwrap().iter().map(peer).collect()
}

/// A second server's address.
fn second(net: &Net) -> SocketAddr {
    let IpAddr::V4(first) = net.pbx().ip() else { unreachable!() };
    let [a, b, c, _] = first.octets();
    SocketAddr::from(([a, b, c, 8], 5060))
}

#[test]
fn a_dead_server_is_found_out_and_calls_go_to_the_next_within_two_seconds() {
    let net = Net::new();
    let (dead, living) = (net.pbx(), second(&net));
    // It takes datagrams and says nothing: neither the system nor the server tells that it is dead.
    let silent = UdpSocket::bind(dead).unwrap();
    let pbx = Pbx::start(living);
    let servers = format!("server = ['{dead}', '{living}']\nprobe_s = 0");
    let control = Control::start(net, &[("sip", &servers)]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let begun = Instant::now();
    let browser = Browser::new(&relay, control.net.browser(1));
    let answer = control.call("1000", &browser.offer("actpass"));
    let took = begun.elapsed();
    assert_eq!(answer.status, 201, "{}", answer.text());
    // The promise is 2 s from the INVITE; what the machine adds is not of interest.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(pbx.heard("INVITE").len(), 1);
    until("the states are told", || {
        let states = peers(&control);
        (states[0].1, states[1].1) == (Some(false), Some(true))
    });
    let mut room = [0; 1500];
    silent.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let length = silent.recv(&mut room).unwrap();
    assert!(room[..length].starts_with(b"INVITE "), "the first was asked first");
}

#[test]
fn probes_tell_who_is_dead_and_who_is_back() {
    let net = Net::new();
    let (first, next) = (net.pbx(), second(&net));
    let _next = Pbx::start(next);
    let silent = UdpSocket::bind(first).unwrap();
    let control = Control::start(net, &[("sip", &format!("server = ['{first}', '{next}']\nprobe_s = 1"))]);
    until("the silent one is dead, the other alive", || {
        let states = peers(&control);
        (states[0].1, states[1].1) == (Some(false), Some(true)) && states[0].2.contains("answer")
    });
    drop(silent);
    let _first = Pbx::start(first);
    until("it is alive again", || peers(&control)[0].1 == Some(true));
    let metrics = control.ask("GET", "/metrics").text();
    assert!(metrics.contains("sallyport_sip_peer_alive{peer=\"0\",transport=\"UDP\"} 1"), "{metrics}");
}

#[test]
fn a_port_where_nobody_listens_is_known_at_once() {
    let control = Control::start(Net::new(), &[]);
    until("the system tells", || {
        let states = peers(&control);
        states[0].1 == Some(false) && states[0].2.contains("ICMP")
    });
}

/// A name server that knows two domains: one with two places of `_sip._udp`, the first silent; and one that names its services, the
/// other place before the first.
fn name_server(address: SocketAddr, places: [SocketAddr; 2]) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut room = [0; 1500];
        while let Ok((length, source)) = socket.recv_from(&mut room) {
            let Ok(asked) = Message::from_vec(&room[..length]) else { continue };
            let query = asked.queries()[0].clone();
            let name = query.name().to_utf8().to_lowercase();
            let mut answer = Message::new();
            answer.set_id(asked.id()).set_message_type(MessageType::Response).add_query(query.clone());
            answer.set_recursion_available(true).set_response_code(ResponseCode::NoError);
            let own = query.name().clone();
            let host = |text: &str| Name::from_ascii(text).unwrap();
            match (name.as_str(), query.query_type()) {
                ("_sip._udp.telephony.example.", RecordType::SRV) => {
                    for (at, place) in places.iter().enumerate() {
                        let priority = 10 * (u16::try_from(at).unwrap() + 1);
                        let srv =
                            SRV::new(priority, 1, place.port(), host(&format!("h{at}.telephony.example.")));
                        answer.add_answer(Record::from_rdata(own.clone(), 3, RData::SRV(srv)));
                    }
                }
                ("named.example.", RecordType::NAPTR) => {
                    // Order, preference, flags, service: one that is no SIP server's comes first and is passed over.
                    for (order, preference, flags, service, at) in [
                        (30, 10, "s", "SIP+D2U", "_first._udp.named.example."),
                        (20, 20, "s", "SIP+D2U", "_first._udp.named.example."),
                        (20, 10, "S", "sip+d2u", "_next._udp.named.example."),
                        (10, 10, "u", "E2U+sip", "."),
                    ] {
                        let octets = |text: &str| text.as_bytes().into();
                        let naptr = NAPTR::new(
                            order,
                            preference,
                            octets(flags),
                            octets(service),
                            octets(""),
                            host(at),
                        );
                        answer.add_answer(Record::from_rdata(own.clone(), 3, RData::NAPTR(naptr)));
                    }
                }
                ("_first._udp.named.example." | "_next._udp.named.example.", RecordType::SRV) => {
                    let at = usize::from(name.starts_with("_next"));
                    let srv = SRV::new(1, 1, places[at].port(), host(&format!("h{at}.telephony.example.")));
                    answer.add_answer(Record::from_rdata(own, 3, RData::SRV(srv)));
                }
                ("h0.telephony.example." | "h1.telephony.example.", RecordType::A) => {
                    let IpAddr::V4(v4) = places[usize::from(name.starts_with("h1"))].ip() else {
                        unreachable!()
                    };
                    answer.add_answer(Record::from_rdata(own, 3, RData::A(A(v4))));
                }
                _ => {
                    answer.set_response_code(ResponseCode::NXDomain);
                }
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), source);
        }
    });
}

#[test]
fn a_domain_s_servers_are_looked_up_and_called_in_their_order() {
    let net = Net::new();
    let (first, next) = (net.pbx(), second(&net));
    let (first, next) = (SocketAddr::new(first.ip(), 5070), SocketAddr::new(next.ip(), 5071));
    let pbx = Pbx::start(next);
    let dns = SocketAddr::new(net.stun().ip(), 5300);
    name_server(dns, [first, next]);
    let control =
        Control::start(net, &[("sip", &format!("server = 'telephony.example'\ndns = '{dns}'\nprobe_s = 1"))]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    until("both places are known", || {
        let states = peers(&control);
        let places: Vec<&str> = states.iter().map(|state| state.0.as_str()).collect();
        places == [first.to_string(), next.to_string()] && states[1].1 == Some(true)
    });
    let browser = Browser::new(&relay, control.net.browser(1));
    assert_eq!(control.call("1000", &browser.offer("actpass")).status, 201);
    let invite = pbx.heard("INVITE").remove(0);
    assert!(invite.starts_with("INVITE sip:1000@telephony.example SIP/2.0\r\n"), "{invite}");
}

#[test]
fn a_domain_s_services_are_preferred_as_it_names_them() {
    let net = Net::new();
    let places = [SocketAddr::new(net.pbx().ip(), 5070), SocketAddr::new(second(&net).ip(), 5071)];
    let pbx = Pbx::start(places[1]);
    let dns = SocketAddr::new(net.stun().ip(), 5300);
    name_server(dns, places);
    let control =
        Control::start(net, &[("sip", &format!("server = 'named.example'\ndns = '{dns}'\nprobe_s = 1"))]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    until("both are known, the preferred one first", || {
        let states = peers(&control);
        let known: Vec<&str> = states.iter().map(|state| state.0.as_str()).collect();
        known == [places[1].to_string(), places[0].to_string()] && states[0].1 == Some(true)
    });
    let browser = Browser::new(&relay, control.net.browser(1));
    assert_eq!(control.call("1000", &browser.offer("actpass")).status, 201);
    assert!(pbx.heard("INVITE")[0].starts_with("INVITE sip:1000@named.example SIP/2.0\r\n"));
}

/// An authority, and a certificate and key of it for an address, in a folder.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, both PEM.
    fn certify(&self, ip: IpAddr) -> (String, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(ip));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key)
    }
}

struct Keys {
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Keys {
    fn of((certificate, key): &(String, KeyPair)) -> Self {
        use rustls::pki_types::pem::PemObject;
        let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        Self { chain, key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap() }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Answers OPTIONS and counts them; whoever connects must show a certificate of the authority.
fn tls_server(address: SocketAddr, authority: &Authority, keys: Keys) -> Arc<std::sync::Mutex<Vec<String>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(keys.chain, keys.key)
        .unwrap();
    let (config, heard) = (Arc::new(config), Arc::new(std::sync::Mutex::new(Vec::new())));
    let listener = TcpListener::bind(address).unwrap();
    let told = heard.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(connection) = rustls::ServerConnection::new(config.clone()) else { continue };
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut room = [0; 4000];
            while let Ok(length @ 1..) = stream.read(&mut room) {
                let text = String::from_utf8_lossy(&room[..length]).into_owned();
                if text.starts_with("OPTIONS ") {
                    let kept = |line: &&str| {
                        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                            .iter()
                            .any(|name| line.starts_with(name))
                    };
                    let lines: Vec<&str> = text.lines().filter(kept).collect();
                    let answer =
                        format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"));
                    told.lock().unwrap().push(text.clone());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    heard
}

#[test]
fn tls_is_spoken_both_ways_with_certificates_of_both_sides() {
    let net = Net::new();
    let (good, bad) = (Authority::new(), Authority::new());
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = good.certify(net.sip().ip());
    std::fs::write(path("own.pem"), &own.0).unwrap();
    std::fs::write(path("own.key"), own.1.serialize_pem()).unwrap();
    std::fs::write(path("ca.pem"), good.0.pem()).unwrap();
    let server = SocketAddr::new(net.pbx().ip(), 5061);
    let forged = SocketAddr::new(second(&net).ip(), 5061);
    let heard = tls_server(server, &good, Keys::of(&good.certify(server.ip())));
    let unheard = tls_server(forged, &good, Keys::of(&bad.certify(forged.ip())));
    let listen = SocketAddr::new(net.sip().ip(), 5061);
    let lines = format!(
        "server = ['sips:{server}', 'sip:{forged};transport=tls']\nprobe_s = 1\n[sip.tls]\nlisten = '{listen}'\n\
         certificate = '{}'\nkey = '{}'\nca = '{}'\nverify_clients = true",
        path("own.pem"),
        path("own.key"),
        path("ca.pem")
    );
    let control = Control::start(net, &[("sip", &lines)]);
    until("the one is trusted, the other not", || {
        let states = peers(&control);
        (states[0].1, states[1].1) == (Some(true), Some(false)) && states[1].2.contains("certificate")
    });
    assert!(heard.lock().unwrap()[0].contains(&format!("Via: SIP/2.0/TLS {listen};")));
    assert!(unheard.lock().unwrap().is_empty(), "whoever cannot prove to be the server hears nothing");

    let options = "OPTIONS sips:x@y SIP/2.0\r\nVia: SIP/2.0/TLS far;branch=z9hG4bKt;rport\r\nFrom: <sips:a@b>;tag=1\r\n\
                   To: <sips:x@y>\r\nCall-ID: t\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    let ask = |keys: Option<Keys>| -> Option<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(good.0.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match keys {
            Some(keys) => builder.with_client_auth_cert(keys.chain, keys.key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(listen.ip().to_string()).unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(listen).unwrap());
        stream.write_all(options.as_bytes()).ok()?;
        let mut room = [0; 4000];
        let length = stream.read(&mut room).ok().filter(|length| *length > 0)?;
        Some(String::from_utf8_lossy(&room[..length]).into_owned())
    };
    let answer = ask(Some(Keys::of(&good.certify(IpAddr::from([127, 0, 0, 1]))))).expect("let in");
    assert!(answer.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS far;"), "{answer}");
    assert_eq!(ask(None), None, "no certificate, no SIP");
    assert_eq!(ask(Some(Keys::of(&bad.certify(IpAddr::from([127, 0, 0, 1]))))), None);
}
