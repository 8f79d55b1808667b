//! Where a configured host is served: NAPTR, SRV, A and AAAA (RFC 3263 section 4), looked up again when they expire.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use tokio::sync::mpsc::Sender;

use super::peers::{Place, default_port};
use super::transport::{Arrival, Target};
use crate::config::{Server, Transport};

/// However short or long records say that they are good.
const LIFE_MIN: Duration = Duration::from_secs(2);
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// After a lookup that brought nothing.
const AGAIN: Duration = Duration::from_secs(5);
/// Places of one host; a domain that names more is not followed further.
const PLACES: usize = 32;

/// A service of a domain: its SRV name, and by what.
struct Service {
    name: String,
    kind: Transport,
}

/// Looks things up.
#[derive(Clone)]
pub struct Lookup {
    resolver: TokioResolver,
    v4: bool,
}

impl Lookup {
    /// Asks `dns`, or whom the system asks; `local` decides which family of addresses is of use.
    ///
    /// # Errors
    /// What is wrong with the system's configuration.
    pub fn new(dns: Option<SocketAddr>, local: IpAddr) -> anyhow::Result<Self> {
        let mut builder = match dns {
            Some(address) => {
                let mut config = ResolverConfig::new();
                config.add_name_server(NameServerConfig::new(address, Protocol::Udp));
                config.add_name_server(NameServerConfig::new(address, Protocol::Tcp));
                TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        // Records are asked for when they have expired: what is kept here would only be older.
        builder.options_mut().cache_size = 0;
        Ok(Self { resolver: builder.build(), v4: local.is_ipv4() })
    }

    /// Keeps the places of a server known for ever.
    pub async fn follow(
        self,
        index: usize,
        server: Server,
        transport: Option<Transport>,
        arrived: Sender<Arrival>,
    ) {
        loop {
            let (places, until) = self.places(&server, transport).await;
            let life = if places.is_empty() {
                tracing::warn!(server = index, "a SIP server's host has no address");
                AGAIN
            } else {
                let life = until.saturating_duration_since(Instant::now()).clamp(LIFE_MIN, LIFE_MAX);
                // What no lookup brings any more stays as it was known.
                if arrived.send(Arrival::Resolved(index, places)).await.is_err() {
                    return;
                }
                life
            };
            tokio::time::sleep(life).await;
        }
    }

    /// All places of a server, and until when they are good.
    async fn places(&self, server: &Server, transport: Option<Transport>) -> (Vec<Place>, Instant) {
        let name = server.name.clone().unwrap_or_default();
        let wanted = server.transport.or(transport);
        let mut until = Instant::now() + LIFE_MAX;
        if let Some(port) = server.port {
            let kind = wanted.unwrap_or_default();
            return (self.hosts(&name, port, kind, (0, 1), &name, &mut until).await, until);
        }
        let mut places = Vec::new();
        for (rank, service) in self.services(&name, wanted, &mut until).await.into_iter().enumerate() {
            let Ok(found) = self.resolver.lookup(service.name.as_str(), RecordType::SRV).await else {
                continue;
            };
            until = until.min(found.valid_until());
            for srv in found.iter().filter_map(RData::as_srv).take(PLACES) {
                let host = srv.target().to_utf8();
                // Services are preferred one after the other, whatever the priorities within each.
                let rank = u16::try_from(rank).unwrap_or(u16::MAX).saturating_mul(4096);
                let order = (rank.saturating_add(srv.priority().min(4095)), srv.weight());
                places.extend(self.hosts(&host, srv.port(), service.kind, order, &name, &mut until).await);
            }
        }
        if places.is_empty() {
            let kind = wanted.unwrap_or_default();
            places = self.hosts(&name, default_port(kind), kind, (0, 1), &name, &mut until).await;
        }
        // Of one that is named twice the better name counts.
        places.sort_by_key(|place| place.priority);
        let mut known = Vec::new();
        places.retain(|place| {
            let another = !known.contains(&place.target);
            known.push(place.target);
            another
        });
        places.truncate(PLACES);
        (places, until)
    }

    /// The services that a domain names (NAPTR), else those that it may have.
    async fn services(&self, name: &str, wanted: Option<Transport>, until: &mut Instant) -> Vec<Service> {
        let mut named: Vec<(u16, u16, Service)> = Vec::new();
        if wanted.is_none()
            && let Ok(found) = self.resolver.lookup(name, RecordType::NAPTR).await
        {
            *until = (*until).min(found.valid_until());
            for naptr in found.iter().filter_map(RData::as_naptr) {
                let kind = match naptr.services().to_ascii_uppercase().as_slice() {
                    b"SIP+D2U" => Transport::Udp,
                    b"SIP+D2T" => Transport::Tcp,
                    b"SIPS+D2T" => Transport::Tls,
                    _ => continue,
                };
                if naptr.flags().eq_ignore_ascii_case(b"s") {
                    let service = Service { name: naptr.replacement().to_utf8(), kind };
                    named.push((naptr.order(), naptr.preference(), service));
                }
            }
        }
        named.sort_by_key(|(order, preference, _)| (*order, *preference));
        if !named.is_empty() {
            return named.into_iter().map(|(_, _, service)| service).collect();
        }
        let all =
            [("_sip._udp", Transport::Udp), ("_sip._tcp", Transport::Tcp), ("_sips._tcp", Transport::Tls)];
        let usable = all.into_iter().filter(|(_, kind)| wanted.is_none_or(|wanted| wanted == *kind));
        usable.map(|(service, kind)| Service { name: format!("{service}.{name}"), kind }).collect()
    }

    async fn hosts(
        &self,
        host: &str,
        port: u16,
        kind: Transport,
        (priority, weight): (u16, u16),
        domain: &str,
        until: &mut Instant,
    ) -> Vec<Place> {
        let record = if self.v4 { RecordType::A } else { RecordType::AAAA };
        let Ok(found) = self.resolver.lookup(host, record).await else { return Vec::new() };
        *until = (*until).min(found.valid_until());
        let place = |ip| {
            let target = Target::new(SocketAddr::new(ip, port), kind);
            // The certificate names the domain that was asked for (RFC 5922 section 7.2).
            Place { target, name: domain.trim_end_matches('.').to_owned(), priority, weight }
        };
        found.iter().filter_map(RData::ip_addr).take(PLACES).map(place).collect()
    }
}
