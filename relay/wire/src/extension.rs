//! Elements of RTP's header extension in one-byte and two-byte form (RFC 8285 section 4).
//!
//! ```text
//!   | 0xbede  | words |  (id 4 bits, length - 1 4 bits | data)* | null octets up to a word
//!   | 0x100x  | words |  (id 8 bits, length 8 bits | data)*     | null octets up to a word
//! ```

use crate::rtp::Header;
use crate::{Malformed, PacketBuf};

/// Octets of an extension that is written here at the most, its head included.
pub const WRITTEN_MAX: usize = 4 + 124;
/// Octets of the head: profile and length in words.
const HEAD: usize = 4;
const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;

/// Form of the elements of a stream. Without `a=extmap-allow-mixed` a stream keeps to one (RFC 8285 section 4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Ids 1 to 14, 1 to 16 octets.
    #[default]
    OneByte,
    /// Ids 1 to 255, up to 255 octets.
    TwoByte,
}

/// The elements of a packet in order; ends behind the first error. There are none in an extension of another form.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
    form: Form,
}

/// Reads the elements of a packet.
#[inline]
pub fn elements<'a>(header: &Header<'a>) -> Elements<'a> {
    let (profile, block) = header.extension().unwrap_or_default();
    match profile {
        ONE_BYTE => Elements { rest: block, form: Form::OneByte },
        // The last four bits are the application's (section 4.3).
        _ if profile & 0xfff0 == TWO_BYTE => Elements { rest: block, form: Form::TwoByte },
        _ => Elements { rest: &[], form: Form::OneByte },
    }
}

impl<'a> Iterator for Elements<'a> {
    /// Id and data.
    type Item = Result<(u8, &'a [u8]), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // Null octets between elements, too.
        while let [0, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (id, length, rest) = match (self.form, self.rest) {
            (_, []) => return None,
            (Form::OneByte, [first, rest @ ..]) => (first >> 4, usize::from(first & 0xf) + 1, rest),
            (Form::TwoByte, [id, length, rest @ ..]) => (*id, usize::from(*length), rest),
            (Form::TwoByte, [_]) => return self.end(Some(Err(Malformed::Short))),
        };
        // Reserved, and padding with a length: nothing behind them counts (section 4.2).
        if self.form == Form::OneByte && (id == 15 || id == 0) {
            return self.end(None);
        }
        let Some((data, rest)) = rest.split_at_checked(length) else {
            return self.end(Some(Err(Malformed::Length)));
        };
        self.rest = rest;
        Some(Ok((id, data)))
    }
}

impl Elements<'_> {
    fn end<T>(&mut self, last: T) -> T {
        self.rest = &[];
        last
    }
}

/// An extension that is being written.
#[derive(Debug, Clone)]
pub struct Written {
    bytes: [u8; WRITTEN_MAX],
    length: usize,
    form: Form,
}

impl Written {
    /// One without elements.
    #[inline]
    pub fn new(form: Form) -> Self {
        Self { bytes: [0; WRITTEN_MAX], length: HEAD, form }
    }

    /// Adds an element; `false`, and nothing changes, where the form has no such element or there is no room.
    #[inline]
    pub fn push(&mut self, id: u8, data: &[u8]) -> bool {
        let octets = u8::try_from(data.len()).unwrap_or(u8::MAX);
        let (head, head_len) = match self.form {
            Form::OneByte if (1..=14).contains(&id) && (1..=16).contains(&data.len()) => {
                ([id << 4 | (octets - 1), 0], 1)
            }
            Form::TwoByte if id != 0 && data.len() <= 255 => ([id, octets], 2),
            _ => return false,
        };
        let end = self.length + head_len + data.len();
        let Some(room) = self.bytes.get_mut(self.length..end) else { return false };
        let (front, behind) = room.split_at_mut(head_len);
        front.copy_from_slice(&head[..head_len]);
        behind.copy_from_slice(data);
        self.length = end;
        true
    }

    /// Whether no element was added.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == HEAD
    }

    /// Its octets, head and padding included; whole words.
    #[inline]
    pub fn octets(&mut self) -> &[u8] {
        let words = (self.length - HEAD).div_ceil(4);
        let profile = match self.form {
            Form::OneByte => ONE_BYTE,
            Form::TwoByte => TWO_BYTE,
        };
        self.bytes[..2].copy_from_slice(&profile.to_be_bytes());
        // A few words at the most.
        self.bytes[2..HEAD].copy_from_slice(&u16::try_from(words).unwrap_or(0).to_be_bytes());
        &self.bytes[..HEAD + 4 * words]
    }
}

/// Puts these octets in the place of a packet's extension, or of none; whole words, none takes it out. Fixed header and CSRC
/// list move, the payload and what is behind it do not.
///
/// # Errors
/// [`Malformed`] where the packet is no RTP packet, or there is no room in front of it; it is then as before.
#[inline]
pub fn replace(buf: &mut PacketBuf<'_>, octets: &[u8]) -> Result<(), Malformed> {
    let header = Header::parse(buf.packet())?;
    let fixed = header.fixed_len();
    let have = header.header_len() - fixed;
    if octets.len() > have {
        let more = octets.len() - have;
        buf.grow_head(more).map_err(|_| Malformed::Length)?;
        buf.packet_mut().copy_within(more..more + fixed, 0);
    } else if octets.len() < have {
        let less = have - octets.len();
        buf.packet_mut().copy_within(..fixed, less);
        buf.shrink_head(less).map_err(|_| Malformed::Length)?;
    }
    let packet = buf.packet_mut();
    if let Some(place) = packet.get_mut(fixed..fixed + octets.len()) {
        place.copy_from_slice(octets);
    }
    if let Some(first) = packet.first_mut() {
        *first = *first & !0x10 | if octets.is_empty() { 0 } else { 0x10 };
    }
    Ok(())
}
