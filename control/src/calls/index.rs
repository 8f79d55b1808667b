//! What calls are found by, so that nobody looks through all of them: user fragments of ICE, checks under way, deadlines.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use sallyport_plan::CallId;
use sallyport_wire::stun::TransactionId as CheckId;

/// What is known of one call.
#[derive(Debug, Default)]
struct Entry {
    ufrags: [Option<String>; 2],
    due: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    entries: HashMap<CallId, Entry>,
    by_ufrag: HashMap<String, CallId>,
    by_check: HashMap<CheckId, CallId>,
    deadlines: BTreeSet<(Instant, CallId)>,
}

impl Index {
    /// A call stands so: our user fragments, of which the second is that of an ICE restart, and its next deadline.
    pub fn update(&mut self, id: CallId, ufrags: [Option<&str>; 2], due: Option<Instant>) {
        let entry = self.entries.entry(id).or_default();
        if entry.due != due {
            if let Some(at) = std::mem::replace(&mut entry.due, due) {
                self.deadlines.remove(&(at, id));
            }
            self.deadlines.extend(due.map(|at| (at, id)));
        }
        if entry.ufrags.iter().map(Option::as_deref).ne(ufrags) {
            for former in entry.ufrags.iter().flatten() {
                self.by_ufrag.remove(former);
            }
            entry.ufrags = ufrags.map(|ufrag| ufrag.map(str::to_owned));
            self.by_ufrag.extend(entry.ufrags.iter().flatten().map(|ufrag| (ufrag.clone(), id)));
        }
    }

    /// A call is over; these checks of it were under way.
    pub fn forget(&mut self, id: CallId, checks: impl Iterator<Item = CheckId>) {
        self.update(id, [None, None], None);
        self.entries.remove(&id);
        checks.for_each(|check| self.forget_check(check));
    }

    /// A call sent a check.
    pub fn remember_check(&mut self, check: CheckId, id: CallId) {
        self.by_check.insert(check, id);
    }

    /// The answer to a check is not waited for any more.
    pub fn forget_check(&mut self, check: CheckId) {
        self.by_check.remove(&check);
    }

    /// The call with this user fragment of ours.
    pub fn by_ufrag(&self, ufrag: &[u8]) -> Option<CallId> {
        self.by_ufrag.get(std::str::from_utf8(ufrag).ok()?).copied()
    }

    /// The call that sent a check.
    pub fn by_check(&self, check: CheckId) -> Option<CallId> {
        self.by_check.get(&check).copied()
    }

    /// A call whose deadline has come, the earliest first.
    pub fn due(&self, now: Instant) -> Option<CallId> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_are_found_as_they_stand_and_leave_nothing() {
        let mut index = Index::default();
        let (now, one, two) = (Instant::now(), CallId(1), CallId(2));
        index.update(one, [Some("aa"), None], Some(now + Duration::from_secs(2)));
        index.update(two, [Some("bb"), None], Some(now + Duration::from_secs(1)));
        assert_eq!(index.due(now), None);
        assert_eq!(index.due(now + Duration::from_secs(3)), Some(two));
        index.update(two, [Some("bb"), Some("cc")], Some(now + Duration::from_secs(9)));
        assert_eq!(index.due(now + Duration::from_secs(3)), Some(one));
        assert_eq!((index.by_ufrag(b"bb"), index.by_ufrag(b"cc")), (Some(two), Some(two)));
        index.update(two, [Some("cc"), None], None);
        assert_eq!((index.by_ufrag(b"bb"), index.by_ufrag(b"cc")), (None, Some(two)));
        index.remember_check([7; 12], two);
        assert_eq!(index.by_check([7; 12]), Some(two));
        index.forget(two, [[7; 12]].into_iter());
        index.forget(one, std::iter::empty());
        let Index { entries, by_ufrag, by_check, deadlines } = &index;
        assert!(entries.is_empty() && by_ufrag.is_empty() && by_check.is_empty() && deadlines.is_empty());
    }
}
