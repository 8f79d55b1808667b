//! What the relay's configuration chooses.

use std::net::SocketAddr;

use sallyport_bench::load::target::MEDIA;
use sallyport_plan::Zone;
use sallyport_srtp::suites::{Backend, selected};

use crate::bare::{Bare, Browser, worlds};
use crate::stage::possible;

/// `[relay] srtp` names the kernels; where the machine lacks what they need, the relay says so and ends.
#[test]
fn srtp_kernels_are_chosen_by_an_option() {
    if !possible() {
        return;
    }
    let [world, _] = worlds();
    let words = Backend::ALL
        .map(|backend| (backend.name(), backend))
        .into_iter()
        .chain([("auto", selected().backend)]);
    for (word, backend) in words {
        let bare = Bare::set_with("socket", 1, &format!("srtp = '{word}'"));
        if !backend.is_supported() {
            assert!(bare.is_err(), "{word} runs on a machine that lacks it");
            continue;
        }
        let mut bare = bare.unwrap();
        assert_eq!(bare.client.status().unwrap().srtp, backend.name());
        let (local, remote) = (SocketAddr::new(world.outside, MEDIA), SocketAddr::new(world.browser, 31_000));
        let mut browser = Browser::new(&mut bare, 0, Zone::Outside, local, remote, world.inside);
        let phone = bare.socket("i", SocketAddr::new(world.agent, 31_002));
        let plan = browser.plan(phone.local_addr().unwrap());
        bare.client.install_plan(plan).unwrap();
        let spoken = browser.speak();
        let mut room = [0; 2048];
        let (length, _) = phone.recv_from(&mut room).unwrap();
        assert_eq!(room[12..length], spoken);
        bare.end([browser.call.id]);
    }
}
