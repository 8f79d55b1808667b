//! What a next relay adopts: the plan of every call, in memory that outlives the process.
//!
//! The memory is a memfd handed to the descriptor store of whoever started us (sd_notify's `FDSTORE`, systemd or the
//! holder of `sallyport run`). One slot a call, written in place; keys never touch a disk.
//!
//! ```text
//!   slot: | length u32 | worker u32 | postcard(Plan) ... |     length 0: free
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use sallyport_plan::{CallId, Plan};
use sd_notify::NotifyState;
use zeroize::Zeroizing;

/// Name of the memory in the descriptor store.
const NAME: &str = "sallyport-sessions";
/// Octets of a slot: the largest plan with room to spare.
const SLOT: u64 = 64 * 1024;

/// The slots, and which call has which.
pub struct Sessions {
    memory: Option<File>,
    slots: u64,
    used: HashMap<CallId, u64>,
    free: Vec<u64>,
}

impl Sessions {
    /// Opens the memory that a former relay left in the descriptor store, or makes it; returns the plans found in it
    /// with the worker that had them.
    ///
    /// # Errors
    /// What the system says where no memory can be made.
    pub fn open(max_calls: u32) -> io::Result<(Self, Vec<(u8, Plan)>)> {
        let slots = u64::from(max_calls);
        let memory = match inherited()? {
            Some(memory) => memory,
            None => create()?,
        };
        memory.set_len(slots * SLOT)?;
        let mut sessions = Self { memory: Some(memory), slots, used: HashMap::new(), free: Vec::new() };
        let found = sessions.scan();
        Ok((sessions, found))
    }

    fn scan(&mut self) -> Vec<(u8, Plan)> {
        let mut found = Vec::new();
        for slot in (0..self.slots).rev() {
            match self.read(slot) {
                Some((worker, plan)) => {
                    self.used.insert(plan.call, slot);
                    found.push((worker, plan));
                }
                None => self.free.push(slot),
            }
        }
        found
    }

    fn read(&self, slot: u64) -> Option<(u8, Plan)> {
        let memory = self.memory.as_ref()?;
        let mut head = [0; 8];
        memory.read_exact_at(&mut head, slot * SLOT).ok()?;
        let [a, b, c, d, worker, ..] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if length == 0 || length > SLOT - 8 {
            return None;
        }
        let mut body = Zeroizing::new(vec![0; usize::try_from(length).ok()?]);
        memory.read_exact_at(&mut body, slot * SLOT + 8).ok()?;
        let plan: Plan = postcard::from_bytes(&body).ok()?;
        plan.validate().is_ok().then_some((worker, plan))
    }

    /// Writes the call's plan; a failure costs a restart's survival, not the call.
    pub fn store(&mut self, worker: u8, plan: &Plan) {
        if let Err(error) = self.write(worker, plan) {
            tracing::warn!(call = %plan.call, %error, "the call would not survive a restart of the relay");
        }
    }

    fn write(&mut self, worker: u8, plan: &Plan) -> io::Result<()> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let slot = match self.used.get(&plan.call) {
            Some(slot) => *slot,
            None => self.free.pop().ok_or(io::ErrorKind::StorageFull)?,
        };
        self.used.insert(plan.call, slot);
        let body = Zeroizing::new(postcard::to_allocvec(plan).map_err(io::Error::other)?);
        let length = u32::try_from(body.len()).ok().filter(|length| u64::from(*length) <= SLOT - 8);
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
        // Length last: a slot that was being written when the process died reads as free.
        memory.write_all_at(&[0; 8], slot * SLOT)?;
        memory.write_all_at(&body, slot * SLOT + 8)?;
        let [a, b, c, d] = length.to_le_bytes();
        memory.write_all_at(&[a, b, c, d, worker, 0, 0, 0], slot * SLOT)
    }

    /// Wipes the call's slot.
    pub fn forget(&mut self, call: CallId) {
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

    fn wipe(&self, slot: u64) {
        if let Some(memory) = &self.memory {
            let _ = memory.write_all_at(&[0; SLOT as usize], slot * SLOT);
        }
    }
}

/// The memory of a former relay, by its name in `LISTEN_FDNAMES`. Opened anew through procfs: the same memory, and no
/// descriptor is taken on trust.
fn inherited() -> io::Result<Option<File>> {
    let mut names = sd_notify::listen_fds_with_names()?;
    let Some((descriptor, _)) = names.find(|(_, name)| name == NAME) else { return Ok(None) };
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{descriptor}")).map(Some)
}

fn create() -> io::Result<File> {
    let memory: File = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?.into();
    let states = [NotifyState::FdStore, NotifyState::FdName(NAME)];
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
        sessions.store(1, &plan(1, b"one"));
        sessions.store(2, &plan(2, b"two"));
        sessions.store(2, &plan(2, b"two again"));
        sessions.forget(CallId(1));
        let memory = sessions.memory.as_ref().unwrap().try_clone().unwrap();
        let mut next = Sessions { memory: Some(memory), slots: 3, used: HashMap::new(), free: vec![] };
        assert_eq!(next.scan(), [(2, plan(2, b"two again"))]);
        assert_eq!((next.used.len(), next.free.len()), (1, 2));
        next.clear();
        let mut bytes = vec![1; 3 * SLOT as usize];
        next.memory.as_ref().unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "keys are wiped");
    }

    #[test]
    fn a_torn_or_foreign_slot_reads_as_free() {
        let (mut sessions, _) = Sessions::open(2).unwrap();
        sessions.store(0, &plan(7, b"x"));
        let slot = sessions.used[&CallId(7)];
        sessions.memory.as_ref().unwrap().write_all_at(&u32::MAX.to_le_bytes(), slot * SLOT).unwrap();
        assert!(sessions.scan().is_empty());
    }
}
