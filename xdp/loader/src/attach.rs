//! The program on interfaces, by links that outlive us.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};

use crate::error::LoadError;
use crate::pins::Pins;

/// How long the kernel may take to let go of a link whose pin is removed: it does so in a worker of its own.
const LETTING_GO: Duration = Duration::from_secs(2);

/// How the program hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attachment {
    /// In the driver.
    Native,
    /// In the network stack: on every device, slower.
    Generic,
}

impl Attachment {
    /// `native` or `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn mode(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// Hangs the program on an interface and pins the link.
///
/// A pinned link of the wanted mode (of any, where none is wanted) gets the new program, without a gap. Else it makes way:
/// for some milliseconds packets meet no program, and pass to the kernel. Without a link, `None` tries native, then generic.
///
/// # Errors
/// [`LoadError`], of the last mode tried.
pub fn hang(
    program: &mut Xdp,
    pins: &Pins,
    ifindex: u32,
    wanted: Option<Attachment>,
) -> Result<Attachment, LoadError> {
    let links = pins.links().map_err(|source| pins.error(source))?;
    let fitting = |attachment: Attachment| wanted.is_none_or(|wanted| wanted == attachment);
    let former = links.into_iter().find(|(index, attachment)| *index == ifindex && fitting(*attachment));
    if let Some((_, attachment)) = former {
        match replace(program, pins, ifindex, attachment) {
            Ok(()) => return Ok(attachment),
            Err(error) => tracing::info!(ifindex, %error, "the pinned link is dead and makes way"),
        }
    }
    let patient = pins.remove_links(|index, _| index == ifindex)? > 0;
    match wanted {
        Some(wanted) => fresh(program, pins, ifindex, wanted, patient),
        None => fresh(program, pins, ifindex, Attachment::Native, patient).or_else(|error| {
            tracing::info!(ifindex, %error, "no native XDP here; generic is tried");
            fresh(program, pins, ifindex, Attachment::Generic, patient)
        }),
    }
}

/// Puts the program into the pinned link of an interface.
fn replace(program: &mut Xdp, pins: &Pins, ifindex: u32, attachment: Attachment) -> Result<(), LoadError> {
    let pinned = PinnedLink::from_pin(pins.link(ifindex, attachment))?;
    let id = program.attach_to_link(XdpLink::try_from(FdLink::from(pinned))?)?;
    // Our descriptor goes; the pin holds the link.
    drop(program.take_link(id)?);
    Ok(())
}

/// Makes a link and pins it. `patient`: a former link may still be on its way out.
fn fresh(
    program: &mut Xdp,
    pins: &Pins,
    ifindex: u32,
    attachment: Attachment,
    patient: bool,
) -> Result<Attachment, LoadError> {
    let until = Instant::now() + LETTING_GO;
    let id = loop {
        match program.attach_to_if_index(ifindex, attachment.mode()) {
            Err(error) if is_busy(&error) => {
                if !patient || Instant::now() >= until {
                    return Err(LoadError::Busy { ifindex });
                }
                sleep(Duration::from_millis(5));
            }
            done => break done?,
        }
    };
    let link = FdLink::try_from(program.take_link(id)?)?;
    let path = pins.link(ifindex, attachment);
    link.pin(&path).map_err(|error| pins.error(io::Error::other(error.to_string())))?;
    pins.protect(&path)?;
    Ok(attachment)
}

/// Whether a program, of the same mode or the other one, is in the way.
fn is_busy(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    [nix::Error::EBUSY, nix::Error::EEXIST]
        .map(|errno| Some(errno as i32))
        .contains(&error.io_error.raw_os_error())
}
