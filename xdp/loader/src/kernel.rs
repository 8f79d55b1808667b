//! The program and its maps, as the relay drives them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, MapError as AyaMapError, PerCpuArray, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use sallyport_abi::{FlowKey, FlowValue, InterfaceValue, MediaKey, MediaValue, Settings, map};

use crate::{PROGRAM, PROGRAM_NAME, pins};

/// STUN of an unknown source: tokens of a full bucket, and nanoseconds until one comes back (50 a second).
const PUNT: (u32, u64) = (50, 20_000_000);

/// How to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where maps and links are pinned; becomes a bpffs of our own, mode 0700.
    pub pins: PathBuf,
    /// Entries of the flow map.
    pub max_flows: u32,
}

/// How the program hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// In the driver.
    Native,
    /// In the network stack: every driver can, slower.
    Generic,
}

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bpffs.
    #[error("no bpffs at {path}: {source}")]
    Pins {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object or its maps.
    #[error("the kernel does not take the program or its maps: {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier or an attachment.
    #[error("the kernel refuses the program: {0}")]
    Program(#[from] ProgramError),
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The object has no program of our name.
    #[error("the object holds no program {PROGRAM_NAME}")]
    NoProgram,
    /// More interfaces than the socket map has places for.
    #[error("more interfaces than the socket map has places for")]
    TooManyInterfaces,
}

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("map {name}: {source}")]
pub struct MapError {
    /// Which map.
    pub name: &'static str,
    /// What the kernel said.
    #[source]
    pub source: AyaMapError,
}

/// The loaded program.
pub struct Kernel {
    ebpf: Ebpf,
    folder: PathBuf,
    attached: Vec<u32>,
}

impl Kernel {
    /// Loads program and maps. What a former relay pinned under this contract is adopted: its counters go on and its
    /// flows stay until they are replaced; pins of another shape are taken away first.
    ///
    /// # Errors
    /// [`LoadError`]; nothing is attached.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Pins { path: options.pins.clone(), source };
        pins::prepare(&options.pins).map_err(failed)?;
        let ebpf = match load(options) {
            Ok(ebpf) => ebpf,
            Err(error) => {
                tracing::warn!(%error, "pinned maps do not fit this version and are replaced");
                clear(&options.pins).map_err(failed)?;
                load(options)?
            }
        };
        let mut kernel = Self { ebpf, folder: options.pins.clone(), attached: Vec::new() };
        for name in sallyport_abi::MAPS {
            pins::protect(&options.pins.join(name)).map_err(failed)?;
        }
        let (punt_burst, punt_refill_ns) = PUNT;
        kernel.set_settings(Settings { abi_version: sallyport_abi::VERSION, punt_burst, punt_refill_ns })?;
        kernel.program()?.load()?;
        Ok(kernel)
    }

    fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(PROGRAM_NAME).ok_or(LoadError::NoProgram)?;
        Ok(program.try_into()?)
    }

    /// The program, for the kernel's own test run.
    ///
    /// # Errors
    /// [`LoadError::NoProgram`].
    pub fn test_program(&mut self) -> Result<&mut Xdp, LoadError> {
        self.program()
    }

    /// Hangs the program on an interface and pins the link. A link that a former relay pinned gets the new program
    /// without a gap. `None` tries native, then generic.
    ///
    /// # Errors
    /// [`LoadError`], of the last mode tried.
    pub fn attach(
        &mut self,
        ifindex: u32,
        zone: u8,
        wanted: Option<Attachment>,
    ) -> Result<Attachment, LoadError> {
        let place = u32::try_from(self.attached.len()).unwrap_or(u32::MAX);
        let socket_base = place.saturating_mul(sallyport_abi::QUEUES_MAX);
        if socket_base >= sallyport_abi::SOCKETS_MAX {
            return Err(LoadError::TooManyInterfaces);
        }
        let value = InterfaceValue { zone: u32::from(zone), socket_base };
        self.hash::<u32, InterfaceValue>(map::INTERFACES)?.insert(ifindex, value, 0).map_err(of(map::INTERFACES))?;
        self.attached.push(ifindex);
        let attachment = match wanted {
            Some(wanted) => self.attach_as(ifindex, wanted).map(|()| wanted),
            None => self.attach_as(ifindex, Attachment::Native).map(|()| Attachment::Native).or_else(|error| {
                tracing::info!(ifindex, %error, "no native XDP here; generic is tried");
                self.attach_as(ifindex, Attachment::Generic).map(|()| Attachment::Generic)
            }),
        };
        attachment
    }

    fn attach_as(&mut self, ifindex: u32, wanted: Attachment) -> Result<(), LoadError> {
        let pin = pins::link(&self.folder, ifindex);
        // The mode of a pinned link cannot be asked for, so a former one makes way; flows stay, packets of a few
        // milliseconds pass to the stack.
        if let Ok(link) = PinnedLink::from_pin(&pin) {
            let _ = link.unpin();
        }
        let mode = match wanted {
            Attachment::Native => XdpMode::Driver,
            Attachment::Generic => XdpMode::Skb,
        };
        let program = self.program()?;
        let id = program.attach_to_if_index(ifindex, mode)?;
        let link = program.take_link(id)?;
        let link: FdLink = link.try_into().map_err(|_| LoadError::NoProgram)?;
        let pinned = link.pin(&pin).map_err(|error| LoadError::Pins {
            path: pin.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        drop(pinned);
        let _ = pins::protect(&pin);
        Ok(())
    }

    /// Declares a media address of a zone and its ports.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_media(&mut self, zone: u8, address: IpAddr, ports: RangeInclusive<u16>) -> Result<(), MapError> {
        let value = MediaValue { port_min: *ports.start(), port_max: *ports.end() };
        self.hash(map::MEDIA)?.insert(MediaKey::new(zone, address), value, 0).map_err(of(map::MEDIA))
    }

    /// Puts an AF_XDP socket in its place.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` for an interface that is not attached or a queue beyond the map.
    pub fn register(&mut self, ifindex: u32, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        let place = self.attached.iter().position(|attached| *attached == ifindex);
        let place = place.and_then(|place| u32::try_from(place).ok()).filter(|_| queue < sallyport_abi::QUEUES_MAX);
        let place = place.ok_or_else(|| missing(map::SOCKETS))?;
        let sockets = self.ebpf.map_mut(map::SOCKETS).ok_or_else(|| missing(map::SOCKETS))?;
        let mut sockets = XskMap::try_from(sockets).map_err(of(map::SOCKETS))?;
        let place = place * sallyport_abi::QUEUES_MAX + queue;
        sockets.set(place, socket.as_raw_fd(), 0).map_err(of(map::SOCKETS))
    }

    /// Adds a flow, or gives one to another direction; its counters begin at zero.
    ///
    /// # Errors
    /// What the kernel says, such as a full map.
    pub fn insert_flow(&mut self, key: &FlowKey, direction: u32, epoch: u32) -> Result<(), MapError> {
        let value = FlowValue { direction, epoch, ..FlowValue::default() };
        self.hash(map::FLOWS)?.insert(*key, value, 0).map_err(of(map::FLOWS))
    }

    /// Removes a flow.
    ///
    /// # Errors
    /// What the kernel says; `KeyNotFound` where it is not there.
    pub fn remove_flow(&mut self, key: &FlowKey) -> Result<(), MapError> {
        self.hash::<FlowKey, FlowValue>(map::FLOWS)?.remove(key).map_err(of(map::FLOWS))
    }

    /// Removes all flows, as a relay does that knows no call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clear_flows(&mut self) -> Result<(), MapError> {
        let keys: Vec<FlowKey> = self.flows().into_iter().map(|(key, _)| key).collect();
        keys.iter().try_for_each(|key| self.remove_flow(key))
    }

    /// All flows; empty where the map cannot be read.
    pub fn flows(&self) -> Vec<(FlowKey, FlowValue)> {
        let Some(Ok(flows)) = self.ebpf.map(map::FLOWS).map(HashMap::<&MapData, FlowKey, FlowValue>::try_from) else {
            return Vec::new();
        };
        flows.iter().filter_map(Result::ok).collect()
    }

    /// All counters, summed over the CPUs.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Some(Ok(counters)) = self.ebpf.map(map::COUNTERS).map(PerCpuArray::<&MapData, u64>::try_from) else {
            return Vec::new();
        };
        sum(&counters).unwrap_or_default()
    }

    /// Takes the program off all interfaces and the pins away; the mount goes where we may still unmount.
    pub fn detach_all(self) {
        if let Err(error) = clear(&self.folder) {
            tracing::warn!(%error, "pins are left behind");
        }
        let _ = nix::mount::umount(&self.folder);
    }

    fn set_settings(&mut self, value: Settings) -> Result<(), MapError> {
        let settings = self.ebpf.map_mut(map::SETTINGS).ok_or_else(|| missing(map::SETTINGS))?;
        let mut settings = Array::<_, Settings>::try_from(settings).map_err(of(map::SETTINGS))?;
        settings.set(0, value, 0).map_err(of(map::SETTINGS))
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, K, V>, MapError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        HashMap::try_from(map).map_err(of(name))
    }
}

fn load(options: &Options) -> Result<Ebpf, aya::EbpfError> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS, options.max_flows);
    for name in sallyport_abi::MAPS {
        loader.map_pin_path(name, options.pins.join(name));
    }
    loader.load(PROGRAM)
}

/// Removes our pins; the kernel lets go of links and maps with them. What else a bpffs shows is the kernel's own.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| sallyport_abi::MAPS.contains(&name) || name.starts_with("link-"));
        if ours {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn sum(counters: &PerCpuArray<&MapData, u64>) -> Result<Vec<(&'static str, u64)>, MapError> {
    sallyport_abi::COUNTERS
        .iter()
        .zip(0..)
        .map(|(name, index)| {
            let values = counters.get(&index, 0).map_err(of(map::COUNTERS))?;
            Ok((*name, values.iter().sum()))
        })
        .collect()
}

pub(crate) fn of(name: &'static str) -> impl Fn(AyaMapError) -> MapError {
    move |source| MapError { name, source }
}

fn missing(name: &'static str) -> MapError {
    MapError { name, source: AyaMapError::ElementNotFound }
}
