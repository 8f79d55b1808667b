//! Loads one after the other over the same pins, and all that may lie there.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use caps::{CapSet, Capability, CapsHashSet};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sallyport_abi::{Counter, FlowKey, INSIDE, MAPS, OUTSIDE, Settings, map};
use sallyport_xdp::{Attachment, InspectError, Inspector, Interface, Kernel, LoadError, Media, Options};

use crate::cable::reaches;
use crate::cases::of;
use crate::frames::address;
use crate::lab::{Lab, index, run, wait};
use crate::runner::{By, FLOWS, Fate, Runner};

const MEDIA: [&str; 2] = ["192.0.2.1:10000", "[2001:db8::1]:10000"];
const PEERS: [&str; 2] = ["192.0.2.9:4000", "[2001:db8::9]:4000"];

fn set_media(kernel: &mut Kernel) {
    for media in MEDIA.map(address) {
        kernel.set_media(OUTSIDE, media.ip(), media.port()..=media.port(), Some(media.port())).unwrap();
    }
}

/// Numbers of link and program, of a pin.
fn link(pins: &Path, name: &str) -> (u32, u32) {
    let link = FdLink::from(PinnedLink::from_pin(pins.join(name)).unwrap());
    let info = link.info().unwrap();
    (info.id(), info.program_id())
}

fn counter(pins: &Path, name: &str) -> u64 {
    let counters = Inspector::open(pins).unwrap().counters().unwrap();
    counters.into_iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// What is pinned, without the two files that the kernel puts into each bpffs.
fn names(pins: &Path) -> Vec<String> {
    let entries = fs::read_dir(pins).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".debug")).collect();
    names.sort();
    names
}

/// Ends the senders, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The program goes on without its process; a second load takes over maps, flows and links while packets come, and not one
/// gets past; at the end all is as before.
fn survives(attachment: Attachment) {
    let Some(lab) = Lab::new() else { return };
    let (pins, ifindex) = (lab.pins(), lab.appliance(|| index("o0")));
    let senders = PEERS.map(|peer| lab.peer(|| UdpSocket::bind(peer).unwrap()));
    let sockets = MEDIA.map(|media| lab.appliance(|| UdpSocket::bind(media).unwrap()));
    let pairs = || senders.iter().zip(&sockets).zip(MEDIA.map(address));
    let flowing = || pairs().all(|((sender, socket), media)| reaches(sender, socket, media));
    wait("datagrams before the program", flowing);

    let mut first = lab.kernel();
    set_media(&mut first);
    let key = FlowKey::new(OUTSIDE, address(MEDIA[0]), address(PEERS[0]));
    first.insert_flow(&key, 11, 12).unwrap();
    assert_eq!(lab.appliance(|| first.attach(ifindex, OUTSIDE, Some(attachment))).unwrap(), attachment);
    drop(first);

    let name = format!("link-{ifindex}-{}", attachment.name());
    let before = link(&pins, &name);
    let over = AtomicBool::new(false);
    let over = &over;
    thread::scope(|scope| {
        let stop = Stop(over);
        for (sender, media) in senders.iter().zip(MEDIA) {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    sender.send_to(b"past?", media).unwrap();
                    thread::sleep(Duration::from_micros(50));
                }
            });
        }
        wait("counting without a process", || {
            counter(&pins, "drop_no_socket") > 50 && counter(&pins, "drop_unknown_flow") > 50
        });
        let counted = counter(&pins, "drop_unknown_flow");
        for _ in 0..5 {
            let mut next = lab.kernel();
            let flows = next.flows();
            assert_eq!((flows.len(), flows[0].0, flows[0].1.direction, flows[0].1.epoch), (1, key, 11, 12));
            assert!(flows[0].1.packets > 50 && flows[0].1.last_seen_ns > 0);
            assert_eq!(lab.appliance(|| next.attach(ifindex, OUTSIDE, None)).unwrap(), attachment);
            set_media(&mut next);
            next.forget_former().unwrap();
        }
        assert!(counter(&pins, "drop_unknown_flow") >= counted);
        drop(stop);
    });
    let after = link(&pins, &name);
    assert_eq!(after.0, before.0, "the link is the same");
    assert_ne!(after.1, before.1, "the program is another");
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
        let mut octets = [0; 16];
        while let Ok((length, _)) = socket.recv_from(&mut octets) {
            assert_ne!(&octets[..length], b"past?");
        }
        socket.set_nonblocking(false).unwrap();
    }

    lab.kernel().detach_all();
    assert!(!pins.exists());
    wait("the end of the program", flowing);
    assert!(!lab.command("ip -d link show dev o0").contains("xdp"));
}

#[test]
fn the_program_survives_its_process_native() {
    survives(Attachment::Native);
}

#[test]
fn the_program_survives_its_process_generic() {
    survives(Attachment::Generic);
}

#[test]
fn nobody_else_may_open_the_pins() {
    let Some(lab) = Lab::quiet() else { return };
    let mut kernel = lab.kernel();
    lab.appliance(|| kernel.attach(index("o0"), OUTSIDE, None)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&lab.pins()), 0o700);
    let mut wanted: Vec<String> = MAPS.map(String::from).to_vec();
    wanted.push(format!("link-{}-native", lab.appliance(|| index("o0"))));
    wanted.sort();
    assert_eq!(names(&lab.pins()), wanted);
    for name in wanted {
        assert_eq!(mode(&lab.pins().join(&name)), 0o600, "{name}");
    }
    // Again after somebody opened the door.
    fs::set_permissions(lab.pins(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(kernel);
    let kernel = lab.kernel();
    assert_eq!(mode(&lab.pins()), 0o700);
    kernel.detach_all();
}

#[test]
fn what_a_former_relay_served_is_forgotten() {
    let Some(lab) = Lab::quiet() else { return };
    let [o, i, u] = lab.appliance(|| ["o0", "i0", "u0"].map(index));
    let mut former = lab.kernel();
    lab.appliance(|| {
        former.attach(o, OUTSIDE, Some(Attachment::Native)).unwrap();
        former.attach(i, INSIDE, Some(Attachment::Native)).unwrap();
        former.attach(u, INSIDE, Some(Attachment::Generic)).unwrap();
    });
    former.set_media(INSIDE, "10.0.0.1".parse().unwrap(), 20000..=29999, None).unwrap();
    set_media(&mut former);
    drop(former);
    let inspector = Inspector::open(&lab.pins()).unwrap();
    let interface = |ifindex, zone, attachment| Interface { ifindex, zone, attachment: Some(attachment) };
    let mut all = [
        interface(o, OUTSIDE, Attachment::Native),
        interface(i, INSIDE, Attachment::Native),
        interface(u, INSIDE, Attachment::Generic),
    ];
    all.sort_by_key(|interface| interface.ifindex);
    assert_eq!(inspector.interfaces().unwrap(), all);
    assert_eq!(inspector.media().unwrap().len(), 3);

    let mut kernel = lab.kernel();
    lab.appliance(|| kernel.attach(i, OUTSIDE, None)).unwrap();
    kernel.set_media(OUTSIDE, "2001:db8::1".parse().unwrap(), 7..=8, Some(9)).unwrap();
    assert_eq!(inspector.interfaces().unwrap().len(), 3, "nothing goes before it is told to");
    kernel.forget_former().unwrap();
    assert_eq!(inspector.interfaces().unwrap(), [interface(i, OUTSIDE, Attachment::Native)]);
    let media =
        Media { zone: OUTSIDE, address: "2001:db8::1".parse().unwrap(), ports: 7..=8, browsers: Some(9) };
    assert_eq!(inspector.media().unwrap(), [media]);
    let bare = |device: &str| !lab.command(&format!("ip -d link show dev {device}")).contains("xdp");
    wait("the end of former programs", || bare("o0") && bare("u0"));
    assert!(!bare("i0"));
    kernel.detach_all();
}

#[test]
fn the_mode_changes_when_another_is_wanted() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let (pins, ifindex) = (lab.pins(), index("o0"));
        for (wanted, mode) in [
            (Some(Attachment::Generic), Attachment::Generic),
            (None, Attachment::Generic),
            (Some(Attachment::Native), Attachment::Native),
            (None, Attachment::Native),
            (Some(Attachment::Generic), Attachment::Generic),
        ] {
            let mut kernel = lab.kernel();
            assert_eq!(kernel.attach(ifindex, OUTSIDE, wanted).unwrap(), mode, "{wanted:?}");
            assert!(pins.join(format!("link-{ifindex}-{}", mode.name())).exists());
            assert_eq!(names(&pins).len(), MAPS.len() + 1, "one link");
            let shown = lab.command("ip link show dev o0");
            assert_eq!(shown.contains("xdpgeneric"), mode == Attachment::Generic, "{shown}");
        }
        lab.kernel().detach_all();
    });
}

/// Native first, and generic where there is none: a bridge has no native XDP.
#[test]
fn generic_where_there_is_no_native() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        lab.command("ip link add b0 type bridge");
        let mut kernel = lab.kernel();
        assert!(kernel.attach(index("b0"), INSIDE, Some(Attachment::Native)).is_err());
        assert_eq!(Inspector::open(&lab.pins()).unwrap().interfaces().unwrap(), []);
        assert_eq!(kernel.attach(index("b0"), INSIDE, None).unwrap(), Attachment::Generic);
        assert_eq!(kernel.attach(index("o0"), OUTSIDE, None).unwrap(), Attachment::Native);
        kernel.detach_all();
    });
}

#[test]
fn an_interface_that_is_taken_or_missing_is_an_error_and_leaves_nothing() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let ifindex = index("o0");
        let mut other =
            Kernel::load(&Options { pins: lab.pins().with_file_name("other"), max_flows: 8 }).unwrap();
        other.attach(ifindex, OUTSIDE, None).unwrap();
        let mut kernel = lab.kernel();
        for wanted in [Some(Attachment::Native), Some(Attachment::Generic), None] {
            let error = kernel.attach(ifindex, OUTSIDE, wanted).unwrap_err();
            assert!(matches!(error, LoadError::Busy { ifindex: busy } if busy == ifindex), "{error}");
        }
        assert!(kernel.attach(9999, OUTSIDE, None).is_err());
        assert_eq!(Inspector::open(&lab.pins()).unwrap().interfaces().unwrap(), []);
        assert_eq!(names(&lab.pins()).len(), MAPS.len(), "no link");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let descriptor = std::os::fd::AsFd::as_fd(&socket);
        assert!(kernel.register(ifindex, 0, descriptor).is_err(), "not attached");
        other.detach_all();
        wait("the end of the other", || kernel.attach(ifindex, OUTSIDE, None).is_ok());
        assert!(kernel.register(ifindex, 0, descriptor).is_err(), "no AF_XDP socket");
        assert!(kernel.register(ifindex, 64, descriptor).is_err(), "no such queue");
        kernel.detach_all();
    });
}

#[test]
fn a_link_whose_interface_went_makes_way() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut kernel = lab.kernel();
        kernel.attach(index("o0"), OUTSIDE, None).unwrap();
        drop(kernel);
        let ifindex = index("o0");
        lab.command("ip link del o0");
        lab.command(&format!("ip link add o0 index {ifindex} type veth peer name o9"));
        lab.command("ip link set o0 up");
        let mut kernel = lab.kernel();
        assert_eq!(kernel.attach(ifindex, OUTSIDE, None).unwrap(), Attachment::Native);
        assert!(lab.command("ip link show dev o0").contains("xdp"));
        kernel.detach_all();
    });
}

#[test]
fn there_are_places_for_four_interfaces() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        for name in ["x", "y", "z"] {
            lab.command(&format!("ip link add {name} type bridge"));
        }
        let all = ["o0", "i0", "u0", "x", "y"].map(index);
        let mut former = lab.kernel();
        for ifindex in &all[..4] {
            former.attach(*ifindex, INSIDE, None).unwrap();
        }
        assert!(matches!(former.attach(all[4], INSIDE, None), Err(LoadError::TooManyInterfaces)));
        assert_eq!(former.attach(all[3], OUTSIDE, None).unwrap(), Attachment::Generic, "one that is there");
        drop(former);
        // Those of a former relay make way.
        let mut kernel = lab.kernel();
        kernel.attach(all[0], OUTSIDE, None).unwrap();
        kernel.attach(all[4], INSIDE, None).unwrap();
        let found = Inspector::open(&lab.pins()).unwrap().interfaces().unwrap();
        let mut found: Vec<u32> = found.into_iter().map(|interface| interface.ifindex).collect();
        found.sort_by_key(|ifindex| *ifindex != all[0]);
        assert_eq!(found, [all[0], all[4]]);
        kernel.detach_all();
    });
}

/// An interface keeps its place in the socket map over a restart: sockets that are still open stay where they are.
#[test]
fn an_interface_keeps_its_place() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::with_sockets(&lab, &[("i0", 0)]);
        let mut next = lab.kernel();
        for (device, zone) in [("i0", INSIDE), ("o0", OUTSIDE)] {
            next.attach(index(device), zone, None).unwrap();
        }
        let inside = runner.run("inside", By::Inside, 0, &of(2, b"inside"));
        assert_eq!(inside, Fate::Flow(FLOWS[2].3, FLOWS[2].4));
        let outside = runner.run("outside", By::Outside, 0, &of(0, b"outside"));
        assert_eq!(outside, Fate::Drop(Counter::DropNoSocket));
        next.detach_all();
    });
}

/// A loaded and attached program, with a flow and a count, whose process is gone.
fn former(lab: &Lab) -> (u32, (u32, u32)) {
    let mut kernel = lab.kernel();
    let ifindex = lab.appliance(|| index("o0"));
    lab.appliance(|| kernel.attach(ifindex, OUTSIDE, None)).unwrap();
    kernel.insert_flow(&FlowKey::new(OUTSIDE, address(MEDIA[0]), address(PEERS[0])), 1, 1).unwrap();
    (ifindex, link(&lab.pins(), &format!("link-{ifindex}-native")))
}

/// Loads over what lies there: the maps are new, and the link goes on with the new program.
fn made_anew(lab: &Lab, options: &Options, former: (u32, (u32, u32))) {
    let (ifindex, before) = former;
    let mut kernel = Kernel::load(options).unwrap();
    assert_eq!(kernel.flows(), []);
    assert_eq!(link(&lab.pins(), &format!("link-{ifindex}-native")), before, "the former program goes on");
    lab.appliance(|| kernel.attach(ifindex, OUTSIDE, None)).unwrap();
    let after = link(&lab.pins(), &format!("link-{ifindex}-native"));
    assert_eq!(after.0, before.0);
    assert_ne!(after.1, before.1);
    assert_eq!(names(&lab.pins()).len(), MAPS.len() + 1);
    Inspector::open(&lab.pins()).unwrap();
    kernel.detach_all();
}

#[test]
fn maps_of_another_version_are_made_anew() {
    let Some(lab) = Lab::quiet() else { return };
    let former = former(&lab);
    let settings = MapData::from_pin(lab.pins().join(map::SETTINGS)).unwrap();
    let mut settings = Array::<_, Settings>::try_from(Map::Array(settings)).unwrap();
    let mut value = settings.get(&0, 0).unwrap();
    value.abi_version += 1;
    settings.set(0, value, 0).unwrap();
    let error = Inspector::open(&lab.pins()).unwrap_err();
    assert!(matches!(error, InspectError::Version { found, ours } if found == ours + 1), "{error}");
    made_anew(&lab, &lab.options(), former);
}

#[test]
fn maps_of_another_size_are_made_anew() {
    let Some(lab) = Lab::quiet() else { return };
    let former = former(&lab);
    made_anew(&lab, &Options { max_flows: 65, ..lab.options() }, former);
}

#[test]
fn maps_of_another_shape_are_made_anew() {
    let Some(lab) = Lab::quiet() else { return };
    let former = former(&lab);
    fs::remove_file(lab.pins().join(map::FLOWS)).unwrap();
    fs::rename(lab.pins().join(map::MEDIA), lab.pins().join(map::FLOWS)).unwrap();
    made_anew(&lab, &lab.options(), former);
}

#[test]
fn pins_that_are_no_maps_or_few_are_no_obstacle() {
    let Some(lab) = Lab::quiet() else { return };
    let (ifindex, before) = former(&lab);
    fs::remove_file(lab.pins().join(map::FLOWS)).unwrap();
    fs::hard_link(lab.pins().join(format!("link-{ifindex}-native")), lab.pins().join(map::FLOWS)).unwrap();
    made_anew(&lab, &lab.options(), (ifindex, before));
    let (ifindex, before) = former(&lab);
    for name in [map::SETTINGS, map::FLOWS] {
        fs::remove_file(lab.pins().join(name)).unwrap();
    }
    made_anew(&lab, &lab.options(), (ifindex, before));
}

#[test]
fn the_flow_map_fills_up_and_says_so() {
    let Some(lab) = Lab::quiet() else { return };
    let mut kernel = Kernel::load(&Options { max_flows: 16, ..lab.options() }).unwrap();
    let key = |port: u16| FlowKey::new(OUTSIDE, address(MEDIA[0]), (address(PEERS[0]).ip(), port).into());
    for port in 1..=16 {
        kernel.insert_flow(&key(port), port.into(), 0).unwrap();
    }
    let error = kernel.insert_flow(&key(17), 17, 0).unwrap_err();
    assert_eq!(error.name, map::FLOWS);
    kernel.insert_flow(&key(16), 99, 1).unwrap();
    let flows = Inspector::open(&lab.pins()).unwrap().flows().unwrap();
    assert_eq!(
        flows.iter().map(|(key, _)| key.remote().port()).collect::<Vec<_>>(),
        (1..=16).collect::<Vec<_>>()
    );
    assert_eq!(flows, kernel.flows());
    kernel.detach_all();
}

#[test]
fn inspecting_nothing_is_an_error() {
    let Some(lab) = Lab::quiet() else { return };
    let error = Inspector::open(&lab.pins()).unwrap_err();
    assert!(error.to_string().starts_with("map settings:"), "{error}");
    fs::write(lab.pins(), "a file").unwrap();
    assert!(matches!(Kernel::load(&lab.options()), Err(LoadError::Pins { .. })));
    fs::remove_file(lab.pins()).unwrap();
}

/// A bpffs of somebody else is used, and left as it was.
#[test]
fn a_foreign_bpffs_stays() {
    let Some(lab) = Lab::quiet() else { return };
    let foreign = lab.pins().with_file_name("foreign");
    fs::create_dir(&foreign).unwrap();
    mount(Some("somebody"), &foreign, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    let options = Options { pins: foreign.join("ours"), max_flows: 8 };
    let mut kernel = Kernel::load(&options).unwrap();
    lab.appliance(|| kernel.attach(index("o0"), OUTSIDE, None)).unwrap();
    assert_eq!(
        run(&format!("findmnt -n -o SOURCE -T {}", options.pins.display())).unwrap().trim(),
        "somebody"
    );
    kernel.detach_all();
    assert_eq!(names(&foreign), Vec::<String>::new());
    // The root of it, as if it were ours: the mount stays.
    Kernel::load(&Options { pins: foreign.clone(), max_flows: 8 }).unwrap().detach_all();
    assert_eq!(run(&format!("findmnt -n -o SOURCE {}", foreign.display())).unwrap().trim(), "somebody");
    umount2(&foreign, MntFlags::MNT_DETACH).unwrap();
}

/// What the relay keeps of its capabilities is enough for all but the mount.
#[test]
fn three_capabilities_are_enough() {
    let Some(lab) = Lab::quiet() else { return };
    drop(lab.kernel());
    lab.appliance(|| {
        let few: CapsHashSet =
            [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW].into_iter().collect();
        for set in [CapSet::Effective, CapSet::Permitted] {
            caps::set(None, set, &few).unwrap();
        }
        let mut kernel = lab.kernel();
        kernel.attach(index("o0"), OUTSIDE, Some(Attachment::Native)).unwrap();
        kernel.attach(index("i0"), INSIDE, Some(Attachment::Generic)).unwrap();
        set_media(&mut kernel);
        kernel.forget_former().unwrap();
        kernel.insert_flow(&FlowKey::new(OUTSIDE, address(MEDIA[0]), address(PEERS[0])), 1, 1).unwrap();
        assert_eq!(Inspector::open(&lab.pins()).unwrap().flows().unwrap().len(), 1);
        kernel.detach_all();
        assert_eq!(names(&lab.pins()), Vec::<String>::new(), "the mount stays, empty");
    });
    lab.kernel().detach_all();
    assert!(!lab.pins().exists());
}
