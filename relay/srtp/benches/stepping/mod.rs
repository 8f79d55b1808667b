//! Exact instruction counts: the trap flag makes the processor signal after each instruction, whatever it is. (Callgrind
//! does not know AVX-512 and hides it; the counters of the processor are missing in most virtual machines.)

use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn step(_: libc::c_int) {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// Instructions of this thread in `work`, with a handful for the switching on and off.
pub fn count(work: impl FnOnce()) -> u64 {
    // SAFETY: the handler adds to an atomic and does nothing else; the action is the plain one with an empty mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = step as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()), 0);
    }
    STEPS.store(0, Ordering::Relaxed);
    // SAFETY: sets the trap flag and leaves the stack as it was; SIGTRAP is handled.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    work();
    // SAFETY: clears it.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -257", "popfq") };
    STEPS.load(Ordering::Relaxed)
}
