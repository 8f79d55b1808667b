//! Which of the sockets that share an address a datagram goes to: by a hash of its source, so that all packets of a flow
//! come to one socket, and whoever knows the source of a flow knows which.
//!
//! The choice is the kernel's, made by a classic BPF program (`SO_ATTACH_REUSEPORT_CBPF`), for which no privilege is
//! needed. Not by a socket connected to each peer: kernels before 6.13 walk through all sockets of one address and port for
//! each datagram.

use std::net::{IpAddr, SocketAddr};

/// Multipliers and shift of the hash: sources differ in few bits, all of which must count.
const SPREAD: [u32; 2] = [0x9e37_79b1, 0x85eb_ca6b];
const FOLD: u32 = 15;

/// The place, from 0 to `sockets`, of the socket that hears `source`: that of the port in the list which
/// [`crate::UdpPort::share`] was given.
pub fn steer(source: SocketAddr, sockets: u32) -> u32 {
    let address = match source.ip() {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let words = address.octets();
            let words = words.chunks_exact(4).filter_map(|word| word.first_chunk().copied());
            words.fold(0, |sum, word| sum ^ u32::from_be_bytes(word))
        }
    };
    let mut hash = u32::from(source.port()).wrapping_mul(SPREAD[0]) ^ address;
    hash = hash.wrapping_mul(SPREAD[1]);
    hash = (hash ^ (hash >> FOLD)).wrapping_mul(SPREAD[0]);
    (hash >> 16) % sockets.max(1)
}

/// Where the IP header lies for a socket's filter.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
/// Octets from there to the source address: IPv4, IPv6.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
/// Octets of an IPv6 header. Extension headers would be taken for ports: their packets come to some socket all the same.
const HEADER_V6: u32 = 40;

/// [`steer`] as the kernel runs it, for sockets of one family.
pub(crate) fn program(v4: bool, sockets: u32) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_K, BPF_LD, BPF_LDX, BPF_LSH,
        BPF_MEM, BPF_MISC, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
    };
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let calculate = |operation: u32, k: u32| step(BPF_ALU | operation | BPF_K, k);
    let (keep, recall) = (step(BPF_ST, 0), step(BPF_LD | BPF_MEM, 0));
    let (copy, mix) = (step(BPF_MISC | BPF_TAX, 0), step(BPF_ALU | BPF_XOR | BPF_X, 0));
    let load = |at: u32| step(BPF_LD | BPF_W | BPF_ABS, NETWORK.wrapping_add(at));
    // X: octets of the IP header.
    let mut program = if v4 {
        let length = [calculate(BPF_AND, 0x0f), calculate(BPF_LSH, 2), copy];
        [vec![step(BPF_LD | BPF_B | BPF_ABS, NETWORK)], length.to_vec()].concat()
    } else {
        vec![step(BPF_LDX | BPF_IMM, HEADER_V6)]
    };
    // The port, spread, and each word of the address on top.
    program.extend([step(BPF_LD | BPF_H | BPF_IND, NETWORK), calculate(BPF_MUL, SPREAD[0])]);
    let words: &[u32] =
        if v4 { &[SOURCE_V4] } else { &[SOURCE_V6, SOURCE_V6 + 4, SOURCE_V6 + 8, SOURCE_V6 + 12] };
    for word in words {
        program.extend([copy, load(*word), mix]);
    }
    program.extend([calculate(BPF_MUL, SPREAD[1]), keep, calculate(BPF_RSH, FOLD), copy, recall, mix]);
    program.extend([
        calculate(BPF_MUL, SPREAD[0]),
        calculate(BPF_RSH, 16),
        calculate(BPF_MOD, sockets.max(1)),
    ]);
    program.push(step(BPF_RET | BPF_A, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources as they come: one address behind a NAT with many ports, and many addresses with one port.
    #[test]
    fn sources_spread_over_all_sockets() {
        let ports = (0..4096u16).map(|n| SocketAddr::from(([203, 0, 113, 7], 20_000 + n)));
        let even = (0..4096u16).map(|n| SocketAddr::from(([203, 0, 113, 7], 20_000 + 2 * n)));
        let hosts = (0..4096u16).map(|n| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5004)));
        let v6 = (0..4096u16).map(|n| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 5004)));
        let sources: [Vec<SocketAddr>; 4] = [ports.collect(), even.collect(), hosts.collect(), v6.collect()];
        for (sources, sockets) in sources.iter().flat_map(|sources| [2u32, 3, 4, 7, 16].map(|n| (sources, n)))
        {
            let mut count = vec![0u32; sockets as usize];
            for source in sources {
                count[steer(*source, sockets) as usize] += 1;
            }
            let fair = 4096 / sockets;
            let ok = count.iter().all(|count| (fair * 3 / 4..=fair * 5 / 4).contains(count));
            assert!(ok, "{}: {count:?}", sources[0]);
        }
    }

    #[test]
    fn one_socket_hears_all() {
        assert_eq!(steer(SocketAddr::from(([192, 0, 2, 1], 1)), 1), 0);
        assert_eq!(steer(SocketAddr::from(([192, 0, 2, 1], 1)), 0), 0);
    }
}
