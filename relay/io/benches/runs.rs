//! What it costs to send runs of one flow on, merged by the system or one by one: `cargo bench -p sallyport-io --bench runs`.
//!
//! Over loopback, where the sender's runs arrive as they were given to the system: what merging at a NIC costs is not in it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run may stop")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use sallyport_io::{Burst, Egress, Port, UdpPort};

const ROUNDS: u32 = 20_000;

fn main() {
    println!("{:>7} {:>4} {:>8} {:>12} {:>14}", "octets", "run", "merged", "CPU ns/pkt", "elapsed ns/pkt");
    for (octets, run) in [(1200, 1), (1200, 2), (1200, 4), (1200, 12), (172, 1), (172, 4)] {
        for merge in [false, true] {
            let (cpu, elapsed) = forward(octets, run, merge);
            println!("{octets:>7} {run:>4} {merge:>8} {cpu:>12.0} {elapsed:>14.0}");
        }
    }
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Nanoseconds for a datagram to come in and go out, without what the sender took.
fn forward(octets: usize, run: usize, merge: bool) -> (f64, f64) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut port = UdpPort::new(1024).unwrap();
    if merge {
        port.merge();
    }
    let local = port.bind(1, any).unwrap();
    let (source, sink) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    // The sink takes nothing: what it has no room for costs no more than what it has.
    let remote = sink.local_addr().unwrap();
    if run > 1 {
        setsockopt(&source, sockopt::UdpGsoSegment, &i32::try_from(octets).unwrap()).unwrap();
    }
    let payload = vec![0xd5; octets * run];
    let mut burst = Burst::new();
    let (mut spent, mut elapsed) = (0.0, 0.0);
    let mut count = 0;
    // In groups, because the clock of CPU time is coarse.
    for _ in 0..ROUNDS / 16 {
        for _ in 0..16 {
            source.send_to(&payload, local).unwrap();
        }
        let (began, before) = (Instant::now(), cpu());
        while port.receive(&mut burst).unwrap() > 0 {
            for datagram in burst.drain() {
                count += 1;
                let egress = Egress { zone: 1, local, remote, link: None };
                port.transmit(datagram.frame, datagram.payload, &egress).unwrap();
            }
            port.flush().unwrap();
        }
        spent += cpu() - before;
        elapsed += began.elapsed().as_secs_f64();
    }
    (spent * 1e9 / f64::from(count), elapsed * 1e9 / f64::from(count))
}
