//! The types of the built object against those of Rust, by the object's own type information (BTF).

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of};

use sallyport_abi::{
    Bucket, FlowKey, FlowValue, InterfaceValue, MAPS, MediaKey, MediaValue, Settings, Source, Tally, Target,
};
use sallyport_xdp::PROGRAM;
use serde_json::Value;

use crate::lab::{run, skip};

/// Size, and offset by field.
type Layout = (usize, BTreeMap<String, usize>);

macro_rules! layout {
    ($name:literal, $type:ty, $($field:ident),+) => {
        ($name, (size_of::<$type>(), BTreeMap::from([$((stringify!($field).to_owned(), offset_of!($type, $field))),+])))
    };
}

fn ours() -> [(&'static str, Layout); 10] {
    [
        layout!("flow_key", FlowKey, zone, pad, local_port, remote_port, local_address, remote_address),
        layout!(
            "flow_value",
            FlowValue,
            key,
            direction,
            epoch,
            packets,
            bytes,
            last_seen_ns,
            action,
            tally,
            payload_types,
            rtp,
            rtcp
        ),
        layout!(
            "target",
            Target,
            source,
            destination,
            source_port,
            destination_port,
            macs,
            ifindex,
            checksum,
            traffic_class,
            back,
            mtu,
            pad
        ),
        layout!("tally", Tally, packets, octets),
        layout!("media_key", MediaKey, zone, pad, address),
        layout!("media_value", MediaValue, port_min, port_max, browsers),
        layout!("interface_value", InterfaceValue, zone, xsk_base, frame_max),
        layout!("source", Source, address),
        layout!("bucket", Bucket, full_at_ns),
        layout!(
            "settings",
            Settings,
            abi_version,
            punt_burst,
            punt_interval_ns,
            total_burst,
            total_interval_ns
        ),
    ]
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn layout(kind: &Value) -> Layout {
    let members = kind["members"].as_array().unwrap();
    let offset = |member: &Value| {
        let bits = number(&member["bits_offset"]);
        assert_eq!(bits % 8, 0);
        (member["name"].as_str().unwrap().to_owned(), bits / 8)
    };
    (number(&kind["size"]), members.iter().map(offset).collect())
}

#[test]
fn the_object_has_the_layout_of_the_contract() {
    if let Err(error) = run("bpftool version") {
        skip(&error);
        return;
    }
    let object = std::env::temp_dir().join(format!("sp-x{}.o", std::process::id()));
    std::fs::write(&object, PROGRAM).unwrap();
    let dump = run(&format!("bpftool -j btf dump file {}", object.display()));
    std::fs::remove_file(&object).unwrap();
    let dump: Value = serde_json::from_str(&dump.unwrap()).unwrap();
    let types = dump["types"].as_array().unwrap();
    let structs: BTreeMap<&str, Layout> = types
        .iter()
        .filter(|kind| kind["kind"] == "STRUCT")
        .filter_map(|kind| Some((kind["name"].as_str()?.strip_prefix("sallyport_")?, layout(kind))))
        .collect();
    assert_eq!(structs, BTreeMap::from(ours()), "each struct of the object, and no other");

    let named =
        |id: usize| types.iter().find(|kind| number(&kind["id"]) == id).unwrap()["name"].as_str().unwrap();
    let section = types.iter().find(|kind| kind["kind"] == "DATASEC" && kind["name"] == ".maps").unwrap();
    let maps: BTreeSet<&str> =
        section["vars"].as_array().unwrap().iter().map(|var| named(number(&var["type_id"]))).collect();
    assert_eq!(maps, BTreeSet::from(MAPS));
}
