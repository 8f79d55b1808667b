//! Captures on both sides of what is measured: how long each packet was between them.
//!
//! A tap on the appliance's own interfaces sees nothing of native XDP and of AF_XDP, so the row has a bridge in each cable
//! and the captures are at its port toward the appliance: what they tell holds both crossings of the veth pairs too.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_lab::capture::is_rtp;
use sallyport_lab::pcap::{Captured, datagrams};
use sallyport_wire::rtp::Header;

use super::drive::End;
use super::net::{Row, Side, TAPS};
use super::results::{Percentiles, Residence, Stay};

/// How long tcpdump may take to begin, and to write what it has.
const PATIENCE: Duration = Duration::from_secs(5);
/// A packet is in the box for no longer than this.
const WINDOW_NS: u64 = 5_000_000_000;
/// Packets of a stream from which candidates for the constant between its sequence numbers are taken.
const VOTERS: usize = 20;

/// A running tcpdump.
struct Tap {
    child: Child,
    file: PathBuf,
}

impl Tap {
    fn start(row: &Row, side: Side, folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(format!("{}.pcap", side.tap()));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", row.namespace(TAPS)));
        command.args([
            "tcpdump",
            "-i",
            side.tap(),
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-Z",
            "root",
        ]);
        command.args(["--time-stamp-precision=nano", "-w"]).arg(&file).arg("udp");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("tcpdump")?;
        let mut words = BufReader::new(child.stderr.take().context("tcpdump's words")?).lines();
        let tap = Self { child, file };
        let begun = words.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        // It may say more at its end, and must not meet a closed pipe.
        thread::spawn(move || words.count());
        if !begun {
            bail!("tcpdump does not capture on {}: is it installed?", side.tap());
        }
        Ok(tap)
    }

    fn stop(mut self) -> anyhow::Result<Vec<Captured>> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let bytes = fs::read(&self.file).with_context(|| self.file.display().to_string())?;
        datagrams(&bytes).with_context(|| self.file.display().to_string())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Captures on both cables.
pub struct Capture {
    outside: Tap,
    inside: Tap,
    folder: Folder,
}

/// Gone when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Capture {
    /// Starts both; returns when both capture.
    ///
    /// # Errors
    /// Where tcpdump does not run.
    pub fn start(row: &Row) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("{}-taps", row.name));
        fs::create_dir_all(&folder)?;
        let folder = Folder(folder);
        let outside = Tap::start(row, Side::Outside, &folder.0)?;
        let inside = Tap::start(row, Side::Inside, &folder.0)?;
        Ok(Self { outside, inside, folder })
    }

    /// Ends both; the time between them of every packet of these calls.
    ///
    /// # Errors
    /// Where a file is damaged.
    pub fn stop(self, ends: &[End]) -> anyhow::Result<Residence> {
        let Self { outside, inside, folder } = self;
        let (outside, inside) = (outside.stop()?, inside.stop()?);
        drop(folder);
        let inward = ends.iter().map(|end| (end.browser, end.agent));
        let outward = ends.iter().map(|end| (end.agent, end.browser));
        Ok(Residence { inward: stay(&outside, &inside, inward)?, outward: stay(&inside, &outside, outward)? })
    }
}

/// When and with which sequence number.
type Sighting = (u64, u16);

/// RTP packets of a capture by one of their addresses.
fn by(
    captured: &[Captured],
    address: impl Fn(&Captured) -> SocketAddr,
) -> HashMap<SocketAddr, Vec<Sighting>> {
    let mut found: HashMap<SocketAddr, Vec<Sighting>> = HashMap::new();
    for datagram in captured.iter().filter(|datagram| is_rtp(datagram)) {
        if let Ok(header) = Header::parse(&datagram.payload) {
            found.entry(address(datagram)).or_default().push((datagram.at_ns, header.sequence()));
        }
    }
    found
}

/// `paths`: of each stream where it comes from and where it goes to.
fn stay(
    before: &[Captured],
    after: &[Captured],
    paths: impl Iterator<Item = (SocketAddr, SocketAddr)>,
) -> anyhow::Result<Stay> {
    let came = by(before, |datagram| datagram.source);
    let went = by(after, |datagram| datagram.destination);
    let mut times: Histogram<u64> = Histogram::new_with_bounds(1, 10_000_000_000, 3)?;
    for (from, to) in paths {
        let (Some(came), Some(went)) = (came.get(&from), went.get(&to)) else { continue };
        for time in matched(came, went) {
            times.saturating_record(time.max(1));
        }
    }
    Ok(Stay { packets: times.len(), us: Percentiles::of(&times) })
}

/// Times between two captures of one stream, ns. Sequence numbers may differ by a constant: the one that explains most
/// packets is right, and of several that explain as many the one with the shortest times, since the packet before comes a
/// whole interval earlier. Where packets are lost and stay longer than an interval, that may be one interval too short.
fn matched(came: &[Sighting], went: &[Sighting]) -> Vec<u64> {
    let mut by_sequence: HashMap<u16, Vec<u64>> = HashMap::new();
    for (at, sequence) in came {
        by_sequence.entry(*sequence).or_default().push(*at);
    }
    let times = |constant: u16| -> Vec<u64> {
        let time = |(at, sequence): &Sighting| {
            let times = by_sequence.get(&sequence.wrapping_sub(constant))?;
            times.iter().rev().find(|came| *came <= at).map(|came| at - came).filter(|time| *time < WINDOW_NS)
        };
        went.iter().filter_map(time).collect()
    };
    let candidates = went.iter().take(VOTERS).flat_map(|(at, sequence)| {
        let near = came.iter().filter(move |(came, _)| came <= at && at - came < WINDOW_NS);
        near.map(move |(_, came)| sequence.wrapping_sub(*came))
    });
    let mut candidates: Vec<u16> = candidates.collect();
    candidates.sort_unstable();
    candidates.dedup();
    let explained: Vec<Vec<u64>> = candidates.into_iter().map(times).collect();
    let most = explained.iter().map(Vec::len).max().unwrap_or_default();
    let likely = explained.into_iter().filter(|times| times.len() == most);
    let sum = |times: &Vec<u64>| times.iter().sum::<u64>() / times.len().max(1) as u64;
    likely.min_by_key(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bursts of `packets` every 20 ms; each leaves after 30 us and some, numbered from elsewhere.
    fn stream(packets: u64, shift: u16, lost: impl Fn(u64) -> bool) -> (Vec<Sighting>, Vec<Sighting>) {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for n in 0..packets * 100 {
            let at = 1_000_000_000 + n / packets * 20_000_000 + n % packets * 2_000;
            let sequence = (65_500 + n) as u16;
            came.push((at, sequence));
            if !lost(n) {
                went.push((at + 30_000 + n % 7 * 100, sequence.wrapping_add(shift)));
            }
        }
        (came, went)
    }

    #[test]
    fn every_packet_finds_itself_whatever_the_numbers() {
        for (packets, shift) in [(1, 0), (1, 777), (10, 0), (10, 65_000)] {
            let (came, went) = stream(packets, shift, |_| false);
            let times = matched(&came, &went);
            assert_eq!(times.len(), came.len(), "{packets} {shift}");
            assert!(
                times.iter().all(|time| (30_000..=30_600).contains(time)),
                "{packets} {shift}: {times:?}"
            );
        }
    }

    #[test]
    fn a_stay_beyond_the_interval_is_told_from_the_next_packet() {
        let (came, mut went) = stream(1, 9, |_| false);
        went.iter_mut().for_each(|sighting| sighting.0 += 65_000_000);
        let times = matched(&came, &went);
        assert_eq!(times.len(), came.len());
        assert!(times.iter().all(|time| *time > 65_000_000), "{times:?}");
    }

    #[test]
    fn lost_packets_make_nobody_else_late() {
        let (came, went) = stream(1, 9, |n| n < 3 || n % 10 == 5);
        let times = matched(&came, &went);
        assert_eq!(times.len(), went.len());
        assert!(times.iter().all(|time| *time < 31_000));
    }

    #[test]
    fn nothing_matches_nothing() {
        assert!(matched(&[], &[(5, 1)]).is_empty());
        assert!(matched(&[(9, 1)], &[(5, 1)]).is_empty(), "what leaves before it comes is no match");
    }
}
