//! What a driver can do for XDP, asked over the kernel's `netdev` family of generic netlink (since Linux 6.3).

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// The family that names families (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// linux/netdev.h.
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`
const TAKES_FRAMES: u64 = 4;

/// Whether the device sends frames that a native program redirects to it. For veth that depends on its other end.
///
/// # Errors
/// What the kernel says; `NotFound` where it does not say, as before Linux 6.3.
pub fn takes_frames(ifindex: u32) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = ask(&socket, CONTROL, GET_FAMILY, &attribute(FAMILY_NAME, b"netdev\0"))?;
    let family = family.find(FAMILY_ID).and_then(|value| value.try_into().ok()).map(u16::from_ne_bytes);
    let family = family.ok_or(io::ErrorKind::NotFound)?;
    let device = ask(&socket, family, GET_DEVICE, &attribute(IFINDEX, &ifindex.to_ne_bytes()))?;
    let features = device.find(XDP_FEATURES).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes);
    Ok(features.ok_or(io::ErrorKind::NotFound)? & TAKES_FRAMES != 0)
}

/// One attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> io::Result<Message> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    // Command, version, reserved (struct genlmsghdr).
    let body = [&[command, 1, 0, 0], attributes].concat();
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Message { family, body }));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<Message>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A message of generic netlink: its header of four octets, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    family: u16,
    body: Vec<u8>,
}

impl Message {
    /// The value of an attribute.
    fn find(&self, kind: u16) -> Option<Vec<u8>> {
        let mut attributes = NlasIterator::new(self.body.get(4..)?).filter_map(Result::ok);
        attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { family: header.message_type, body: payload.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_no_frames_of_a_driver() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        // Before Linux 6.3 nobody knows.
        assert!(takes_frames(loopback).is_ok_and(|takes| !takes) || takes_frames(loopback).is_err());
        assert!(takes_frames(u32::MAX >> 1).is_err());
    }
}
