//! By what a network card spreads UDP over its RX queues. Many look at addresses only until they are told otherwise, so that
//! all calls of one media server, or of everybody behind one NAT, come by one queue.

use std::io;

use crate::afxdp::{self, HashFields};

/// linux/ethtool.h: commands, kinds of flows, fields that are hashed.
const GET: u32 = 0x29;
const SET: u32 = 0x2a;
const UDP_FLOWS: [u32; 2] = [0x02, 0x06];
/// Source and destination address, source and destination port.
const FIELDS: u64 = (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7);

/// Has the card of an interface spread UDP over IPv4 and IPv6 by ports as well as by addresses; it may do so already. What the
/// card is told it keeps. To tell it takes `CAP_NET_ADMIN`.
///
/// # Errors
/// What the system says: `Unsupported` (`EOPNOTSUPP`) where the driver does not offer that, as that of virtual cables; for one
/// IP version it may be done all the same.
pub fn hash_ports(interface: &str) -> io::Result<()> {
    ask(&mut |request| afxdp::hash_fields(interface, request))
}

fn ask(card: &mut dyn FnMut(&mut HashFields) -> io::Result<()>) -> io::Result<()> {
    // Both are asked, whatever the first one says.
    let [v4, v6] = UDP_FLOWS.map(|kind| {
        let mut request = HashFields { command: GET, kind, fields: 0 };
        card(&mut request)?;
        if request.fields & FIELDS == FIELDS {
            return Ok(());
        }
        card(&mut HashFields { command: SET, kind, fields: FIELDS })
    });
    v4.and(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: u32 = UDP_FLOWS[0];
    const ADDRESSES: u64 = (1 << 4) | (1 << 5);

    /// A card that hashes so, and lets itself be told or not; what it was asked.
    fn card(hashes: [io::Result<u64>; 2], obeys: bool) -> (io::Result<()>, Vec<(u32, u32, u64)>) {
        let mut asked = Vec::new();
        let outcome = ask(&mut |request| {
            asked.push((request.command, request.kind, request.fields));
            match (&hashes[usize::from(request.kind != V4)], request.command) {
                (Err(error), _) => Err(error.kind().into()),
                (Ok(fields), GET) => {
                    request.fields = *fields;
                    Ok(())
                }
                (Ok(_), _) if obeys => Ok(()),
                (Ok(_), _) => Err(io::ErrorKind::InvalidInput.into()),
            }
        });
        (outcome, asked)
    }

    #[test]
    fn a_card_is_told_what_it_does_not_do() {
        let (outcome, asked) = card([Ok(ADDRESSES), Ok(FIELDS | 1)], true);
        assert!(outcome.is_ok());
        assert_eq!(asked, [(GET, V4, 0), (SET, V4, FIELDS), (GET, UDP_FLOWS[1], 0)]);
    }

    #[test]
    fn a_card_that_does_not_offer_it_says_so_and_both_versions_are_asked() {
        let unsupported = || Err(io::ErrorKind::Unsupported.into());
        let (outcome, asked) = card([unsupported(), Ok(ADDRESSES)], true);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(asked.last(), Some(&(SET, UDP_FLOWS[1], FIELDS)));
        let (outcome, _) = card([Ok(FIELDS), unsupported()], true);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Unsupported);
        let (outcome, _) = card([Ok(ADDRESSES), Ok(ADDRESSES)], false);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn loopback_offers_nothing() {
        assert_eq!(hash_ports("lo").unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(hash_ports("no such interface").is_err());
        assert_eq!(hash_ports("with\0null").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
