//! What a connection has still to send: little, and nothing old.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::time::{Duration, Instant};

use super::framing::HEADER;

/// Octets that wait for one connection: a key frame of video. More is dropped.
const ROOM: usize = 64 << 10;
/// Media that has waited so long is of no use to anybody.
const STALE: Duration = Duration::from_millis(200);

/// What became of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// Given to the system.
    pub sent: u64,
    /// Dropped for want of room.
    pub full: u64,
    /// Dropped after they had waited too long.
    pub late: u64,
}

/// Frames of one connection that the system has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The end of a frame whose beginning has left: it has to follow, however late.
    rest: Vec<u8>,
    queue: VecDeque<(Instant, Vec<u8>)>,
    octets: usize,
    /// Since when the system takes nothing.
    stuck: Option<Instant>,
}

impl Outgoing {
    /// Whether anything waits for the system to take more.
    pub fn waits(&self) -> bool {
        !self.rest.is_empty() || !self.queue.is_empty()
    }

    /// Since when the system takes nothing of what waits.
    pub fn stuck(&self) -> Option<Instant> {
        self.stuck
    }

    /// Sends a datagram as a frame, or lets it wait behind others.
    ///
    /// # Errors
    /// The system's: the connection is of no more use.
    pub fn send(&mut self, socket: &mut impl Write, datagram: &[u8], now: Instant) -> io::Result<Gone> {
        let mut gone = Gone::default();
        let Ok(length) = u16::try_from(datagram.len()) else {
            gone.full += 1;
            return Ok(gone);
        };
        let header = length.to_be_bytes();
        if !self.waits() {
            let taken = write(socket, &header, datagram)?;
            if taken > 0 {
                gone.sent += 1;
                let body = taken.saturating_sub(HEADER);
                self.rest.extend_from_slice(header.get(taken..).unwrap_or_default());
                self.rest.extend_from_slice(datagram.get(body..).unwrap_or_default());
                self.stuck = self.waits().then_some(now);
                return Ok(gone);
            }
            self.stuck = Some(now);
        }
        if self.octets + HEADER + datagram.len() > ROOM {
            gone.full += 1;
            return Ok(gone);
        }
        self.octets += HEADER + datagram.len();
        self.queue.push_back((now, [&header, datagram].concat()));
        Ok(gone)
    }

    /// Goes on where the system took no more.
    ///
    /// # Errors
    /// As [`Outgoing::send`].
    pub fn flush(&mut self, socket: &mut impl Write, now: Instant) -> io::Result<Gone> {
        let mut gone = Gone::default();
        loop {
            if !self.rest.is_empty() {
                let taken = write(socket, &self.rest, &[])?;
                if taken == 0 {
                    return Ok(gone);
                }
                self.stuck = Some(now);
                self.rest.drain(..taken);
                if !self.rest.is_empty() {
                    return Ok(gone);
                }
            }
            let Some((since, frame)) = self.queue.pop_front() else { break };
            self.octets -= frame.len();
            if now.saturating_duration_since(since) > STALE {
                gone.late += 1;
                continue;
            }
            let taken = write(socket, &frame, &[])?;
            if taken == 0 {
                self.octets += frame.len();
                self.queue.push_front((since, frame));
                return Ok(gone);
            }
            gone.sent += 1;
            self.stuck = Some(now);
            self.rest.extend_from_slice(frame.get(taken..).unwrap_or_default());
        }
        self.stuck = None;
        Ok(gone)
    }
}

/// Octets that the system takes; none where it has no room.
fn write(socket: &mut impl Write, head: &[u8], body: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => return Ok(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many octets, then no more until there is room again.
    #[derive(Default)]
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let some = octets.len().min(self.room);
            if some == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= some;
            self.taken.extend_from_slice(&octets[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frames(mut octets: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some((header, rest)) = octets.split_first_chunk::<2>() {
            let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes(*header)));
            found.push(frame.to_vec());
            octets = rest;
        }
        found
    }

    #[test]
    fn frames_stay_whole_however_little_the_system_takes_at_once() {
        let now = Instant::now();
        for room in 1..40 {
            let (mut outgoing, mut narrow) = (Outgoing::default(), Narrow::default());
            let mut sent = 0;
            let datagrams: Vec<Vec<u8>> = (1..20u8).map(|n| vec![n; usize::from(n)]).collect();
            for datagram in &datagrams {
                narrow.room += room;
                sent += outgoing.flush(&mut narrow, now).unwrap().sent;
                sent += outgoing.send(&mut narrow, datagram, now).unwrap().sent;
            }
            while outgoing.waits() {
                narrow.room += room;
                sent += outgoing.flush(&mut narrow, now).unwrap().sent;
            }
            assert_eq!((frames(&narrow.taken), sent), (datagrams, 19), "{room}");
            assert_eq!((outgoing.octets, outgoing.stuck()), (0, None));
        }
    }

    #[test]
    fn what_does_not_fit_or_has_waited_too_long_is_dropped_and_the_begun_frame_ends() {
        let begin = Instant::now();
        let (mut outgoing, mut narrow) = (Outgoing::default(), Narrow { room: 5, taken: Vec::new() });
        assert_eq!(outgoing.send(&mut narrow, &[1; 10], begin).unwrap().sent, 1);
        let fits = ROOM / 1002;
        let full: u64 =
            (0..fits + 3).map(|_| outgoing.send(&mut narrow, &[2; 1000], begin).unwrap().full).sum();
        assert_eq!(full, 3);
        assert_eq!(outgoing.stuck(), Some(begin));
        let later = begin + STALE + Duration::from_millis(1);
        assert_eq!(
            outgoing.send(&mut narrow, &[3; 4], later).unwrap(),
            Gone::default(),
            "there is room for it"
        );
        narrow.room = 1 << 20;
        let gone = outgoing.flush(&mut narrow, later).unwrap();
        assert_eq!(gone, Gone { sent: 1, full: 0, late: fits as u64 });
        assert_eq!(frames(&narrow.taken), [vec![1; 10], vec![3; 4]]);
        assert!(!outgoing.waits() && outgoing.octets == 0);
    }
}
