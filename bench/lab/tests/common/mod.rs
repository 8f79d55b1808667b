//! What the lab's tests share.

use sallyport_lab::{Lab, Options};

/// A lab, or `None` where this machine cannot have one; in CI that is a failure.
pub fn lab(options: Options) -> Option<Lab> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return None;
    }
    Some(Lab::new(options).unwrap())
}
