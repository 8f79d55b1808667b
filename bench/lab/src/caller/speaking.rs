//! A caller that plays a [`crate::trouble::Score`] instead of a steady stream.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::bail;
use sallyport_srtp::RTP_OVERHEAD;
use sallyport_wire::PacketBuf;

use super::{Caller, Media, Placed, Talk};
use crate::appliance::Appliance;
use crate::trouble::Mouth;

/// A caller in a connected call.
pub struct Speaking<'a> {
    caller: &'a mut Caller,
    media: Media,
    appliance: &'a Appliance,
    placed: &'a Placed,
    stray: UdpSocket,
    talk: Talk,
    version: u32,
}

impl<'a> Speaking<'a> {
    /// Begins with what [`Caller::connect`] gave.
    ///
    /// # Errors
    /// What the system says of another socket.
    pub fn new(
        caller: &'a mut Caller,
        media: Media,
        appliance: &'a Appliance,
        placed: &'a Placed,
    ) -> anyhow::Result<Self> {
        let ip = caller.address.ip();
        let stray = caller.place.within(|| UdpSocket::bind((ip, 0)))??;
        caller.socket.set_nonblocking(true)?;
        Ok(Self { caller, media, appliance, placed, stray, talk: Talk::default(), version: 2 })
    }

    /// Waits until it has heard something that verifies.
    ///
    /// # Errors
    /// Where it does not.
    pub fn wait_heard(&mut self, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while self.talk.heard == 0 {
            if Instant::now() > until {
                bail!("nothing is heard of the far end");
            }
            self.listen(Instant::now() + Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// What it heard meanwhile.
    pub fn talk(&self) -> Talk {
        self.talk
    }
}

impl Mouth for Speaking<'_> {
    fn say(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        let mut room = [packet, &[0; RTP_OVERHEAD]].concat();
        let mut buf = PacketBuf::new(&mut room, 0..packet.len()).map_err(|_| anyhow::anyhow!("no room"))?;
        self.media.sealer.seal_rtp(&mut buf).map_err(|error| anyhow::anyhow!("sealing: {error:?}"))?;
        self.caller.socket.send_to(buf.packet(), self.media.peer)?;
        self.talk.sent += 1;
        Ok(())
    }

    fn intrude(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        self.stray.send_to(packet, self.media.peer)?;
        Ok(())
    }

    /// Another offer over HTTP.
    fn hold(&mut self, held: bool) -> anyhow::Result<()> {
        self.version += 1;
        let direction = if held { "a=inactive" } else { "a=sendrecv" };
        let offer = self.caller.offer("actpass").replace("a=sendrecv", direction);
        let offer = offer.replacen(" 2 IN IP4", &format!(" {} IN IP4", self.version), 1);
        let url = self.appliance.public_url(&format!("{}/offer", self.placed.location));
        let token = self.appliance.token();
        self.caller.place.within(|| {
            let request = self.caller.http.put(&url).header("Authorization", format!("Bearer {token}"));
            let mut response = request.content_type("application/sdp").send(offer.as_str())?;
            let status = response.status().as_u16();
            if status != 200 {
                bail!("PUT answers {status}: {}", response.body_mut().read_to_string()?);
            }
            Ok(())
        })?
    }

    fn transfer(&mut self) -> anyhow::Result<()> {
        bail!("a browser is not transferred")
    }

    fn listen(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            let before = self.talk;
            self.caller.hear(&mut self.media, &mut self.talk)?;
            if self.talk == before {
                break;
            }
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(())
    }
}
