//! What the directions of a call take of the heap, all boxes counted; the test prints it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]
// A global allocator can only be written with unsafe code.
#![allow(unsafe_code)]

mod table;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sallyport_core::{Limits, Now, Translator};
use sallyport_plan::{
    CallId, Digits, ExtensionMap, FlowKey, KeyMaterial, Mid, Plan, Profile, Protection, Ssrc,
};
use sallyport_srtp::suites::{Backend, selected};
use table::world::*;

thread_local! {
    static OCTETS: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the count is a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        OCTETS.set(OCTETS.get() + layout.size() as i64);
        // SAFETY: the caller's promises are ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        OCTETS.set(OCTETS.get() - layout.size() as i64);
        // SAFETY: the caller's promises are ours.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        OCTETS.set(OCTETS.get() + size as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are ours.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CALLS: u32 = 100;
const ROOM: i64 = 4096;

/// The plan as call `number`'s: names, addresses, SSRCs and keys of its own.
fn of_call(mut plan: Plan, number: u32) -> Plan {
    plan.call = CallId(number.into());
    let move_on = |flow: &mut FlowKey| {
        let port = flow.remote.port();
        flow.remote.set_port(port + 2 * number as u16);
    };
    for direction in &mut plan.directions {
        direction.ingress.iter_mut().chain([&mut direction.rtp, &mut direction.rtcp]).for_each(move_on);
        direction.ssrc = Ssrc(direction.ssrc.0 + number);
        for side in [&mut direction.open, &mut direction.seal].into_iter().flatten() {
            if let Protection::Srtp(key) = side {
                let salt: Vec<u8> = key.salt().iter().map(|octet| octet ^ number as u8).collect();
                *side = Protection::Srtp(KeyMaterial::new(key.profile(), key.key(), &salt).unwrap());
            }
        }
    }
    plan.consents.iter_mut().for_each(|consent| move_on(&mut consent.flow));
    plan
}

/// Octets of the heap for one direction of such calls: their own, where the tables have their size, and with the tables' growth.
fn octets(plan: &Plan) -> (i64, i64) {
    let plans: Vec<Plan> = (0..CALLS).map(|number| of_call(plan.clone(), number)).collect();
    let mut core = Translator::new(0, Limits { calls: 200, directions: 400 }, [7; 32]);
    let empty = OCTETS.get();
    plans.iter().for_each(|plan| drop(core.install(plan.clone(), Now(0)).unwrap()));
    let full = OCTETS.get();
    plans.iter().for_each(|plan| drop(core.remove(plan.call, Now(0)).unwrap()));
    let tables = OCTETS.get();
    let directions = i64::from(CALLS) * plan.directions.len() as i64;
    ((full - tables) / directions, (full - empty) / directions)
}

/// What a browser's sound has beside the plainest plan: extensions, the name of its section, events that are told of.
fn adorned(mut plan: Plan) -> Plan {
    let carried = |from| ExtensionMap { from, to: from };
    for direction in &mut plan.directions {
        direction.extensions.carried = (1..=4).map(carried).collect();
        direction.extensions.mid = Some(Mid { id: 9, name: "audio".into() });
        direction.digits = Digits::PassAndTell;
    }
    plan
}

#[test]
fn the_count_is_right() {
    let before = OCTETS.get();
    let boxed = Box::new([0u8; 100]);
    assert_eq!(OCTETS.get() - before, 100);
    drop(boxed);
    assert_eq!(OCTETS.get(), before);
}

#[test]
fn a_direction_of_sound_has_its_room() {
    if selected().backend == Backend::Portable {
        eprintln!("SKIPPED: the portable backend keeps keys of its own");
        return;
    }
    for profile in [Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_80] {
        let plans = [
            ("plain", plan(None, paths())),
            ("one side sealed", plan(Some(profile), paths())),
            ("one side sealed, kept alive", plan_with_consent(Some(profile), paths())),
            ("both sides sealed", plan_sealed_inside(profile)),
            ("both sides sealed, with all that sound has", adorned(plan_sealed_inside(profile))),
        ];
        for (name, plan) in plans {
            let (own, all) = octets(&plan);
            eprintln!("{profile:?}, {name}: {own} octets a direction, {all} with the tables");
            assert!(own <= ROOM, "{profile:?}, {name}: {own}");
        }
    }
}
