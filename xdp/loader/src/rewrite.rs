//! Flows between plain peers, which the program sends on itself.

use aya::maps::{MapError as AyaMapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use sallyport_abi::{ACTION_REDIRECT, ACTION_REWRITE, FlowKey, FlowValue, Tally, Target, map};

use crate::error::{MapError, missing, of};
use crate::kernel::Kernel;
use crate::maps;

/// What becomes of a flow's packets where the program sends them on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Where RTP leaves to.
    pub rtp: Target,
    /// Where RTCP leaves to.
    pub rtcp: Target,
    /// RTP payload types that pass, a bit each: 0 to 63 and 64 to 127. Others go to the worker.
    pub payload_types: [u64; 2],
}

impl Kernel {
    /// Says what becomes of a flow's packets: sent on with new headers and counted in the tally at that place, or, with
    /// `None`, to the worker. A flow that stays with its direction and epoch keeps its counters.
    ///
    /// # Errors
    /// What the kernel says, such as a full map; the flow is then as before.
    pub fn steer_flow(
        &mut self,
        key: &FlowKey,
        direction: u32,
        epoch: u32,
        rewrite: Option<(&Rewrite, u32)>,
    ) -> Result<(), MapError> {
        let mut flows = self.hash::<FlowKey, FlowValue>(map::FLOWS)?;
        let former = match flows.get(key, 0) {
            Ok(former) if (former.direction, former.epoch) == (direction, epoch) => former,
            Ok(_) | Err(AyaMapError::KeyNotFound) => FlowValue::default(),
            Err(error) => return Err(of(map::FLOWS)(error)),
        };
        let bare = FlowValue { direction, epoch, action: ACTION_REDIRECT, ..FlowValue::default() };
        let steered = match rewrite {
            None => bare,
            Some((rewrite, tally)) => {
                let Rewrite { rtp, rtcp, payload_types } = *rewrite;
                FlowValue { action: ACTION_REWRITE, tally, payload_types, rtp, rtcp, ..bare }
            }
        };
        let FlowValue { packets, bytes, last_seen_ns, .. } = former;
        flows.insert(*key, FlowValue { packets, bytes, last_seen_ns, ..steered }, 0).map_err(of(map::FLOWS))
    }

    /// Places for tallies.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tallies(&self) -> Result<u32, MapError> {
        let data = maps::data(self.map(map::TALLIES)?).ok_or_else(|| missing(map::TALLIES))?;
        Ok(data.info().map_err(of(map::TALLIES))?.max_entries())
    }

    /// What was counted at a place since it was cleared, summed over the CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tally(&self, place: u32) -> Result<Tally, MapError> {
        maps::tally(self.map(map::TALLIES)?, place)
    }

    /// Sets a tally to zero.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clear_tally(&mut self, place: u32) -> Result<(), MapError> {
        let error = of(map::TALLIES);
        let tallies = self.ebpf.map_mut(map::TALLIES).ok_or_else(|| missing(map::TALLIES))?;
        let mut tallies = PerCpuArray::<_, Tally>::try_from(tallies).map_err(&error)?;
        let cpus = nr_cpus().map_err(|(_, source)| error(AyaMapError::IoError(source)))?;
        let zeroes = PerCpuValues::try_from(vec![Tally::default(); cpus]);
        let zeroes = zeroes.map_err(|source| error(AyaMapError::IoError(source)))?;
        tallies.set(place, zeroes, 0).map_err(&error)
    }
}
