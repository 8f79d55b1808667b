//! Reading the pins, with nobody's help.

use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use sallyport_abi::{FlowKey, FlowValue, Settings, map};

use crate::kernel::{MapError, of, sum};

/// Why the pins cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The maps are of another version.
    #[error("the pinned maps are of version {found}, this program reads version {ours}")]
    Version {
        /// Theirs.
        found: u32,
        /// Ours.
        ours: u32,
    },
}

/// A reader of pinned maps.
#[derive(Debug)]
pub struct Inspector {
    folder: PathBuf,
}

impl Inspector {
    /// Finds the maps under `folder` and compares versions.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn open(folder: &Path) -> Result<Self, InspectError> {
        let inspector = Self { folder: folder.into() };
        let settings = inspector.data(map::SETTINGS)?;
        let settings = Map::Array(settings);
        let settings = Array::<&MapData, Settings>::try_from(&settings).map_err(of(map::SETTINGS))?;
        let found = settings.get(&0, 0).map_err(of(map::SETTINGS))?.abi_version;
        if found == sallyport_abi::VERSION {
            Ok(inspector)
        } else {
            Err(InspectError::Version { found, ours: sallyport_abi::VERSION })
        }
    }

    fn data(&self, name: &'static str) -> Result<MapData, MapError> {
        MapData::from_pin(self.folder.join(name)).map_err(of(name))
    }

    /// All flows.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowValue)>, MapError> {
        let flows = Map::HashMap(self.data(map::FLOWS)?);
        let flows = HashMap::<&MapData, FlowKey, FlowValue>::try_from(&flows).map_err(of(map::FLOWS))?;
        flows.iter().map(|entry| entry.map_err(of(map::FLOWS))).collect()
    }

    /// All counters, summed over the CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, MapError> {
        let counters = Map::PerCpuArray(self.data(map::COUNTERS)?);
        sum(&PerCpuArray::<&MapData, u64>::try_from(&counters).map_err(of(map::COUNTERS))?)
    }
}
