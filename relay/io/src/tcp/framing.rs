//! Datagrams on a byte stream (RFC 4571 section 2): two octets of length in front of each, big-endian.

/// Octets in front of a frame.
pub(super) const HEADER: usize = 2;

/// What comes out of a byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A datagram; an empty one is a null packet, which means nothing.
    Frame(&'a [u8]),
    /// A datagram longer than anybody needs: it is passed over.
    TooLong,
}

/// Finds the frames of one byte stream. Holds what is incomplete: [`HEADER`] and the longest frame at the most.
#[derive(Debug, Default)]
pub(super) struct Unframer {
    carry: Vec<u8>,
    /// Octets of a frame that is passed over which are still to come.
    skip: usize,
}

impl Unframer {
    /// What was left incomplete: new octets are to be put behind.
    pub fn carried(&self) -> &[u8] {
        &self.carry
    }

    /// Takes the next piece off the front of `octets`, which begin with what was carried; `None` while it is incomplete.
    /// Frames have `longest` octets at the most.
    pub fn next<'a>(&mut self, octets: &mut &'a [u8], longest: usize) -> Option<Piece<'a>> {
        if self.skip > 0 {
            let (gone, rest) = octets.split_at_checked(self.skip).unwrap_or((octets, &[]));
            self.skip -= gone.len();
            *octets = rest;
        }
        let (header, rest) = octets.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_be_bytes(*header));
        if length > longest {
            self.skip = length;
            *octets = rest;
            return Some(Piece::TooLong);
        }
        let (frame, rest) = rest.split_at_checked(length)?;
        *octets = rest;
        Some(Piece::Frame(frame))
    }

    /// Keeps what [`Unframer::next`] has left.
    pub fn keep(&mut self, rest: &[u8]) {
        self.carry.clear();
        self.carry.extend_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 5;

    /// Feeds `pieces` of a stream one after the other; what comes out, too long ones as `None`.
    fn read(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let (mut unframer, mut out) = (Unframer::default(), Vec::new());
        for piece in pieces {
            let octets = [unframer.carried(), piece].concat();
            let mut rest = octets.as_slice();
            while let Some(piece) = unframer.next(&mut rest, LONGEST) {
                out.push(match piece {
                    Piece::Frame(frame) => Some(frame.to_vec()),
                    Piece::TooLong => None,
                });
            }
            assert!(rest.len() < HEADER + LONGEST, "bounded");
            unframer.keep(rest);
        }
        out
    }

    #[test]
    fn a_stream_cut_anywhere_has_the_same_frames() {
        let stream = [0, 1, 7, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 0, 5, 9, 9, 9, 9, 9, 0, 2, 8, 8, 0, 3, 1];
        let expected = [Some(vec![7]), Some(vec![]), None, Some(vec![9; 5]), Some(vec![8; 2])];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(read(&pieces), expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_passed_over_however_it_comes() {
        let long = [&[0xff, 0xff][..], &[0; 65_535], &[0, 1, 42]].concat();
        let pieces: Vec<&[u8]> = long.chunks(1000).collect();
        assert_eq!(read(&pieces), [None, Some(vec![42])]);
    }
}
