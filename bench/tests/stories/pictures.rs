//! Pictures in pages that use the JavaScript client: the phone inside adds its own, and Firefox has one from the beginning.

use std::time::Duration;

use sallyport_lab::film::{self, Film};
use sallyport_lab::net::AGENT;
use sallyport_lab::visitor::{Kind, Visitor};
use serde_json::{Value, json};

use crate::stage::{possible, until};
use crate::web::{World, world};

const CONNECT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

/// Signs in as a customer and calls, with a picture or without one.
fn call(visitor: &Visitor, picture: bool) {
    visitor
        .run(
            "await sallyport.signIn({}); \
             const media = argument && await navigator.mediaDevices.getUserMedia({ audio: true, video: \
             { width: 320, height: 240, frameRate: 15 } }); \
             const call = sallyport.call('1000', media ? { media } : {}); \
             lab.told = []; call.on('video', what => lab.told.push(what));",
            &json!(picture),
        )
        .unwrap();
    visitor.until("lab.call() && lab.call().state === 'connected'", CONNECT).unwrap();
}

/// Pictures that the page has decoded so far.
fn decoded(visitor: &Visitor) -> u64 {
    let count = visitor.run(
        "const all = [...(await lab.call().peer.getStats()).values()]; \
         return all.filter(one => one.type === 'inbound-rtp' && one.kind === 'video')\
         .reduce((sum, one) => sum + (one.framesDecoded || 0), 0);",
        &Value::Null,
    );
    count.unwrap().as_u64().unwrap()
}

fn seen(film: &Film) -> u64 {
    film.told().iter().rev().find_map(|told| told.pictures).unwrap_or(0)
}

/// At least ten pictures a second for two seconds, toward the page and, where it shows any, toward the phone.
fn run(visitor: &Visitor, film: &Film, shows: bool) {
    until("pictures go on", SOON, || {
        let before = (decoded(visitor), seen(film));
        std::thread::sleep(Duration::from_secs(2));
        let after = (decoded(visitor), seen(film));
        after.0.saturating_sub(before.0) >= 20 && (!shows || after.1.saturating_sub(before.1) >= 20)
    });
}

fn is_over(world: &World, visitor: &Visitor, film: &Film) {
    let status = world.appliance.status().unwrap();
    for never in ["drop_malformed", "drop_bad_tag", "drop_index_reuse", "continuity_broken"] {
        assert_eq!(status.counter(never), 0, "{never}");
    }
    visitor.run("await lab.call().hangup();", &Value::Null).unwrap();
    film.wait_for("over", SOON).unwrap();
    until("nothing is left", SOON, || world.appliance.status().unwrap().holds_nothing());
}

/// The phone adds a picture, is refused, and is offered the page's, its camera or nothing but its screen; then it drops its picture
/// and brings it back.
fn the_inside_adds_one(updates: bool, camera: bool) {
    let world = world();
    let film =
        Film::start(&world.lab, AGENT.into(), film::Kind { updates, ..film::Kind::default() }).unwrap();
    let visitor = world.visitor(Kind::Chromium, "/demo/?raw");
    call(&visitor, false);
    film.turn().unwrap();
    film.wait_for("refused", SOON).unwrap();
    visitor.until("lab.told.length === 1", SOON).unwrap();
    let wanted = json!(camera.then_some(json!({ "width": 320, "height": 240, "frameRate": 15 })));
    visitor.run("await lab.call().addVideo(argument);", &wanted).unwrap();
    film.wait_for("added", SOON).unwrap();
    run(&visitor, &film, camera);
    film.turn().unwrap();
    film.wait_for("gone", SOON).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = decoded(&visitor);
    std::thread::sleep(Duration::from_secs(1));
    assert!(decoded(&visitor) - before < 3, "it is gone");
    film.turn().unwrap();
    film.wait_for_times("added", 2, SOON).unwrap();
    run(&visitor, &film, camera);
    assert_eq!(visitor.run("return lab.told.length;", &Value::Null).unwrap(), json!(1));
    is_over(&world, &visitor, &film);
}

#[test]
fn a_picture_that_the_inside_adds_is_offered_to_the_page() {
    if possible() {
        the_inside_adds_one(false, true);
    }
}

#[test]
fn a_page_may_see_what_the_inside_adds_by_an_update_and_show_nothing() {
    if possible() {
        the_inside_adds_one(true, false);
    }
}

#[test]
fn firefox_and_a_phone_see_each_other() {
    if possible() {
        let world = world();
        let film = Film::start(&world.lab, AGENT.into(), film::Kind::default()).unwrap();
        let visitor = world.visitor(Kind::Firefox, "/demo/?raw");
        call(&visitor, true);
        film.wait_for("picture", SOON).unwrap();
        run(&visitor, &film, true);
        is_over(&world, &visitor, &film);
    }
}
