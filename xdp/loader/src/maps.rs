//! Reading maps, for relay and inspector alike.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, Map, MapData, MapError as AyaMapError, MapInfo, PerCpuArray};
use sallyport_abi::{
    Counter, FlowKey, FlowValue, InterfaceValue, MediaKey, MediaValue, Settings, Tally, map,
};

use crate::error::{MapError, of};

/// All entries of a hash map, by key. The map may change meanwhile: an entry that was there all the time is there once.
///
/// # Errors
/// What the kernel says.
pub fn entries<K: aya::Pod + Ord, V: aya::Pod>(
    name: &'static str,
    map: &Map,
) -> Result<BTreeMap<K, V>, MapError> {
    let hash = HashMap::<&MapData, K, V>::try_from(map).map_err(of(name))?;
    hash.iter().take(patience(map)).map(|entry| entry.map_err(of(name))).collect()
}

/// Keys to read at the most. Where the key just read is deleted, the kernel begins again: bounded, lest churn keep us here.
fn patience(map: &Map) -> usize {
    let most = data(map).and_then(|data| data.info().ok()).map_or(u32::MAX, |info| info.max_entries());
    most.saturating_mul(4) as usize
}

/// How many flows there are, counted where they lie.
///
/// # Errors
/// What the kernel says.
pub fn flow_count(map: &Map) -> Result<usize, MapError> {
    let hash = HashMap::<&MapData, FlowKey, FlowValue>::try_from(map).map_err(of(map::FLOWS))?;
    let one = |count, key: Result<_, _>| key.map(|_| count + 1).map_err(of(map::FLOWS));
    hash.keys().take(patience(map)).try_fold(0, one)
}

/// A flow; `None` where it is not there.
///
/// # Errors
/// What the kernel says.
pub fn flow(map: &Map, key: &FlowKey) -> Result<Option<FlowValue>, MapError> {
    let hash = HashMap::<&MapData, FlowKey, FlowValue>::try_from(map).map_err(of(map::FLOWS))?;
    match hash.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(AyaMapError::KeyNotFound) => Ok(None),
        Err(error) => Err(of(map::FLOWS)(error)),
    }
}

/// Flows, sorted.
///
/// # Errors
/// What the kernel says.
pub fn flows(map: &Map) -> Result<Vec<(FlowKey, FlowValue)>, MapError> {
    Ok(entries(map::FLOWS, map)?.into_iter().collect())
}

/// Interface values by index.
///
/// # Errors
/// What the kernel says.
pub fn interfaces(map: &Map) -> Result<BTreeMap<u32, InterfaceValue>, MapError> {
    entries(map::INTERFACES, map)
}

/// Media addresses and their ports.
///
/// # Errors
/// What the kernel says.
pub fn media(map: &Map) -> Result<BTreeMap<MediaKey, MediaValue>, MapError> {
    entries(map::MEDIA, map)
}

/// Counters, summed over the CPUs.
///
/// # Errors
/// What the kernel says.
pub fn counters(map: &Map) -> Result<Vec<(&'static str, u64)>, MapError> {
    let counters = PerCpuArray::<&MapData, u64>::try_from(map).map_err(of(map::COUNTERS))?;
    let one = |counter: Counter| {
        let values = counters.get(&(counter as u32), 0).map_err(of(map::COUNTERS))?;
        Ok((counter.name(), values.iter().sum()))
    };
    Counter::ALL.into_iter().map(one).collect()
}

/// A tally, summed over the CPUs: RTP packets, and octets of their payload.
///
/// # Errors
/// What the kernel says.
pub fn tally(map: &Map, place: u32) -> Result<Tally, MapError> {
    let tallies = PerCpuArray::<&MapData, Tally>::try_from(map).map_err(of(map::TALLIES))?;
    let values = tallies.get(&place, 0).map_err(of(map::TALLIES))?;
    let add = |sum: Tally, cpu: &Tally| Tally {
        packets: sum.packets.wrapping_add(cpu.packets),
        octets: sum.octets.wrapping_add(cpu.octets),
    };
    Ok(values.iter().fold(Tally::default(), add))
}

/// The settings.
///
/// # Errors
/// What the kernel says.
pub fn settings(map: &Map) -> Result<Settings, MapError> {
    let settings = Array::<&MapData, Settings>::try_from(map).map_err(of(map::SETTINGS))?;
    settings.get(&0, 0).map_err(of(map::SETTINGS))
}

/// How two maps of one name differ in shape, if they do.
pub fn difference(pinned: &MapInfo, ours: &MapInfo) -> Option<String> {
    let shape = |map: &MapInfo| {
        let kind = map.map_type().map_or_else(|error| error.to_string(), |kind| format!("{kind:?}"));
        (kind, map.key_size(), map.value_size(), map.max_entries())
    };
    let (pinned, ours) = (shape(pinned), shape(ours));
    (pinned != ours).then(|| format!("(type, key, value, entries) are {pinned:?}, not {ours:?}"))
}

/// The descriptor of a map of ours.
pub fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::XskMap(data) => Some(data),
        _ => None,
    }
}

/// Zone of an interface; 0, which is none, where the map holds nonsense.
pub fn zone(value: InterfaceValue) -> u8 {
    u8::try_from(value.zone).unwrap_or(0)
}
