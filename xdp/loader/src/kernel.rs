//! The program and its maps, as the relay drives them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use sallyport_abi::{
    FRAME_MAX, FlowKey, FlowValue, InterfaceValue, MAPS, MediaKey, MediaValue, QUEUES_MAX, Settings, map,
};

use crate::attach::{self, Attachment};
use crate::error::{LoadError, MapError, missing, of};
use crate::maps;
use crate::pins::Pins;
use crate::{PROGRAM, PROGRAM_NAME};

/// STUN of an unknown source: packets a second, and at once.
const PUNT: (u32, u32) = (50, 50);
/// STUN of all unknown sources together: what a flood with made-up sources may cost.
const PUNT_TOTAL: (u32, u32) = (5000, 1000);

/// How to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where maps and links are pinned; becomes a bpffs of our own, mode 0700, pins 0600.
    pub pins: PathBuf,
    /// Entries of the flow map. Half as many flows can be rewritten: so many have a tally.
    pub max_flows: u32,
}

/// The loaded program. Dropped, it leaves program and maps at work by their pins; [`Kernel::detach_all`] ends them.
pub struct Kernel {
    pub(crate) ebpf: Ebpf,
    pins: Pins,
    attached: BTreeSet<u32>,
    media: BTreeSet<MediaKey>,
    frame_max: u32,
}

impl Kernel {
    /// Loads program and maps. What a former relay pinned is adopted if version and shape of all maps are ours: counters go
    /// on, flows stay until they are replaced. Else the maps are made anew, with a warning that says why; the former
    /// program goes on with the former maps until [`Kernel::attach`] replaces it.
    ///
    /// # Errors
    /// [`LoadError`]; nothing is attached.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let pins = Pins::prepare(&options.pins)?;
        if let Some(why) = misfit(&pins, options)? {
            tracing::warn!(why, "pinned maps are not adopted but made anew");
            pins.remove_maps()?;
        }
        let ebpf = read(options, Some(&pins))?;
        for name in MAPS {
            pins.protect(&pins.map(name))?;
        }
        let (attached, media) = (BTreeSet::new(), BTreeSet::new());
        let mut kernel = Self { ebpf, pins, attached, media, frame_max: FRAME_MAX };
        let (per_second, burst) = PUNT;
        kernel.set_punt_rate(per_second, burst)?;
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

    /// Says how many octets, from the Ethernet header on, the frames of the AF_XDP sockets take of interfaces that are attached
    /// from now on: longer media is dropped and counted. Ordinary frames' unless set.
    pub fn set_frame_max(&mut self, octets: u32) {
        self.frame_max = octets;
    }

    /// Hangs the program on an interface and pins the link. A pinned link of the wanted mode (of any, with `None`) gets the
    /// new program without a gap; one of the other mode makes way first. Without a link, `None` tries native, then generic.
    ///
    /// # Errors
    /// [`LoadError`], of the last mode tried; the program then knows the interface no more.
    pub fn attach(
        &mut self,
        ifindex: u32,
        zone: u8,
        wanted: Option<Attachment>,
    ) -> Result<Attachment, LoadError> {
        let (zone, frame_max) = (u32::from(zone), self.frame_max);
        let value = InterfaceValue { zone, xsk_base: self.place(ifindex)?, frame_max };
        self.hash(map::INTERFACES)?.insert(ifindex, value, 0).map_err(of(map::INTERFACES))?;
        let pins = self.pins.clone();
        let attached = self.program().and_then(|program| attach::hang(program, &pins, ifindex, wanted));
        if attached.is_ok() {
            self.attached.insert(ifindex);
        } else {
            self.attached.remove(&ifindex);
            self.hash::<u32, InterfaceValue>(map::INTERFACES)?
                .remove(&ifindex)
                .map_err(of(map::INTERFACES))?;
        }
        attached
    }

    /// Place of the interface's queue 0 in the socket map: the one that it has, or the lowest free one. Where none is free,
    /// a former relay's interfaces make way.
    fn place(&mut self, ifindex: u32) -> Result<u32, LoadError> {
        let places = (0..sallyport_abi::INTERFACES_MAX).map(|nth| nth * QUEUES_MAX);
        let known = self.interfaces()?;
        if let Some(value) = known.get(&ifindex) {
            return Ok(value.xsk_base);
        }
        let free = |known: &BTreeMap<u32, InterfaceValue>| {
            places.clone().find(|place| known.values().all(|value| value.xsk_base != *place))
        };
        if let Some(place) = free(&known) {
            return Ok(place);
        }
        self.forget_interfaces()?;
        free(&self.interfaces()?).ok_or(LoadError::TooManyInterfaces)
    }

    /// Declares a media address of a zone and its ports: media's, and the one at which browsers are heard before they are
    /// known, which may lie among the others or apart.
    ///
    /// # Errors
    /// What the kernel says, such as a full map.
    pub fn set_media(
        &mut self,
        zone: u8,
        address: IpAddr,
        ports: RangeInclusive<u16>,
        browsers: Option<u16>,
    ) -> Result<(), MapError> {
        let key = MediaKey::new(zone, address);
        let (port_min, port_max) = ports.into_inner();
        let value = MediaValue { port_min, port_max, browsers: browsers.unwrap_or(0) };
        self.hash(map::MEDIA)?.insert(key, value, 0).map_err(of(map::MEDIA))?;
        self.media.insert(key);
        Ok(())
    }

    /// Sets how much STUN from one unknown source gets to control: `per_second` on average, `burst` at once. A source is an
    /// IPv4 address, or a /64 of IPv6. 0 a second shuts it out. 50 and 50 unless set. All sources together have 5,000 a second
    /// and 1,000 at once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_punt_rate(&mut self, per_second: u32, burst: u32) -> Result<(), MapError> {
        let punt_interval_ns = 1_000_000_000 / u64::from(per_second.max(1));
        let punt_burst = if per_second == 0 { 0 } else { burst };
        let (total_per_second, total_burst) = PUNT_TOTAL;
        let value = Settings {
            abi_version: sallyport_abi::VERSION,
            punt_burst,
            punt_interval_ns,
            total_burst,
            total_interval_ns: 1_000_000_000 / total_per_second,
        };
        let settings = self.ebpf.map_mut(map::SETTINGS).ok_or_else(|| missing(map::SETTINGS))?;
        let mut settings = Array::<_, Settings>::try_from(settings).map_err(of(map::SETTINGS))?;
        settings.set(0, value, 0).map_err(of(map::SETTINGS))
    }

    /// Puts an AF_XDP socket in its place. The kernel takes it out when the socket closes.
    ///
    /// # Errors
    /// What the kernel says; `ElementNotFound` for an interface that is not attached or a queue beyond
    /// [`QUEUES_MAX`].
    pub fn register(&mut self, ifindex: u32, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        let attached = self.attached.contains(&ifindex) && queue < QUEUES_MAX;
        let known = self.interfaces()?;
        let base = known.get(&ifindex).filter(|_| attached).ok_or_else(|| missing(map::XSKS))?.xsk_base;
        let xsks = self.ebpf.map_mut(map::XSKS).ok_or_else(|| missing(map::XSKS))?;
        let mut xsks = XskMap::try_from(xsks).map_err(of(map::XSKS))?;
        xsks.set(base + queue, socket.as_raw_fd(), 0).map_err(of(map::XSKS))
    }

    /// Adds a flow whose packets go to the worker, or gives one to another direction; its counters begin at zero.
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
        let flows = maps::flows(self.map(map::FLOWS)?)?;
        flows.iter().try_for_each(|(key, _)| self.remove_flow(key))
    }

    /// All flows, sorted; empty where the map cannot be read.
    pub fn flows(&self) -> Vec<(FlowKey, FlowValue)> {
        self.map(map::FLOWS).and_then(maps::flows).unwrap_or_default()
    }

    /// A flow; `None` where it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<FlowValue>, MapError> {
        maps::flow(self.map(map::FLOWS)?, key)
    }

    /// How many flows there are; none where the map cannot be read.
    pub fn flow_count(&self) -> usize {
        self.map(map::FLOWS).and_then(maps::flow_count).unwrap_or_default()
    }

    /// All counters by name, summed over the CPUs; empty where the map cannot be read.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.map(map::COUNTERS).and_then(maps::counters).unwrap_or_default()
    }

    /// Takes away what a former relay left and this one did not name again: links and entries of interfaces that were not
    /// attached, media addresses that were not set. To be called after the last [`Kernel::attach`] and
    /// [`Kernel::set_media`]. Flows are the caller's.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn forget_former(&mut self) -> Result<(), LoadError> {
        self.forget_interfaces()?;
        for key in maps::media(self.map(map::MEDIA)?)?.into_keys() {
            if !self.media.contains(&key) {
                self.hash::<MediaKey, MediaValue>(map::MEDIA)?.remove(&key).map_err(of(map::MEDIA))?;
            }
        }
        Ok(())
    }

    fn forget_interfaces(&mut self) -> Result<(), LoadError> {
        self.pins.remove_links(|ifindex, _| !self.attached.contains(&ifindex))?;
        let known = self.interfaces()?.into_keys();
        let former: Vec<u32> = known.filter(|ifindex| !self.attached.contains(ifindex)).collect();
        for ifindex in former {
            self.hash::<u32, InterfaceValue>(map::INTERFACES)?
                .remove(&ifindex)
                .map_err(of(map::INTERFACES))?;
        }
        Ok(())
    }

    /// Takes the program off all interfaces, removes the pins, and unmounts the bpffs if it is ours and we still may. The
    /// kernel ends the last links within milliseconds of this.
    pub fn detach_all(self) {
        let done = self.pins.remove_links(|_, _| true).and_then(|_| self.pins.remove_maps());
        if let Err(error) = done {
            tracing::warn!(%error, "pins are left behind");
        } else if let Err(error) = self.pins.unmount() {
            tracing::info!(%error, "an empty bpffs is left behind");
        }
    }

    fn interfaces(&self) -> Result<BTreeMap<u32, InterfaceValue>, MapError> {
        maps::interfaces(self.map(map::INTERFACES)?)
    }

    pub(crate) fn map(&self, name: &'static str) -> Result<&Map, MapError> {
        self.ebpf.map(name).ok_or_else(|| missing(name))
    }

    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, K, V>, MapError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        HashMap::try_from(map).map_err(of(name))
    }
}

/// Reads the object, with maps that are pinned or of nobody else.
fn read(options: &Options, pins: Option<&Pins>) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS, options.max_flows);
    loader.map_max_entries(map::TALLIES, (options.max_flows / 2).max(1));
    for (pins, name) in pins.iter().flat_map(|pins| MAPS.map(|name| (pins, name))) {
        loader.map_pin_path(name, pins.map(name));
    }
    Ok(loader.load(PROGRAM)?)
}

/// Why the pinned maps cannot be adopted; `None` where they can, or there are none. The loader of aya takes a pin for what
/// it is named.
fn misfit(pins: &Pins, options: &Options) -> Result<Option<String>, LoadError> {
    let pinned: Vec<&'static str> = MAPS.into_iter().filter(|name| pins.map(name).exists()).collect();
    if pinned.is_empty() {
        return Ok(None);
    }
    let ours = read(options, None)?;
    for name in pinned {
        let pinned = match MapInfo::from_pin(pins.map(name)) {
            Ok(pinned) => pinned,
            Err(error) => return Ok(Some(format!("{name} cannot be read: {error}"))),
        };
        let map = ours.map(name).and_then(maps::data).ok_or_else(|| missing(name))?;
        if let Some(difference) = maps::difference(&pinned, &map.info().map_err(of(name))?) {
            return Ok(Some(format!("{name}: {difference}")));
        }
    }
    let settings = MapData::from_pin(pins.map(map::SETTINGS)).map_err(of(map::SETTINGS));
    let version =
        settings.and_then(|settings| maps::settings(&Map::Array(settings))).map(|it| it.abi_version);
    Ok(match version {
        Ok(sallyport_abi::VERSION) => None,
        Ok(version) => Some(format!("they are of version {version}, not {}", sallyport_abi::VERSION)),
        Err(error) => Some(format!("they name no version: {error}")),
    })
}
