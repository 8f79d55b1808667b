//! Descriptors side by side without an allocation.

use std::mem::MaybeUninit;

use super::{BURST, Desc, protect, unprotect};

/// Up to [`BURST`] descriptors.
pub struct Batch<'a> {
    descs: [MaybeUninit<Desc<'a>>; BURST],
    count: usize,
}

impl<'a> Batch<'a> {
    /// None yet.
    pub const fn new() -> Self {
        Self { descs: [const { MaybeUninit::uninit() }; BURST], count: 0 }
    }

    /// Adds a descriptor; gives it back where there is no room.
    ///
    /// # Errors
    /// The descriptor.
    #[inline]
    pub fn push(&mut self, desc: Desc<'a>) -> Result<(), Desc<'a>> {
        match self.descs.get_mut(self.count) {
            Some(place) => {
                place.write(desc);
                self.count += 1;
                Ok(())
            }
            None => Err(desc),
        }
    }

    /// Those that were added.
    pub fn descs(&mut self) -> &mut [Desc<'a>] {
        const { assert!(!std::mem::needs_drop::<Desc<'_>>()) };
        // SAFETY: the first `count` were written, and `count` is at most their number.
        unsafe { std::slice::from_raw_parts_mut(self.descs.as_mut_ptr().cast(), self.count) }
    }

    /// [`protect`].
    #[must_use]
    pub fn protect(&mut self) -> u64 {
        protect(self.descs())
    }

    /// [`unprotect`].
    #[must_use]
    pub fn unprotect(&mut self) -> u64 {
        unprotect(self.descs())
    }
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Self::new()
    }
}
