//! What a next relay adopts: the plan of every call, in memory that outlives the process.
//!
//! The memory is a memfd handed to the descriptor store of whoever started us (sd_notify's `FDSTORE`, systemd or the
//! holder of `sallyport run`). One slot a call, written in place; keys never touch a disk.
//!
//! ```text
//!   slot: | length u32 | postcard(Plan) ... | at 48 KiB: length u32 | postcard(Checkpoint) ... |     length 0: free
//! ```
//!
//! The checkpoint holds SRTP indices of, mostly, less than two seconds ago; whoever adopts it steps over [`ahead`] of them. Workers
//! hear which checkpoints are written, and use no more than that ([`sallyport_core::Translator::kept`]), however long it takes.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sallyport_core::{Checkpoint, resent_within};
use sallyport_plan::{CallId, Medium, Plan};
use sd_notify::NotifyState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Name of the memory in the descriptor store, in front of the versions of what lies in it.
const NAME: &str = "sallyport-sessions";
/// Version of the slots and of the checkpoint; that of the plan is [`sallyport_plan::VERSION`]. Neither form tells of itself
/// what it is: memory of other versions is not read.
const FORMAT: u16 = 2;
/// Octets of a slot: the largest plan with room to spare.
const SLOT: u64 = 64 * 1024;
/// Where in a slot the checkpoint lies.
const CHECKPOINT: u64 = 48 * 1024;

/// How old a checkpoint may be without anybody feeling it who asks for retransmissions as fast as they are given, in microseconds:
/// two seconds, and two more for which the uplink may be held up.
const OLD: u64 = 4_000_000;

/// Numbers, of RTP, of retransmissions and of RTCP each, that a restart steps over, and so as many as a stream may use until a
/// checkpoint is written: of sound forty seconds, room for a gap of a thousand among them, of pictures some ten seconds. No more
/// than that, since a stream that is silent over several restarts moves on by as much each time, and must stay within half a turn
/// of 2^16 (RFC 3711 section 3.3.1).
pub const fn ahead(medium: Medium) -> u16 {
    // Retransmissions go by what is asked for.
    const { assert!(resent_within(OLD) < 8192, "the step of pictures") };
    match medium {
        Medium::Audio => 2048,
        Medium::Video => 8192,
    }
}

/// A call that a former relay had.
#[derive(Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its plan.
    pub plan: Plan,
    /// Its indices, as old as a second.
    pub checkpoint: Option<Checkpoint>,
}

/// What of a call a restart would go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The checkpoint.
    Kept,
    /// Nothing, now and later.
    Lost,
    /// It has ended.
    Ended,
}

/// The slots, and which call has which.
pub struct Sessions {
    memory: File,
    slots: u64,
    used: HashMap<CallId, u64>,
    free: Vec<u64>,
    /// Calls that could not be kept once. They never are again: what they use meanwhile nobody counts.
    lost: HashSet<CallId>,
}

impl Sessions {
    /// Opens the memory that a former relay left in the descriptor store, or makes it; returns what is found in it.
    ///
    /// # Errors
    /// What the system says where no memory can be made.
    pub fn open(max_calls: u32) -> io::Result<(Self, Vec<Orphan>)> {
        let slots = u64::from(max_calls);
        let memory = match inherited()? {
            Some(memory) => memory,
            None => create()?,
        };
        memory.set_len(slots * SLOT)?;
        let (used, free, lost) = Default::default();
        let mut sessions = Self { memory, slots, used, free, lost };
        let found = sessions.scan();
        Ok((sessions, found))
    }

    fn scan(&mut self) -> Vec<Orphan> {
        let mut found = Vec::new();
        for slot in (0..self.slots).rev() {
            match self.read::<Plan>(slot * SLOT, CHECKPOINT).filter(|plan| plan.validate().is_ok()) {
                Some(plan) => {
                    self.used.insert(plan.call, slot);
                    // Of a former call in the slot it would say nothing.
                    let checkpoint = self.read::<Checkpoint>(slot * SLOT + CHECKPOINT, SLOT - CHECKPOINT);
                    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.call == plan.call);
                    found.push(Orphan { plan, checkpoint });
                }
                None => self.free.push(slot),
            }
        }
        found
    }

    fn read<T: DeserializeOwned>(&self, at: u64, room: u64) -> Option<T> {
        let mut length = [0; 4];
        self.memory.read_exact_at(&mut length, at).ok()?;
        let length = u64::from(u32::from_le_bytes(length));
        if length == 0 || length > room - 4 {
            return None;
        }
        let mut body = Zeroizing::new(vec![0; usize::try_from(length).ok()?]);
        self.memory.read_exact_at(&mut body, at + 4).ok()?;
        postcard::from_bytes(&body).ok()
    }

    /// Length last: what was being written when the process died reads as not there.
    fn write<T: Serialize>(&self, value: &T, at: u64, room: u64) -> io::Result<()> {
        let body = sallyport_plan::bytes(value).map_err(io::Error::other)?;
        // What was there before is void in any case: going on from old indices would use some twice.
        self.memory.write_all_at(&[0; 4], at)?;
        let length = u32::try_from(body.len()).ok().filter(|length| u64::from(*length) <= room - 4);
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
        self.memory.write_all_at(&body, at + 4)?;
        self.memory.write_all_at(&length.to_le_bytes(), at)
    }

    /// Writes the call's plan, before anything is sealed as it says; a failure costs a restart's survival, not the call.
    pub fn store(&mut self, plan: &Plan) {
        if self.lost.contains(&plan.call) {
            return;
        }
        let slot = self.used.get(&plan.call).copied().or_else(|| self.free.pop());
        let written = slot.map_or(Err(io::ErrorKind::StorageFull.into()), |slot| {
            self.used.insert(plan.call, slot);
            self.write(plan, slot * SLOT, CHECKPOINT)
        });
        self.keep_or_lose(plan.call, written);
    }

    /// Writes the indices of a call that is stored; what of it a restart would go on with.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Written {
        let call = checkpoint.call;
        if let Some(slot) = self.used.get(&call) {
            let written = self.write(checkpoint, slot * SLOT + CHECKPOINT, SLOT - CHECKPOINT);
            if self.keep_or_lose(call, written) {
                return Written::Kept;
            }
        }
        if self.lost.contains(&call) { Written::Lost } else { Written::Ended }
    }

    fn keep_or_lose(&mut self, call: CallId, written: io::Result<()>) -> bool {
        if let Err(error) = &written {
            tracing::warn!(%call, %error, "the call would not survive a restart of the relay");
            self.forget(call);
            self.lost.insert(call);
        }
        written.is_ok()
    }

    /// Wipes the call's slot.
    pub fn forget(&mut self, call: CallId) {
        self.lost.remove(&call);
        let Some(slot) = self.used.remove(&call) else { return };
        self.wipe(slot);
        self.free.push(slot);
    }

    /// Wipes everything: no call is to survive.
    pub fn clear(&mut self) {
        let calls: Vec<CallId> = self.used.keys().copied().collect();
        for call in calls {
            self.forget(call);
        }
    }

    /// Overwrites what was written, then gives the pages back.
    fn wipe(&self, slot: u64) {
        for at in [slot * SLOT, slot * SLOT + CHECKPOINT] {
            let mut length = [0; 4];
            if self.memory.read_exact_at(&mut length, at).is_ok() {
                let length = u64::from(u32::from_le_bytes(length)).min(SLOT);
                let zeroes = vec![0; usize::try_from(length).unwrap_or_default() + 4];
                let _ = self.memory.write_all_at(&zeroes, at);
            }
        }
        if let (Ok(at), Ok(length)) = (i64::try_from(slot * SLOT), i64::try_from(SLOT)) {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(&self.memory, flags, at, length);
        }
    }
}

/// The name of memory that we can read.
fn name() -> String {
    format!("{NAME}-{}.{FORMAT}", sallyport_plan::VERSION)
}

/// The memory of a former relay, by its name in `LISTEN_FDNAMES`; memory of another version is given up. Opened anew through procfs: the same memory, and no
/// descriptor is taken on trust.
fn inherited() -> io::Result<Option<File>> {
    let own = name();
    let mut found = None;
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        if name == own {
            found.get_or_insert(descriptor);
        } else if name.starts_with(NAME) {
            tracing::warn!(name, "sessions of another version are given up: their calls end");
            let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
        }
    }
    let Some(descriptor) = found else { return Ok(None) };
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{descriptor}")).map(Some)
}

fn create() -> io::Result<File> {
    let memory: File = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?.into();
    let name = name();
    let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[memory.as_fd()]) {
        tracing::warn!(%error, "no descriptor store: calls will not survive a restart of the relay");
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(call: u128, record: &[u8]) -> Plan {
        Plan { call: CallId(call), version: 1, directions: vec![], consents: vec![], record: record.to_vec() }
    }

    #[test]
    fn plans_are_found_again_and_forgotten_ones_are_not() {
        let (mut sessions, found) = Sessions::open(3).unwrap();
        assert!(found.is_empty());
        sessions.store(&plan(1, b"one"));
        sessions.store(&plan(2, b"two"));
        sessions.store(&plan(2, b"two again"));
        sessions.forget(CallId(1));
        let checkpoint = Checkpoint { call: CallId(2), directions: vec![] };
        assert_eq!(sessions.checkpoint(&checkpoint), Written::Kept);
        assert_eq!(sessions.checkpoint(&Checkpoint { call: CallId(1), directions: vec![] }), Written::Ended);
        let memory = sessions.memory.try_clone().unwrap();
        let (used, free, lost) = Default::default();
        let mut next = Sessions { memory, slots: 3, used, free, lost };
        assert_eq!(next.scan(), [Orphan { plan: plan(2, b"two again"), checkpoint: Some(checkpoint) }]);
        assert_eq!((next.used.len(), next.free.len()), (1, 2));
        next.clear();
        let mut bytes = vec![1; 3 * SLOT as usize];
        next.memory.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "keys are wiped");
    }

    #[test]
    fn what_could_not_be_kept_once_never_is() {
        let (mut sessions, _) = Sessions::open(1).unwrap();
        let checkpoint = |call| Checkpoint { call: CallId(call), directions: vec![] };
        sessions.store(&plan(1, b"one"));
        sessions.store(&plan(2, b"no slot"));
        assert_eq!(sessions.checkpoint(&checkpoint(2)), Written::Lost);
        sessions.forget(CallId(1));
        sessions.store(&plan(2, b"there is one"));
        assert_eq!(sessions.checkpoint(&checkpoint(2)), Written::Lost);
        assert!(sessions.scan().is_empty());
        sessions.forget(CallId(2));
        assert_eq!(sessions.checkpoint(&checkpoint(2)), Written::Ended);
        sessions.store(&plan(3, &[1; 50_000]));
        assert_eq!(sessions.checkpoint(&checkpoint(3)), Written::Lost, "too large");
        assert!(sessions.scan().is_empty());
    }

    #[test]
    fn indices_of_a_former_call_in_the_slot_are_none_of_the_next() {
        let (mut sessions, _) = Sessions::open(1).unwrap();
        sessions.store(&plan(1, b"one"));
        sessions.checkpoint(&Checkpoint { call: CallId(1), directions: vec![] });
        let slot = sessions.used[&CallId(1)];
        sessions.write(&plan(2, b"two"), slot * SLOT, CHECKPOINT).unwrap();
        assert_eq!(sessions.scan(), [Orphan { plan: plan(2, b"two"), checkpoint: None }]);
    }

    #[test]
    fn a_torn_or_foreign_slot_reads_as_free() {
        let (mut sessions, _) = Sessions::open(2).unwrap();
        sessions.store(&plan(7, b"x"));
        let slot = sessions.used[&CallId(7)];
        sessions.memory.write_all_at(&u32::MAX.to_le_bytes(), slot * SLOT).unwrap();
        assert!(sessions.scan().is_empty());
    }
}
