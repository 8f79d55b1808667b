//! Reading the pins, with nobody's help.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use aya::maps::{Map, MapData};
use sallyport_abi::{FlowKey, FlowValue, map};

use crate::attach::Attachment;
use crate::error::{InspectError, MapError, of};
use crate::maps;
use crate::pins::Pins;

/// An interface that the program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index, in the network namespace of the relay.
    pub ifindex: u32,
    /// Its zone: 1 outside, 2 inside.
    pub zone: u8,
    /// How the program hangs there; `None` where no link is pinned.
    pub attachment: Option<Attachment>,
}

/// A media address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Its zone: 1 outside, 2 inside.
    pub zone: u8,
    /// The address.
    pub address: IpAddr,
    /// Its media ports.
    pub ports: RangeInclusive<u16>,
    /// The port at which browsers are heard before they are known.
    pub browsers: Option<u16>,
}

/// A reader of pinned maps. It has no way to write.
#[derive(Debug)]
pub struct Inspector {
    pins: Pins,
}

impl Inspector {
    /// Finds the maps under `folder` and compares versions.
    ///
    /// # Errors
    /// [`InspectError`], such as for want of pins, of the right to open them, or of the right version.
    pub fn open(folder: &Path) -> Result<Self, InspectError> {
        let inspector = Self { pins: Pins::open(folder) };
        let found = maps::settings(&Map::Array(inspector.data(map::SETTINGS)?))?.abi_version;
        if found == sallyport_abi::VERSION {
            Ok(inspector)
        } else {
            Err(InspectError::Version { found, ours: sallyport_abi::VERSION })
        }
    }

    fn data(&self, name: &'static str) -> Result<MapData, MapError> {
        MapData::from_pin(self.pins.map(name)).map_err(of(name))
    }

    /// All flows, sorted by zone, ports and addresses.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowValue)>, MapError> {
        maps::flows(&Map::HashMap(self.data(map::FLOWS)?))
    }

    /// All counters by name, in packets since the maps were made, summed over the CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, MapError> {
        maps::counters(&Map::PerCpuArray(self.data(map::COUNTERS)?))
    }

    /// The interfaces that the program knows, by index.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn interfaces(&self) -> Result<Vec<Interface>, InspectError> {
        let links = self.pins.links()?;
        let values = maps::interfaces(&Map::HashMap(self.data(map::INTERFACES)?))?;
        let interface = |ifindex, zone| {
            let link = links.iter().find(|(index, _)| *index == ifindex);
            Interface { ifindex, zone, attachment: link.map(|(_, attachment)| *attachment) }
        };
        Ok(values.into_iter().map(|(ifindex, value)| interface(ifindex, maps::zone(value))).collect())
    }

    /// Media addresses and their ports.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn media(&self) -> Result<Vec<Media>, MapError> {
        let media = maps::media(&Map::HashMap(self.data(map::MEDIA)?))?;
        let media = media.into_iter().map(|(key, value)| Media {
            zone: key.zone,
            address: key.address(),
            ports: value.port_min..=value.port_max,
            browsers: (value.browsers != 0).then_some(value.browsers),
        });
        Ok(media.collect())
    }
}
