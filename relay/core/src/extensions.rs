//! Header extensions of a direction (RFC 8285): carried under the other leg's ids, or taken out.

use arrayvec::ArrayVec;
use sallyport_plan::{ExtensionMap, Extensions as Plan, Mid};
use sallyport_wire::extension::{Form, Written, elements, replace};
use sallyport_wire::rtp::Header;
use sallyport_wire::{Malformed, PacketBuf};

/// Octets of a section's name.
const NAME: usize = 16;
/// Extensions that are carried.
const CARRIED: usize = 8;

/// The plan's, as the packet path reads them.
#[derive(Debug, Clone)]
pub struct Extensions {
    form: Form,
    carried: ArrayVec<ExtensionMap, CARRIED>,
    mid: Option<(u8, ArrayVec<u8, NAME>)>,
}

impl Extensions {
    /// `None` where all are taken out and none is added.
    pub fn new(plan: &Plan) -> Option<Box<Self>> {
        let carried: ArrayVec<_, CARRIED> = plan.carried.iter().take(CARRIED).copied().collect();
        let mid = plan.mid.as_ref().map(name);
        let ids = carried.iter().map(|map| map.to).chain(mid.iter().map(|(id, _)| *id));
        // What leaves has one form, whichever the elements came in: the other leg may know one only.
        let form = if ids.max().unwrap_or(0) > 14 { Form::TwoByte } else { Form::OneByte };
        let any = !carried.is_empty() || mid.is_some();
        any.then(|| Box::new(Self { form, carried, mid }))
    }

    /// Whether it adds a name, and not the same as another.
    pub fn begins_to_name(&self, former: Option<&Self>) -> bool {
        self.mid.is_some() && former.is_none_or(|former| former.mid != self.mid)
    }

    /// Puts the extensions of the other leg in the place of a packet's own; `named`: the section's name among them. Whether
    /// what came was sound: else the packet goes on without.
    ///
    /// # Errors
    /// Where it is no packet of RTP.
    pub fn apply(&self, buf: &mut PacketBuf<'_>, named: bool) -> Result<bool, Malformed> {
        let header = Header::parse(buf.packet())?;
        let mut written = Written::new(self.form);
        if let Some((id, name)) = self.mid.as_ref().filter(|_| named) {
            written.push(*id, name);
        }
        let mark = written.clone();
        let mut sound = true;
        for element in elements(&header) {
            let Ok((id, data)) = element else {
                (written, sound) = (mark, false);
                break;
            };
            if let Some(map) = self.carried.iter().find(|map| map.from == id) {
                written.push(map.to, data);
            }
        }
        let octets = if written.is_empty() { &[] } else { written.octets() };
        // Without room in front it goes on without, too.
        replace(buf, octets).or_else(|_| replace(buf, &[]))?;
        Ok(sound)
    }
}

/// Takes all extensions out. Whether they were sound.
///
/// # Errors
/// Where it is no packet of RTP.
pub fn strip(buf: &mut PacketBuf<'_>) -> Result<bool, Malformed> {
    let sound = elements(&Header::parse(buf.packet())?).all(|element| element.is_ok());
    replace(buf, &[]).map(|()| sound)
}

fn name(mid: &Mid) -> (u8, ArrayVec<u8, NAME>) {
    (mid.id, mid.name.bytes().take(NAME).collect())
}

/// The transport-wide sequence number of a packet, under this id: its first element of two octets.
pub fn transport_wide(packet: &[u8], id: u8) -> Option<u16> {
    let header = Header::parse(packet).ok()?;
    let found = elements(&header).map_while(Result::ok).find(|(have, _)| *have == id)?;
    Some(u16::from_be_bytes(*found.1.first_chunk()?))
}
